//! `splade mine`: training pairs and a ranking of documents → training rows with hard negatives.

use std::collections::{HashMap, HashSet};
use std::io::Write;

use anyhow::Result;
use serde_json::{Map, Value, json};
use splade_core::{Encoder, Hit, SparseVector};
use splade_eval::Run;
use splade_files::{InputRow, Query, read_documents, read_rows};
use splade_index::{ImpactIndex, SearchOptions};
use splade_trainer::data::{ANCHOR_COLUMNS, POSITIVE_COLUMNS};

use super::interrupt;
use super::search::query_side;
use crate::answer::{Answerer, Detail, SearchSettings};
use crate::cli::{Bm25Args, FusionArgs, MineArgs, Mode};
use crate::console;
use crate::encoders::{document_encoder, query_encoder, read_as, use_threads};
use crate::failure::bad_input;
use crate::hub::{self, Wants};
use crate::outputs::{Output, say};
use crate::ranking::{DEPTH, Defaults, Untuned, resolve, warn_of_other_rankings};

/// Columns of the id of a query, for run files.
const QUERY_IDS: [&str; 3] = ["query_id", "query-id", "_id"];
/// Columns of the id of a positive.
const POSITIVE_IDS: [&str; 3] = ["positive_id", "corpus-id", "document_id"];
/// Ranks below the window that are searched for the positive, whose score a margin is measured from.
const DEPTH_FOR_POSITIVE: usize = 1000;
/// Rows that a teacher scores at a time.
const TEACHER_ROWS: usize = 64;

pub(crate) fn run(args: &MineArgs) -> Result<()> {
    args.check()?;
    use_threads(args.network.threads);
    let pairs = read_pairs(args)?;
    let known = KnownPositives::of(&pairs);
    let source = RankingSource::open(args, &pairs)?;
    let teacher = args.teacher.as_deref().map(|folder| Teacher::open(folder, args)).transpose()?;
    let mut output = Output::open(args.output.as_deref(), args.overwrite)?;
    let mut report = MineCounts { rows: pairs.len(), ..MineCounts::default() };
    let bar = console::progress("mining", Some(pairs.len() as u64));
    for chunk in pairs.chunks(TEACHER_ROWS) {
        let mut mined = Vec::new();
        for pair in chunk {
            interrupt::check()?;
            let candidates = source.candidates(pair, args)?;
            let negatives = select(pair, candidates, &known, args, &mut report);
            if negatives.len() == args.negatives {
                mined.push((pair, negatives));
            } else {
                report.too_few += 1;
            }
            bar.inc(1);
        }
        let labels = teacher.as_ref().map(|teacher| teacher.scores(&mined)).transpose()?;
        for (at, (pair, negatives)) in mined.iter().enumerate() {
            let labels = labels.as_ref().map(|labels| labels[at].as_slice());
            writeln!(output, "{}", row_of(pair, negatives, labels))?;
            report.written += 1;
        }
    }
    bar.finish_and_clear();
    if report.written == 0 {
        return Err(bad_input(
            format!("{}: no row has {} negatives left: {}", args.input.display(), args.negatives, report.in_words()),
            "widen --ranks, lower --margin or --relative-margin, or set fewer --negatives",
        ));
    }
    output.finish()?;
    tracing::info!("{}", report.in_words());
    if args.json { say(report.to_json()) } else { Ok(()) }
}

/// A query and a document that answers it.
#[derive(Debug, Clone, PartialEq)]
struct Pair {
    query_id: Option<String>,
    anchor: String,
    positive: String,
    positive_id: Option<String>,
}

/// A document of a ranking.
#[derive(Debug, Clone, PartialEq)]
struct RankedDocument {
    rank: usize,
    hit: Hit,
    /// title and text
    text: String,
    /// the text alone, if there is a title
    body: Option<String>,
}

impl RankedDocument {
    fn new(rank: usize, hit: Hit, title: &str, text: &str) -> Self {
        match title.is_empty() {
            true => Self { rank, hit, text: text.to_owned(), body: None },
            false => Self { rank, hit, text: format!("{title} {text}"), body: Some(text.to_owned()) },
        }
    }

    fn is(&self, id: Option<&str>, text: &str) -> bool {
        let same = |other: &str| other.trim() == text.trim();
        id == Some(self.hit.id.as_str()) || same(&self.text) || self.body.as_deref().is_some_and(same)
    }
}

