//! tantivy's folder as this crate keeps it: every file with checksums, no write by a reader.
//!
//! It differs from [`MmapDirectory`], which does the mapping, in these points:
//!
//! * Every file of a segment ends in block checksums ([`splade_core::segment::CheckedBytes`]): small files are checked when
//!   they are opened, of large ones every block when it is first read. `meta.json` carries a checksum of itself. Files
//!   without checksums, of indexes of version 1, are read too.
//! * Reading takes no lock and makes no file, so an index on a read-only disk or of another owner can be searched. A file
//!   that a writer removed between the reading of `meta.json` and its opening is an error that [`ImpactIndex`] answers by
//!   reading `meta.json` again.
//! * `meta.json` gets the permissions that the umask grants, and its name is on disk before the files it replaces are
//!   removed.
//! * There is no `.managed.json`: the list of tantivy's files is the folder itself, so that files which a killed writer
//!   left are on the list too.
//!
//! [`ImpactIndex`]: crate::ImpactIndex

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use splade_core::guarded;
use splade_core::segment::Defect;
use splade_core::segment::{BlockChecksums, CheckedBytes};
use splade_files::AtomicFile;
use tantivy::directory::error::{DeleteError, LockError, OpenReadError, OpenWriteError};
use tantivy::directory::footer::Footer;
use tantivy::directory::{
    AntiCallToken, Directory, DirectoryLock, FileHandle, FileSlice, INDEX_WRITER_LOCK, Lock, META_LOCK, MmapDirectory,
    OwnedBytes, TerminatingWrite, WatchCallback, WatchHandle, WritePtr,
};
use tantivy::{HasLen, TantivyError};

use crate::checked_json::{seal, unseal};
use crate::{Error, Result};

/// tantivy's list of segments.
pub(crate) const META_FILE: &str = "meta.json";
/// tantivy's list of files, which is not kept.
pub(crate) const MANAGED_FILE: &str = ".managed.json";
/// Files up to this size are checked whole when they are opened: at most some 50 µs each.
const SMALL_LEN: usize = 256 << 10;

/// The folder of tantivy's files.
#[derive(Clone)]
pub(crate) struct CheckedDirectory {
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    mapped: MmapDirectory,
    /// files that are open, so that a block is checked once however often its file is opened
    open: Mutex<HashMap<PathBuf, Weak<CheckedFile>>>,
    /// the first damage that was read
    damage: Arc<Mutex<Option<Damage>>>,
    /// the first failure of a write: tantivy's own error is a text that does not name the file
    write_failure: Arc<Mutex<Option<WriteFailure>>>,
    #[cfg(test)]
    faults: Arc<Faults>,
}

/// Faults that tests inject.
#[cfg(test)]
#[derive(Debug)]
pub(crate) struct Faults {
    /// bytes that can be written before the disk is full
    pub(crate) free_bytes: std::sync::atomic::AtomicUsize,
    /// the process aborts instead of replacing `meta.json`
    pub(crate) die_at_commit: std::sync::atomic::AtomicBool,
}

#[cfg(test)]
impl Default for Faults {
    fn default() -> Self {
        Self { free_bytes: usize::MAX.into(), die_at_commit: false.into() }
    }
}

#[cfg(test)]
impl Faults {
    fn write(&self, len: usize) -> io::Result<()> {
        use std::sync::atomic::Ordering::SeqCst;
        let left = self.free_bytes.try_update(SeqCst, SeqCst, |free| free.checked_sub(len));
        left.map(|_| ()).map_err(|_| io::Error::from(io::ErrorKind::StorageFull))
    }
}

/// A damaged file.
#[derive(Debug, Clone)]
struct Damage {
    path: PathBuf,
    defect: Defect,
}

/// A write that failed.
#[derive(Debug)]
struct WriteFailure {
    path: PathBuf,
    error: io::Error,
}

