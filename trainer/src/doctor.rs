//! [`Doctor`]: signs of a training that goes wrong, each reported once, in a sentence with the likely cause and the key to change.
//!
//! At a logging step the vectors that the step was made of are looked at, which costs almost nothing; at the end of a training
//! some rows are encoded once more. Gradient norms are looked at after every step.

use std::collections::{HashSet, VecDeque};

use candle_core::{DType, Tensor};
use splade_core::{DOCUMENT_SPARSITY, QUERY_ACTIVE_DIMS};
use splade_files::Architecture;

use crate::config::{Objective, TrainConfig};
use crate::data::DataSet;
use crate::loss::Embeddings;
use crate::{Result, Trainee};

/// Rows of a batch that are examined, at most: enough to see a collapse.
const ROWS_MAX: usize = 16;
/// Texts encoded at a time.
const TEXTS_MAX: usize = 8;
/// Steps whose gradient norms are remembered; a spike is one far above their median.
const NORMS: usize = 50;
/// Norms that have to be there before one can be a spike: those of the warm-up rise and fall.
const NORMS_MIN: usize = 20;
/// Times the median that a norm is a spike.
const SPIKE: f64 = 10.0;
/// Share of the loss from which on the regularizers leave nothing to ranking.
const REGULARIZER_SHARE: f64 = 0.9;
/// Share of the terms from which on a vector counts as full.
const FULL: f64 = 0.99;
/// Relative difference below which scores count as equal.
const EQUAL: f32 = 1e-6;

/// A sign that a training goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Sign {
    EqualScores,
    DeadDocuments,
    DeadQueries,
    FullDocuments,
    RegularizerShare,
    GradientSpike,
    SameTerms,
    TableAtZero,
    TableNegative,
    DenseDocuments,
    DenseQueries,
}

/// Vectors of a batch in a step, or of some of its rows after the training.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Examination {
    n_queries: usize,
    n_documents: usize,
    empty_queries: usize,
    empty_documents: usize,
    /// mean active dims of a query and of a document
    pub(crate) query_active_dims: f64,
    pub(crate) document_active_dims: f64,
    /// queries and documents that use each term
    query_counts: Vec<u32>,
    document_counts: Vec<u32>,
    /// true if every query scores all documents alike
    has_equal_scores: bool,
    /// mean of the entries of the queries, where they are weights of a table
    table_mean: Option<f64>,
}

impl Examination {
    /// Encodes rows of a data set, a few texts at a time.
    ///
    /// # Errors
    /// A text that the tokenizer refuses, tensor operations.
    pub(crate) fn of_rows(trainee: &Trainee, set: &DataSet, rows: &[usize]) -> Result<Self> {
        let examples: Vec<_> = rows.iter().take(ROWS_MAX).filter_map(|row| set.examples.get(*row)).collect();
        let anchors: Vec<&str> = examples.iter().map(|example| example.anchor.as_str()).collect();
        let documents = examples.iter().flat_map(|example| example.texts().skip(1)).collect::<Vec<_>>();
        let encode = |texts: &[&str], encode: &dyn Fn(&[&str]) -> Result<Tensor>| -> Result<Vec<Vec<f32>>> {
            Ok(texts.chunks(TEXTS_MAX).map(|texts| rows_of(&encode(texts)?)).collect::<Result<Vec<_>>>()?.concat())
        };
        let queries = encode(&anchors, &|texts| trainee.encode_queries(texts, None))?;
        let documents = encode(&documents, &|texts| trainee.encode_documents(texts, None))?;
        Ok(Self::of_vectors(&queries, &documents, trainee.query_table().is_some()))
    }

    /// Takes the vectors of a step.
    ///
    /// # Errors
    /// A tensor operation.
    pub(crate) fn of_step(vectors: &Embeddings, has_table: bool) -> Result<Self> {
        Ok(Self::of_vectors(&rows_of(&vectors.queries)?, &rows_of(&vectors.documents)?, has_table))
    }