fn read_pairs(args: &MineArgs) -> Result<Vec<Pair>> {
    let mut pairs = Vec::new();
    for row in read_rows(&args.input)? {
        let row = row?;
        let anchor = text_of(&row, args.anchor.as_deref(), ANCHOR_COLUMNS, "query")?;
        let positive = text_of(&row, args.positive.as_deref(), POSITIVE_COLUMNS, "positive")?;
        let (query_id, positive_id) = (id_of(&row, &QUERY_IDS), id_of(&row, &POSITIVE_IDS));
        if args.run.is_some() && query_id.is_none() {
            let message = format!("no query id, which --run needs: looked for {}", QUERY_IDS.join(", "));
            return Err(row.position().error(message).into());
        }
        pairs.push(Pair { query_id, anchor, positive, positive_id });
    }
    if pairs.is_empty() {
        return Err(bad_input(format!("{}: there are no rows in it", args.input.display()), ""));
    }
    Ok(pairs)
}

/// The text of a column: the one named, or the first one known.
fn text_of(row: &InputRow, named: Option<&str>, known: &[&str], role: &str) -> Result<String> {
    let value = match named {
        Some(name) => row.value().get(name),
        None => known.iter().find_map(|name| row.value().get(*name)),
    };
    let first = match value {
        Some(Value::Array(cells)) => cells.first(),
        other => other,
    };
    match first.and_then(Value::as_str).filter(|text| !text.trim().is_empty()) {
        Some(text) => Ok(text.to_owned()),
        None => {
            let looked_for = named.map_or_else(|| known.join(", "), str::to_owned);
            Err(row.position().error(format!("no {role} text: looked for {looked_for}")).into())
        }
    }
}

fn id_of(row: &InputRow, names: &[&str]) -> Option<String> {
    match names.iter().find_map(|name| row.value().get(*name))? {
        Value::String(id) => Some(id.clone()),
        Value::Number(id) => Some(id.to_string()),
        _ => None,
    }
}

/// All positives of each query of the input: none of them is a negative of it.
struct KnownPositives<'a> {
    by_query: HashMap<&'a str, Vec<&'a Pair>>,
}

impl<'a> KnownPositives<'a> {
    fn of(pairs: &'a [Pair]) -> Self {
        let mut by_query: HashMap<&str, Vec<&Pair>> = HashMap::new();
        pairs.iter().for_each(|pair| by_query.entry(&pair.anchor).or_default().push(pair));
        Self { by_query }
    }

    fn has(&self, query: &str, candidate: &RankedDocument) -> bool {
        let pairs = self.by_query.get(query).into_iter().flatten();
        pairs.into_iter().any(|pair| candidate.is(pair.positive_id.as_deref(), &pair.positive))
    }
}

/// The place that rankings come from.
enum RankingSource {
    Index(Box<Answerer>),
    Run {
        run: Run,
        /// title and text of the documents that the run names
        documents: HashMap<String, (String, String)>,
    },
}

impl RankingSource {
    fn open(args: &MineArgs, pairs: &[Pair]) -> Result<Self> {
        let depth = args.depth();
        if let Some(folder) = &args.index {
            let index = ImpactIndex::open(folder)?;
            let tuned = index.read_hybrid_settings()?;
            if args.mode == Mode::Hybrid {
                warn_of_other_rankings(tuned.as_ref(), 2);
            }
            let defaults = Defaults {
                tuned: tuned.as_ref(),
                language: index.settings().language,
                depth: depth.max(DEPTH),
                rankings: 2,
                untuned: Untuned::Scores,
            };
            let ranking = resolve(&[args.mode], &FusionArgs::default(), &Bm25Args::default(), defaults)?;
            return Ok(Self::Index(Box::new(Answerer {
                side: query_side(&index, folder, args.mode, false, args.model.as_deref(), &args.network)?,
                dense: None,
                searcher: index.searcher()?,
                settings: SearchSettings {
                    mode: args.mode,
                    fusion: ranking.fusion,
                    options: SearchOptions {
                        threads: args.network.threads,
                        bm25: ranking.bm25,
                        ..SearchOptions::default()
                    },
                    ..SearchSettings::sparse(depth, Detail::None)
                },
            })));
        }
        let (Some(run), Some(corpus)) = (&args.run, &args.corpus) else {
            return Err(bad_input("there is no ranking", "give --index DIR, or --run FILE and --corpus FILE"));
        };
        let run = Run::read_trec(run)?;
        let wanted: HashSet<&str> = pairs
            .iter()
            .filter_map(|pair| run.ranking(pair.query_id.as_deref()?))
            .flat_map(|ranking| ranking.hits().iter().take(depth))
            .map(|hit| hit.id.as_str())
            .collect();
        let mut documents = HashMap::new();
        for document in read_documents(corpus)? {
            let document = document?;
            if wanted.contains(document.id.as_str()) {
                documents.insert(document.id, (document.title, document.text));
            }
        }
        if let Some(missing) = wanted.iter().find(|id| !documents.contains_key(**id)) {
            let message = format!("{}: no document {missing}, which the run names", corpus.display());
            return Err(bad_input(message, "give the corpus that the run was made with"));
        }
        drop(wanted);
        Ok(Self::Run { run, documents })
    }

