//! [`shuffled`]: the order of rows after `shuffle(seed=42)` of Python's library datasets.

/// Seed of the tasks that mteb shuffles: state and increment of NumPy's `PCG64(42)`.
const STATE: u128 = 274_674_114_334_540_486_603_088_602_300_644_985_544;
const INCREMENT: u128 = 332_724_090_758_049_132_448_979_897_138_935_081_983;
/// Multiplier of PCG64 (O'Neill 2014), as in NumPy.
const MULTIPLIER: u128 = (2_549_297_995_355_413_924 << 64) + 4_865_540_595_714_422_341;

/// Row numbers `0..rows` in the order of `numpy.random.default_rng(42).permutation(rows)`.
///
/// Rows beyond 2^32 would need NumPy's 64-bit draws, which no data set here has.
pub(crate) fn shuffled(rows: u32) -> Vec<u32> {
    let mut order: Vec<u32> = (0..rows).collect();
    let mut random = Pcg64 { state: STATE, upper: None };
    for last in (1..order.len()).rev() {
        let other = random.at_most(last as u32) as usize;
        order.swap(last, other);
    }
    order
}

/// NumPy's PCG64 with 32-bit draws, of which each 64-bit output gives two: the lower half first.
struct Pcg64 {
    state: u128,
    upper: Option<u32>,
}

impl Pcg64 {
    /// A number from 0 to `most`, by rejection below the next power of two, as in NumPy's `random_interval`.
    fn at_most(&mut self, most: u32) -> u32 {
        let mask = u32::MAX.checked_shr(most.leading_zeros()).unwrap_or(0);
        loop {
            let number = self.next_u32() & mask;
            if number <= most {
                return number;
            }
        }
    }

    fn next_u32(&mut self) -> u32 {
        if let Some(upper) = self.upper.take() {
            return upper;
        }
        self.state = self.state.wrapping_mul(MULTIPLIER).wrapping_add(INCREMENT);
        let folded = (self.state >> 64) as u64 ^ self.state as u64;
        let output = folded.rotate_right((self.state >> 122) as u32);
        self.upper = Some((output >> 32) as u32);
        output as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `p = numpy.random.default_rng(42).permutation(n)`, then `p[:10]` and `(p * numpy.arange(n)).sum()`.
    #[test]
    fn the_order_is_that_of_numpy() {
        assert_eq!(shuffled(0), Vec::<u32>::new());
        assert_eq!(shuffled(1), [0]);
        assert_eq!(shuffled(5), [4, 2, 3, 1, 0]);
        assert_eq!(shuffled(10), [5, 6, 0, 7, 3, 2, 4, 9, 1, 8]);
        let long = shuffled(3000);
        assert_eq!(long[..10], [2342, 554, 1243, 780, 2142, 2911, 1926, 1722, 1538, 1405]);
        let sum: u64 = (0..).zip(&long).map(|(at, row)| at * u64::from(*row)).sum();
        assert_eq!(sum, 6_700_561_921);
    }
}