    fn of_vectors(queries: &[Vec<f32>], documents: &[Vec<f32>], has_table: bool) -> Self {
        let active: Vec<Vec<(usize, f32)>> = queries.iter().map(|row| entries(row).collect()).collect();
        let n_entries: usize = active.iter().map(Vec::len).sum();
        let sum: f64 = active.iter().flatten().map(|(_, weight)| f64::from(*weight)).sum();
        let documents_active: usize = documents.iter().map(|row| entries(row).count()).sum();
        let is_empty = |row: &&Vec<f32>| entries(row).next().is_none();
        Self {
            n_queries: queries.len(),
            n_documents: documents.len(),
            empty_queries: queries.iter().filter(is_empty).count(),
            empty_documents: documents.iter().filter(is_empty).count(),
            query_active_dims: n_entries as f64 / queries.len().max(1) as f64,
            document_active_dims: documents_active as f64 / documents.len().max(1) as f64,
            query_counts: counts(queries),
            document_counts: counts(documents),
            has_equal_scores: documents.len() > 1 && active.iter().all(|query| scores_are_equal(query, documents)),
            table_mean: (has_table && n_entries > 0).then(|| sum / n_entries as f64),
        }
    }

    fn dimensions(&self) -> usize {
        self.document_counts.len()
    }

    /// Terms that some document uses.
    fn used_terms(&self) -> usize {
        self.document_counts.iter().filter(|count| **count > 0).count()
    }
}

fn rows_of(vectors: &Tensor) -> Result<Vec<Vec<f32>>> {
    Ok(vectors.detach().to_dtype(DType::F32)?.to_vec2()?)
}

/// Dims and weights that are not 0.
fn entries(row: &[f32]) -> impl Iterator<Item = (usize, f32)> {
    row.iter().copied().enumerate().filter(|(_, weight)| *weight != 0.0)
}

fn counts(rows: &[Vec<f32>]) -> Vec<u32> {
    let mut counts = vec![0; rows.first().map_or(0, Vec::len)];
    for (dim, _) in rows.iter().flat_map(|row| entries(row)) {
        counts[dim] += 1;
    }
    counts
}

fn scores_are_equal(query: &[(usize, f32)], documents: &[Vec<f32>]) -> bool {
    let score = |document: &Vec<f32>| query.iter().map(|(dim, weight)| weight * document[*dim]).sum::<f32>();
    let scores: Vec<f32> = documents.iter().map(score).collect();
    let (least, most) = scores.iter().fold((f32::MAX, f32::MIN), |(a, b), score| (a.min(*score), b.max(*score)));
    most - least <= EQUAL * most.abs().max(least.abs())
}

/// The losses of a logging window that a doctor looks at.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct LossShares {
    pub(crate) base: f64,
    pub(crate) document_regularizer: f64,
    pub(crate) query_regularizer: f64,
}

/// Active dims at the end of a training, and the cost of a search that follows from them.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Sparsity {
    /// mean active dims of a query
    pub query_active_dims: f64,
    /// mean active dims of a document
    pub document_active_dims: f64,
    /// terms of the vocabulary
    pub dimensions: usize,
    /// terms that a document of the examined batches used
    pub used_terms: usize,
    /// expected number of terms that a query and a document share, Σ over dims of the products of both shares
    pub flops: f64,
}

impl Sparsity {
    /// Share of a document's dims that are 0.
    #[must_use]
    pub fn document_sparsity(&self) -> f64 {
        1.0 - self.document_active_dims / self.dimensions.max(1) as f64
    }
}

/// Watches a training.
#[derive(Debug)]
pub(crate) struct Doctor {
    reported: HashSet<Sign>,
    norms: VecDeque<f64>,
    has_table: bool,
    is_retrieval: bool,
    /// step from which on the regularizers have their full weights
    ramp_end: usize,
    table_start: Option<f64>,
    settings: Settings,
    /// totals of all examinations since the end of the ramp
    totals: Totals,
    last: Option<Examination>,
}

/// Values of the keys that a sentence names.
#[derive(Debug, Clone, Copy)]
struct Settings {
    learning_rate: f64,
    query_learning_rate: f64,
    document_weight: f64,
    query_weight: f64,
    max_grad_norm: f64,
}

#[derive(Debug, Default)]
struct Totals {
    query_counts: Vec<u32>,
    document_counts: Vec<u32>,
    n_queries: usize,
    n_documents: usize,
    is_after_ramp: bool,
}

