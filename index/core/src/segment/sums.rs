//! The loops over the accumulators of a window, in the widest vector instructions of the machine.

use prefetch_index::prefetch_index;
use pulp::{Arch, Simd, WithSimd};

use super::header::WINDOW;
use super::term::{Postings, window_range};

/// Number of postings whose ids take two cache lines, and whose impacts take one.
const BLOCK: usize = 64;
/// Distance in postings at which ids and impacts are prefetched. The processor's own prefetching stops at the end of each page of
/// 4 KB, and a list goes on where its last window ended, so that the next window of the list profits as well. Measured: 256 to 1024
/// are alike.
const AHEAD: usize = 512;

/// One accumulator per document of the window.
pub(super) type Sums = [u16; WINDOW];

/// Number of accumulators that are compared with the threshold first.
const GROUP: usize = 256;
/// Number of accumulators of a group that are compared with the threshold next.
pub(super) const CHUNK: usize = 32;

/// What a term adds to the sum of a document, by impact; 0 for an impact of 0, at least 1 for others.
#[derive(Clone)]
pub(super) struct Products {
    by_impact: [u16; 256],
    /// factor of a dense list, whose loop has to compute products
    factor: u16,
}

impl Products {
    /// Products of impacts and `weight`, rounded. `weight` must be at most 256.
    pub(super) fn new(weight: f64, dense: bool) -> Self {
        // in units of 1 / 65536; integers, since rounding of floats is slow
        let fixed = (weight * 65_536.0) as u32;
        let factor = (weight * 256.0).min(f64::from(u16::MAX)) as u16;
        let product = |impact: usize| match (impact, dense) {
            (0, _) => 0,
            (_, true) => dense_product(impact as u8, factor),
            (_, false) => ((impact as u32 * fixed + 0x8000) >> 16).max(1) as u16,
        };
        Self { by_impact: std::array::from_fn(product), factor }
    }

    /// The product of an impact.
    #[inline(always)]
    pub(super) fn of(&self, impact: u8) -> u16 {
        self.by_impact[usize::from(impact)]
    }

    /// Upper bounds of impact × `weight` − product, and of product − impact × `weight`.
    pub(super) fn errors(weight: f64, dense: bool) -> [f64; 2] {
        // a factor is rounded down, and a product of a dense list again
        let (below, above) = if dense { (2.0, 0.0) } else { (0.504, 0.504) };
        // products below 1 are enlarged to 1
        [below, f64::max(above, 1.0 - weight)]
    }
}

/// Product of an impact and `factor` / 256, rounded down, but at least 1 for an impact that is not 0.
#[inline(always)]
fn dense_product(impact: u8, factor: u16) -> u16 {
    // byte by byte of the factor, so that no product needs more than 16 bits, of which a vector has twice as many as of 32
    let [low, high] = factor.to_le_bytes().map(u16::from);
    let impact = u16::from(impact);
    let product = impact * high + ((impact * low) >> 8);
    product.max(impact.min(1))
}

/// A term of a query in one segment.
pub(super) struct PlannedTerm<'a> {
    pub(super) products: Products,
    /// true if the products are subtracted
    pub(super) negative: bool,
    pub(super) postings: Postings<'a>,
}

/// Adds the products of all terms in a window to its accumulators, which are zero.
pub(super) fn add_up(terms: &[PlannedTerm<'_>], window: usize, window_len: usize, sums: &mut Sums) {
    Arch::new().dispatch(AddUp { terms, window, window_len, sums });
}

/// Calls `visit` for every chunk of the first `window_len` accumulators that reaches the threshold, and sets all to zero. `visit`
/// gets the number of the chunk, one bit per accumulator that reaches the threshold, and the accumulators. It returns the next
/// threshold.
pub(super) fn scan(
    sums: &mut Sums,
    window_len: usize,
    threshold: u16,
    visit: &mut impl FnMut(usize, u32, &[u16; CHUNK]) -> u16,
) {
    Arch::new().dispatch(Scan { sums: &mut sums[..window_len.min(WINDOW)], threshold, visit });
}

/// [`add_up`] for [`pulp::Arch::dispatch`]. A closure would be called through a separate function, which is compiled without
/// vector instructions.
struct AddUp<'a, 'p> {
    terms: &'a [PlannedTerm<'p>],
    window: usize,
    window_len: usize,
    sums: &'a mut Sums,
}

