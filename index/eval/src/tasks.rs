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

impl KnownTask {
    /// True if the task has a subset in a language, given as ISO 639 code of two or three letters or as `nob-Latn`. `no` and
    /// `nor` are all of Norwegian; Bokmål and Nynorsk are Norwegian too.
    #[must_use]
    pub fn is_in(&self, language: &str) -> bool {
        self.languages.values().flatten().any(|tag| is_language(tag, language))
    }
}

/// True if `tag` (`nob-Latn`) is in `language`.
fn is_language(tag: &str, language: &str) -> bool {
    let code = tag.split('-').next().unwrap_or(tag);
    let wanted: &[&str] = match language.to_ascii_lowercase().as_str() {
        "no" | "nor" | "norwegian" => &["nor", "nob", "nno"],
        "nb" | "nob" => &["nob", "nor"],
        "nn" | "nno" => &["nno", "nor"],
        "da" | "dan" | "danish" => &["dan"],
        "sv" | "swe" | "swedish" => &["swe"],
        "en" | "eng" | "english" => &["eng"],
        _ => return tag.eq_ignore_ascii_case(language) || code.eq_ignore_ascii_case(language),
    };
    wanted.contains(&code)
}

/// Retrieval tasks of the benchmark `MTEB(Scandinavian, v1)`.
const SCANDINAVIAN: [&str; 7] = [
    "DanFeverRetrieval",
    "NorQuadRetrieval",
    "SNLRetrieval",
    "SwednRetrieval",
    "SweFaqRetrieval",
    "TV2Nordretrieval",
    "TwitterHjerneRetrieval",
];

/// Groups of known tasks, by the names that [`task_group`] knows.
pub const TASK_GROUPS: [&str; 2] = ["MTEB(Scandinavian)", "Nordic"];

/// Tasks of a group: `MTEB(Scandinavian)` (also with its version, `MTEB(Scandinavian, v1)`) has the benchmark's retrieval
/// tasks, `Nordic` every known task in Norwegian, Danish or Swedish. Case is ignored.
///
/// ```
/// use splade_eval::task_group;
///
/// assert_eq!(task_group("MTEB(Scandinavian)").unwrap().len(), 7);
/// assert!(task_group("MTEB(eng, v2)").is_none());
/// ```
#[must_use]
pub fn task_group(name: &str) -> Option<Vec<&'static KnownTask>> {
    let same = |other: &str| other.eq_ignore_ascii_case(name);
    if same(TASK_GROUPS[0]) || same("MTEB(Scandinavian, v1)") {
        let named = |name: &&str| known_tasks().iter().find(|task| task.name == **name);
        return Some(SCANDINAVIAN.iter().filter_map(named).collect());
    }
    let is_nordic = |task: &&KnownTask| ["no", "da", "sv"].iter().any(|language| task.is_in(language));
    same(TASK_GROUPS[1]).then(|| known_tasks().iter().filter(is_nordic).collect())
}

/// All known tasks by name: the Nordic retrieval tasks of mteb and NanoBEIR.
#[must_use]
pub fn known_tasks() -> &'static [KnownTask] {
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

/// True for the name of a set of NanoBEIR, as `NanoMSMARCO`.
#[must_use]
pub fn is_nano_beir_set(name: &str) -> bool {
    NANO_BEIR.iter().any(|(_, set)| *set == name)
}

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
    fn groups_and_languages_select_tasks() {
        let names =
            |group: &str| -> Vec<&str> { task_group(group).unwrap().iter().map(|task| task.name.as_str()).collect() };
        assert_eq!(names("mteb(scandinavian, v1)"), SCANDINAVIAN);
        assert_eq!(names("nordic").len(), 25, "all but the English sets of NanoBEIR");
        let of = |language: &str| known_tasks().iter().filter(|task| task.is_in(language)).count();
        assert_eq!([of("nb"), of("no"), of("nob"), of("nob-Latn"), of("xx")], [19, 19, 19, 5, 0]);
        assert!(
            known_task("NorQuadRetrieval").unwrap().is_in("NB") && !known_task("SweFaqRetrieval").unwrap().is_in("nb")
        );
    }

    #[test]
    fn nano_beir_names() {
        assert_eq!(nano_beir_set("MSMARCO").unwrap(), "NanoMSMARCO");
        assert!(nano_beir_set("beir").unwrap_err().hint().unwrap().contains("touche2020"));
    }
}
