//! [`VectorCache`]: encoded queries and corpora in the user's cache folder, by the fingerprint of all that decides them.

use std::path::PathBuf;

use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use splade_core::hex;
use splade_files::{EncodedTexts, EncodedVector, EncodedWriter, remove_leftovers};

use crate::console::size;
use crate::environment;

/// Files `<fingerprint>.vectors` in a folder; none for a run without a cache.
#[derive(Debug, Clone)]
pub(crate) struct VectorCache(Option<PathBuf>);

impl VectorCache {
    /// Encodes everything anew and keeps nothing.
    pub(crate) const NONE: Self = Self(None);

    /// The cache of the user: `splade/vectors` in `XDG_CACHE_HOME`, else in `~/.cache`.
    pub(crate) fn of_user() -> Self {
        let caches = environment::path("XDG_CACHE_HOME");
        let caches = caches.unwrap_or_else(|| std::env::home_dir().unwrap_or_default().join(".cache"));
        Self(Some(caches.join("splade").join("vectors")))
    }

    /// Opens a file. One that is damaged or of another version is reported and counts as absent.
    pub(super) fn open<V: EncodedVector, N: DeserializeOwned>(&self, key: &str) -> Option<(EncodedTexts<V>, N)> {
        let path = self.path(key)?;
        if !path.is_file() {
            return None;
        }
        EncodedTexts::open(&path).inspect_err(|error| tracing::warn!("{error}: the texts are encoded again")).ok()
    }

    /// Creates a file. A cache that cannot be written is reported and not used.
    pub(super) fn create<V: EncodedVector>(&self, key: &str) -> Option<EncodedWriter<V>> {
        let path = self.path(key)?;
        path.parent().into_iter().for_each(remove_leftovers);
        EncodedWriter::create(&path).inspect_err(|error| tracing::warn!("{error}: the vectors are not cached")).ok()
    }

    fn path(&self, key: &str) -> Option<PathBuf> {
        Some(self.0.as_ref()?.join(format!("{key}.vectors")))
    }

    /// Logs the place and size of the cache.
    pub(crate) fn report(&self) {
        let Some(folder) = &self.0 else { return };
        let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let bytes: u64 = files.filter_map(|file| Some(file.metadata().ok()?.len())).sum();
        if bytes > 0 {
            tracing::info!(
                "encoded texts are cached in {} ({}); --no-cache does without",
                folder.display(),
                size(bytes)
            );
        }
    }
}

/// Appends a vector; a file that cannot be written is given up.
pub(super) fn append<V: EncodedVector>(writer: Option<EncodedWriter<V>>, vector: &V) -> Option<EncodedWriter<V>> {
    let mut writer = writer?;
    match writer.add(vector) {
        Ok(()) => Some(writer),
        Err(error) => {
            tracing::warn!("{error}: the vectors are not cached");
            None
        }
    }
}

/// Commits a file with its notes, if there is one. A file that cannot be written is reported.
pub(super) fn finish<V: EncodedVector>(writer: Option<EncodedWriter<V>>, notes: &impl Serialize) {
    if let Some(Err(error)) = writer.map(|writer| writer.finish(notes)) {
        tracing::warn!("{error}: the vectors are not cached");
    }
}

/// Fingerprint of named values: the SHA-256 of lines `name value`.
pub(crate) fn fingerprint(heading: &str, values: &[(&str, &str)]) -> String {
    let mut digest = Sha256::new();
    digest.update(format!("{heading}\n"));
    for (name, value) in values {
        // the length, so that no value can look like two lines
        digest.update(format!("{name} {} {value}\n", value.len()));
    }
    hex(&digest.finalize())
}
