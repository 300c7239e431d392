//! Upload of large files to the store that the Hub names: a file in one request, or in parts.
//!
//! The store is another server, which gets no token of the user: its addresses are signed.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Take};

use anyhow::Result;
use indicatif::ProgressBar;
use serde_json::{Value, json};
use splade_files::Error;
use ureq::SendBody;

use super::files::LocalFile;
use super::{Destination, Shown};
use crate::commands::interrupt;
use crate::console::size;
use crate::http::{NetworkError, SendMethod, header};
use crate::hub::HubError;
use crate::hub::client::redirected;
use crate::hub::download::{transfer_bar, with_retries};

/// Largest number of objects in one request.
const BATCH: usize = 256;
/// Largest number of redirects of one request.
const REDIRECTS_MAX: usize = 5;
/// Headers that are not taken from an action: no credentials leave for another server, and the length is known here.
const KEPT_BACK: [&str; 3] = ["authorization", "content-length", "transfer-encoding"];
/// Address of the public Hub, in whose place a mirror stands.
const PUBLIC: &str = "https://huggingface.co";

/// A large file and its SHA-256.
#[derive(Debug)]
pub(super) struct Object<'a> {
    pub(super) file: &'a LocalFile,
    pub(super) oid: &'a str,
}

/// An address of the store, with what it asks for.
struct Action {
    url: String,
    headers: Vec<(String, String)>,
    /// size of a part and addresses of all parts; none for a file in one request
    parts: Option<(u64, Vec<String>)>,
}

impl Destination {
    /// Uploads the objects that the store lacks. Returns their hashes.
    pub(super) fn store(&self, objects: &[Object<'_>], shown: Shown) -> Result<BTreeSet<String>> {
        let mut sent = BTreeSet::new();
        for objects in objects.chunks(BATCH) {
            let asked: Vec<(&str, u64)> = objects.iter().map(|object| (object.oid, object.file.size)).collect();
            for answer in self.batch(&asked)? {
                let oid = answer.get("oid").and_then(Value::as_str).unwrap_or_default();
                let object = objects.iter().find(|object| object.oid == oid);
                let object = object.ok_or_else(|| self.malformed("lfs batch"))?;
                if self.store_one(object, &answer, shown)? {
                    sent.insert(oid.to_owned());
                }
            }
        }
        Ok(sent)
    }

    /// Uploads an object as the store has answered. False if the store has it.
    fn store_one(&self, object: &Object<'_>, answer: &Value, shown: Shown) -> Result<bool> {
        let name = &object.file.name;
        if let Some(error) = answer.get("error") {
            let why = error.get("message").and_then(Value::as_str).unwrap_or("no reason is given");
            return Err(HubError::run(format!("{}: {name}: the Hub refuses the file: {why}", self.id.name), "").into());
        }
        let Some(upload) = answer.pointer("/actions/upload") else {
            shown.say(&format!("{name}: the Hub has these bytes already"));
            return Ok(false);
        };
        let upload = self.action(upload)?;
        shown.say(&format!("uploading {name}: {}", size(object.file.size)));
        let bar = match shown {
            Shown::Progress => transfer_bar(name, object.file.size),
            Shown::Nothing => ProgressBar::hidden(),
        };
        let outcome = match &upload.parts {
            None => self.put(object, &upload.url, &upload.headers, 0..object.file.size, &bar).map(drop),
            Some((part_size, urls)) => self.put_parts(object, &upload, *part_size, urls, &bar),
        };
        bar.finish_and_clear();
        outcome?;
        if let Some(verify) = answer.pointer("/actions/verify") {
            self.verify(&self.action(verify)?.url, object.oid, object.file.size)?;
        }
        Ok(true)
    }

    /// Reads an action: its address, headers, and the parts among them.
    fn action(&self, action: &Value) -> Result<Action, HubError> {
        let url = action.get("href").and_then(Value::as_str).ok_or_else(|| self.malformed("lfs batch"))?;
        let none = serde_json::Map::new();
        let header = action.get("header").and_then(Value::as_object).unwrap_or(&none);
        let part_size = header.get("chunk_size").map(|size| match size {
            Value::String(text) => text.parse().ok(),
            other => other.as_u64(),
        });
        let part_size = part_size.map(|size| size.filter(|size| *size > 0).ok_or_else(|| self.malformed("lfs batch")));
        let (mut numbered, mut headers) = (Vec::new(), Vec::new());
        for (name, value) in header.iter().filter(|(name, _)| *name != "chunk_size") {
            let Some(value) = value.as_str() else { continue };
            match name.parse::<u32>() {
                Ok(number) => numbered.push((number, self.address(value))),
                Err(_) if KEPT_BACK.iter().any(|kept| name.eq_ignore_ascii_case(kept)) => {}
                Err(_) => headers.push((name.clone(), value.to_owned())),
            }
        }
        numbered.sort();
        let urls = numbered.into_iter().map(|(_, url)| url).collect();
        Ok(Action { url: self.address(url), headers, parts: part_size.transpose()?.map(|size| (size, urls)) })
    }

    /// Address that the store names. A mirror names those of the public Hub, for which it stands.
    fn address(&self, url: &str) -> String {
        match url.strip_prefix(PUBLIC).filter(|rest| rest.starts_with('/')) {
            Some(rest) => format!("{}{rest}", self.client.endpoint),
            None => url.to_owned(),
        }
    }

    /// Uploads a file in parts, each of which is repeated alone if it fails, and confirms them.
    fn put_parts(
        &self,
        object: &Object<'_>,
        upload: &Action,
        part_size: u64,
        urls: &[String],
        bar: &ProgressBar,
    ) -> Result<(), HubError> {
        let size = object.file.size;
        if size.div_ceil(part_size) != urls.len() as u64 {
            return Err(self.malformed("lfs batch"));
        }
        let mut parts = Vec::new();
        for (number, url) in (0u64..).zip(urls) {
            let range = number * part_size..size.min((number + 1) * part_size);
            let etag = self.put(object, url, &[], range, bar)?.ok_or_else(|| self.malformed("a part"))?;
            parts.push(json!({"partNumber": number + 1, "etag": etag}));
        }
        self.complete(&upload.url, object.oid, &parts)
    }

    /// Sends a range of a file to the store, and again if the connection breaks. Returns the ETag of the answer.
    fn put(
        &self,
        object: &Object<'_>,
        url: &str,
        headers: &[(String, String)],
        range: std::ops::Range<u64>,
        bar: &ProgressBar,
    ) -> Result<Option<String>, HubError> {
        let length = (range.end - range.start).to_string();
        let mut all: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        all.push(("content-length", &length));
        with_retries(HubError::is_outage, || {
            let mut url = url.to_owned();
            for _ in 0..REDIRECTS_MAX {
                let mut part = FilePart::open(object.file, &range, bar)?;
                let response =
                    self.client.http.send_body(SendMethod::Put, &url, &all, SendBody::from_reader(&mut part));
                part.check(object.file)?;
                let response = response.map_err(|why| self.store_error(object, &why))?;
                let next = header(&response, "location").filter(|_| response.status().is_redirection());
                match next {
                    Some(location) => {
                        url = redirected(&url, location).map_err(|why| self.store_error(object, &why))?;
                    }
                    None if response.status().is_success() => return Ok(header(&response, "etag").map(str::to_owned)),
                    None => return Err(self.store_refusal(object, response.status().as_u16())),
                }
            }
            Err(self.store_error(object, &NetworkError::TooManyRedirects))
        })
    }

    fn store_error(&self, object: &Object<'_>, why: &NetworkError) -> HubError {
        HubError::no_answer(&format!("{}: {}", self.id.name, object.file.name), why)
    }

    fn store_refusal(&self, object: &Object<'_>, status: u16) -> HubError {
        let of = format!("{}: {}", self.id.name, object.file.name);
        match status {
            408 | 429 | 500 | 502..=504 => HubError::busy(&of, status),
            _ => HubError::run(
                format!("{of}: the Hub's store answers {status}"),
                "run again: addresses to upload to expire, and complete files are not sent again",
            ),
        }
    }
}

/// A range of a file that is being sent.
struct FilePart<'a> {
    bytes: Take<File>,
    bar: &'a ProgressBar,
    /// number of bytes that are still to be read
    missing: u64,
    failure: Option<io::Error>,
}

