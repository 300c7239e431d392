//! [`Remainders`]: what gives back the exact weight of a posting, beside its impact.
//!
//! An impact of `i` says that a weight lies within half a step of `i` steps. Below twice and above half of a number, f32 has
//! fewer than 2²⁴ values on either side, counted by their bits. So the low 24 bits of a weight are enough: of the values with
//! these bits, the weight is the one nearest to `i` steps. Weights far below one step have an impact of 1 all the same. For
//! them the nearest value can be another one, and they are in a list of *exceptions* (some 1 % of the postings of trained
//! models).
//!
//! An index with f16 weights has the 16 bits of each weight and no exceptions. One with 8-bit weights has no remainders: all its
//! terms have the same step, so that a weight is its impact times the step, in every segment and after every merge.

use half::f16;

use super::row::ForwardPrecision;

/// Remainders of the postings of a term.
#[derive(Clone, Copy)]
pub(super) struct Remainders<'a> {
    pub(super) precision: ForwardPrecision,
    pub(super) step: f32,
    /// first byte in the file
    pub(super) start: usize,
    pub(super) bytes: &'a [u8],
    /// positions of the exceptions among the postings, ascending
    pub(super) positions: &'a [[u8; 4]],
    /// weights of the exceptions
    pub(super) values: &'a [[u8; 4]],
}

/// Number of bytes of a remainder.
pub(super) fn remainder_len(precision: ForwardPrecision) -> usize {
    match precision {
        ForwardPrecision::F32 => 3,
        ForwardPrecision::F16 => 2,
        ForwardPrecision::U8 => 0,
    }
}

impl Remainders<'_> {
    /// Exact weight of the posting at position `at`, which has this impact.
    #[inline]
    pub(super) fn weight(&self, at: usize, impact: u8) -> f32 {
        self.weight_of(self.bits(at), at, impact)
    }

    /// The remainder of the posting at position `at`.
    #[inline]
    pub(super) fn bits(&self, at: usize) -> u32 {
        match self.precision {
            ForwardPrecision::F16 => {
                self.bytes.as_chunks().0.get(at).map_or(0, |bytes| u32::from(u16::from_le_bytes(*bytes)))
            }
            ForwardPrecision::F32 => {
                let [a, b, c] = self.bytes.as_chunks().0.get(at).copied().unwrap_or_default();
                u32::from_le_bytes([a, b, c, 0])
            }
            ForwardPrecision::U8 => 0,
        }
    }

    /// Exact weight of the posting at position `at`, which has this impact and this remainder.
    #[inline]
    pub(super) fn weight_of(&self, bits: u32, at: usize, impact: u8) -> f32 {
        match self.precision {
            ForwardPrecision::F16 => f16::from_bits(bits as u16).to_f32(),
            ForwardPrecision::F32 => {
                if impact == 1
                    && let Ok(found) = self.positions.binary_search_by_key(&at, |at| u32::from_le_bytes(*at) as usize)
                {
                    return self.values.get(found).map_or(0.0, |value| f32::from_le_bytes(*value));
                }
                restore(impact, self.step, bits)
            }
            ForwardPrecision::U8 => f32::from(impact) * self.step,
        }
    }

    /// Place in the file of the remainder of the posting at position `at`.
    #[inline]
    pub(super) fn place(&self, at: usize) -> std::ops::Range<usize> {
        let len = remainder_len(self.precision);
        let start = self.start.saturating_add(at.saturating_mul(len));
        start..start.saturating_add(len)
    }
}

/// The f32 with these low 24 bits that is nearest, by its bits, to the weight that the impact stands for.
#[inline]
fn restore(impact: u8, step: f32, low: u32) -> f32 {
    // of weights up to 1.5 steps, those from 0.375 steps on are restored
    let steps = if impact == 1 { 0.75 } else { f32::from(impact) };
    let near = (steps * step).to_bits();
    let difference = (low.wrapping_sub(near) << 8).cast_signed() >> 8;
    f32::from_bits(near.wrapping_add_signed(difference))
}

/// Collects the remainders of one term.
#[derive(Debug, Default)]
pub(super) struct RemainderWriter {
    bytes: Vec<u8>,
    positions: Vec<u32>,
    values: Vec<f32>,
}

impl RemainderWriter {
    /// Removes all remainders.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.positions.clear();
        self.values.clear();
    }

    /// Adds the remainder of the next posting.
    #[inline]
    pub(super) fn push(&mut self, precision: ForwardPrecision, weight: f32, impact: u8, step: f32, at: usize) {
        match precision {
            ForwardPrecision::F16 => self.bytes.extend_from_slice(&f16::from_f32(weight).to_le_bytes()),
            ForwardPrecision::F32 => {
                let bits = weight.to_bits();
                let [a, b, c, _] = bits.to_le_bytes();
                self.bytes.extend_from_slice(&[a, b, c]);
                if restore(impact, step, bits & 0xff_ffff).to_bits() != bits {
                    self.positions.push(at as u32);
                    self.values.push(weight);
                }
            }
            ForwardPrecision::U8 => {}
        }
    }

    /// Number of exceptions.
    pub(super) fn n_exceptions(&self) -> u32 {
        self.positions.len() as u32
    }

    /// Appends remainders, positions and values of the exceptions.
    pub(super) fn append_to(&self, list: &mut Vec<u8>) {
        list.extend_from_slice(&self.bytes);
        self.positions.iter().for_each(|at| list.extend_from_slice(&at.to_le_bytes()));
        self.values.iter().for_each(|value| list.extend_from_slice(&value.to_le_bytes()));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::segment::writer::{impact_of, step_of};

    /// A positive weight of any size, subnormal numbers among them.
    fn any_weight() -> impl Strategy<Value = f32> {
        prop_oneof![(1..0x7f80_0000_u32).prop_map(f32::from_bits), 1e-6_f32..8.0, 1e-3_f32..1.0]
    }

    proptest! {
        #[test]
        fn impact_and_remainder_give_back_every_weight(largest in any_weight(), share in 0.0_f32..=1.0, small in any_weight()) {
            let step = step_of(largest);
            for weight in [largest, largest * share, small.min(largest), largest * share * share * share] {
                if weight <= 0.0 {
                    continue;
                }
                let mut writer = RemainderWriter::default();
                let impact = impact_of(weight, step);
                writer.push(ForwardPrecision::F32, weight, impact, step, 0);
                // readers look for exceptions among impacts of 1 only
                prop_assert!(writer.n_exceptions() == 0 || impact == 1);
                let mut list = Vec::new();
                writer.append_to(&mut list);
                let (bytes, exceptions) = list.split_at(3);
                let (positions, values) = exceptions.split_at(exceptions.len() / 2);
                let remainders = Remainders {
                    precision: ForwardPrecision::F32,
                    step,
                    start: 0,
                    bytes,
                    positions: positions.as_chunks().0,
                    values: values.as_chunks().0,
                };
                prop_assert_eq!(remainders.weight(0, impact).to_bits(), weight.to_bits());
            }
        }
    }

    #[test]
    fn weights_of_three_eighths_of_a_step_and_more_are_no_exceptions() {
        let step = 0.013_f32;
        for (weight, exceptions) in [(0.37 * step, 1), (0.38 * step, 0), (1.49 * step, 0), (255.0 * step, 0)] {
            let mut writer = RemainderWriter::default();
            writer.push(ForwardPrecision::F32, weight, impact_of(weight, step), step, 0);
            assert_eq!(writer.n_exceptions(), exceptions, "{weight}");
        }
    }
}