impl CheckedDirectory {
    /// Opens the folder `path`.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        if !path.is_dir() {
            return Err(Error::damaged(path, "missing"));
        }
        let mapped = MmapDirectory::open(path).map_err(TantivyError::from)?;
        let inner = Inner {
            path: path.to_owned(),
            mapped,
            open: Mutex::default(),
            damage: Arc::default(),
            write_failure: Arc::default(),
            #[cfg(test)]
            faults: Arc::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Runs `work`, which calls tantivy. A panic in it becomes an error, and every error names a file.
    pub(crate) fn run<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        match guarded(work) {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(Error::Tantivy(error))) => Err(self.explain(error)),
            Ok(Err(error)) => Err(error),
            Err(panic) => Err(self.recorded_damage().unwrap_or_else(|| {
                self.first_damaged()
                    .unwrap_or_else(|| Error::damaged(self.path(), format!("tantivy cannot read it: {panic}")))
            })),
        }
    }

    /// The error of tantivy as one of this crate, which names the file.
    pub(crate) fn explain(&self, error: TantivyError) -> Error {
        if let Some(damage) = self.recorded_damage() {
            return damage;
        }
        if let Some(failure) = lock(&self.inner.write_failure).take() {
            return Error::io(failure.path)(failure.error);
        }
        let at = |name: &Path| self.path().join(name);
        match error {
            TantivyError::OpenReadError(OpenReadError::FileDoesNotExist(name)) => Error::damaged(at(&name), "missing"),
            TantivyError::OpenReadError(OpenReadError::IoError { io_error, filepath })
            | TantivyError::OpenWriteError(OpenWriteError::IoError { io_error, filepath }) => {
                self.explain_io(&at(&filepath), &io_error)
            }
            TantivyError::LockFailure(LockError::LockBusy, _) => Error::Busy { path: self.path().to_owned() },
            TantivyError::LockFailure(LockError::IoError(error), _) => self.explain_io(self.path(), &error),
            TantivyError::IoError(error) => self.explain_io(self.path(), &error),
            TantivyError::DataCorruption(_) => self.first_damaged().unwrap_or(Error::Tantivy(error)),
            error => Error::Tantivy(error),
        }
    }

    fn explain_io(&self, path: &Path, error: &io::Error) -> Error {
        use io::ErrorKind::{InvalidData, InvalidInput, Other, UnexpectedEof};
        match (error.raw_os_error(), error.kind()) {
            (Some(code), _) => Error::io(path)(io::Error::from_raw_os_error(code)),
            // made by tantivy of what it read
            (None, InvalidData | InvalidInput | Other | UnexpectedEof) => {
                self.first_damaged().unwrap_or_else(|| Error::damaged(path, error.to_string()))
            }
            (None, io::ErrorKind::NotFound) => Error::damaged(path, "missing"),
            (None, kind) => Error::io(path)(kind.into()),
        }
    }

    /// The first damage that was read, once.
    fn recorded_damage(&self) -> Option<Error> {
        let Damage { path, defect } = lock(&self.inner.damage).take()?;
        Some(Error::damaged(path, defect))
    }

    /// Looks for a damaged file: for errors that name none.
    fn first_damaged(&self) -> Option<Error> {
        let names = self.file_names().ok()?.into_iter().filter(|name| is_segment_file(name));
        let error = names.map(|name| self.check_file(Path::new(&name))).find_map(Result::err);
        lock(&self.inner.damage).take();
        error
    }

    /// Clears the failure of a write, before another writer begins.
    pub(crate) fn clear_write_failure(&self) {
        lock(&self.inner.write_failure).take();
    }

    #[cfg(test)]
    pub(crate) fn faults(&self) -> &Faults {
        &self.inner.faults
    }

    /// The folder.
    pub(crate) fn path(&self) -> &Path {
        &self.inner.path
    }

    /// `meta.json` as it is on disk.
    pub(crate) fn read_meta(&self) -> Result<Vec<u8>> {
        let path = self.path().join(META_FILE);
        std::fs::read(&path).map_err(Error::io(path))
    }

    /// Adds the checksum to a `meta.json` of version 1.
    pub(crate) fn upgrade_meta(&self) -> Result<()> {
        let meta = self.atomic_read(Path::new(META_FILE)).map_err(TantivyError::from)?;
        let path = self.path().join(META_FILE);
        self.atomic_write(Path::new(META_FILE), &meta).map_err(Error::io(path))
    }

    /// The bytes of a file, checked when they are read.
    pub(crate) fn bytes(&self, name: &Path) -> tantivy::Result<CheckedBytes> {
        Ok(self.file(name)?.bytes.clone())
    }

    /// Reads and checks a whole file, and returns its size.
    pub(crate) fn check_file(&self, name: &Path) -> Result<u64> {
        let damaged = |defect: Defect| Error::damaged(self.path().join(name), defect);
        let file = self.file(name).map_err(|error| match lock(&self.inner.damage).take() {
            Some(damage) => damaged(damage.defect),
            None => self.explain(error.into()),
        })?;
        let len = file.bytes.len();
        file.bytes.check(0..len).map_err(damaged)?;
        if !file.bytes.has_checksums() {
            check_footer(file.bytes.as_unchecked()).map_err(damaged)?;
        }
        Ok(len as u64)
    }

    /// Checks all files of a segment whole.
    pub(crate) fn check_segment(&self, id: &str) -> tantivy::Result<()> {
        let names = self.file_names().map_err(|error| TantivyError::SystemError(error.to_string()))?;
        for name in names.iter().filter(|name| name.strip_prefix(id).is_some_and(|rest| rest.starts_with('.'))) {
            if let Err(Error::Damaged { message, .. }) = self.check_file(Path::new(name)) {
                return Err(self.damage_error(name, message));
            }
        }
        Ok(())
    }

    /// The error that tantivy passes on for a damaged file.
    pub(crate) fn damage_error(&self, name: &str, defect: Defect) -> TantivyError {
        self.inner.note_damage(&self.path().join(name), defect).into()
    }

    /// Links the files of a segment of another folder into this one; copies them where the file system has no links.
    ///
    /// A killed writer leaves links as leftovers, and the files of the other folder stay.
    pub(crate) fn link_segment(&self, from: &Self, id: &str) -> Result<()> {
        for name in
            from.file_names()?.iter().filter(|name| name.strip_prefix(id).is_some_and(|rest| rest.starts_with('.')))
        {
            let (source, target) = (from.path().join(name), self.path().join(name));
            if !target.exists() && std::fs::hard_link(&source, &target).is_err() {
                let copied = std::fs::copy(&source, &target);
                copied.and_then(|_| File::open(&target)?.sync_all()).map_err(Error::io(&target))?;
            }
        }
        Ok(())
    }

    /// Refuses a `meta.json` that has no checksum, as it has in version 1.
    pub(crate) fn expect_checksum_of_meta(&self) -> Result<()> {
        let path = self.path().join(META_FILE);
        match unseal(&self.read_meta()?) {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err(Error::damaged(path, "damaged: it has no checksum")),
            Err(defect) => Err(Error::damaged(path, defect)),
        }
    }

    /// Removes the [`leftovers`](Self::leftovers) of killed writers. The caller must hold the writer lock.
    pub(crate) fn remove_leftovers(&self, live: &HashSet<PathBuf>) -> Result<()> {
        for path in self.leftovers(live)? {
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(Error::io(path)(error)),
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }

    /// Files of segments and temporary files of tantivy that are not in `live`.
    pub(crate) fn leftovers(&self, live: &HashSet<PathBuf>) -> Result<Vec<PathBuf>> {
        let is_leftover = |name: &String| {
            !live.contains(Path::new(name)) && (is_segment_file(name) || is_temporary(name) || name == MANAGED_FILE)
        };
        Ok(self.file_names()?.into_iter().filter(is_leftover).map(|name| self.path().join(name)).collect())
    }

    /// The names of all files, in order.
    pub(crate) fn file_names(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(self.path()).map_err(Error::io(self.path()))? {
            names.extend(entry.map_err(Error::io(self.path()))?.file_name().into_string());
        }
        names.sort();
        Ok(names)
    }

    fn file(&self, name: &Path) -> Result<Arc<CheckedFile>, OpenReadError> {
        let mut open = lock(&self.inner.open);
        if let Some(file) = open.get(name).and_then(Weak::upgrade) {
            return Ok(file);
        }
        open.retain(|_, file| file.strong_count() > 0);
        let handle = self.inner.mapped.get_file_handle(name)?;
        let path = self.path().join(name);
        let failed = |error| OpenReadError::IoError { io_error: Arc::new(error), filepath: name.to_owned() };
        let mapped = handle.read_bytes(0..handle.len()).map_err(failed)?;
        // every search reads a file of deletes as a whole
        let whole = name.extension().is_some_and(|extension| extension == "del");
        let bytes = open_bytes(mapped, whole).map_err(|defect| failed(self.inner.note_damage(&path, defect)))?;
        let file = Arc::new(CheckedFile { path, bytes, damage: Arc::clone(&self.inner.damage) });
        open.insert(name.to_owned(), Arc::downgrade(&file));
        Ok(file)
    }
}