impl Doctor {
    /// A doctor of a training whose regularizers have their full weights from step `ramp_end` on.
    ///
    /// # Errors
    /// A query table that cannot be read.
    pub(crate) fn new(config: &TrainConfig, trainee: &Trainee, ramp_end: usize) -> Result<Self> {
        let table = trainee.query_table();
        let table_start =
            table.map(|table| Ok::<f32, crate::Error>(table.abs()?.mean_all()?.to_scalar()?)).transpose()?;
        Ok(Self {
            reported: HashSet::new(),
            norms: VecDeque::new(),
            has_table: config.model.architecture == Architecture::InferenceFree,
            is_retrieval: config.training.objective == Objective::Retrieval,
            ramp_end,
            table_start: table_start.map(f64::from),
            settings: Settings {
                learning_rate: config.training.learning_rate,
                query_learning_rate: config.training.query_learning_rate,
                document_weight: config.loss.document_regularizer_weight,
                query_weight: config.loss.query_regularizer_weight.unwrap_or(0.0),
                max_grad_norm: config.training.max_grad_norm,
            },
            totals: Totals::default(),
            last: None,
        })
    }

    /// Looks at the gradient norm of a step; `rows` names the rows of its batches.
    pub(crate) fn watch_norm(&mut self, step: usize, norm: f64, rows: impl FnOnce() -> String) -> Option<String> {
        let median = median(&self.norms);
        let is_spike = self.norms.len() >= NORMS_MIN && norm > SPIKE * median && norm > self.settings.max_grad_norm;
        self.norms.push_back(norm);
        if self.norms.len() > NORMS {
            self.norms.pop_front();
        }
        if !is_spike || !self.reported.insert(Sign::GradientSpike) {
            return None;
        }
        let rate = self.settings.learning_rate;
        // pieces of running text are of no row
        let look = Some(rows())
            .filter(|rows| !rows.is_empty())
            .map_or_else(String::new, |rows| format!("look at {rows}, or "));
        Some(format!(
            "step {step}: the gradient norm is {norm:.1}, {:.0} times the usual {median:.2}: usually a broken text or too \
             high a rate; {look}lower training.learning_rate (now {rate:e})",
            norm / median.max(f64::MIN_POSITIVE)
        ))
    }

    /// Looks at the losses of a window and at the vectors after its last step; returns a sentence for each new sign.
    pub(crate) fn examine(&mut self, step: usize, losses: LossShares, examination: Examination) -> Vec<String> {
        if !self.is_retrieval {
            return Vec::new();
        }
        let is_after_ramp = step > self.ramp_end;
        self.totals.add(&examination, is_after_ramp);
        let mut found = self.dead_or_alike(&examination);
        found.extend(self.regularizer_share(losses));
        found.extend(self.table(&examination));
        if is_after_ramp {
            found.extend(self.density(&examination));
        }
        self.last = Some(examination);
        found.retain(|(sign, _)| self.reported.insert(*sign));
        found.into_iter().map(|(_, sentence)| format!("step {step}: {sentence}")).collect()
    }

    /// Replaces all examinations by this one, of the model that is the result.
    pub(crate) fn replace(&mut self, examination: Examination) {
        self.totals = Totals::default();
        self.totals.add(&examination, true);
        self.last = Some(examination);
    }

    /// Active dims of the last examination, and the cost that follows from all of them since the end of the ramp.
    pub(crate) fn sparsity(&self) -> Option<Sparsity> {
        let last = self.last.as_ref()?;
        Some(Sparsity {
            query_active_dims: last.query_active_dims,
            document_active_dims: last.document_active_dims,
            dimensions: last.dimensions(),
            used_terms: self.totals.document_counts.iter().filter(|count| **count > 0).count(),
            flops: self.totals.flops(),
        })
    }

    /// Active dims of the last examination: queries, documents.
    pub(crate) fn active_dims(&self) -> Option<(f64, f64)> {
        self.last.as_ref().map(|last| (last.query_active_dims, last.document_active_dims))
    }

