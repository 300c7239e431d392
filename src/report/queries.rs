//! Queries in a report: their values in one run or two, and documents with their terms.

use std::collections::HashMap;

use anyhow::Result;
use serde_json::{Value, json};
use splade_eval::{JudgedRun, Metric, Qrels, Run};
use splade_files::Query;

use super::{Block, Section};
use crate::answer::{AnswerHit, Answerer, Explanation};
use crate::commands::search::table::snippet;
use crate::comparison::QueryPair;
use crate::console::Table;

/// Query with its values, and documents that explain them.
#[derive(Debug)]
pub(crate) struct ReportedQuery {
    pub(crate) id: String,
    /// text, if it is at hand
    pub(crate) text: Option<String>,
    pub(crate) value: f64,
    pub(crate) baseline: Option<f64>,
    /// rank of the first relevant hit, in the run and in the baseline
    pub(crate) ranks: [Option<u32>; 2],
    pub(crate) documents: Vec<ReportedDocument>,
}

/// Document of a query, with the terms that both share.
#[derive(Debug)]
pub(crate) struct ReportedDocument {
    /// `relevant` or `first hit`
    role: &'static str,
    id: String,
    /// rank in the run
    rank: Option<usize>,
    /// title and text, if an index has them
    hit: Option<ExplainedHit>,
}

#[derive(Debug)]
struct ExplainedHit {
    text: String,
    score: f32,
    terms: Vec<(Value, [String; 5])>,
}

/// Terms listed of a document.
const TERMS: usize = 8;
/// Characters shown of a document.
const CHARACTERS: usize = 160;

/// Source of texts and explanations.
#[derive(Default)]
pub(crate) struct QuerySource {
    pub(crate) texts: HashMap<String, String>,
    pub(crate) answerer: Option<Answerer>,
}

impl QuerySource {
    /// Fills in the text and the documents of a query: the relevant document that the run ranks best, else the first
    /// relevant one, and the first hit if it is another.
    pub(crate) fn describe(&self, query: &mut ReportedQuery, run: &Run, qrels: &Qrels) -> Result<()> {
        query.text = self.texts.get(&query.id).cloned();
        let (Some(ranking), Some(judged)) = (run.ranking(&query.id), qrels.judgements(&query.id)) else {
            return Ok(());
        };
        let relevant = |id: &str| judged.get(id).is_some_and(|grade| *grade > 0);
        let found = ranking.hits().iter().find(|hit| relevant(&hit.id)).map(|hit| hit.id.as_str());
        let best = found.or_else(|| judged.keys().map(String::as_str).find(|id| relevant(id)));
        let first = ranking.hits().first().map(|hit| hit.id.as_str()).filter(|id| Some(*id) != best);
        for (role, id) in [("relevant", best), ("first hit", first)] {
            let Some(id) = id else { continue };
            let rank = ranking.hits().iter().position(|hit| hit.id == id).map(|at| at + 1);
            let hit = match (&self.answerer, &query.text) {
                (Some(answerer), Some(text)) => {
                    let query = Query { id: query.id.clone(), text: text.clone() };
                    answerer.explain_document(&query, id)?.map(ExplainedHit::of)
                }
                _ => None,
            };
            query.documents.push(ReportedDocument { role, id: id.to_owned(), rank, hit });
        }
        Ok(())
    }
}

impl ExplainedHit {
    fn of(hit: AnswerHit) -> Self {
        let title = hit.document.title.as_deref().unwrap_or_default();
        let total = hit.explanation.as_ref().map_or(0.0, Explanation::sparse_score);
        let terms = hit.explanation.iter().flat_map(|explanation| &explanation.terms).take(TERMS).map(|term| {
            let weights = [term.query_weight, term.document_weight, term.score].map(|weight| format!("{weight:.3}"));
            let [query, document, score] = weights;
            let expansion = if term.expansion { "expansion".to_owned() } else { String::new() };
            (json!(term.to_json(total)), [term.token.clone(), query, document, score, expansion])
        });
        Self {
            terms: terms.collect(),
            text: snippet(format!("{title} {}", hit.document.text).trim(), CHARACTERS),
            score: hit.hit.score,
        }
    }
}

