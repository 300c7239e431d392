//! [`Destination`]: a repository of the Hub that models are uploaded to.
//!
//! An upload is one commit. The Hub first decides which files are large and says which ones it has (`api`). Large files
//! go to its store (`lfs`), except those that the store has: this is how an upload resumes. The commit names them, and
//! contains all other files. It follows the commit that was the latest before, so that no commit of another is lost: if
//! there is a later one, the upload compares again.

mod api;
mod files;
mod lfs;

use std::collections::BTreeSet;

use anyhow::Result;
use serde_json::{Value, json};

use self::api::{Committed, Decision, Head, Mode, encoded, file_line, header_line, large_file_line, whoami};
#[cfg(feature = "train")]
pub(crate) use self::files::LAST_CHECKPOINT;
pub(crate) use self::files::{Files, LocalFile};
use self::lfs::Object;
use super::client::Client;
use super::download::{FIRST_PAUSE, pause};
use super::error::hub_name;
use super::id::{HubId, MAIN, is_commit};
use super::{HubError, endpoint, is_offline, token_path};
use crate::commands::interrupt;
use crate::environment;
use crate::failure::{Failure, bad_input};

/// Default time without an answer after which a connection counts as broken: a commit of many files takes a while.
const TIMEOUT_SECONDS: u64 = 120;
/// Number of commits that are tried before an upload fails.
const ATTEMPTS_MAX: u32 = 5;
/// Largest number of files in one question.
const BATCH: usize = 256;

/// A repository to upload to, and a client whose token may write there.
#[derive(Debug)]
pub(crate) struct Destination {
    client: Client,
    /// its revision is the branch
    id: HubId,
    /// user of the token
    user: String,
}

/// Fate of a file in an upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileStatus {
    Uploaded,
    /// new in the branch, but its bytes were in the store
    Stored,
    Unchanged,
    /// named by the repository's `.gitignore`
    Ignored,
}

impl FileStatus {
    /// The name in tables and in JSON.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Uploaded => "uploaded",
            Self::Stored => "already stored",
            Self::Unchanged => "unchanged",
            Self::Ignored => "ignored",
        }
    }
}

/// Result of an upload.
#[derive(Debug)]
pub(crate) struct Pushed {
    /// in the order of the upload's files
    pub(crate) statuses: Vec<FileStatus>,
    /// latest commit of the branch
    pub(crate) commit: String,
    /// false if the branch had every file already
    pub(crate) is_new: bool,
}

/// Log lines and progress bars of an upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shown {
    Progress,
    /// an upload beside a training, which has the terminal
    #[cfg_attr(not(feature = "train"), expect(dead_code, reason = "only a training uploads beside something else"))]
    Nothing,
}

impl Shown {
    fn say(self, line: &str) {
        match self {
            Self::Progress => tracing::info!("{line}"),
            Self::Nothing => tracing::debug!("{line}"),
        }
    }

    fn warn(self, line: &str) {
        match self {
            Self::Progress => tracing::warn!("{line}"),
            Self::Nothing => tracing::debug!("{line}"),
        }
    }
}

/// A file during an upload.
struct Item<'a> {
    file: &'a LocalFile,
    mode: Mode,
    /// SHA-256 of a large file, git's hash of another
    hash: Option<(Mode, String)>,
    /// true if the branch does not have it
    is_pending: bool,
    status: FileStatus,
}

impl Destination {
    /// Opens a repository, `owner/name` or the name of one of the user's own, and makes it if there is none. Likewise its
    /// branch.
    ///
    /// # Errors
    /// No token, or one that may not write; a public repository, if a private one is wanted; no network.
    pub(crate) fn open(repo: &str, branch: Option<&str>, private: bool) -> Result<Self> {
        let (owner, name) = parse(repo, branch)?;
        if is_offline() {
            return Err(bad_input(
                format!("{repo}: an upload needs the network"),
                "run without --offline and HF_HUB_OFFLINE",
            ));
        }
        let client = Client::with_timeout(TIMEOUT_SECONDS)?;
        if client.token_source.is_none() {
            return Err(no_token(repo));
        }
        let user = whoami(&client, repo)?;
        let id = HubId { name: format!("{}/{}", owner.as_ref().unwrap_or(&user), name.name), ..name };
        let destination = Self { client, id, user };
        destination.create(private)?;
        let head = destination.find_branch()?;
        if private && !head.is_private {
            let settings = format!("{}/settings", destination.url());
            return Err(bad_input(
                format!("{}: the repository exists and is public", destination.id.name),
                format!("make it private at {settings}, or do not ask for a private one"),
            ));
        }
        Ok(destination)
    }

    /// `owner/name`.
    pub(crate) fn name(&self) -> &str {
        &self.id.name
    }

