//! Positions of documents among the ids of a window, in the widest vector instructions of the machine.

use pulp::{Arch, Simd, WithSimd};

/// Number of ids that are compared at once.
const NEAR: usize = 64;

/// Calls `visit` with the place in `docs` and the position among `ids` of every document whose id is there. `ids` are the
/// ascending ids of a window of 2^`window_bits` documents. All of `docs` are of this window.
pub(super) fn find_docs(ids: &[[u8; 2]], docs: &[u32], window_bits: u32, visit: impl FnMut(u32, usize)) {
    Arch::new().dispatch(FindDocs { ids, docs, window_bits, visit });
}

/// [`find_docs`] for [`pulp::Arch::dispatch`]. A closure would be called through a separate function, which is compiled
/// without vector instructions.
struct FindDocs<'a, F> {
    ids: &'a [[u8; 2]],
    docs: &'a [u32],
    window_bits: u32,
    visit: F,
}

impl<F: FnMut(u32, usize)> WithSimd for FindDocs<'_, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, _: S) {
        for (place, doc) in (0..).zip(self.docs) {
            if let Some(at) = find_id(self.ids, inside(*doc, self.window_bits), self.window_bits) {
                (self.visit)(place, at);
            }
        }
    }
}

/// Id of a document inside its window.
#[inline(always)]
pub(super) fn inside(doc: u32, window_bits: u32) -> u16 {
    (doc & ((1 << window_bits) - 1)) as u16
}

/// Position of an id among the ascending ids of a window.
///
/// Ids of a window are spread evenly as a rule, and are then near their share of the list. All ids there are compared: these
/// reads do not depend on each other, as those of a binary search do, and the comparisons compile to vector instructions.
#[inline(always)]
pub(super) fn find_id(ids: &[[u8; 2]], id: u16, window_bits: u32) -> Option<usize> {
    let value = |id: &[u8; 2]| u16::from_le_bytes(*id);
    let guess = (usize::from(id) * ids.len()) >> window_bits;
    let from = guess.saturating_sub(NEAR / 2).min(ids.len().saturating_sub(NEAR));
    let Some(near) = ids[from..].first_chunk::<NEAR>() else {
        return ids.binary_search_by_key(&id, value).ok();
    };
    if id < value(&near[0]) {
        return ids[..from].binary_search_by_key(&id, value).ok();
    }
    if value(&near[NEAR - 1]) < id {
        let from = from + NEAR;
        return ids[from..].binary_search_by_key(&id, value).ok().map(|at| from + at);
    }
    let before = usize::from(near.iter().map(|other| u16::from(value(other) < id)).sum::<u16>());
    near.get(before).is_some_and(|found| value(found) == id).then_some(from + before)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Even, crowded at either end, one, and none, against a binary search.
    #[test]
    fn ids_are_found_wherever_they_are() {
        let lists: [Vec<u16>; 6] = [
            (0..800).map(|at| at * 10 + at % 7).collect(),
            (0..500).collect(),
            (7000..8192).collect(),
            (0..8192).step_by(97).chain(8170..8190).collect::<std::collections::BTreeSet<u16>>().into_iter().collect(),
            vec![8191],
            vec![],
        ];
        let docs: Vec<u32> = (0..8192).map(|id| 3 * 8192 + id).collect();
        for list in &lists {
            let ids: Vec<[u8; 2]> = list.iter().map(|id| id.to_le_bytes()).collect();
            let mut found = Vec::new();
            find_docs(&ids, &docs, 13, |place, at| found.push((place, at)));
            let expected = (0..8192_u16).filter_map(|id| Some((u32::from(id), list.binary_search(&id).ok()?)));
            assert_eq!(found, expected.collect::<Vec<_>>(), "{} ids", list.len());
            for id in 0..8192 {
                assert_eq!(find_id(&ids, id, 13), list.binary_search(&id).ok(), "{id} of {}", list.len());
            }
        }
    }
}