    fn dead_or_alike(&self, found: &Examination) -> Vec<(Sign, String)> {
        let Settings { learning_rate, query_learning_rate, document_weight, query_weight, .. } = self.settings;
        let mut signs = Vec::new();
        if 2 * found.empty_documents >= found.n_documents.max(1) {
            signs.push((
                Sign::DeadDocuments,
                format!(
                    "{} of {} documents have no active dim: the regularizer or a step that was too large has pushed every \
                     weight to 0; lower loss.document_regularizer_weight (now {document_weight:e}) or \
                     training.learning_rate (now {learning_rate:e}), and start anew",
                    found.empty_documents, found.n_documents
                ),
            ));
        }
        if 2 * found.empty_queries >= found.n_queries.max(1) {
            let key = match self.has_table {
                true => format!("training.query_learning_rate (now {query_learning_rate:e})"),
                false => format!("loss.query_regularizer_weight (now {query_weight:e})"),
            };
            signs.push((
                Sign::DeadQueries,
                format!(
                    "{} of {} queries have no active dim, so they find nothing: their weights have been pushed to 0; \
                     lower {key}",
                    found.empty_queries, found.n_queries
                ),
            ));
        }
        // empty vectors score alike too, and have the more precise message above
        if signs.is_empty() && found.has_equal_scores {
            signs.push((
                Sign::EqualScores,
                format!(
                    "every document of the batch gets the same score, so nothing is learned: the vectors have become alike, \
                     usually by too high a rate; lower training.learning_rate (now {learning_rate:e}) and start anew"
                ),
            ));
        }
        let (used, dimensions) = (found.used_terms(), found.dimensions());
        let is_alike = used as f64 <= 1.1 * found.document_active_dims && found.n_documents >= 4;
        if found.empty_documents == 0 && is_alike && found.document_active_dims < FULL * dimensions as f64 {
            signs.push((
                Sign::SameTerms,
                format!(
                    "all {} documents of the batch use the same {used} of {dimensions} terms and the rest of the vocabulary is \
                     never used: the network has collapsed, usually by too high a rate; lower training.learning_rate (now \
                     {learning_rate:e}) and start anew",
                    found.n_documents
                ),
            ));
        }
        if found.document_active_dims >= FULL * dimensions as f64 && dimensions > 0 {
            signs.push((
                Sign::FullDocuments,
                format!(
                    "documents use {:.0} of {dimensions} terms: no logit is below 0, so no weight is 0; for NorBERT4 set \
                     model.mlm_head: raw-shifted, for others raise loss.document_regularizer_weight (now \
                     {document_weight:e})",
                    found.document_active_dims
                ),
            ));
        }
        signs
    }

    fn regularizer_share(&self, losses: LossShares) -> Option<(Sign, String)> {
        let LossShares { base, document_regularizer: document, query_regularizer: query } = losses;
        let share = (document + query) / (base + document + query);
        if share.is_nan() || share < REGULARIZER_SHARE {
            return None;
        }
        let (key, weight) = match document >= query {
            true => ("loss.document_regularizer_weight", self.settings.document_weight),
            false => ("loss.query_regularizer_weight", self.settings.query_weight),
        };
        let sentence = format!(
            "the regularizers are {:.0} % of the loss, so ranking is hardly learned and vectors will become empty; lower \
             {key} (now {weight:e})",
            100.0 * share
        );
        Some((Sign::RegularizerShare, sentence))
    }

    fn table(&self, found: &Examination) -> Option<(Sign, String)> {
        let (start, now) = (self.table_start?, found.table_mean?);
        let rate = self.settings.query_learning_rate;
        let (sign, drift) = if now < -0.5 * start {
            (Sign::TableNegative, "far below 0")
        } else if now.abs() < 0.05 * start {
            (Sign::TableAtZero, "to 0")
        } else {
            return None;
        };
        let sentence = format!(
            "the query table drifts {drift}: the weights of this batch's words are {now:.3} on average, {start:.3} at the \
             start; lower training.query_learning_rate (now {rate:e}), or keep the table with \
             model.freeze_static_embedding: true"
        );
        Some((sign, sentence))
    }

