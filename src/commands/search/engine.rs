//! `splade search --engine`: the same output for the hits of a search engine.

use anyhow::Result;
use splade_core::{Fusion, Hit, Pruning, Ranking, SparseVector};
use splade_files::Query;
use splade_index::{Filter, ImpactIndex};

use super::asked::{self, Asked, dims_of};
use super::batch::blocks;
use super::paint::Paint;
use super::table::TableStyle;
use super::{format, table, trec_lines};
use crate::answer::{AnswerHit, Shown, to_json};
use crate::cli::{CollectionArgs, EngineKind, HitFormat, Mode, SearchArgs};
use crate::commands::interrupt;
use crate::engines::{self, EngineClient, EngineHit, QueryModel, Wanted, WantedRanking};
use crate::failure::bad_input;
use crate::outputs::Output;
use crate::ranking::{DEPTH_OF_ENGINES, Defaults, RankingSettings, Untuned, resolve};

/// Queries that are answered before the first of them is written.
const QUERIES_OF_A_BLOCK: usize = 256;

/// Collection with everything that does not change from query to query.
struct EngineSearch<'a> {
    args: &'a SearchArgs,
    client: EngineClient,
    /// none for a ranking by words without a model
    model: Option<QueryModel>,
    pruning: Pruning,
    filter: Option<Filter>,
    fusion: Fusion,
    /// hits taken from each ranking before fusion
    depth: usize,
}

/// Searches a collection of an engine.
pub(super) fn run(args: &SearchArgs, kind: EngineKind) -> Result<()> {
    refuse_flags_of_indexes(args)?;
    if args.query.is_none() && args.queries.is_none() && args.query_vectors.is_none() {
        return Err(bad_input("--engine: there is no query", "give a query, or --queries FILE"));
    }
    let engine = engines::open(kind, &args.at, &CollectionArgs::default())?;
    let search = EngineSearch::open(args, EngineClient::open(engine, args.at.concurrency())?)?;
    let vocabulary = search.model.as_ref().and_then(QueryModel::vocabulary).cloned();
    let queries = asked::read(args, || Ok(dims_of(vocabulary)))?;
    let mut output = Output::open(None, false)?;
    let mut n_queries = 0;
    for block in blocks(queries, QUERIES_OF_A_BLOCK) {
        interrupt::check()?;
        n_queries += block.len();
        search.answer(block, |lines| output.write_bytes(lines))?;
    }
    if n_queries == 0 {
        return Err(asked::no_queries(args));
    }
    output.finish()
}

impl<'a> EngineSearch<'a> {
    /// Reads the flags, and the model, which must be that of the collection.
    fn open(args: &'a SearchArgs, client: EngineClient) -> Result<Self> {
        let model = query_model(args)?;
        if let Some(model) = &model {
            model.expect(client.manifest(), &client.place())?;
        }
        let language = client.manifest().language()?;
        let defaults =
            Defaults { tuned: None, language, depth: DEPTH_OF_ENGINES, rankings: 2, untuned: Untuned::Ranks };
        let RankingSettings { fusion, depth, .. } = resolve(&[args.mode], &args.fusion, &args.bm25, defaults)?;
        Ok(Self {
            args,
            client,
            model,
            pruning: args.prune.pruning()?,
            filter: args.filter.as_deref().map(str::parse).transpose()?,
            fusion,
            depth: depth.max(args.k),
        })
    }

    /// Answers queries, and writes the lines of each in their order, up to the first error.
    fn answer(&self, block: Vec<Result<Asked>>, mut write: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let (mut queries, mut failure) = (Vec::with_capacity(block.len()), None);
        for asked in block {
            match asked.and_then(|asked| self.encoded(asked)) {
                Ok(query) => queries.push(query),
                Err(error) => {
                    failure = Some(error);
                    break;
                }
            }
        }
        let wanted: Vec<Wanted<'_>> = queries.iter().map(|(query, vector)| self.wanted(query, vector)).collect();
        if self.args.show_query {
            for wanted in &wanted {
                write(format!("{}\n", self.client.request(wanted)?).as_bytes())?;
            }
            return failure.map_or(Ok(()), Err);
        }
        let answers = self.client.search_all(&wanted);
        for ((query, _), hits) in queries.iter().zip(answers.hits) {
            write(&render(self.args, query, hits)?)?;
        }
        match answers.failure {
            Some((at, error)) => Err(self.of_query(&queries[at].0, error)),
            None => failure.map_or(Ok(()), Err),
        }
    }

    /// The error with the id of its query, unless there is one query alone.
    fn of_query(&self, query: &Query, error: anyhow::Error) -> anyhow::Error {
        if self.args.query.is_some() { error } else { error.context(format!("query {}", query.id)) }
    }