    /// The ranking for a query, as deep as its window and its positive ask for.
    fn candidates(&self, pair: &Pair, args: &MineArgs) -> Result<Vec<RankedDocument>> {
        match self {
            Self::Index(answerer) => {
                let query = Query { id: pair.query_id.clone().unwrap_or_default(), text: pair.anchor.clone() };
                let hits = answerer.hits(&query, answerer.answer(&query)?)?;
                let candidate = |(rank, hit): (usize, crate::answer::AnswerHit)| {
                    let title = hit.document.title.unwrap_or_default();
                    RankedDocument::new(rank, hit.hit, &title, &hit.document.text)
                };
                Ok((1..).zip(hits).map(candidate).collect())
            }
            Self::Run { run, documents } => {
                let ranking = pair.query_id.as_deref().and_then(|id| run.ranking(id));
                let hits = ranking.into_iter().flat_map(|ranking| ranking.hits()).take(args.depth());
                let candidate = |(rank, hit): (usize, &Hit)| {
                    let (title, text) = documents.get(&hit.id)?;
                    Some(RankedDocument::new(rank, hit.clone(), title, text))
                };
                Ok((1..).zip(hits).filter_map(candidate).collect())
            }
        }
    }
}

/// The first documents of the window that are no known positive and not above the margin.
fn select(
    pair: &Pair,
    candidates: Vec<RankedDocument>,
    known: &KnownPositives<'_>,
    args: &MineArgs,
    report: &mut MineCounts,
) -> Vec<RankedDocument> {
    let own = candidates.iter().find(|candidate| candidate.is(pair.positive_id.as_deref(), &pair.positive));
    let limit = own.map(|own| args.highest_score(own.hit.score));
    if args.has_margin() && limit.is_none() {
        // what is above a positive that was not found is likely to answer the query too
        report.positive_not_found += 1;
        return Vec::new();
    }
    let mut chosen: Vec<RankedDocument> = Vec::new();
    for candidate in candidates.into_iter().filter(|candidate| args.ranks.contains(&candidate.rank)) {
        if chosen.len() == args.negatives {
            break;
        }
        if known.has(&pair.anchor, &candidate) {
            report.known_positives += 1;
        } else if args.has_margin() && limit.is_some_and(|limit| candidate.hit.score > limit) {
            report.above_margin += 1;
        } else if !candidate.text.trim().is_empty() && chosen.iter().all(|other| !other.is(None, &candidate.text)) {
            chosen.push(candidate);
        }
    }
    chosen
}

/// A row in the training format: `anchor`, `positive`, `negative_1`, …, and with a teacher `label`.
fn row_of(pair: &Pair, negatives: &[RankedDocument], labels: Option<&[f32]>) -> Value {
    let mut row = Map::new();
    row.insert("anchor".to_owned(), json!(pair.anchor));
    row.insert("positive".to_owned(), json!(pair.positive));
    for (number, negative) in (1..).zip(negatives) {
        row.insert(format!("negative_{number}"), json!(negative.text));
    }
    if let Some(labels) = labels {
        row.insert("label".to_owned(), json!(labels));
    }
    Value::Object(row)
}

/// A model that scores a query with its positive and negatives.
struct Teacher {
    query: Box<dyn Encoder>,
    document: Box<dyn Encoder>,
}

