//! [`TextReport`]: lengths, duplicates and false negatives of a data set, before it is trained on.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use rayon::prelude::*;
use splade_core::Vocabulary;

use super::{Batch, DataSet, Example};
use crate::Result;

/// Examples of a data set that are tokenized for the report, at most; they are taken at even distances.
const SAMPLE: usize = 1000;
/// Batches of the first epoch whose false negatives are counted, at most.
const BATCHES: usize = 200;

/// Properties of the texts of a data set.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TextReport {
    /// Name of the data set.
    pub set: String,
    /// Number of examples.
    pub examples: usize,
    /// Examples whose texts were tokenized.
    pub sampled: usize,
    /// Lengths of queries.
    pub queries: Lengths,
    /// Lengths of documents.
    pub documents: Lengths,
    /// Examples whose query and positive both occur in an earlier one.
    pub duplicates: usize,
    /// Batches of this set among those looked at.
    pub batches: usize,
    /// Documents of these batches that count as negatives of a query, though another example has them as its positive.
    pub false_negatives: usize,
}

/// Lengths of texts in tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Lengths {
    /// Mean.
    pub mean: f64,
    /// Median.
    pub p50: usize,
    /// 95th percentile.
    pub p95: usize,
    /// Longest.
    pub max: usize,
    /// Share of the texts that are truncated.
    pub truncated: f64,
}

impl Lengths {
    fn of(mut lengths: Vec<usize>, limit: usize) -> Self {
        lengths.sort_unstable();
        let n = lengths.len().max(1);
        let at = |share: f64| lengths.get((share * (n - 1) as f64).round() as usize).copied().unwrap_or(0);
        Self {
            mean: lengths.iter().sum::<usize>() as f64 / n as f64,
            p50: at(0.5),
            p95: at(0.95),
            max: at(1.0),
            truncated: lengths.iter().filter(|length| **length > limit).count() as f64 / n as f64,
        }
    }
}

/// Reports on data sets; `batches` are those of their first epoch, of which the first ones are looked at.
///
/// # Errors
/// A text that the tokenizer refuses.
pub(crate) fn text_reports(
    sets: &[DataSet],
    vocabulary: &Vocabulary,
    batches: impl Iterator<Item = Batch>,
) -> Result<Vec<TextReport>> {
    let positives: Vec<KnownPositives> = sets.iter().map(|set| KnownPositives::of(&set.examples)).collect();
    let mut reports = sets
        .iter()
        .zip(&positives)
        .map(|(set, known)| Ok(TextReport { duplicates: known.duplicates, ..lengths_of(set, vocabulary)? }))
        .collect::<Result<Vec<TextReport>>>()?;
    for batch in batches.take(BATCHES) {
        let (Some(set), Some(report)) = (sets.get(batch.data_set), reports.get_mut(batch.data_set)) else { continue };
        report.batches += 1;
        let examples: Vec<&Example> = batch.rows.iter().filter_map(|row| set.examples.get(*row)).collect();
        report.false_negatives += positives[batch.data_set].false_negatives(&examples);
    }
    Ok(reports)
}

fn lengths_of(set: &DataSet, vocabulary: &Vocabulary) -> Result<TextReport> {
    let limit = vocabulary.max_length();
    let whole = vocabulary.with_max_length(usize::MAX)?;
    let n = set.examples.len();
    let sampled = n.min(SAMPLE);
    let examples: Vec<&Example> = (0..sampled).map(|at| &set.examples[at * n / sampled]).collect();
    let lengths = |texts: Vec<&str>| -> Result<Lengths> {
        let length = |text: &&str| Ok(whole.tokenize_for_network(text)?.len());
        Ok(Lengths::of(texts.par_iter().map(length).collect::<Result<_>>()?, limit))
    };
    let documents = examples.iter().flat_map(|example| example.texts().skip(1)).collect();
    Ok(TextReport {
        set: set.name.clone(),
        examples: n,
        sampled,
        queries: lengths(examples.iter().map(|example| example.anchor.as_str()).collect())?,
        documents: lengths(documents)?,
        ..TextReport::default()
    })
}

/// The positives of each query of a data set, as hashes: 16 bytes an example.
struct KnownPositives {
    /// query and positive, sorted
    pairs: Vec<(u64, u64)>,
    duplicates: usize,
}

impl KnownPositives {
    fn of(examples: &[Example]) -> Self {
        let pair = |example: &Example| (hash(&example.anchor), hash(&example.positive));
        let mut pairs: Vec<(u64, u64)> = examples.par_iter().map(pair).collect();
        pairs.par_sort_unstable();
        let n = pairs.len();
        pairs.dedup();
        Self { duplicates: n - pairs.len(), pairs }
    }

    fn has(&self, query: u64, document: u64) -> bool {
        self.pairs.binary_search(&(query, document)).is_ok()
    }

    /// Documents of a batch, beside a query's own positive, that are positives of the query.
    fn false_negatives(&self, batch: &[&Example]) -> usize {
        let queries: Vec<u64> = batch.iter().map(|example| hash(&example.anchor)).collect();
        let documents: Vec<(usize, bool, u64)> = batch
            .iter()
            .enumerate()
            .flat_map(|(at, example)| example.texts().skip(1).zip(0..).map(move |(text, n)| (at, n == 0, hash(text))))
            .collect();
        let is_false = |at: usize, query: u64| {
            let others = documents.iter().filter(move |(of, is_positive, _)| !(*of == at && *is_positive));
            others.filter(move |(_, _, document)| self.has(query, *document)).count()
        };
        queries.iter().enumerate().map(|(at, query)| is_false(at, *query)).sum()
    }
}

/// A hash that does not change from run to run.
pub(super) fn hash(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(anchor: &str, positive: &str, negative: &str) -> Example {
        Example {
            anchor: anchor.into(),
            positive: positive.into(),
            negatives: vec![negative.into()],
            ..Example::default()
        }
    }

    #[test]
    fn duplicates_and_false_negatives_are_counted() {
        let examples = [
            example("q", "p1", "n"),
            example("q", "p2", "n"),
            example("r", "p1", "m"),
            example("s", "p2", "p1"),
            example("q", "p1", "other"),
        ];
        let known = KnownPositives::of(&examples);
        assert_eq!(known.duplicates, 1);
        // r and s stand beside q's first row: p2 of s answers q, and the hard negative p1 of s does too; p1 answers r
        let batch: Vec<&Example> = vec![&examples[0], &examples[2], &examples[3]];
        // q: p1 of r, p2 of s, p1 of s; r: p1 of q, p1 of s; s: none of its own
        assert_eq!(known.false_negatives(&batch), 5);
        assert_eq!(known.false_negatives(&[&examples[0]]), 0);
    }

    #[test]
    fn lengths_are_counted_before_truncation() {
        let lengths = Lengths::of(vec![3, 1, 2, 10], 5);
        assert_eq!((lengths.mean, lengths.max, lengths.truncated), (4.0, 10, 0.25));
        assert_eq!((lengths.p50, lengths.p95), (3, 10));
        assert_eq!(Lengths::of(Vec::new(), 5), Lengths::default());
    }
}