    /// Sparsity after the ramp against its targets; a document that is sparser than its target is no fault.
    fn density(&self, found: &Examination) -> Vec<(Sign, String)> {
        let Settings { document_weight, query_weight, .. } = self.settings;
        let mut signs = Vec::new();
        let sparsity = 1.0 - found.document_active_dims / found.dimensions().max(1) as f64;
        if sparsity < *DOCUMENT_SPARSITY.start() {
            signs.push((
                Sign::DenseDocuments,
                format!(
                    "the regularizer has its full weight, and documents have {:.0} active dims, {:.1} % sparse, where {:.0} to \
                     {:.0} % is the target; raise loss.document_regularizer_weight (now {document_weight:e})",
                    found.document_active_dims,
                    100.0 * sparsity,
                    100.0 * DOCUMENT_SPARSITY.start(),
                    100.0 * DOCUMENT_SPARSITY.end(),
                ),
            ));
        }
        // a table's queries have the terms of their words, whatever the weights
        if !self.has_table && found.query_active_dims > *QUERY_ACTIVE_DIMS.end() {
            signs.push((
                Sign::DenseQueries,
                format!(
                    "the regularizer has its full weight, and queries have {:.0} active dims, where {:.0} to {:.0} is the \
                     target; raise loss.query_regularizer_weight (now {query_weight:e})",
                    found.query_active_dims,
                    QUERY_ACTIVE_DIMS.start(),
                    QUERY_ACTIVE_DIMS.end(),
                ),
            ));
        }
        signs
    }
}

impl Totals {
    /// Adds an examination; the first one after the ramp replaces those before.
    fn add(&mut self, found: &Examination, is_after_ramp: bool) {
        if is_after_ramp && !self.is_after_ramp {
            *self = Self { is_after_ramp, ..Self::default() };
        }
        for (sums, counts) in
            [(&mut self.query_counts, &found.query_counts), (&mut self.document_counts, &found.document_counts)]
        {
            sums.resize(counts.len().max(sums.len()), 0);
            sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        }
        self.n_queries += found.n_queries;
        self.n_documents += found.n_documents;
    }

    fn flops(&self) -> f64 {
        let pairs = (self.n_queries * self.n_documents).max(1) as f64;
        let product = |(query, document): (&u32, &u32)| f64::from(*query) * f64::from(*document);
        self.query_counts.iter().zip(&self.document_counts).map(product).sum::<f64>() / pairs
    }
}

