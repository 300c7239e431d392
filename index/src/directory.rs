//! [`IndexDirectory`]: tantivy's folder, which can be read without the right to write it.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tantivy::TantivyError;
use tantivy::directory::error::{DeleteError, LockError, OpenReadError, OpenWriteError};
use tantivy::directory::{
    Directory, DirectoryLock, FileHandle, Lock, META_LOCK, MmapDirectory, WatchCallback, WatchHandle, WritePtr,
};

use crate::{Error, Result};
use splade_files::AtomicFile;

/// tantivy's list of files, which is not kept: the folder itself has it, also after a kill.
const MANAGED_FILE: &str = ".managed.json";

/// The folder of tantivy's files.
#[derive(Clone, Debug)]
pub(crate) struct IndexDirectory {
    path: PathBuf,
    mapped: MmapDirectory,
}

impl IndexDirectory {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let mapped = MmapDirectory::open(path).map_err(TantivyError::from)?;
        Ok(Self { path: path.to_owned(), mapped })
    }

    /// Removes what killed or failed writers left: files of segments that are not in `live`.
    ///
    /// Only for the holder of the writer lock.
    pub(crate) fn remove_leftovers(&self, live: &HashSet<PathBuf>) -> Result<()> {
        // readers hold it while they open the segments of the last commit
        let _lock =
            self.acquire_lock(&META_LOCK).map_err(|error| Error::from(TantivyError::LockFailure(error, None)))?;
        splade_files::remove_leftovers(&self.path);
        let names = self.segment_files().map_err(Error::io(&self.path))?;
        for path in names.iter().filter(|name| !live.contains(Path::new(name))).map(|name| self.path.join(name)) {
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(Error::io(path)(error)),
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }

    fn segment_files(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.path)? {
            names.extend(entry?.file_name().into_string().ok().filter(|name| is_segment_file(name)));
        }
        Ok(names)
    }
}

/// True for the names of segments' files: 32 hexadecimal digits and extensions.
fn is_segment_file(name: &str) -> bool {
    let id = name.split_once('.').map_or("", |(id, _)| id);
    id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit())
}

impl Directory for IndexDirectory {
    fn get_file_handle(&self, path: &Path) -> Result<Arc<dyn FileHandle>, OpenReadError> {
        self.mapped.get_file_handle(path)
    }

    fn delete(&self, path: &Path) -> Result<(), DeleteError> {
        self.mapped.delete(path)
    }

    fn exists(&self, path: &Path) -> Result<bool, OpenReadError> {
        self.mapped.exists(path)
    }

    fn open_write(&self, path: &Path) -> Result<WritePtr, OpenWriteError> {
        self.mapped.open_write(path)
    }

    fn atomic_read(&self, path: &Path) -> Result<Vec<u8>, OpenReadError> {
        if path == Path::new(MANAGED_FILE) {
            let failed = |error| OpenReadError::IoError { io_error: Arc::new(error), filepath: path.to_owned() };
            let names = self.segment_files().map_err(failed)?;
            return serde_json::to_vec(&names).map_err(|error| failed(error.into()));
        }
        self.mapped.atomic_read(path)
    }

    /// As the other outputs are written: with the permissions that the umask grants.
    fn atomic_write(&self, path: &Path, data: &[u8]) -> io::Result<()> {
        if path == Path::new(MANAGED_FILE) {
            return Ok(());
        }
        AtomicFile::write_whole(&self.path.join(path), data).map_err(|error| match error {
            splade_files::Error::Io { source, .. } => source,
            error => io::Error::other(error),
        })
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.mapped.sync_directory()
    }

    fn acquire_lock(&self, lock: &Lock) -> Result<DirectoryLock, LockError> {
        use io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem};
        match self.mapped.acquire_lock(lock) {
            // a reader that may not write reads without the lock
            Err(LockError::IoError(error))
                if lock.filepath == META_LOCK.filepath
                    && matches!(error.kind(), PermissionDenied | ReadOnlyFilesystem) =>
            {
                Ok(DirectoryLock::from(Box::new(())))
            }
            result => result,
        }
    }

    fn watch(&self, callback: WatchCallback) -> tantivy::Result<WatchHandle> {
        self.mapped.watch(callback)
    }
}
