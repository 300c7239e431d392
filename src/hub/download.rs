//! [`Download`]: one file from the Hub to the cache. A download resumes, and is checked before the file is renamed.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use indicatif::ProgressBar;
use sha2::{Digest, Sha256};
use splade_files::Error;
use ureq::Body;
use ureq::http::{Response, StatusCode};

use super::HubError;
use super::cache::Repo;
use super::client::{Client, RemoteFile};
use super::id::HubId;
use crate::commands::interrupt;
use crate::console::{self, size};
use crate::http::{NetworkError, header};

/// Number of attempts in a row without a new byte after which a download fails.
const ATTEMPTS_MAX: u32 = 5;
/// Pause after the first failed attempt; each further pause is twice as long.
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// Size in bytes from which a file is logged and has a progress bar.
const LARGE_BYTES: u64 = 1 << 20;

/// A file to download, with its source and destination.
pub(super) struct Download<'a> {
    pub(super) client: &'a Client,
    pub(super) repo: &'a Repo,
    pub(super) id: &'a HubId,
    pub(super) commit: &'a str,
    pub(super) file: &'a str,
}

/// Reason why an attempt did not complete the file.
enum Stop {
    /// another attempt may succeed
    Broken(String),
    /// another attempt would fail too
    Final(anyhow::Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Final(error.into())
    }
}

impl From<HubError> for Stop {
    fn from(error: HubError) -> Self {
        Self::Final(error.into())
    }
}

impl Download<'_> {
    /// Adds the file to the snapshot. Downloads it unless its bytes are in the cache.
    ///
    /// # Errors
    /// An error of the Hub, a connection that breaks repeatedly, bytes other than announced, a full disk. The downloaded
    /// part is kept for the next attempt, unless it is wrong.
    pub(super) fn run(&self) -> Result<()> {
        let remote = with_retries(HubError::is_outage, || self.client.remote(self.id, self.commit, self.file))?;
        let blob = self.repo.blob(&remote.etag);
        self.repo.prepare()?;
        let _lock = self.repo.lock(&remote.etag)?;
        // another process may have downloaded it meanwhile
        if !blob.is_file() {
            self.fetch(&remote, &blob)?;
        }
        self.repo.link(self.commit, self.file, &remote.etag)
    }

    fn fetch(&self, remote: &RemoteFile, blob: &Path) -> Result<()> {
        let path = self.repo.incomplete(&remote.etag);
        let mut file = File::options().create(true).read(true).append(true).open(&path).map_err(Error::io(&path))?;
        let bar = self.announce(remote, file.metadata().map_err(Error::io(&path))?.len());
        let mut is_first = true;
        loop {
            self.fill(&mut file, &path, remote, &bar)?;
            if self.is_intact(&path, remote)? {
                break;
            }
            // wrong bytes may come from an earlier run, so the download is repeated once
            file.set_len(0).map_err(Error::io(&path))?;
            if !is_first {
                bar.finish_and_clear();
                // a wrong file must not be resumed
                let _ = std::fs::remove_file(&path);
                return Err(self
                    .failed("the bytes are not those that the Hub announced", "run again: the download starts anew")
                    .into());
            }
            is_first = false;
        }
        bar.finish_and_clear();
        file.sync_all().map_err(Error::io(&path))?;
        Ok(std::fs::rename(&path, blob).map_err(Error::io(blob))?)
    }

    /// Repeats requests until the file has the announced size.
    fn fill(&self, file: &mut File, path: &Path, remote: &RemoteFile, bar: &ProgressBar) -> Result<()> {
        let mut attempts = 0;
        loop {
            let before = file.metadata().map_err(Error::io(path))?.len();
            let why = match self.once(file, path, remote, bar) {
                Ok(()) => return Ok(()),
                Err(Stop::Final(error)) => return Err(error),
                Err(Stop::Broken(why)) => why,
            };
            let now = file.metadata().map_err(Error::io(path))?.len();
            attempts = if now > before { 1 } else { attempts + 1 };
            if attempts > ATTEMPTS_MAX {
                bar.finish_and_clear();
                let of = remote.size.map_or_else(String::new, |bytes| format!(" of {}", size(bytes)));
                let message = format!("{why} after {}{of}", size(now));
                return Err(self.failed(&message, "run again: the download resumes where it stopped").into());
            }
            tracing::debug!("{}: {why} at byte {now}; attempt {attempts}", self.file);
            pause(FIRST_PAUSE * 2u32.pow(attempts - 1))?;
        }
    }

    /// Sends one request for the missing bytes.
    fn once(&self, file: &mut File, path: &Path, remote: &RemoteFile, bar: &ProgressBar) -> Result<(), Stop> {
        let mut have = file.metadata().map_err(Error::io(path))?.len();
        if Some(have) == remote.size {
            return Ok(());
        }
        // without a size it is not known which bytes are missing
        if remote.size.is_none_or(|size| have > size) {
            have = 0;
        }
        let response =
            self.client.bytes(self.id, self.commit, self.file, have).map_err(|why| Stop::Broken(why.to_string()))?;
        have = self.agree(&response, have)?;
        file.set_len(have).map_err(Error::io(path))?;
        bar.set_position(have);
        let mut body = response.into_body().into_reader();
        let mut buffer = vec![0; 256 << 10];
        loop {
            stop_if_interrupted()?;
            let read = body.read(&mut buffer).map_err(|error| Stop::Broken(NetworkError::from(error).to_string()))?;
            if read == 0 {
                break;
            }
            file.write_all(&buffer[..read]).map_err(Error::io(path))?;
            have += read as u64;
            bar.set_position(have);
            if remote.size.is_some_and(|size| have > size) {
                // the caller finds the wrong size and starts anew
                return Ok(());
            }
        }
        match remote.size {
            Some(size) if have < size => Err(Stop::Broken("the connection broke".to_owned())),
            _ => Ok(()),
        }
    }

    /// Position of the first byte in the answer to a request for the bytes from `start` on.
    fn agree(&self, response: &Response<Body>, start: u64) -> Result<u64, Stop> {
        match response.status() {
            StatusCode::PARTIAL_CONTENT => {
                let range = header(response, "content-range").and_then(|range| range.strip_prefix("bytes "));
                let first = range.and_then(|range| range.split_once('-')).and_then(|(first, _)| first.parse().ok());
                if first == Some(start) {
                    return Ok(start);
                }
                Err(self.failed("the answer is another part of the file than requested", "check HF_ENDPOINT").into())
            }
            // the whole file, from a server that does not support ranges
            StatusCode::OK => Ok(0),
            StatusCode::RANGE_NOT_SATISFIABLE if start > 0 => {
                Err(self.failed("the answer says that the file has no further bytes", "run again").into())
            }
            status => {
                let error = self.client.refusal(self.id, response);
                if error.is_busy() {
                    Err(Stop::Broken(format!("answer {status}").to_lowercase()))
                } else {
                    Err(error.into())
                }
            }
        }
    }

    /// True if a file has the announced size and, where its ETag is a SHA-256, that checksum.
    fn is_intact(&self, path: &Path, remote: &RemoteFile) -> Result<bool> {
        let size = std::fs::metadata(path).map_err(Error::io(path))?.len();
        if remote.size.is_some_and(|announced| announced != size) {
            return Ok(false);
        }
        if remote.etag.len() != 64 || !remote.etag.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Ok(true);
        }
        let mut digest = Sha256::new();
        let mut file = File::open(path).map_err(Error::io(path))?;
        std::io::copy(&mut file, &mut digest).map_err(Error::io(path))?;
        let hex: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(hex == remote.etag.to_ascii_lowercase())
    }

    fn announce(&self, remote: &RemoteFile, have: u64) -> ProgressBar {
        let Some(bytes) = remote.size.filter(|bytes| *bytes >= LARGE_BYTES) else {
            tracing::debug!("downloading {}: {}", self.id, self.file);
            return ProgressBar::hidden();
        };
        let rest = if have > 0 { format!(", from {} on", size(have)) } else { String::new() };
        tracing::info!("downloading {}: {}, {}{rest}", self.id, self.file, size(bytes));
        let bar = transfer_bar(self.file, bytes);
        bar.set_position(have);
        bar.reset_eta();
        bar
    }

    fn failed(&self, why: &str, hint: &str) -> HubError {
        HubError::run(format!("{}: {}: {why}", self.id, self.file), hint)
    }
}