    /// Branch that is uploaded to.
    pub(crate) fn branch(&self) -> &str {
        &self.id.revision
    }

    /// Address of the repository.
    pub(crate) fn url(&self) -> String {
        format!("{}/{}", self.client.endpoint, self.id.name)
    }

    /// Uploads files in one commit with this message.
    ///
    /// # Errors
    /// A file that cannot be read, an answer of the Hub that is an error, an interrupt. The branch has the whole commit then
    /// or nothing of it.
    pub(crate) fn push(&self, files: &Files, message: &str) -> Result<Pushed> {
        self.push_until_done(files, message, Shown::Progress).map_err(|error| match interrupt::received() {
            true => interrupt::error("interrupted", "run again: what is uploaded is not sent again"),
            false => error,
        })
    }

    /// Uploads files as [`push`](Self::push) does, without log lines and progress bars.
    #[cfg(feature = "train")]
    pub(crate) fn push_quietly(&self, files: &Files, message: &str) -> Result<Pushed> {
        self.push_until_done(files, message, Shown::Nothing)
    }

    fn push_until_done(&self, files: &Files, message: &str, shown: Shown) -> Result<Pushed> {
        let mut items: Vec<Item<'_>> = files.files.iter().map(Item::new).collect();
        let mut was_sent = false;
        let mut attempts = 0;
        loop {
            let head = self.find_branch()?;
            self.compare(&mut items, shown)?;
            if let Some(commit) = head.commit.as_ref().filter(|_| !items.iter().any(|item| item.is_pending)) {
                return Ok(Pushed::new(&items, commit.clone(), was_sent));
            }
            self.store_large(&mut items, shown)?;
            let failure = match self.commit(&items, head.commit.as_deref(), message, shown)? {
                Committed::Done(commit) => {
                    let is_new = head.commit.as_ref() != Some(&commit);
                    return Ok(Pushed::new(&items, commit, is_new));
                }
                Committed::Moved => HubError::run(
                    format!("{}: others commit to {} at the same time", self.id.name, self.id.revision),
                    "run again: what is uploaded is not sent again",
                ),
                // if it did arrive, the next comparison finds nothing to upload
                Committed::Unknown(error) => {
                    was_sent = true;
                    error
                }
            };
            attempts += 1;
            if attempts == ATTEMPTS_MAX {
                return Err(failure.into());
            }
            tracing::debug!("{failure}; attempt {attempts}");
            pause(FIRST_PAUSE * 2u32.pow(attempts - 1))?;
        }
    }

    /// Latest commit of the branch, which is made if there is none.
    fn find_branch(&self) -> Result<Head, HubError> {
        if let Some(head) = self.head()? {
            return Ok(head);
        }
        if self.id.revision == MAIN {
            // a repository without a commit
            return Ok(Head { commit: None, is_private: self.is_private()? });
        }
        self.make_branch()?;
        self.head()?.ok_or_else(|| HubError::no_revision(&self.id))
    }