impl Inner {
    /// Keeps the first damage for the error that tantivy makes of it.
    fn note_damage(&self, path: &Path, defect: Defect) -> io::Error {
        note_damage(&self.damage, path, defect)
    }
}

fn note_damage(damage: &Mutex<Option<Damage>>, path: &Path, defect: Defect) -> io::Error {
    let error = io::Error::new(io::ErrorKind::InvalidData, format!("{}: {defect}", path.display()));
    lock(damage).get_or_insert(Damage { path: path.to_owned(), defect });
    error
}

/// Locks a mutex whose data stays valid if a thread panics with the lock.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Opens a file with or without checksums. A small file is checked as a whole, a large one only if `whole` is true.
fn open_bytes(file: OwnedBytes, whole: bool) -> Result<CheckedBytes, Defect> {
    if let Some(bytes) = CheckedBytes::open(&file)? {
        if whole || bytes.len() <= SMALL_LEN {
            bytes.check(0..bytes.len())?;
        }
        return Ok(bytes);
    }
    if whole || file.len() <= SMALL_LEN {
        check_footer(&file)?;
    } else {
        read_footer(&file)?;
    }
    Ok(CheckedBytes::unchecked(file))
}

/// Reads tantivy's footer: the content before it, and the checksum of that.
fn read_footer(file: &[u8]) -> Result<(&[u8], u32), Defect> {
    const NO_FOOTER: &str = "damaged: it does not end as it should";
    // tantivy subtracts without a look at the length
    if file.len() < SHORTEST_FOOTER {
        return Err(NO_FOOTER.into());
    }
    // the part that a footer can have, and not the file: a copy is made of it
    let tail = &file[file.len().saturating_sub(LONGEST_FOOTER)..];
    let slice = FileSlice::new(Arc::new(OwnedBytes::new(tail.to_vec())));
    let (footer, content) = Footer::extract_footer(slice).map_err(|_| NO_FOOTER)?;
    Ok((&file[..file.len() - (tail.len() - content.len())], footer.crc))
}

