//! [`Journal`]: how far the input of a bulk run was read, kept with every commit of the unfinished index.

use anyhow::Result;
use serde_json::{Map, Value, json};
use splade_files::ResumableFolder;
use splade_index::{ImpactIndex, IndexSettings};

use super::bulk::{RESTART, Sources};
use crate::cli::IndexArgs;
use crate::digest::InputDigest;
use crate::failure::bad_input;

/// Position in the input, and what a later run must have in common with this one.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Journal {
    /// name of the run: content of another name is a leftover
    pub(super) run: String,
    /// options that change the result
    pub(super) options: Map<String, Value>,
    /// documents read and committed
    pub(super) documents: u64,
    /// id of the first document; empty before it
    pub(super) first_id: String,
    /// digest of the documents read
    pub(super) digest: String,
    /// true if the input was read to its end
    pub(super) is_complete: bool,
}

impl Journal {
    /// The journal before the first document.
    pub(super) fn new(run: &str, options: Map<String, Value>) -> Self {
        let (first_id, digest) = (String::new(), InputDigest::default().text());
        Self { run: run.to_owned(), options, documents: 0, first_id, digest, is_complete: false }
    }

    /// The journal as a line of JSON.
    pub(super) fn to_text(&self) -> String {
        json!({
            "run": self.run,
            "options": self.options,
            "documents": self.documents,
            "first_id": self.first_id,
            "digest": self.digest,
            "is_complete": self.is_complete,
        })
        .to_string()
    }

    /// Reads a journal; none if the text is something else.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let value: Value = serde_json::from_str(text).ok()?;
        let string = |key: &str| value[key].as_str().map(str::to_owned);
        Some(Self {
            run: string("run")?,
            options: value["options"].as_object()?.clone(),
            documents: value["documents"].as_u64()?,
            first_id: string("first_id")?,
            digest: string("digest")?,
            is_complete: value["is_complete"].as_bool()?,
        })
    }

    /// The first option that differs from `options`, with its value in this journal.
    pub(super) fn other_option(&self, options: &Map<String, Value>) -> Option<(String, Value)> {
        let keys = self.options.keys().chain(options.keys());
        let other = keys.into_iter().find(|key| self.options.get(*key) != options.get(*key))?;
        Some((other.clone(), self.options.get(other).cloned().unwrap_or_default()))
    }
}

/// Options that change the result.
pub(super) fn options(args: &IndexArgs, sources: &Sources<'_>) -> Map<String, Value> {
    let network = &args.network;
    let mut options = json!({
        "append": args.append,
        "vectors": args.vectors.is_some(),
        "input": args.input.is_some(),
        "pruning": args.prune.pruning().ok().map(|pruning| pruning.to_string()),
        "max_length": network.max_length,
        "drop_special_terms": network.drop_special_terms,
        "mlm_head": network.reading.mlm_head.map(|mode| format!("{mode:?}")),
    });
    if let (Some(shard), Some(options)) = (args.share.shard, options.as_object_mut()) {
        options.insert("shard".into(), shard.to_string().into());
        options.insert("presplit".into(), args.share.presplit.into());
        options.insert("backend".into(), sources.encoder.as_ref().map(|(_, backend)| *backend).into());
    }
    options.as_object().cloned().unwrap_or_default()
}

/// The index of a run that was killed or interrupted after a commit; none if there is none.
pub(super) fn left_by_interrupted(folder: &ResumableFolder) -> Result<Option<(ImpactIndex, Journal)>> {
    if !ImpactIndex::is_at(&folder.path()) {
        return Ok(None);
    }
    let index = ImpactIndex::open(&folder.path())?;
    let journal = index.note()?.as_deref().and_then(Journal::parse).filter(|journal| journal.run == folder.run());
    Ok(journal.map(|journal| (index, journal)))
}

pub(super) fn expect_same(
    folder: &ResumableFolder,
    index: &ImpactIndex,
    journal: &Journal,
    settings: &IndexSettings,
    options: &Map<String, Value>,
) -> Result<()> {
    let aside = folder.aside().display();
    // a pruning is a setting too, and its flag is the clearer name
    if let Some((option, value)) = journal.other_option(options) {
        return Err(bad_input(
            format!("{aside}: an interrupted run with another {option}, which was {value}"),
            RESTART,
        ));
    }
    if index.settings() != settings {
        return Err(bad_input(format!("{aside}: an interrupted run with another model or other settings"), RESTART));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_is_read_back() {
        let options = json!({"append": false, "max_length": null}).as_object().unwrap().clone();
        let journal = Journal { documents: 7, first_id: "d\"1".into(), ..Journal::new("a1", options.clone()) };
        assert_eq!(Journal::parse(&journal.to_text()).unwrap(), journal);
        assert_eq!(journal.other_option(&options), None);
        let other = json!({"append": false, "max_length": 8}).as_object().unwrap().clone();
        assert_eq!(journal.other_option(&other), Some(("max_length".into(), Value::Null)));
        for text in ["", "{}", "[1]", "added by run a1", r#"{"run": 1}"#] {
            assert_eq!(Journal::parse(text), None, "{text}");
        }
    }
}
