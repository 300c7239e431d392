//! Shards: parts of one input that several processes encode, and their union.
//!
//! * [`Shard`] is `i/n`, and selects documents by their ids.
//! * [`ShardManifest`] states what a shard was made from, and [`complete_set`] refuses shards that do not belong together.
//! * [`merge_vectors`] joins vector files; an index is joined by the crate that knows its layout.

mod distinct;
mod manifest;
mod merge;
mod row;

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};
use splade_core::hex;

pub use self::distinct::{DistinctIds, Double};
pub use self::manifest::{Partition, SHARD_FILE, ShardFile, ShardInput, ShardKind, ShardManifest, complete_set};
pub use self::merge::merge_vectors;
pub use self::row::add_row;

/// One of `count` shards, numbered from 0. Its text is `2/8`.
///
/// An id belongs to the shard whose number is the first four bytes of its SHA-256, read as a big-endian number, modulo `count`.
/// There is no seed. Every language has the parts of this rule, so that other programs can split a corpus in the same way.
///
/// ```
/// use splade_files::Shard;
///
/// let shard: Shard = "2/8".parse()?;
/// assert_eq!((shard.number(), shard.count(), shard.to_string()), (2, 8, "2/8".to_owned()));
/// assert_eq!((0..8).filter(|number| Shard::new(*number, 8).unwrap().takes("d1")).collect::<Vec<_>>(), [7]);
/// # Ok::<(), String>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    number: u32,
    count: u32,
}

impl Shard {
    /// Largest number of shards.
    pub const MOST: u32 = 65_536;

    /// Shard `number` of `count`; none unless `number < count` and `count` is 1 to [`MOST`](Self::MOST).
    #[must_use]
    pub fn new(number: u32, count: u32) -> Option<Self> {
        (number < count && count <= Self::MOST).then_some(Self { number, count })
    }

    /// Number of this shard, from 0.
    #[must_use]
    pub fn number(self) -> u32 {
        self.number
    }

    /// Number of all shards.
    #[must_use]
    pub fn count(self) -> u32 {
        self.count
    }

    /// True if the document of this id belongs to the shard.
    #[must_use]
    pub fn takes(self, id: &str) -> bool {
        let [a, b, c, d, ..] = hash_of(id);
        u32::from_be_bytes([a, b, c, d]) % self.count == self.number
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.count)
    }
}

impl FromStr for Shard {
    type Err = String;

    /// Parses `2/8`. The error says what is expected.
    fn from_str(text: &str) -> Result<Self, String> {
        let numbers =
            text.split_once('/').and_then(|(number, count)| Some((number.parse().ok()?, count.parse().ok()?)));
        let (number, count) = numbers.ok_or("expected I/N, like 0/8")?;
        Self::new(number, count).ok_or_else(|| match count {
            0 => "expected at least one shard".to_owned(),
            1..=Self::MOST => format!("shards are numbered from 0 to {}", count - 1),
            _ => format!("expected at most {} shards", Self::MOST),
        })
    }
}

/// Digest of a set of ids that does not depend on their order: the sum, modulo 2^128, of the first 16 bytes of the SHA-256 of
/// each id, read as a big-endian number. An id that is added twice counts twice.
///
/// ```
/// use splade_files::IdsDigest;
///
/// let digest = |ids: &[&str]| {
///     let mut digest = IdsDigest::default();
///     ids.iter().for_each(|id| digest.add(id));
///     digest.text()
/// };
/// assert_eq!(digest(&["a", "b"]), digest(&["b", "a"]));
/// assert_ne!(digest(&["a", "b"]), digest(&["a", "b", "b"]));
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct IdsDigest {
    sum: u128,
    count: u64,
}

impl IdsDigest {
    /// Takes an id.
    pub fn add(&mut self, id: &str) {
        let mut first = [0; 16];
        first.copy_from_slice(&hash_of(id)[..16]);
        self.sum = self.sum.wrapping_add(u128::from_be_bytes(first));
        self.count += 1;
    }

    /// Number of ids.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The digest, as 32 hexadecimal digits.
    #[must_use]
    pub fn text(&self) -> String {
        hex(&self.sum.to_be_bytes())
    }
}

fn hash_of(id: &str) -> [u8; 32] {
    Sha256::digest(id.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shard_of_an_id_is_that_of_other_languages() {
        // Python: int.from_bytes(hashlib.sha256(id.encode()).digest()[:4], "big") % 1000
        for (id, expected) in [("d1", 15), ("nb-000123", 61), ("blåbær", 282)] {
            let takes = |number: &u32| Shard::new(*number, 1000).unwrap().takes(id);
            assert_eq!((0..1000).filter(takes).collect::<Vec<_>>(), [expected], "{id}");
        }
    }

    #[test]
    fn texts_of_no_shard_are_refused() {
        for (text, expected) in [
            ("", "expected I/N"),
            ("1", "expected I/N"),
            ("a/2", "expected I/N"),
            ("-1/2", "expected I/N"),
            ("1/2/3", "expected I/N"),
            ("0/0", "at least one"),
            ("4/4", "from 0 to 3"),
            ("0/65537", "at most 65536"),
        ] {
            let error = text.parse::<Shard>().unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
        assert_eq!("65535/65536".parse(), Ok(Shard { number: 65_535, count: 65_536 }));
    }
}