/// Checks tantivy's own checksum of a whole file.
fn check_footer(file: &[u8]) -> Result<(), Defect> {
    let (content, checksum) = read_footer(file)?;
    if crc32fast::hash(content) == checksum { Ok(()) } else { Err("damaged: its checksum is wrong".into()) }
}

/// Less than tantivy's footer can have: two numbers.
const SHORTEST_FOOTER: usize = 8;
/// More than tantivy's footer can have, by its own limit.
const LONGEST_FOOTER: usize = 50_000 + 8;

/// True for names such as `0123456789abcdef0123456789abcdef.store`.
pub(crate) fn is_segment_file(name: &str) -> bool {
    let id = name.split_once('.').map_or("", |(id, _)| id);
    id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// True for every name that tantivy, or a version of this program, gives to a file of the folder.
pub(crate) fn is_known(name: &str) -> bool {
    let locks = [&INDEX_WRITER_LOCK.filepath, &META_LOCK.filepath];
    [META_FILE, MANAGED_FILE].contains(&name)
        || locks.iter().any(|lock| lock.as_path() == Path::new(name))
        || is_segment_file(name)
        || is_temporary(name)
}

/// True for the temporary files of tantivy's own atomic writes, which versions before checksums used.
fn is_temporary(name: &str) -> bool {
    name.strip_prefix(".tmp")
        .is_some_and(|rest| rest.len() == 6 && rest.bytes().all(|byte| byte.is_ascii_alphanumeric()))
}

impl std::fmt::Debug for CheckedDirectory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("CheckedDirectory").field(&self.inner.path).finish()
    }
}

impl Directory for CheckedDirectory {
    fn get_file_handle(&self, path: &Path) -> Result<Arc<dyn FileHandle>, OpenReadError> {
        self.file(path).map(|file| file as Arc<dyn FileHandle>).map_err(|error| match error {
            // tantivy takes a missing file of positions for a segment without positions, which ours always have
            OpenReadError::FileDoesNotExist(name) if name.extension().is_some_and(|extension| extension == "pos") => {
                let missing = io::Error::from(io::ErrorKind::NotFound);
                OpenReadError::IoError { io_error: Arc::new(missing), filepath: name }
            }
            error => error,
        })
    }

    fn delete(&self, path: &Path) -> Result<(), DeleteError> {
        self.inner.mapped.delete(path)
    }

    fn exists(&self, path: &Path) -> Result<bool, OpenReadError> {
        self.inner.mapped.exists(path)
    }

    fn open_write(&self, path: &Path) -> Result<WritePtr, OpenWriteError> {
        let file = self.inner.mapped.open_write(path)?.into_inner().map_err(|error| OpenWriteError::IoError {
            io_error: Arc::new(error.into_error()),
            filepath: path.to_owned(),
        })?;
        Ok(BufWriter::new(Box::new(ChecksumWriter {
            file,
            path: self.path().join(path),
            failure: Arc::clone(&self.inner.write_failure),
            checksums: BlockChecksums::default(),
            #[cfg(test)]
            faults: Arc::clone(&self.inner.faults),
        })))
    }