impl ReportedQuery {
    /// Query of one run.
    pub(crate) fn of_one_run(id: &str, value: f64, rank: Option<u32>) -> Self {
        Self { id: id.to_owned(), text: None, value, baseline: None, ranks: [rank, None], documents: Vec::new() }
    }

    /// Query of a run and of a baseline.
    pub(crate) fn of_two_runs(pair: QueryPair) -> Self {
        let QueryPair { id, ours, baseline, ranks } = pair;
        Self { id, text: None, value: ours, baseline: Some(baseline), ranks, documents: Vec::new() }
    }

    /// A block that a page shows on demand. `metric` names the value.
    pub(crate) fn block(&self, metric: &str) -> Block {
        let text = self.text.as_ref().map_or(String::new(), |text| format!(": {text}"));
        let value = match self.baseline {
            Some(baseline) => format!("{metric} {baseline:.4} → {:.4}", self.value),
            None => format!("{metric} {:.4}", self.value),
        };
        let rank = |rank: Option<u32>| rank.map_or("none".to_owned(), |rank| rank.to_string());
        let ranks = match self.baseline {
            Some(_) => format!("Rank of the first relevant hit: {} → {}", rank(self.ranks[1]), rank(self.ranks[0])),
            None => format!("Rank of the first relevant hit: {}", rank(self.ranks[0])),
        };
        let mut blocks = vec![Block::Text(ranks)];
        for document in &self.documents {
            blocks.extend(document.blocks());
        }
        Block::Details { title: format!("{}{text} ({value})", self.id), blocks }
    }

    pub(crate) fn to_json(&self) -> Value {
        let mut value =
            json!({"query_id": self.id, "query": self.text, "value": self.value, "first_relevant_rank": self.ranks[0]});
        if let Some(baseline) = self.baseline {
            value["baseline"] = json!(baseline);
            value["baseline_first_relevant_rank"] = json!(self.ranks[1]);
        }
        value["documents"] = self.documents.iter().map(ReportedDocument::to_json).collect();
        value
    }
}

impl ReportedDocument {
    fn blocks(&self) -> Vec<Block> {
        let rank = self.rank.map_or("not in the run".to_owned(), |rank| format!("rank {rank}"));
        let head = format!("{}: {}, {rank}", self.role, self.id);
        let Some(hit) = &self.hit else { return vec![Block::Text(head)] };
        let mut blocks = vec![Block::Text(format!("{head}, score {:.3}\n{}", hit.score, hit.text))];
        if hit.terms.is_empty() {
            blocks.push(Block::Text("no term in common".to_owned()));
        } else {
            let mut table = Table::new(["term", "query", "document", "score", ""]).with_text(&[4]);
            hit.terms.iter().for_each(|(_, cells)| table.row(cells.clone()));
            blocks.push(Block::Table(table));
        }
        blocks
    }

    fn to_json(&self) -> Value {
        let mut value = json!({"role": self.role, "_id": self.id, "rank": self.rank});
        if let Some(hit) = &self.hit {
            value["text"] = json!(hit.text);
            value["score"] = json!(hit.score);
            value["terms"] = hit.terms.iter().map(|(json, _)| json.clone()).collect();
        }
        value
    }
}

/// Section of queries; none without queries.
pub(crate) fn query_section(heading: &str, queries: &[ReportedQuery], metric: &str) -> Option<Section> {
    let blocks = queries.iter().map(|query| query.block(metric)).collect();
    (!queries.is_empty()).then(|| Section { heading: heading.to_owned(), blocks })
}

/// The `top` best and the `top` worst queries by a metric, at most half of all each.
pub(crate) fn extremes(judged: &JudgedRun, metric: Metric, top: usize) -> [Vec<ReportedQuery>; 2] {
    let values = judged.values(metric).zip(judged.first_ranks());
    let mut sorted: Vec<(&str, f64, Option<u32>)> = values.map(|((id, value), (_, rank))| (id, value, rank)).collect();
    sorted.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(b.0)));
    let top = top.min(sorted.len() / 2);
    let report = |(id, value, rank): &(&str, f64, Option<u32>)| ReportedQuery::of_one_run(id, *value, *rank);
    [sorted.iter().take(top).map(report).collect(), sorted.iter().rev().take(top).map(report).collect()]
}