impl WithSimd for AddUp<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for term in self.terms {
            add_term(term, self.window, self.window_len, self.sums);
        }
    }
}

/// [`scan`] for [`pulp::Arch::dispatch`].
struct Scan<'a, F> {
    sums: &'a mut [u16],
    threshold: u16,
    visit: &'a mut F,
}

impl<F: FnMut(usize, u32, &[u16; CHUNK]) -> u16> WithSimd for Scan<'_, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        scan_groups(self.sums, self.threshold, self.visit);
    }
}

#[inline(always)]
fn add_term(term: &PlannedTerm<'_>, window: usize, window_len: usize, sums: &mut Sums) {
    let (products, negative) = (&term.products, term.negative);
    let first = window * window_len;
    match term.postings {
        Postings::Dense { impacts, .. } => {
            let impacts = &impacts[first.min(impacts.len())..impacts.len().min(first + window_len)];
            if negative {
                subtract_dense(sums, impacts, products.factor)
            } else {
                add_dense(sums, impacts, products.factor)
            }
        }
        Postings::Windowed { ids, impacts, offsets } => {
            let range = window_range(offsets, window);
            let (Some(inside), Some(_)) = (ids.get(range.clone()), impacts.get(range.clone())) else { return };
            for (block, from) in inside.chunks(BLOCK).zip(range.step_by(BLOCK)) {
                prefetch_index(ids, from + AHEAD);
                prefetch_index(ids, from + AHEAD + BLOCK / 2);
                prefetch_index(impacts, from + AHEAD);
                let places = block.iter().map(|id| usize::from(u16::from_le_bytes(*id)));
                scatter(sums, places, &impacts[from..from + block.len()], products, negative);
            }
        }
        Postings::Short { docs, impacts } => {
            let below =
                |docs: &[[u8; 4]], end: usize| docs.partition_point(|doc| (u32::from_le_bytes(*doc) as usize) < end);
            let from = below(docs, first);
            let to = from + below(&docs[from..], first + window_len);
            let places = docs[from..to].iter().map(|doc| u32::from_le_bytes(*doc) as usize % window_len);
            scatter(sums, places, &impacts[from..to], products, negative);
        }
    }
}

/// Adds or subtracts a sparse list. Positions are reduced to the window, and sums wrap, so that a damaged file cannot cause a
/// panic. In an intact file neither has an effect.
#[inline(always)]
fn scatter(sums: &mut Sums, places: impl Iterator<Item = usize>, impacts: &[u8], products: &Products, negative: bool) {
    if negative {
        for (place, &impact) in places.zip(impacts) {
            let sum = &mut sums[place % WINDOW];
            *sum = subtract(*sum, products.of(impact));
        }
    } else {
        for (place, &impact) in places.zip(impacts) {
            let sum = &mut sums[place % WINDOW];
            *sum = sum.wrapping_add(products.of(impact));
        }
    }
}

/// Adds a dense list. The loop compiles to vector instructions.
#[inline(always)]
fn add_dense(sums: &mut Sums, impacts: &[u8], factor: u16) {
    for (sum, &impact) in sums.iter_mut().zip(impacts) {
        *sum = sum.wrapping_add(dense_product(impact, factor));
    }
}

/// Subtracts a dense list. The loop compiles to vector instructions.
#[inline(always)]
fn subtract_dense(sums: &mut Sums, impacts: &[u8], factor: u16) {
    for (sum, &impact) in sums.iter_mut().zip(impacts) {
        *sum = subtract(*sum, dense_product(impact, factor));
    }
}

/// Subtracts down to 1 at most; 0 stays 0.
#[inline(always)]
fn subtract(sum: u16, part: u16) -> u16 {
    sum.saturating_sub(part).max(sum.min(1))
}