impl<'a> FilePart<'a> {
    fn open(file: &LocalFile, range: &std::ops::Range<u64>, bar: &'a ProgressBar) -> Result<Self, HubError> {
        let failed = |error: anyhow::Error| HubError::run(error.to_string(), "");
        let mut bytes = file.open().map_err(failed)?;
        bytes.seek(SeekFrom::Start(range.start)).map_err(|error| failed(Error::io(&file.path)(error).into()))?;
        bar.set_position(range.start);
        let length = range.end - range.start;
        Ok(Self { bytes: bytes.take(length), bar, missing: length, failure: None })
    }

    /// Fails if the file could not be read, or is shorter than it was.
    fn check(self, file: &LocalFile) -> Result<(), HubError> {
        match self.failure {
            Some(error) => Err(HubError::run(Error::io(&file.path)(error).to_string(), "")),
            None => Ok(()),
        }
    }
}

impl Read for FilePart<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if interrupt::received() {
            return Err(io::Error::other("interrupted"));
        }
        let read = self.bytes.read(buffer).and_then(|read| match read {
            0 if self.missing > 0 && !buffer.is_empty() => Err(io::Error::other("the file has become shorter")),
            read => Ok(read),
        });
        match read {
            Ok(read) => {
                self.missing -= read as u64;
                self.bar.inc(read as u64);
                Ok(read)
            }
            Err(error) => {
                let copy = io::Error::new(error.kind(), error.to_string());
                self.failure = Some(error);
                Err(copy)
            }
        }
    }
}