impl Teacher {
    fn open(folder: &std::path::Path, args: &MineArgs) -> Result<Self> {
        let model = hub::open(folder, Wants::encoder(&args.network))?;
        let model = read_as(model, &args.network.reading)?;
        Ok(Self {
            query: query_encoder(&model, &args.network)?,
            document: Box::new(document_encoder(&model, &args.network)?),
        })
    }

    /// For each row the score of its positive, then those of its negatives.
    fn scores(&self, rows: &[(&Pair, Vec<RankedDocument>)]) -> Result<Vec<Vec<f32>>> {
        let queries: Vec<&str> = rows.iter().map(|(pair, _)| pair.anchor.as_str()).collect();
        let texts = |(pair, negatives): &'_ (&Pair, Vec<RankedDocument>)| -> Vec<String> {
            let negatives = negatives.iter().map(|negative| negative.text.clone());
            std::iter::once(pair.positive.clone()).chain(negatives).collect()
        };
        let documents: Vec<Vec<String>> = rows.iter().map(texts).collect();
        let all: Vec<&str> = documents.iter().flatten().map(String::as_str).collect();
        let queries = self.query.encode(&queries)?;
        let mut vectors = self.document.encode(&all)?.into_iter();
        let score = |(query, texts): (&SparseVector, &Vec<String>)| {
            vectors.by_ref().take(texts.len()).map(|vector| query.dot(&vector)).collect()
        };
        Ok(queries.iter().zip(&documents).map(score).collect())
    }
}

/// Counts of a run of the command.
#[derive(Debug, Default)]
struct MineCounts {
    rows: usize,
    written: usize,
    too_few: usize,
    known_positives: usize,
    above_margin: usize,
    positive_not_found: usize,
}

impl MineCounts {
    fn in_words(&self) -> String {
        format!(
            "{} of {} rows written, {} have too few negatives; left out: {} known positives, {} documents above the margin; the \
             positive of {} queries was not found",
            self.written, self.rows, self.too_few, self.known_positives, self.above_margin, self.positive_not_found
        )
    }

    fn to_json(&self) -> Value {
        json!({
            "rows": self.rows,
            "written": self.written,
            "too_few_negatives": self.too_few,
            "known_positives_left_out": self.known_positives,
            "above_margin_left_out": self.above_margin,
            "positive_not_found": self.positive_not_found,
        })
    }
}

impl MineArgs {
    /// Hits of a ranking that are looked at.
    fn depth(&self) -> usize {
        let last = *self.ranks.end();
        if self.has_margin() { last.max(DEPTH_FOR_POSITIVE) } else { last }
    }

    fn has_margin(&self) -> bool {
        self.margin.is_some() || self.relative_margin.is_some()
    }

    /// The highest score of a negative beside a positive of this score.
    fn highest_score(&self, positive: f32) -> f32 {
        let absolute = self.margin.map_or(f32::INFINITY, |margin| positive - margin);
        let relative = self.relative_margin.map_or(f32::INFINITY, |margin| positive - positive.abs() * margin);
        absolute.min(relative)
    }

    /// Refuses settings that contradict each other.
    fn check(&self) -> Result<()> {
        if self.output.is_none() && self.json {
            return Err(bad_input("--json and the rows both go to stdout", "give --output FILE"));
        }
        if self.mode != Mode::Sparse && self.run.is_some() {
            return Err(bad_input("--mode is of an index, and the run file is a ranking already", "leave --mode out"));
        }
        Ok(())
    }
}

/// Parser of `10-100`: ranks from 1, both ends included.
pub(crate) fn ranks(text: &str) -> Result<std::ops::RangeInclusive<usize>, String> {
    let wrong = || "expected two ranks like 10-100, the first at least 1".to_owned();
    let (first, last) = text.split_once('-').ok_or_else(wrong)?;
    match (first.trim().parse(), last.trim().parse()) {
        (Ok(first), Ok(last)) if (1..=last).contains(&first) => Ok(first..=last),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_two_ranks() {
        assert_eq!(ranks("10-100"), Ok(10..=100));
        assert_eq!(ranks("1-1"), Ok(1..=1));
        for text in ["", "5", "0-5", "7-5", "a-b", "-1-5"] {
            assert!(ranks(text).is_err(), "{text}");
        }
    }
}
