//! One file of the Hub into the cache: going on where an earlier try stopped, checked before it gets its name.

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

/// Tries in a row without a single new byte before giving up.
const MOST_TRIES: u32 = 5;
/// The pause after the first of them; each is twice as long as the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// Files from this size on are announced, and have a bar on a terminal.
const LARGE: u64 = 1 << 20;

/// A file to fetch, and where from and to.
pub(super) struct Download<'a> {
    pub(super) client: &'a Client,
    pub(super) repo: &'a Repo,
    pub(super) id: &'a HubId,
    pub(super) commit: &'a str,
    pub(super) file: &'a str,
}

/// How a try ended that did not bring the whole file.
enum Stop {
    /// another may
    Broken(String),
    /// none will
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
    /// Puts the file into the snapshot, from the Hub unless its bytes are in the cache already.
    ///
    /// # Errors
    /// A refusal, a connection that stays broken, bytes that are not those announced, a disk that is full. What has come
    /// stays for the next time, unless it is wrong.
    pub(super) fn run(&self) -> Result<()> {
        let remote = patiently(HubError::is_outage, || self.client.remote(self.id, self.commit, self.file))?;
        let blob = self.repo.blob(&remote.etag);
        self.repo.prepare()?;
        let _lock = self.repo.lock(&remote.etag)?;
        // another process may have brought it meanwhile
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
            if self.is_right(&path, remote)? {
                break;
            }
            // bytes of an earlier run may be to blame, once
            file.set_len(0).map_err(Error::io(&path))?;
            if !is_first {
                bar.finish_and_clear();
                // nothing in it is worth keeping
                let _ = std::fs::remove_file(&path);
                return Err(self.failed("what came is not what the Hub announced", "run again: it starts anew").into());
            }
            is_first = false;
        }
        bar.finish_and_clear();
        file.sync_all().map_err(Error::io(&path))?;
        Ok(std::fs::rename(&path, blob).map_err(Error::io(blob))?)
    }

    /// Tries until the file is as long as announced.
    fn fill(&self, file: &mut File, path: &Path, remote: &RemoteFile, bar: &ProgressBar) -> Result<()> {
        let mut tries = 0;
        loop {
            let before = file.metadata().map_err(Error::io(path))?.len();
            let why = match self.once(file, path, remote, bar) {
                Ok(()) => return Ok(()),
                Err(Stop::Final(error)) => return Err(error),
                Err(Stop::Broken(why)) => why,
            };
            let now = file.metadata().map_err(Error::io(path))?.len();
            tries = if now > before { 1 } else { tries + 1 };
            if tries > MOST_TRIES {
                bar.finish_and_clear();
                let of = remote.size.map_or_else(String::new, |bytes| format!(" of {}", size(bytes)));
                let message = format!("{why} after {}{of}", size(now));
                return Err(self.failed(&message, "run again: it resumes where it stopped").into());
            }
            tracing::debug!("{}: {why} at byte {now}; try {tries}", self.file);
            pause(FIRST_PAUSE * 2u32.pow(tries - 1))?;
        }
    }

    /// One request for what is missing.
    fn once(&self, file: &mut File, path: &Path, remote: &RemoteFile, bar: &ProgressBar) -> Result<(), Stop> {
        let mut have = file.metadata().map_err(Error::io(path))?.len();
        if Some(have) == remote.size {
            return Ok(());
        }
        // without a length nobody can tell what is missing
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
                // found out below, and begun anew
                return Ok(());
            }
        }
        match remote.size {
            Some(size) if have < size => Err(Stop::Broken("the connection broke".to_owned())),
            _ => Ok(()),
        }
    }

    /// From which byte on the answer to a request for those from `start` on is.
    fn agree(&self, response: &Response<Body>, start: u64) -> Result<u64, Stop> {
        match response.status() {
            StatusCode::PARTIAL_CONTENT => {
                let range = header(response, "content-range").and_then(|range| range.strip_prefix("bytes "));
                let first = range.and_then(|range| range.split_once('-')).and_then(|(first, _)| first.parse().ok());
                if first == Some(start) {
                    return Ok(start);
                }
                Err(self
                    .failed("the answer is another part of the file than was asked for", "check HF_ENDPOINT")
                    .into())
            }
            // the whole, from a server that cannot go on in the middle
            StatusCode::OK => Ok(0),
            StatusCode::RANGE_NOT_SATISFIABLE if start > 0 => {
                Err(self.failed("the answer is that the file has no further bytes", "run again").into())
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

    /// Whether the bytes are those announced: as many, and with the SHA-256 that a large file's ETag is.
    fn is_right(&self, path: &Path, remote: &RemoteFile) -> Result<bool> {
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
        let Some(bytes) = remote.size.filter(|bytes| *bytes >= LARGE) else {
            tracing::debug!("downloading {}: {}", self.id, self.file);
            return ProgressBar::hidden();
        };
        let rest = if have > 0 { format!(", from {} on", size(have)) } else { String::new() };
        tracing::info!("downloading {}: {}, {}{rest}", self.id, self.file, size(bytes));
        let bar = console::progress(self.file, Some(bytes));
        bar.set_style(console::style(
            "{msg} {bar:30} {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} {eta} left",
        ));
        bar.set_position(have);
        bar.reset_eta();
        bar
    }

    fn failed(&self, why: &str, hint: &str) -> HubError {
        HubError::run(format!("{}: {}: {why}", self.id, self.file), hint)
    }
}

/// Calls until it succeeds, fails for good, or has failed [`MOST_TRIES`] times.
pub(super) fn patiently<T>(
    again: fn(&HubError) -> bool,
    call: impl Fn() -> Result<T, HubError>,
) -> Result<T, HubError> {
    let mut tries = 0;
    loop {
        match call() {
            Err(error) if again(&error) && tries + 1 < MOST_TRIES => pause(FIRST_PAUSE * 2u32.pow(tries))?,
            outcome => return outcome,
        }
        tries += 1;
    }
}

/// A pause that an interrupt ends.
fn pause(mut time: Duration) -> Result<(), HubError> {
    const STEP: Duration = Duration::from_millis(50);
    while !time.is_zero() {
        stop_if_interrupted()?;
        std::thread::sleep(time.min(STEP));
        time = time.saturating_sub(STEP);
    }
    Ok(())
}

fn stop_if_interrupted() -> Result<(), HubError> {
    match interrupt::came() {
        true => Err(HubError::run("interrupted: what has come is kept for the next time", "")),
        false => Ok(()),
    }
}