fn median(values: &VecDeque<f64>) -> f64 {
    let mut sorted: Vec<f64> = values.iter().copied().collect();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn doctor(has_table: bool) -> Doctor {
        let settings = Settings {
            learning_rate: 2e-5,
            query_learning_rate: 1e-3,
            document_weight: 3e-3,
            query_weight: 5e-4,
            max_grad_norm: 1.0,
        };
        Doctor {
            reported: HashSet::new(),
            norms: VecDeque::new(),
            has_table,
            is_retrieval: true,
            ramp_end: 10,
            table_start: has_table.then_some(1.0),
            settings,
            totals: Totals::default(),
            last: None,
        }
    }

    /// Vectors of 100 dims with these entries of weight 1.
    fn rows(dims: &[&[usize]]) -> Vec<Vec<f32>> {
        let row = |dims: &&[usize]| {
            let mut row = vec![0.0; 100];
            dims.iter().for_each(|dim| row[*dim] = 1.0);
            row
        };
        dims.iter().map(row).collect()
    }

    fn signs_of(has_table: bool, step: usize, queries: &[Vec<f32>], documents: &[Vec<f32>]) -> String {
        let found = Examination::of_vectors(queries, documents, has_table);
        let losses = LossShares { base: 1.0, ..LossShares::default() };
        let mut doctor = doctor(has_table);
        let signs = doctor.examine(step, losses, found.clone());
        assert_eq!(doctor.examine(step + 1, losses, found), Vec::<String>::new(), "each sign is reported once");
        signs.join("\n")
    }

    #[test]
    fn a_healthy_batch_has_no_sign() {
        let documents = rows(&[&[1, 2, 3], &[3, 4], &[5], &[6, 7]]);
        for step in [1, 20] {
            assert_eq!(signs_of(true, step, &rows(&[&[1, 2], &[4]]), &documents), "");
        }
    }

    #[test]
    fn each_sign_of_the_vectors_is_reported_with_a_key() {
        let (query, good) = (rows(&[&[1], &[4]]), rows(&[&[1, 2], &[4, 3], &[5], &[6]]));
        let half = &(0..50).collect::<Vec<usize>>()[..];
        let all = &(0..100).collect::<Vec<usize>>()[..];
        let negative: Vec<Vec<f32>> = query.iter().map(|row| row.iter().map(|weight| -weight).collect()).collect();
        let faint: Vec<Vec<f32>> = query.iter().map(|row| row.iter().map(|weight| 0.01 * weight).collect()).collect();
        type Case<'a> = (bool, usize, &'a [Vec<f32>], Vec<Vec<f32>>, &'a str);
        let cases: [Case<'_>; 9] = [
            (true, 1, &query, rows(&[&[], &[], &[1], &[4]]), "2 of 4 documents have no active dim"),
            (true, 1, &rows(&[&[], &[]]), good.clone(), "lower training.query_learning_rate (now 1e-3)"),
            (false, 1, &rows(&[&[], &[]]), good.clone(), "lower loss.query_regularizer_weight (now 5e-4)"),
            (true, 1, &query, rows(&[&[1, 4, 7], &[1, 4], &[1, 4, 8], &[1, 4]]), "gets the same score"),
            (true, 1, &query, rows(&[&[1, 4][..]; 4]), "use the same 2 of 100 terms"),
            (true, 1, &query, rows(&[all; 4]), "documents use 100 of 100 terms"),
            (true, 1, &negative, good.clone(), "drifts far below 0"),
            (true, 1, &faint, good.clone(), "drifts to 0"),
            (
                true,
                20,
                &query,
                rows(&[half, &[1], &[4, 99], &[2]]),
                "raise loss.document_regularizer_weight (now 3e-3)",
            ),
        ];
        for (has_table, step, queries, documents, words) in cases {
            let signs = signs_of(has_table, step, queries, &documents);
            assert!(signs.contains(words), "{words}: {signs}");
        }
        let dense = rows(&[half, half]);
        assert!(signs_of(false, 20, &dense, &good).contains("raise loss.query_regularizer_weight"));
        assert_eq!(signs_of(false, 5, &dense, &good), "", "the ramp is not over");
    }

    #[test]
    fn a_regularizer_that_is_the_whole_loss_is_reported() {
        let found = Examination::of_vectors(&rows(&[&[1]]), &rows(&[&[1], &[2]]), true);
        let losses = LossShares { base: 0.1, document_regularizer: 9.0, query_regularizer: 0.0 };
        let signs = doctor(true).examine(1, losses, found.clone());
        assert!(
            signs[0].contains("99 % of the loss") && signs[0].contains("loss.document_regularizer_weight"),
            "{signs:?}"
        );
        let losses = LossShares { base: 0.1, document_regularizer: 0.0, query_regularizer: 9.0 };
        assert!(doctor(true).examine(1, losses, found)[0].contains("loss.query_regularizer_weight"));
    }

    #[test]
    fn a_spike_of_the_gradient_norm_names_the_rows() {
        let mut doctor = doctor(true);
        for step in 0..NORMS_MIN {
            assert_eq!(doctor.watch_norm(step, 1.0 + 0.1 * (step % 3) as f64, String::new), None);
        }
        let signs = doctor.watch_norm(30, 55.0, || "train.jsonl:7".to_owned()).unwrap();
        assert!(signs.contains("step 30: the gradient norm is 55.0, 50 times the usual 1.10"), "{signs}");
        assert!(signs.contains("train.jsonl:7"), "{signs}");
        assert_eq!(doctor.watch_norm(31, 99.0, String::new), None, "once");
        let mut doctor = self::doctor(true);
        (0..NORMS_MIN).for_each(|step| drop(doctor.watch_norm(step, 1.0, String::new)));
        let signs = doctor.watch_norm(30, 55.0, String::new).unwrap();
        assert!(signs.contains("too high a rate; lower training.learning_rate"), "{signs}");
        // with few norms there is no usual one
        assert_eq!(self::doctor(true).watch_norm(1, 1e9, String::new), None);
    }

    #[test]
    fn the_cost_of_a_search_is_that_of_shared_terms() {
        let mut doctor = doctor(true);
        let found = Examination::of_vectors(&rows(&[&[1, 2], &[2]]), &rows(&[&[2], &[2, 3], &[4], &[1]]), true);
        doctor.examine(1, LossShares::default(), found);
        let sparsity = doctor.sparsity().unwrap();
        // dim 1: 1/2 · 1/4, dim 2: 2/2 · 2/4
        assert_eq!((sparsity.flops, sparsity.used_terms), (0.625, 4));
        assert_eq!((sparsity.query_active_dims, sparsity.document_active_dims), (1.5, 1.25));
    }
}