    /// A query with its vector, which is empty for a ranking by words.
    fn encoded(&self, asked: Asked) -> Result<(Query, SparseVector)> {
        let Asked { query, vector } = asked;
        let model = self.model.as_ref().filter(|_| self.args.mode != Mode::Bm25);
        let vector = match (vector, model) {
            (Some(vector), _) => self.in_vocabulary(&query, vector)?,
            (None, Some(model)) => {
                let vectors = model.encode(&[&query.text]).map_err(|error| self.of_query(&query, error))?;
                vectors.into_iter().next().unwrap_or_default()
            }
            (None, None) => SparseVector::default(),
        };
        Ok((query, self.pruning.apply(vector)))
    }

    /// Refuses a given vector with a dimension that the model does not have.
    fn in_vocabulary(&self, query: &Query, vector: SparseVector) -> Result<SparseVector> {
        let terms = self.client.manifest().vocabulary_size;
        match vector.dims().last().filter(|dim| **dim >= terms) {
            Some(dim) => Err(bad_input(
                format!("query {}: its vector has the dimension {dim}, and the model has {terms}", query.id),
                "give vectors of the model that the collection was made with",
            )),
            None => Ok(vector),
        }
    }

    fn wanted<'q>(&'q self, query: &'q Query, vector: &'q SparseVector) -> Wanted<'q> {
        let text = query.text.as_str();
        Wanted {
            vector,
            ranking: match self.args.mode {
                Mode::Bm25 => WantedRanking::Words(text),
                Mode::Hybrid => WantedRanking::Hybrid { text, depth: self.depth, fusion: &self.fusion },
                Mode::Sparse | Mode::Dense => WantedRanking::Vectors,
            },
            k: self.args.k,
            filter: self.filter.as_ref(),
            with_documents: self.args.show_query || format(self.args) != HitFormat::Trec,
        }
    }
}

/// The model of `--model`, else of the index that was pushed; none for a ranking by words without either.
fn query_model(args: &SearchArgs) -> Result<Option<QueryModel>> {
    match (&args.model, args.index_of_queries()) {
        (Some(folder), _) => QueryModel::of_folder(folder, &args.network).map(Some),
        (None, Some(index)) => QueryModel::of_index(&ImpactIndex::open(index)?).map(Some),
        (None, None) if args.mode == Mode::Bm25 => Ok(None),
        (None, None) => Err(bad_input(
            "--engine: queries are encoded here, and no model is given",
            "give the index that was pushed with --index, or the model with --model",
        )),
    }
}

/// Lines of the hits of a query, in the format of the flags.
fn render(args: &SearchArgs, query: &Query, hits: Vec<EngineHit>) -> Result<Vec<u8>> {
    if format(args) == HitFormat::Trec {
        let hits = hits.into_iter().map(|hit| Hit { id: hit.document.id, score: hit.score });
        return trec_lines(query, Ranking::from_hits(hits.collect()));
    }
    let hits: Vec<AnswerHit> = hits
        .into_iter()
        .map(|EngineHit { score, document }| AnswerHit {
            hit: Hit { id: document.id.clone(), score },
            document,
            passage: None,
            explanation: None,
            snippets: Vec::new(),
        })
        .collect();
    if format(args) == HitFormat::Json {
        let shown = Shown { explanation: false, snippets: false, fields: None };
        return Ok(format!("{}\n", to_json(query, &hits, &shown, &[])?).into_bytes());
    }
    let style = TableStyle { paint: Paint::new(args.color), many: args.query.is_none(), explain: false };
    Ok(table::render(query, &hits, style).into_bytes())
}

/// Refuses flags that only a search of an index has.
fn refuse_flags_of_indexes(args: &SearchArgs) -> Result<()> {
    let given = [
        ("--mode dense", args.mode == Mode::Dense),
        ("--count-by", !args.count_by.is_empty()),
        ("--explain", args.explain),
        ("--snippets", args.snippets.is_some()),
        ("--snippet-length", args.snippet_length.is_some()),
        ("--html", args.html.is_some()),
        ("--stats", args.stats.is_some()),
        ("--warm", args.warm),
        ("--dense", args.dense.dense.is_some()),
        ("--dense-run", args.dense.dense_run.is_some()),
        ("--bm25-k1", args.bm25.bm25_k1.is_some()),
        ("--bm25-b", args.bm25.bm25_b.is_some()),
        ("--bm25-compounds", args.bm25.bm25_compounds.is_some()),
        ("--bm25-drop-stop-words", args.bm25.bm25_drop_stop_words.is_some()),
    ];
    match given.iter().find(|(_, is_given)| *is_given) {
        Some((flag, _)) => Err(bad_input(
            format!("{flag}: it needs an index of this program, and --engine searches a collection"),
            "leave it out, or search the index without --engine",
        )),
        None => Ok(()),
    }
}