#[inline(always)]
fn scan_groups(sums: &mut [u16], mut threshold: u16, visit: &mut impl FnMut(usize, u32, &[u16; CHUNK]) -> u16) {
    for (at, group) in sums.as_chunks_mut::<GROUP>().0.iter_mut().enumerate() {
        if group.iter().fold(0, |largest, sum| largest.max(*sum)) >= threshold {
            for (chunk, sums) in (at * (GROUP / CHUNK)..).zip(group.as_chunks::<CHUNK>().0) {
                let reached = mask(sums, threshold);
                if reached != 0 {
                    threshold = visit(chunk, reached, sums);
                }
            }
        }
        *group = [0; GROUP];
    }
}

/// One bit per accumulator that reaches the threshold.
#[inline(always)]
fn mask(sums: &[u16; CHUNK], threshold: u16) -> u32 {
    (0..).zip(sums).fold(0, |mask, (at, sum)| mask | u32::from(*sum >= threshold) << at)
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};

    use super::*;

    /// The dispatched functions, with the vector instructions of this machine, against scalar loops.
    #[test]
    fn dispatched_loops_equal_scalar_loops() {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(7);
        for len in [0, 1, 31, 64, 1000, WINDOW - 1, WINDOW] {
            let impacts: Vec<u8> = (0..len).map(|_| rng.random::<u8>() & rng.random::<u8>()).collect();
            for (weight, negative) in [(17.3, false), (0.002, false), (90.0, false), (17.3, true), (0.4, true)] {
                let first = PlannedTerm {
                    products: Products::new(50.0, true),
                    negative: false,
                    postings: Postings::Dense { impacts: &impacts[..len / 2], counts: &[] },
                };
                let products = Products::new(weight, true);
                let second = PlannedTerm {
                    products: products.clone(),
                    negative,
                    postings: Postings::Dense { impacts: &impacts, counts: &[] },
                };
                let mut plain = vec![0_u16; WINDOW];
                for (sum, &impact) in plain.iter_mut().zip(&impacts[..len / 2]) {
                    *sum = first.products.of(impact);
                }
                for (sum, &impact) in plain.iter_mut().zip(&impacts) {
                    let part = products.of(impact);
                    *sum = match (negative, *sum) {
                        (false, sum) => sum + part,
                        (true, 0) => 0,
                        (true, sum) => sum.saturating_sub(part).max(1),
                    };
                }
                let mut fast: Box<Sums> = vec![0; WINDOW].into_boxed_slice().try_into().unwrap();
                add_up(&[first, second], 0, WINDOW, &mut fast);
                assert_eq!(fast[..], plain[..], "{len} impacts, weight {weight}, negative {negative}");
                check_scan(&fast);
            }
        }
    }

    fn check_scan(sums: &Sums) {
        for threshold in [1, 2, 1 << 12, u16::MAX] {
            let expected: Vec<usize> = (0..WINDOW).filter(|at| sums[*at] >= threshold).collect();
            let mut found = Vec::new();
            let mut scanned = *sums;
            scan(&mut scanned, WINDOW, threshold, &mut |chunk, reached, sums| {
                found.extend((0..CHUNK).filter(|at| reached >> at & 1 == 1).map(|at| chunk * CHUNK + at));
                assert!(sums.iter().enumerate().all(|(at, sum)| (reached >> at & 1 == 1) == (*sum >= threshold)));
                threshold
            });
            assert_eq!(found, expected);
            assert!(scanned.iter().all(|sum| *sum == 0));
        }
    }

    #[test]
    fn products_are_within_their_error_and_never_zero() {
        for weight in [1e-9, 0.003, 0.501, 1.003, 31.7, 255.99] {
            for dense in [false, true] {
                let products = Products::new(weight, dense);
                assert_eq!(products.of(0), 0);
                assert!((1..=255).all(|impact| products.of(impact) >= 1));
                let differences =
                    (0..=255_u8).map(|impact| f64::from(impact) * weight - f64::from(products.of(impact)));
                let [below, above] = Products::errors(weight, dense);
                let range = differences.fold([0.0; 2], |[least, most]: [f64; 2], difference| {
                    [least.min(difference), most.max(difference)]
                });
                assert!(range[1] <= below && -range[0] <= above, "{weight}, dense {dense}: {range:?}");
                assert!(range[1] > 0.0 || range[0] < 0.0);
            }
        }
    }
}
