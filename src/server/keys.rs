//! [`Keys`]: the keys of `--api-key-file`, compared in constant time.

use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use anyhow::{Context, Result};
use axum::http::{HeaderMap, header};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::failure::bad_input;

/// Fewest characters of a key: fewer can be guessed.
const SHORTEST: usize = 16;

type Hash = [u8; 32];

/// Keys that admit requests; without a file, every request is admitted.
pub(crate) struct Keys {
    file: Option<PathBuf>,
    hashes: RwLock<Vec<Hash>>,
}

impl Keys {
    /// Reads the file of keys, if there is one.
    ///
    /// # Errors
    /// A file that cannot be read, has no key or one that is too short.
    pub(crate) fn read(file: Option<&Path>) -> Result<Self> {
        let hashes = file.map(read).transpose()?.unwrap_or_default();
        Ok(Self { file: file.map(Path::to_owned), hashes: RwLock::new(hashes) })
    }

    /// Reads the file again.
    ///
    /// # Errors
    /// Those of [`read`](Self::read); the old keys then stay.
    pub(crate) fn reload(&self) -> Result<()> {
        if let Some(file) = &self.file {
            *self.hashes.write().unwrap_or_else(PoisonError::into_inner) = read(file)?;
        }
        Ok(())
    }

    /// True if there are keys.
    pub(crate) fn are_needed(&self) -> bool {
        self.file.is_some()
    }

    /// True if a request with these headers is admitted.
    ///
    /// Hashes of one length are compared, with all keys, so that the time tells nothing about them.
    pub(crate) fn allow(&self, headers: &HeaderMap) -> bool {
        if !self.are_needed() {
            return true;
        }
        let value = headers.get(header::AUTHORIZATION).map(|value| value.as_bytes()).unwrap_or_default();
        let (scheme, key) = value.split_at_checked(BEARER.len()).unwrap_or_default();
        if !scheme.eq_ignore_ascii_case(BEARER) {
            return false;
        }
        let given = hash(key);
        let hashes = self.hashes.read().unwrap_or_else(PoisonError::into_inner);
        let same = hashes.iter().fold(subtle::Choice::from(0), |found, known| found | known.ct_eq(&given));
        same.into()
    }
}

/// Start of the header of a key.
const BEARER: &[u8] = b"Bearer ";

fn read(file: &Path) -> Result<Vec<Hash>> {
    let place = file.display();
    let text = std::fs::read_to_string(file).with_context(|| place.to_string())?;
    let mut hashes = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let key = line.trim();
        match key.chars().count() {
            0 => {}
            // the key itself is not shown: logs are read by others
            1..SHORTEST => {
                let message = format!("{place}:{number}: a key of fewer than {SHORTEST} characters");
                return Err(bad_input(message, "make keys with `openssl rand -hex 32`"));
            }
            _ => hashes.push(hash(key.as_bytes())),
        }
    }
    if hashes.is_empty() {
        return Err(bad_input(format!("{place}: there are no keys in it"), "one key a line is needed"));
    }
    Ok(hashes)
}

fn hash(key: &[u8]) -> Hash {
    Sha256::digest(key).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_key(value: &str) -> HeaderMap {
        [(header::AUTHORIZATION, value.parse().unwrap())].into_iter().collect()
    }

    #[test]
    fn one_of_the_keys_is_needed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("keys.txt");
        std::fs::write(&file, "a-key-of-one-user\n\n  a-key-of-another \n").unwrap();
        let keys = Keys::read(Some(&file)).unwrap();
        for (value, is_right) in [
            ("Bearer a-key-of-one-user", true),
            ("bearer a-key-of-another", true),
            ("Bearer a-key-of-one-use", false),
            ("Bearer a-key-of-one-user ", false),
            ("Bearer ", false),
            ("Bearer", false),
            ("Basic a-key-of-one-user", false),
            ("a-key-of-one-user", false),
        ] {
            assert_eq!(keys.allow(&with_key(value)), is_right, "{value}");
        }
        assert!(!keys.allow(&HeaderMap::new()));
        std::fs::write(&file, "short\n").unwrap();
        assert!(keys.reload().unwrap_err().to_string().contains("keys.txt:1: a key of fewer than 16"));
        assert!(keys.allow(&with_key("Bearer a-key-of-one-user")), "the old keys stay");
        std::fs::write(&file, "\n").unwrap();
        assert!(Keys::read(Some(&file)).is_err());
        assert!(Keys::read(None).unwrap().allow(&HeaderMap::new()));
    }
}