    /// Finds out which files the branch does not have.
    fn compare(&self, items: &mut [Item<'_>], shown: Shown) -> Result<()> {
        for items in items.chunks_mut(BATCH) {
            let asked: Vec<Value> = items.iter().map(|item| question(item.file)).collect::<Result<_>>()?;
            let mut decisions = self.preupload(&asked)?;
            for item in items {
                let decision = decisions.remove(&item.file.name).ok_or_else(|| self.malformed("preupload"))?;
                if decision.is_ignored && item.status != FileStatus::Ignored {
                    shown.warn(&format!("{}: left out: the repository's .gitignore names it", item.file.name));
                }
                item.decide(&decision)?;
            }
        }
        Ok(())
    }

    /// Uploads the pending large files that the store lacks; equal files are sent once.
    fn store_large(&self, items: &mut [Item<'_>], shown: Shown) -> Result<()> {
        let mut seen = BTreeSet::new();
        let objects: Vec<Object<'_>> = items
            .iter()
            .filter(|item| item.is_pending && item.mode == Mode::Large)
            .filter_map(|item| Some(Object { file: item.file, oid: &item.hash.as_ref()?.1 }))
            .filter(|object| seen.insert(object.oid))
            .collect();
        let sent = if objects.is_empty() { BTreeSet::new() } else { self.store(&objects, shown)? };
        for item in items.iter_mut().filter(|item| item.is_pending) {
            let is_stored = item.mode == Mode::Large && item.hash.as_ref().is_some_and(|(_, oid)| !sent.contains(oid));
            // an earlier attempt may have sent it
            if item.status != FileStatus::Uploaded {
                item.status = if is_stored { FileStatus::Stored } else { FileStatus::Uploaded };
            }
        }
        Ok(())
    }

    /// Commits the pending files on top of `parent`.
    fn commit(&self, items: &[Item<'_>], parent: Option<&str>, message: &str, shown: Shown) -> Result<Committed> {
        let pending = || items.iter().filter(|item| item.is_pending);
        shown.say(&format!("committing {} files to {}", pending().count(), self.id));
        let mut lines = format!("{}\n", header_line(message, parent)).into_bytes();
        for item in pending() {
            let line = match (item.mode, &item.hash) {
                (Mode::Large, Some((_, oid))) => large_file_line(&item.file.name, oid, item.file.size),
                _ => file_line(&item.file.name, &item.file.read()?),
            };
            lines.extend(format!("{line}\n").into_bytes());
        }
        interrupt::check()?;
        Ok(self.send_commit(&lines)?)
    }
}

impl<'a> Item<'a> {
    fn new(file: &'a LocalFile) -> Self {
        Self { file, mode: Mode::Regular, hash: None, is_pending: false, status: FileStatus::Unchanged }
    }

    /// Compares the file with that of the branch.
    fn decide(&mut self, decision: &Decision) -> Result<()> {
        // the store takes no empty objects
        self.mode = if self.file.size == 0 { Mode::Regular } else { decision.mode };
        self.is_pending = false;
        if decision.is_ignored {
            self.status = FileStatus::Ignored;
            return Ok(());
        }
        let hash = match self.hash.take().filter(|(mode, _)| *mode == self.mode) {
            Some((_, hash)) => hash,
            None if self.mode == Mode::Large => self.file.sha256()?,
            None => self.file.git_hash()?,
        };
        self.is_pending = decision.hash.as_ref() != Some(&hash);
        self.hash = Some((self.mode, hash));
        Ok(())
    }
}

impl Pushed {
    fn new(items: &[Item<'_>], commit: String, is_new: bool) -> Self {
        Self { statuses: items.iter().map(|item| item.status).collect(), commit, is_new }
    }
}

/// Question to the Hub about a file.
fn question(file: &LocalFile) -> Result<Value> {
    Ok(json!({"path": file.name, "size": file.size, "sample": encoded(&file.sample()?)}))
}

/// Parses the name of a repository and of a branch. The owner is none for a name alone.
///
/// # Errors
/// A name that the Hub does not allow; a commit in place of a branch.
pub(crate) fn check_repo(repo: &str, branch: Option<&str>) -> Result<()> {
    parse(repo, branch).map(drop)
}

fn parse(repo: &str, branch: Option<&str>) -> Result<(Option<String>, HubId)> {
    let wrong = || bad_input(format!("{repo:?} is not the name of a repository"), "give owner/name");
    if repo.contains('@') {
        return Err(bad_input(
            format!("{repo}: a repository to upload to has no @"),
            "give owner/name; `splade push` takes a branch by --revision",
        ));
    }
    let (owner, name) = match repo.split_once('/') {
        Some((owner, name)) => (Some(owner), name),
        None => (None, repo),
    };
    let branch = branch.unwrap_or(MAIN);
    // a stand-in for the owner, who is not known before the token is
    let id = HubId::parse(&format!("{}/{name}@{branch}", owner.unwrap_or("me")))?.ok_or_else(wrong)?;
    if is_commit(branch) {
        return Err(bad_input(format!("{repo}: {branch} is a commit"), "give a branch to commit to"));
    }
    Ok((owner.map(str::to_owned), HubId { name: name.to_owned(), ..id }))
}

/// Error for a user without a token.
fn no_token(repo: &str) -> anyhow::Error {
    let why = match environment::flag("HF_HUB_DISABLE_IMPLICIT_TOKEN") {
        true => "HF_HUB_DISABLE_IMPLICIT_TOKEN is set".to_owned(),
        false => format!("HF_TOKEN is not set, and there is no {}", token_path().display()),
    };
    Failure::input(
        format!("{repo}: an upload to {} needs a token: {why}", hub_name()),
        format!("set HF_TOKEN to one that may write, from {}/settings/tokens", endpoint()),
    )
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_have_a_name_and_a_branch() {
        let (owner, id) = parse("acme/splade", None).unwrap();
        assert_eq!((owner.as_deref(), id.name.as_str(), id.revision.as_str()), (Some("acme"), "splade", "main"));
        let (owner, id) = parse("splade", Some("refs/pr/1")).unwrap();
        assert_eq!((owner, id.name.as_str(), id.revision.as_str()), (None, "splade", "refs/pr/1"));
        let commit = "0a".repeat(20);
        for (repo, branch) in [
            ("", None),
            ("a/b/c", None),
            ("a/", None),
            ("/b", None),
            ("a/b@main", None),
            ("./a", None),
            ("a b", None),
            ("a/b", Some("..")),
            ("a/b", Some(commit.as_str())),
        ] {
            assert!(parse(repo, branch).is_err(), "{repo} {branch:?}");
        }
    }
}
