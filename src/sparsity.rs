//! Analysis of the vectors of queries and documents, for `eval-mteb` and `inspect`.

use std::collections::HashSet;

use anyhow::Result;
use serde_json::{Value, json};
use splade_core::{DOCUMENT_SPARSITY, MillionEstimate, QUERY_ACTIVE_DIMS, SparseVector, Vocabulary, flops};
use splade_eval::{Distribution, VectorAnalysis, VectorReport};

use crate::commands::search::table::snippet;
use crate::console::{Facts, Table, count, size};
use crate::report::{Block, Histogram, Scale};

/// Vectors of one side, queries or documents, analysed as they come.
pub(crate) struct Side {
    /// names terms, and finds the words of texts; none if it is not known
    vocabulary: Option<Vocabulary>,
    analysis: VectorAnalysis,
    samples: Vec<Sample>,
}

/// Text with its vector decoded.
struct Sample {
    id: String,
    text: String,
    active_dims: usize,
    /// token, weight, and true for a token that is not in the text; by decreasing weight
    terms: Vec<(String, f32, bool)>,
}

/// Texts that are decoded.
const SAMPLES: usize = 3;
/// Terms listed of a sample.
const SAMPLE_TERMS: usize = 15;
/// Characters shown of a sample.
const CHARACTERS: usize = 160;
/// Frequent terms listed.
const TOP_TERMS: usize = 15;

impl Side {
    /// No vectors yet, over `dimensions` terms. The vocabulary must not truncate texts.
    pub(crate) fn new(dimensions: usize, vocabulary: Option<Vocabulary>) -> Self {
        Self { vocabulary, analysis: VectorAnalysis::new(dimensions), samples: Vec::new() }
    }

    /// Counts a vector and its text, if that is known.
    ///
    /// # Errors
    /// A text that the tokenizer refuses.
    pub(crate) fn add(&mut self, id: &str, text: Option<&str>, vector: &SparseVector) -> Result<()> {
        let words = match (&self.vocabulary, text) {
            (Some(vocabulary), Some(text)) => Some(vocabulary.tokenize(text)?),
            _ => None,
        };
        self.analysis.add(vector, words.as_deref());
        if self.samples.len() < SAMPLES {
            self.samples.push(self.sample(id, text.unwrap_or_default(), words.as_deref(), vector));
        }
        Ok(())
    }

    fn sample(&self, id: &str, text: &str, words: Option<&[u32]>, vector: &SparseVector) -> Sample {
        let words: Option<HashSet<u32>> = words.map(|words| words.iter().copied().collect());
        let mut entries: Vec<(u32, f32)> = vector.iter().collect();
        entries.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        let term = |(dim, weight): (u32, f32)| {
            (self.token(dim), weight, words.as_ref().is_some_and(|words| !words.contains(&dim)))
        };
        Sample {
            id: id.to_owned(),
            text: snippet(text, CHARACTERS),
            active_dims: vector.active_dims(),
            terms: entries.into_iter().take(SAMPLE_TERMS).map(term).collect(),
        }
    }

    fn token(&self, dim: u32) -> String {
        self.vocabulary.as_ref().map_or_else(|| format!("[{dim}]"), |vocabulary| vocabulary.readable_token(dim))
    }

    /// Facts, frequent terms, histograms and samples. `name` is that of the side, as in `queries`.
    pub(crate) fn block(&self, name: &str) -> Block {
        let report = self.analysis.report(TOP_TERMS);
        let mut blocks = vec![Block::Text(facts(&report).to_string().trim_end().to_owned())];
        let mut table = Table::new(["frequent term", "vectors", "share", "mean weight"]);
        for term in &report.top_terms {
            let (share, weight) = (format!("{:.3}", term.share), format!("{:.3}", term.weight_mean));
            table.row([self.token(term.dim), term.vectors.to_string(), share, weight]);
        }
        if !report.top_terms.is_empty() {
            blocks.push(Block::Table(table));
        }
        for (what, histogram) in self.histograms() {
            blocks.push(Block::Histogram { title: format!("{name}: {what}"), histogram });
        }
        for sample in self.samples.iter().filter(|sample| !sample.text.is_empty()) {
            blocks.push(sample.block());
        }
        Block::Details { title: name.to_owned(), blocks }
    }

