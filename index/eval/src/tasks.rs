//! Known tasks of mteb and NanoBEIR by name: data set, revision, splits, languages.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::Deserialize;

use crate::error::{Error, Result};

/// A retrieval task of mteb 2.26.24; its main score is `ndcg_at_10`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct KnownTask {
    /// mteb's name, as in `NorQuadRetrieval`
    pub name: String,
    /// the Hub's data set id
    pub dataset: String,
    /// the commit of the data set
    pub revision: String,
    /// the splits that are evaluated
    pub splits: Vec<String>,
    /// subset → languages; the only subset of most tasks is `default`
    pub languages: BTreeMap<String, Vec<String>>,
}

/// All known tasks by name: the Nordic retrieval tasks of mteb and NanoBEIR.
fn known_tasks() -> &'static [KnownTask] {
    static TASKS: LazyLock<Vec<KnownTask>> =
        LazyLock::new(|| serde_json::from_str(include_str!("tasks.json")).expect("a test reads this embedded file"));
    &TASKS
}

/// Finds the task by its name, by its data set's name without the owner, or by the short name of a NanoBEIR set. Case is
/// ignored.
///
/// ```
/// use splade_eval::known_task;
///
/// assert_eq!(known_task("norquad_retrieval").unwrap().name, "NorQuadRetrieval");
/// assert_eq!(known_task("NanoMSMARCO").unwrap().name, "NanoMSMARCORetrieval");
/// assert!(known_task("my-own-data").is_none());
/// ```
#[must_use]
pub fn known_task(name: &str) -> Option<&'static KnownTask> {
    let same = |other: &str| other.eq_ignore_ascii_case(name);
    known_tasks().iter().find(|task| {
        let dataset = task.dataset.rsplit('/').next().unwrap_or_default();
        let nano = task.name.strip_suffix("Retrieval").filter(|short| short.starts_with("Nano"));
        same(&task.name) || same(dataset) || nano.is_some_and(same)
    })
}

/// Sets of NanoBEIR: name in the configs of sentence-transformers, and name of the data set.
pub const NANO_BEIR: [(&str, &str); 13] = [
    ("climatefever", "NanoClimateFEVER"),
    ("dbpedia", "NanoDBPedia"),
    ("fever", "NanoFEVER"),
    ("fiqa2018", "NanoFiQA2018"),
    ("hotpotqa", "NanoHotpotQA"),
    ("msmarco", "NanoMSMARCO"),
    ("nfcorpus", "NanoNFCorpus"),
    ("nq", "NanoNQ"),
    ("quoraretrieval", "NanoQuoraRetrieval"),
    ("scidocs", "NanoSCIDOCS"),
    ("arguana", "NanoArguAna"),
    ("scifact", "NanoSciFact"),
    ("touche2020", "NanoTouche2020"),
];

/// Data set of NanoBEIR by its name in a config.
///
/// # Errors
/// An unknown name.
pub fn nano_beir_set(name: &str) -> Result<&'static str> {
    let found = NANO_BEIR.iter().find(|(short, _)| short.eq_ignore_ascii_case(name));
    found.map(|(_, set)| *set).ok_or_else(|| {
        let known: Vec<&str> = NANO_BEIR.iter().map(|(short, _)| *short).collect();
        Error::invalid(format!("unknown NanoBEIR set '{name}'"), format!("known are {}", known.join(", ")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_file_is_sound() {
        assert_eq!(known_tasks().len(), 38);
        assert!(known_tasks().iter().all(|task| task.revision.len() == 40 && !task.splits.is_empty()));
        let norquad = known_task("NorQuadRetrieval").unwrap();
        assert_eq!(norquad.languages["default"], ["nob-Latn"]);
        for (_, set) in NANO_BEIR {
            assert!(known_task(set).is_some(), "{set}");
        }
    }

    #[test]
    fn nano_beir_names() {
        assert_eq!(nano_beir_set("MSMARCO").unwrap(), "NanoMSMARCO");
        assert!(nano_beir_set("beir").unwrap_err().hint().unwrap().contains("touche2020"));
    }
}
