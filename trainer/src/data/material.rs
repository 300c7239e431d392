//! [`TrainingData`]: the data sets of a config, read, and the [`Material`] that a session takes batches of.

use rayon::prelude::*;
use splade_core::Vocabulary;

use super::{DataSet, LabelUse, SourceReport, load_data_set, load_texts};
use crate::config::{InnerLossType, MaskingUnit, Objective, TrainConfig};
use crate::{Error, Result, Trainee};

/// The examples or the running text of a session.
#[derive(Debug)]
pub enum Material {
    /// sets of examples, for retrieval
    Examples(Vec<DataSet>),
    /// pieces of running text, for the masked-language-model objective
    Pieces(Vec<Piece>),
}

/// A piece of running text with its special tokens.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Piece {
    /// token ids
    pub ids: Vec<u32>,
    /// true for every token that begins a word; empty where tokens are masked one by one
    pub begins: Vec<bool>,
}

/// The data sets of a config, read.
pub(crate) struct TrainingData {
    /// examples to train on
    train: Vec<DataSet>,
    /// examples to evaluate on
    pub(crate) dev: Vec<DataSet>,
    /// running text, for the masked-language-model objective
    texts: Vec<String>,
    /// the rows found in each set
    pub(crate) reports: Vec<SourceReport>,
}

impl TrainingData {
    /// Reads every data set that is enabled.
    ///
    /// # Errors
    /// A file that cannot be read, a set without a usable row, no set at all.
    pub(crate) fn read(config: &TrainConfig) -> Result<Self> {
        let mut data = Self { train: Vec::new(), dev: Vec::new(), texts: Vec::new(), reports: Vec::new() };
        if config.datasets.enabled().next().is_none() {
            return Err(Error::config("datasets", "no data set is enabled", "add one with `files: [...]`"));
        }
        if config.training.objective == Objective::Mlm {
            for set in config.datasets.enabled() {
                data.texts.extend(load_texts(set)?);
            }
            return Ok(data);
        }
        let labels = match config.loss.inner_loss {
            InnerLossType::MultipleNegativesRanking => LabelUse::Ignored,
            InnerLossType::MarginMse => LabelUse::Required,
            InnerLossType::DistillKlDiv => LabelUse::Scores,
        };
        for set in config.datasets.enabled() {
            let loaded = load_data_set(set, config.training.seed, labels)?;
            data.train.extend(loaded.train);
            data.dev.extend(loaded.dev);
            data.reports.push(loaded.report);
        }
        Ok(data)
    }

    /// The texts that a tokenizer or idf weights are made from: running text, or the positives.
    pub(crate) fn texts(&self) -> Vec<String> {
        let positives = self.train.iter().flat_map(|set| &set.examples).map(|example| &example.positive);
        self.texts.iter().chain(positives).cloned().collect()
    }

    /// The name and the number of examples of each set of the config; a set that was split in two is one of them.
    pub(crate) fn sizes(&self) -> Vec<(String, usize)> {
        let mut sizes: Vec<(String, usize)> = Vec::new();
        for set in &self.train {
            match sizes.last_mut().filter(|(name, _)| *name == set.set) {
                Some((_, size)) => *size += set.examples.len(),
                None => sizes.push((set.set.clone(), set.examples.len())),
            }
        }
        sizes
    }

    /// The largest number of documents of an example.
    pub(crate) fn most_documents(&self) -> usize {
        let documents = |set: &DataSet| 1 + set.examples.first().map_or(0, |example| example.negatives.len());
        self.train.iter().map(documents).max().unwrap_or(1)
    }

    /// Moves the data into the material of a session, so that there is one copy of it.
    ///
    /// # Errors
    /// A text that the tokenizer refuses, a length that has no place for a word.
    pub(crate) fn take_material(&mut self, config: &TrainConfig, trainee: &Trainee) -> Result<Material> {
        let with_words = config.mlm.masking != MaskingUnit::Token;
        match config.training.objective {
            Objective::Retrieval => Ok(Material::Examples(std::mem::take(&mut self.train))),
            Objective::Mlm => Ok(Material::Pieces(pieces(trainee, &std::mem::take(&mut self.texts), with_words)?)),
        }
    }
}

/// Divides running text into pieces of the greatest length, each with the special tokens of a text of its own: there is
/// no padding but in the last piece. A word may be divided between two pieces.
fn pieces(trainee: &Trainee, texts: &[String], with_words: bool) -> Result<Vec<Piece>> {
    // of the config, or of the position table where that is shorter
    let length = trainee.vocabulary().max_length();
    let vocabulary = trainee.vocabulary().with_max_length(usize::MAX)?;
    let frame = vocabulary.tokenize_for_network("")?;
    // the special tokens before and after a text: half of an even number, all before in an odd one (`<s>` alone)
    let (before, after) = frame.split_at(frame.len().div_ceil(2));
    let n_words = length.saturating_sub(frame.len());
    if n_words == 0 {
        let message = format!("{length} is the number of special tokens alone");
        return Err(Error::config("training.max_seq_length", message, "make it larger"));
    }
    let (ids, begins) = tokens(&vocabulary, texts, with_words)?;
    let special = vocabulary.special_dims();
    let has_a_word = |words: &[u32]| words.iter().any(|id| special.binary_search(id).is_err());
    let framed = |words: &[bool]| [&vec![true; before.len()], words, &vec![true; after.len()]].concat();
    let piece = |(at, words): (usize, &[u32])| Piece {
        ids: [before, words, after].concat(),
        begins: begins.chunks(n_words).nth(at).map(framed).unwrap_or_default(),
    };
    // a piece of unknown words alone has no token to mask
    Ok(ids.chunks(n_words).enumerate().filter(|(_, words)| has_a_word(words)).map(piece).collect())
}

/// The token ids of all texts, one after the other, and which of them begin a word, if that is wanted.
fn tokens(vocabulary: &Vocabulary, texts: &[String], with_words: bool) -> Result<(Vec<u32>, Vec<bool>)> {
    let read = |text: &String| match with_words {
        true => vocabulary.tokenize_words(text),
        false => vocabulary.tokenize(text).map(|ids| (ids, Vec::new())),
    };
    let read: Vec<(Vec<u32>, Vec<bool>)> = texts.par_iter().map(read).collect::<splade_core::Result<_>>()?;
    let (ids, begins): (Vec<_>, Vec<_>) = read.into_iter().unzip();
    Ok((ids.concat(), begins.concat()))
}
