//! `splade search`: query → hits, by impact, by BM25, or by both fused.

use std::collections::HashSet;
use std::io::Write;

use anyhow::Result;
use serde_json::{Map, Value, json};
use splade_index::{
    Encoder, Filter, Found, Fusion, ImpactIndex, Query, QueryEncoder, SearchOptions, Searcher, SparseVector,
    Vocabulary, read_queries,
};

use super::interrupt;
use crate::cli::{FusionChoice, HitFormat, Mode, SearchArgs};
use crate::console::Table;
use crate::encoders::{query_encoder, use_threads, with_head_mode};
use crate::failure::bad_input;
use crate::hub::{self, Wants};
use crate::outputs::Output;

pub(crate) fn run(args: &SearchArgs) -> Result<()> {
    use_threads(args.network.threads);
    let index = ImpactIndex::open(&args.index)?;
    let search = Search {
        side: query_side(&index, args)?,
        searcher: index.searcher()?,
        options: SearchOptions { filter: filter(args)?, threads: args.network.threads, ..SearchOptions::default() },
        fusion: fusion(args)?,
        args,
    };
    let format = if args.json { HitFormat::Json } else { args.format };
    let mut output = Output::open(None, false)?;
    for query in queries(args)? {
        interrupt::check()?;
        let query = query?;
        let answer = search.answer(&query)?;
        match format {
            HitFormat::Table => search.print_table(&mut output, &query, &answer)?,
            HitFormat::Json => writeln!(output, "{}", search.to_json(&query, &answer)?)?,
            HitFormat::Trec => {
                for (rank, found) in (1..).zip(&answer.found) {
                    let (id, score) = (&found.hit.id, found.hit.score);
                    writeln!(output, "{} Q0 {id} {rank} {score} splade", query.id)?;
                }
            }
        }
    }
    output.finish()
}

fn queries(args: &SearchArgs) -> Result<Box<dyn Iterator<Item = Result<Query>>>> {
    match (&args.query, &args.queries) {
        (Some(text), _) => Ok(Box::new(std::iter::once(Ok(Query { id: "1".into(), text: text.clone() })))),
        (None, Some(path)) => Ok(Box::new(read_queries(path)?.map(|query| query.map_err(Into::into)))),
        (None, None) => Err(bad_input("there is no query", "give one, or --queries FILE")),
    }
}

fn filter(args: &SearchArgs) -> Result<Option<Filter>> {
    Ok(args.filter.as_deref().map(str::parse).transpose()?)
}

fn fusion(args: &SearchArgs) -> Result<Fusion> {
    if args.rrf_k.is_nan() || args.rrf_k < 0.0 || args.weights.iter().any(|weight| !weight.is_finite()) {
        return Err(bad_input("--rrf-k and --weights must be numbers, the first not negative", ""));
    }
    Ok(match args.fusion {
        FusionChoice::Rrf => Fusion::Rrf { k: args.rrf_k },
        FusionChoice::Weighted => Fusion::Weighted { weights: args.weights.to_vec() },
    })
}

/// What turns a query into a vector, and dimensions into words.
struct QuerySide {
    encoder: Box<dyn Encoder>,
    vocabulary: Vocabulary,
}

/// The query side kept in the index, else that of `--model`; none for BM25, which needs none.
fn query_side(index: &ImpactIndex, args: &SearchArgs) -> Result<Option<QuerySide>> {
    if args.mode == Mode::Bm25 && !args.explain {
        return Ok(None);
    }
    if let Some(folder) = &args.model {
        let model = hub::open(folder, Wants::encoder(&args.network).and_weights())?;
        let model = with_head_mode(model, args.network.mlm_head)?;
        let vocabulary = model.vocabulary(None)?;
        let terms = u32::try_from(model.dimensions()?)?;
        index.expect_model(terms, &model.fingerprint()?, vocabulary.fingerprint())?;
        return Ok(Some(QuerySide { encoder: query_encoder(&model, &args.network)?, vocabulary }));
    }
    let folder = index.query_dir();
    if !folder.is_dir() {
        return Err(bad_input(
            format!("{}: queries of this index go through the model's network", args.index.display()),
            "give the model folder with --model",
        ));
    }
    let encoder = QueryEncoder::open(&folder)?;
    let vocabulary = encoder.vocabulary().clone();
    Ok(Some(QuerySide { encoder: Box::new(encoder), vocabulary }))
}

struct Search<'a> {
    side: Option<QuerySide>,
    searcher: Searcher,
    options: SearchOptions,
    fusion: Fusion,
    args: &'a SearchArgs,
}