    fn atomic_read(&self, path: &Path) -> Result<Vec<u8>, OpenReadError> {
        let failed = |error| OpenReadError::IoError { io_error: Arc::new(error), filepath: path.to_owned() };
        if path == Path::new(MANAGED_FILE) {
            let names = self.file_names().map_err(|error| failed(io::Error::other(error)))?;
            let names: Vec<String> = names.into_iter().filter(|name| is_segment_file(name)).collect();
            return serde_json::to_vec(&names).map_err(|error| failed(error.into()));
        }
        let bytes = self.inner.mapped.atomic_read(path)?;
        match unseal(&bytes) {
            Ok(unsealed) => Ok(unsealed.unwrap_or(bytes)),
            Err(defect) => Err(failed(self.inner.note_damage(&self.path().join(path), defect.into()))),
        }
    }

    fn atomic_write(&self, path: &Path, data: &[u8]) -> io::Result<()> {
        if path == Path::new(MANAGED_FILE) {
            return Ok(());
        }
        #[cfg(test)]
        if self.inner.faults.die_at_commit.load(std::sync::atomic::Ordering::SeqCst) {
            std::process::abort();
        }
        let json = std::str::from_utf8(data).map_err(io::Error::other)?;
        AtomicFile::write_whole(&self.path().join(path), seal(json).as_bytes()).map_err(|error| match error {
            splade_files::Error::Io { source, .. } => source,
            error => io::Error::other(error),
        })
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.inner.mapped.sync_directory()
    }

    fn acquire_lock(&self, lock: &Lock) -> Result<DirectoryLock, LockError> {
        if lock.filepath == META_LOCK.filepath {
            return Ok(DirectoryLock::from(Box::new(())));
        }
        // a process that is being started shares the files of this one, and their locks, until it runs its own program
        let end = Instant::now() + LOCK_TIME;
        loop {
            match self.inner.mapped.acquire_lock(lock) {
                Err(LockError::LockBusy) if Instant::now() < end => std::thread::sleep(LOCK_TIME / 20),
                result => return result,
            }
        }
    }

    fn watch(&self, callback: WatchCallback) -> tantivy::Result<WatchHandle> {
        self.inner.mapped.watch(callback)
    }
}

/// Longest time to wait for a lock.
const LOCK_TIME: Duration = Duration::from_millis(200);

/// A file whose parts are checked when they are read.
struct CheckedFile {
    path: PathBuf,
    bytes: CheckedBytes,
    damage: Arc<Mutex<Option<Damage>>>,
}

impl std::fmt::Debug for CheckedFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("CheckedFile").field(&self.path).finish()
    }
}

impl HasLen for CheckedFile {
    fn len(&self) -> usize {
        self.bytes.len()
    }
}

impl FileHandle for CheckedFile {
    fn read_bytes(&self, range: Range<usize>) -> io::Result<OwnedBytes> {
        self.bytes.read(range).map_err(|defect| note_damage(&self.damage, &self.path, defect))
    }
}

/// Writes a file and, at its end, the checksums of its blocks.
struct ChecksumWriter {
    file: Box<dyn TerminatingWrite + Send + Sync>,
    checksums: BlockChecksums,
    path: PathBuf,
    failure: Arc<Mutex<Option<WriteFailure>>>,
    #[cfg(test)]
    faults: Arc<Faults>,
}

impl ChecksumWriter {
    /// Keeps the first failure: what follows is a consequence of it.
    fn noted<T>(&self, result: io::Result<T>) -> io::Result<T> {
        result.inspect_err(|error| {
            let error = error.raw_os_error().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error);
            lock(&self.failure).get_or_insert_with(|| WriteFailure { path: self.path.clone(), error });
        })
    }

    fn write_some(&mut self, bytes: &[u8]) -> io::Result<usize> {
        #[cfg(test)]
        self.faults.write(bytes.len())?;
        self.file.write(bytes)
    }
}

impl Write for ChecksumWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.write_some(bytes);
        let written = self.noted(written)?;
        self.checksums.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        let flushed = self.file.flush();
        self.noted(flushed)
    }
}

impl TerminatingWrite for ChecksumWriter {
    fn terminate_ref(&mut self, token: AntiCallToken) -> io::Result<()> {
        let end = std::mem::take(&mut self.checksums).finish();
        let ended = self.file.write_all(&end).and_then(|()| self.file.terminate_ref(token));
        self.noted(ended)
    }
}