    fn histograms(&self) -> [(&'static str, Histogram); 3] {
        let stats = self.analysis.stats();
        let active = stats.active_dims_counts().map(|(active, count)| (active as f64, count));
        // lists differ by orders of magnitude: powers of two
        let lists = stats.posting_lengths().map(|length| (length.ilog2().into(), 1));
        [
            ("active dims per vector", Histogram::of(active, Scale::Whole)),
            ("weights", Histogram::of(self.analysis.weight_counts(), Scale::Real)),
            ("posting lists by length", Histogram::of(lists, Scale::Doubling)),
        ]
    }

    /// Findings as JSON.
    pub(crate) fn json(&self) -> Value {
        let report = self.analysis.report(TOP_TERMS);
        let mut value = json!(report);
        for (at, term) in report.top_terms.iter().enumerate() {
            value["top_terms"][at]["token"] = json!(self.token(term.dim));
        }
        let [active, weights, lists] = self.histograms().map(|(_, histogram)| histogram.json());
        value["histograms"] = json!({"active_dims": active, "weights": weights, "posting_list_log2": lists});
        value["samples"] = self.samples.iter().map(Sample::json).collect();
        value
    }
}

fn facts(report: &VectorReport) -> Facts {
    let sparsity = &report.sparsity;
    let mut facts = Facts::default();
    let percent = |share: f64| format!("{:.1} %", 100.0 * share);
    facts.add("vectors", format_args!("{}, of which {} are empty", sparsity.count, sparsity.empty_count));
    facts.add(
        "active dims",
        format_args!(
            "{:.1} on average; p50 {}, p95 {}, largest {}; {} sparse",
            sparsity.active_dims_mean,
            sparsity.active_dims_p50,
            sparsity.active_dims_p95,
            sparsity.active_dims_max,
            percent(sparsity.sparsity_ratio)
        ),
    );
    facts.add("weights", distribution(&report.weights, 3));
    facts.add("posting lists", distribution(&report.posting_lists, 0));
    facts.add(
        "vocabulary",
        format_args!(
            "{} of {} terms in use, {} dead",
            sparsity.used_dims,
            sparsity.dimensions,
            percent(report.dead_vocabulary_ratio)
        ),
    );
    if let Some(expansion) = &report.expansion {
        facts.add(
            "expansion",
            format_args!(
                "{:.1} terms that are not in the text, beside {:.1} words of it; {} of the terms and {} of the weight; {} of the \
                 words have no weight",
                expansion.expansions_mean,
                expansion.words_mean,
                percent(expansion.expansion_ratio),
                percent(expansion.expansion_weight_ratio),
                percent(expansion.dropped_word_ratio)
            ),
        );
    }
    facts
}

fn distribution(of: &Distribution, decimals: usize) -> String {
    let Distribution { mean, min, p50, p90, p99, max } = of;
    format!(
        "{mean:.decimals$} on average; {min:.decimals$} to {max:.decimals$}, p50 {p50:.decimals$}, p90 {p90:.decimals$}, p99 {p99:.decimals$}"
    )
}

impl Sample {
    fn block(&self) -> Block {
        let term = |(token, weight, is_expansion): &(String, f32, bool)| {
            format!("{}{token} {weight:.2}", if *is_expansion { "+" } else { "" })
        };
        let terms: Vec<String> = self.terms.iter().map(term).collect();
        let more = if self.active_dims > self.terms.len() { " …" } else { "" };
        let lines = format!("{}\n{}{more}", self.text, terms.join("  "));
        let title = format!("{}, {} active dims, + marks expansions", self.id, self.active_dims);
        Block::Details { title, blocks: vec![Block::Text(lines)] }
    }

    fn json(&self) -> Value {
        let term = |(token, weight, is_expansion): &(String, f32, bool)| json!({"token": token, "weight": weight, "expansion": is_expansion});
        json!({
            "_id": self.id,
            "text": self.text,
            "active_dims": self.active_dims,
            "terms": self.terms.iter().map(term).collect::<Value>(),
        })
    }
}

/// Both sides of a task.
pub(crate) struct TaskSparsity {
    pub(crate) queries: Side,
    pub(crate) documents: Side,
}

impl TaskSparsity {
    /// Findings of both sides, targets, and the estimate for a million documents.
    pub(crate) fn blocks(&self) -> Vec<Block> {
        vec![Block::Text(self.verdict()), self.queries.block("queries"), self.documents.block("documents")]
    }

    /// Adds the findings to the JSON of a task.
    pub(crate) fn json(&self) -> Value {
        let million = self.million();
        json!({
            "queries": self.queries.json(),
            "documents": self.documents.json(),
            "flops": self.flops(),
            "targets": {
                "query_active_dims": target(&QUERY_ACTIVE_DIMS, self.query_dims()),
                "document_sparsity": target(&DOCUMENT_SPARSITY, self.document_sparsity()),
            },
            "million_documents": million,
        })
    }

    fn query_dims(&self) -> f64 {
        self.queries.analysis.stats().mean_active_dims()
    }

    fn document_sparsity(&self) -> f64 {
        self.documents.analysis.stats().sparsity_ratio()
    }

    fn flops(&self) -> f64 {
        flops(self.queries.analysis.stats(), self.documents.analysis.stats())
    }

    fn million(&self) -> MillionEstimate {
        MillionEstimate::of(self.documents.analysis.stats().mean_active_dims(), self.flops())
    }

    fn verdict(&self) -> String {
        let met = |target: &std::ops::RangeInclusive<f64>, value: f64| {
            if target.contains(&value) {
                "met"
            } else if value < *target.start() {
                "missed, below it"
            } else {
                "missed, above it"
            }
        };
        let (dims, sparsity, million) = (self.query_dims(), self.document_sparsity(), self.million());
        format!(
            "target of queries, {:.0} to {:.0} active dims: {dims:.1}, {}\n\
             target of documents, {:.0} to {:.0} % sparse: {:.1} %, {}\n\
             estimate for a million documents: an index of {} without the texts, {} postings a query before any is skipped",
            QUERY_ACTIVE_DIMS.start(),
            QUERY_ACTIVE_DIMS.end(),
            met(&QUERY_ACTIVE_DIMS, dims),
            100.0 * DOCUMENT_SPARSITY.start(),
            100.0 * DOCUMENT_SPARSITY.end(),
            100.0 * sparsity,
            met(&DOCUMENT_SPARSITY, sparsity),
            size(million.index_bytes),
            count(million.postings_per_query),
        )
    }
}

fn target(range: &std::ops::RangeInclusive<f64>, value: f64) -> Value {
    json!({"from": range.start(), "to": range.end(), "value": value, "met": range.contains(&value)})
}