/// The vector a query became, and what it found.
struct Answer {
    vector: SparseVector,
    found: Vec<Found>,
}

/// A term that matched.
struct Term {
    token: String,
    query_weight: f32,
    document_weight: f32,
    score: f32,
    expansion: bool,
}

impl Search<'_> {
    fn answer(&self, query: &Query) -> Result<Answer> {
        let vector = match &self.side {
            Some(side) => side.encoder.encode(&[&query.text])?.pop().unwrap_or_default(),
            None => SparseVector::default(),
        };
        let (k, depth) = (self.args.k, self.args.depth.max(self.args.k));
        let found = match self.args.mode {
            Mode::Sparse => self.searcher.search(&vector, k, &self.options)?,
            Mode::Bm25 => self.searcher.search_bm25(&query.text, k, self.options.filter.as_ref())?,
            Mode::Hybrid => self.searcher.search_hybrid(&vector, &query.text, k, depth, &self.fusion, &self.options)?,
        };
        Ok(Answer { vector, found })
    }

    /// The terms that query and document share, largest first; `None` unless asked for.
    fn explain(&self, answer: &Answer, found: &Found) -> Result<Option<Vec<Term>>> {
        let Some(side) = self.side.as_ref().filter(|_| self.args.explain) else { return Ok(None) };
        let document = self.searcher.document(found.address)?;
        let text = format!("{} {}", document.title.unwrap_or_default(), document.text);
        let words: HashSet<u32> = side.vocabulary.tokenize(&text)?.into_iter().collect();
        let terms = self.searcher.explain(&answer.vector, found.address)?.into_iter().map(|term| Term {
            token: side.vocabulary.token(term.dim).unwrap_or_else(|| format!("[{}]", term.dim)),
            query_weight: term.query_weight,
            document_weight: term.document_weight,
            score: term.score,
            expansion: !words.contains(&term.dim),
        });
        Ok(Some(terms.collect()))
    }

    fn to_json(&self, query: &Query, answer: &Answer) -> Result<Value> {
        let mut hits = Vec::with_capacity(answer.found.len());
        for (rank, found) in (1..).zip(&answer.found) {
            let document = self.searcher.document(found.address)?;
            let mut hit = Map::new();
            hit.insert("rank".into(), json!(rank));
            hit.insert("_id".into(), json!(found.hit.id));
            hit.insert("score".into(), number(found.hit.score));
            hit.extend(document.title.map(|title| ("title".to_owned(), json!(title))));
            hit.insert("text".into(), json!(document.text));
            for (name, value) in document.other {
                hit.entry(name).or_insert(value);
            }
            if let Some(terms) = self.explain(answer, found)? {
                hit.insert("terms".into(), terms.iter().map(Term::to_json).collect());
            }
            hits.push(Value::Object(hit));
        }
        Ok(json!({"query_id": query.id, "query": query.text, "hits": hits}))
    }

    fn print_table(&self, output: &mut Output, query: &Query, answer: &Answer) -> Result<()> {
        if self.args.queries.is_some() {
            writeln!(output, "{}: {}", query.id, query.text)?;
        }
        if answer.found.is_empty() {
            writeln!(output, "nothing found")?;
        }
        for (rank, found) in (1..).zip(&answer.found) {
            let document = self.searcher.document(found.address)?;
            let title = document.title.unwrap_or_default();
            let line = format!("{rank:>2}. {:<8.3} {}  {title}", found.hit.score, found.hit.id);
            writeln!(output, "{}", line.trim_end())?;
            writeln!(output, "    {}", snippet(&document.text, 100))?;
            if let Some(terms) = self.explain(answer, found)? {
                let mut table = Table::new(["    term", "query", "document", "score", ""]);
                for term in &terms {
                    table.row([
                        format!("    {}", term.token),
                        format!("{:.3}", term.query_weight),
                        format!("{:.3}", term.document_weight),
                        format!("{:.3}", term.score),
                        if term.expansion { "expansion".to_owned() } else { String::new() },
                    ]);
                }
                write!(output, "{table}")?;
            }
        }
        Ok(())
    }
}

impl Term {
    fn to_json(&self) -> Value {
        json!({
            "token": self.token,
            "query_weight": number(self.query_weight),
            "document_weight": number(self.document_weight),
            "score": number(self.score),
            "expansion": self.expansion,
        })
    }
}

/// A weight with as few decimals as read back equal: `12.3`, not the `12.300000190734863` of the f64 nearest to it.
fn number(weight: f32) -> Value {
    json!(weight.to_string().parse::<f64>().unwrap_or(weight.into()))
}

/// The start of a text on one line.
fn snippet(text: &str, characters: usize) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(characters) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}
