//! [`HubPart`]: the splits on the Hub that a data set without local files consists of.

use std::path::PathBuf;

use super::{BuiltIn, DataSetConfig, ScandiQaConfig};

/// Names of a development split, of which a data set has one.
const DEV: [&str; 4] = ["dev", "validation", "valid", "val"];
/// The split that most data sets train on.
const TRAIN: &str = "train";
/// All rows are for training.
const ALL_TRAIN: [f64; 3] = [1.0, 0.0, 0.0];
/// All rows are for evaluation while training.
const ALL_DEV: [f64; 3] = [0.0, 1.0, 0.0];

/// One split of a data set on the Hub, and the use of its rows.
#[derive(Debug, Clone, PartialEq)]
pub struct HubPart {
    /// `owner/name`, perhaps with `@revision`.
    pub repository: String,
    /// Configuration, where the data set has several.
    pub config: Option<String>,
    /// Names of the split; the first one that exists is meant.
    pub splits: Vec<String>,
    /// False if the data set may lack the split.
    pub is_required: bool,
    /// Shares of its rows for training, development and test, in the order of the files.
    pub shares: [f64; 3],
    /// A local folder that is used instead of the Hub if it exists.
    pub folder: Option<PathBuf>,
    /// The files on this machine; empty until they are downloaded.
    pub files: Vec<PathBuf>,
}

impl HubPart {
    fn new(repository: &str, config: Option<&str>, splits: &[&str], shares: [f64; 3]) -> Self {
        Self {
            repository: repository.to_owned(),
            config: config.map(str::to_owned),
            splits: splits.iter().map(|split| (*split).to_owned()).collect(),
            is_required: true,
            shares,
            folder: None,
            files: Vec::new(),
        }
    }

    /// A split that the data set may lack.
    fn optional(self) -> Self {
        Self { is_required: false, ..self }
    }

    /// The part as a message names it: repository, configuration and split.
    #[must_use]
    pub fn label(&self) -> String {
        let config = self.config.as_ref().map_or_else(String::new, |config| format!(" {config}"));
        format!("{}{config} {}", self.repository, self.splits.first().map_or("", String::as_str))
    }
}

/// The parts of a data set without `files`; none for one with them.
pub(super) fn parts_of(set: &DataSetConfig) -> Vec<HubPart> {
    if !set.files.is_empty() {
        return Vec::new();
    }
    let (config, split) = (set.config.as_deref(), set.split.as_deref().unwrap_or(TRAIN));
    let source = |usual: &'static str| set.source.clone().unwrap_or_else(|| usual.to_owned());
    match (set.built_in, &set.scandi_qa, &set.source) {
        (Some(BuiltIn::ScandiQa), Some(keys), _) => scandi_qa(keys),
        (Some(BuiltIn::Nli), _, _) => {
            let source = source("Fremtind/all-nli-norwegian");
            let train = HubPart::new(&source, config, &[split], ALL_TRAIN);
            vec![train, HubPart::new(&source, config, &DEV, ALL_DEV).optional()]
        }
        (Some(BuiltIn::Ddsc), _, _) => {
            vec![HubPart::new(&source("DDSC/nordic-embedding-training-data"), config, &[split], ALL_TRAIN)]
        }
        (Some(BuiltIn::Eti), _, _) => {
            vec![HubPart::new(&source("thivy/eti-embedding-training-data"), config, &[split], ALL_TRAIN)]
        }
        (_, _, Some(source)) => vec![HubPart::new(source, config, &[split], ALL_TRAIN)],
        _ => Vec::new(),
    }
}

/// The sources of `scandi_qa`, in the order and with the shares of the Python project's loaders.
fn scandi_qa(keys: &ScandiQaConfig) -> Vec<HubPart> {
    let mut parts = Vec::new();
    if keys.use_norquad {
        parts.push(HubPart::new("ltg/norquad", None, &[TRAIN], ALL_TRAIN));
        parts.push(HubPart::new("ltg/norquad", None, &DEV, ALL_DEV).optional());
    }
    if keys.use_openbookqa {
        parts.push(HubPart::new("ltg/noropenbookqa", Some("nb"), &[TRAIN], ALL_TRAIN));
        parts.push(HubPart::new("ltg/noropenbookqa", Some("nb"), &["test"], [0.0, 0.5, 0.5]).optional());
    }
    if keys.use_scandiqa {
        // the data set itself is a script; its rows are on the branch that the Hub converts
        let source = "alexandrainst/scandi-qa@refs/convert/parquet";
        let part = |language: &String| HubPart::new(source, Some(language), &[TRAIN], [0.9, 0.1, 0.0]);
        parts.extend(keys.scandiqa_languages.iter().map(part));
    }
    if keys.use_supervised_da {
        parts.push(HubPart::new("jealk/supervised-da", None, &[TRAIN], [0.8, 0.1, 0.1]));
    }
    if keys.use_paws {
        let folder = keys.paws_data_dir.as_ref().map(|folder| folder.join("nb"));
        let part = |splits: &[&str], shares| HubPart {
            folder: folder.clone(),
            ..HubPart::new("NbAiLab/norwegian-paws-x", Some("nb"), splits, shares)
        };
        parts.push(part(&[TRAIN], ALL_TRAIN));
        parts.push(part(&DEV, ALL_DEV).optional());
    }
    parts
}