/// Progress bar of a file that is downloaded or uploaded.
pub(super) fn transfer_bar(file: &str, bytes: u64) -> ProgressBar {
    let bar = console::progress(file, Some(bytes));
    bar.set_style(console::style(
        "{msg} {bar:30} {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} {eta} left",
    ));
    bar
}

/// Repeats a call until it succeeds, fails with an error that `again` rejects, or has failed [`ATTEMPTS_MAX`] times.
pub(super) fn with_retries<T>(
    again: fn(&HubError) -> bool,
    call: impl Fn() -> Result<T, HubError>,
) -> Result<T, HubError> {
    let mut attempts = 0;
    loop {
        match call() {
            Err(error) if again(&error) && attempts + 1 < ATTEMPTS_MAX => pause(FIRST_PAUSE * 2u32.pow(attempts))?,
            outcome => return outcome,
        }
        attempts += 1;
    }
}

/// Waits, and fails if a signal arrives.
pub(super) fn pause(mut time: Duration) -> Result<(), HubError> {
    const STEP: Duration = Duration::from_millis(50);
    while !time.is_zero() {
        stop_if_interrupted()?;
        std::thread::sleep(time.min(STEP));
        time = time.saturating_sub(STEP);
    }
    Ok(())
}

fn stop_if_interrupted() -> Result<(), HubError> {
    match interrupt::received() {
        true => Err(HubError::run("interrupted: the downloaded part is kept for the next run", "")),
        false => Ok(()),
    }
}
