//! [`Bits`]: a set of the documents of a segment, one bit each.

/// A set of documents, numbered from 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bits {
    words: Vec<u64>,
    n_docs: u32,
}

impl Bits {
    /// No document of `n_docs`.
    pub(crate) fn none(n_docs: u32) -> Self {
        Self { words: vec![0; n_docs.div_ceil(64) as usize], n_docs }
    }

    /// All of `n_docs` documents.
    pub(crate) fn all(n_docs: u32) -> Self {
        let mut bits = Self::none(n_docs);
        bits.complement();
        bits
    }

    /// Number of documents that the set may have.
    pub(crate) fn capacity(&self) -> u32 {
        self.n_docs
    }

    /// Adds a document. One beyond the segment is left out.
    pub(crate) fn insert(&mut self, doc: u32) {
        if doc < self.n_docs {
            self.words[doc as usize / 64] |= 1 << (doc % 64);
        }
    }

    /// Removes a document.
    pub(crate) fn remove(&mut self, doc: u32) {
        if doc < self.n_docs {
            self.words[doc as usize / 64] &= !(1 << (doc % 64));
        }
    }

    /// True if the set has a document.
    pub(crate) fn contains(&self, doc: u32) -> bool {
        self.group(doc / 64) >> (doc % 64) & 1 == 1
    }

    /// The documents from `64 * group` on, one bit each.
    pub(crate) fn group(&self, group: u32) -> u64 {
        self.words.get(group as usize).copied().unwrap_or_default()
    }

    /// Keeps the documents that are in `other` too.
    pub(crate) fn intersect(&mut self, other: &Self) {
        self.words.iter_mut().zip(&other.words).for_each(|(word, other)| *word &= other);
    }

    /// Adds the documents of `other`.
    pub(crate) fn unite(&mut self, other: &Self) {
        self.words.iter_mut().zip(&other.words).for_each(|(word, other)| *word |= other);
    }

    /// Replaces the set by the documents that are not in it.
    pub(crate) fn complement(&mut self) {
        self.words.iter_mut().for_each(|word| *word = !*word);
        if let Some(last) = self.words.last_mut().filter(|_| !self.n_docs.is_multiple_of(64)) {
            *last &= (1 << (self.n_docs % 64)) - 1;
        }
    }

    /// Number of documents.
    pub(crate) fn len(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// The documents, ascending.
    pub(crate) fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        (0..).zip(&self.words).flat_map(|(at, &word)| {
            let rest = std::iter::successors(Some(word), |rest| Some(rest & rest.wrapping_sub(1)));
            rest.take_while(|rest| *rest != 0).map(move |rest| 64 * at + rest.trailing_zeros())
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn bits_are_a_set(n in 0..200_u32, a in proptest::collection::btree_set(0..200_u32, 0..60), b in proptest::collection::btree_set(0..200_u32, 0..60)) {
            let below = |docs: BTreeSet<u32>| docs.into_iter().filter(|doc| *doc < n).collect::<BTreeSet<u32>>();
            let bits = |docs: &BTreeSet<u32>| {
                let mut bits = Bits::none(n);
                docs.iter().for_each(|doc| bits.insert(*doc));
                bits
            };
            let set = |bits: &Bits| bits.iter().collect::<BTreeSet<u32>>();
            let (mut x, y) = (bits(&a), bits(&b));
            let (a, b) = (below(a), below(b));
            prop_assert_eq!(set(&x), a.clone());
            prop_assert_eq!(x.len(), a.len());
            prop_assert!((0..250).all(|doc| x.contains(doc) == a.contains(&doc)));
            x.intersect(&y);
            prop_assert_eq!(set(&x), &a & &b);
            x.complement();
            prop_assert_eq!(set(&x), &set(&Bits::all(n)) - &(&a & &b));
            x.unite(&y);
            b.iter().for_each(|doc| x.remove(*doc));
            prop_assert_eq!(set(&x), &set(&Bits::all(n)) - &b);
        }
    }
}
