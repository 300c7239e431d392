//! Evaluation of encoders on tasks, for `eval-mteb` and `export-onnx --eval`: a task is encoded into a temporary index,
//! which is searched in every mode.

mod cache;
mod dense;
mod engine;
mod facts;
mod prepared;
mod side;
mod watch;

use std::time::Instant;

use anyhow::Result;
use splade_core::{Retriever, Vocabulary};
use splade_eval::{Baseline, EncodedTask, Evaluation, OwnDocuments, Resampling, Task, evaluate};
use splade_files::ModelDir;
use splade_index::{
    Bm25Retriever, DenseRetriever, HybridRetriever, ImpactRetriever, Language, SearchOptions, Searcher,
};

use crate::cli::Mode;
use crate::commands::interrupt;
use crate::ranking::RankingSettings;
use crate::report::evaluated::{best_and_worst, cost, source};
use crate::report::mteb::{Evaluated, TOP, TaskFindings, compare};
use crate::sparsity::Side as VectorSide;
use crate::tasks::label;

use self::prepared::Prepared;
pub(crate) use cache::{VectorCache, fingerprint};
pub(crate) use dense::CachedDense;
pub(crate) use engine::EvaluatedEngine;
pub(crate) use facts::{DenseFacts, Facts, SideFacts};
pub(crate) use side::{Lengths, Side, Survey, fingerprint_of_queries};

/// Encoders of both sides of a model.
pub(crate) struct Encoders<'a> {
    pub(crate) query: Side<'a>,
    pub(crate) document: Side<'a>,
    /// model of the dense rankings; none without them
    pub(crate) dense: Option<CachedDense<'a>>,
}

/// Evaluations of one task.
pub(crate) struct TaskEvaluation {
    /// one for each system, in their order
    pub(crate) modes: Vec<Evaluation>,
    pub(crate) facts: Facts,
    pub(crate) documents_per_second: f64,
    /// seconds for the encoding of both sides, by all models
    pub(crate) encode_seconds: f64,
    /// those of them that the dense model took
    pub(crate) dense_seconds: f64,
    /// seconds for the search, one for each system
    pub(crate) search_seconds: Vec<f64>,
    pub(crate) findings: TaskFindings,
}

/// Examinations beside the scores.
#[derive(Default)]
pub(crate) struct Examination<'a> {
    /// names of the systems, in their order
    pub(crate) names: Vec<String>,
    /// tokenizer without a maximum length, if queries are explained or vectors analysed
    pub(crate) vocabulary: Option<&'a Vocabulary>,
    /// true if the vectors of both sides are analysed
    pub(crate) analyses_sparsity: bool,
    /// true if the costs of systems are measured, and the best and worst queries explained
    pub(crate) is_reported: bool,
    /// name and results to compare with
    pub(crate) baseline: Option<(&'a str, &'a Baseline)>,
    pub(crate) resampling: Resampling,
    /// search engine that gives the sparse rankings; none for the index
    pub(crate) engine: Option<&'a EvaluatedEngine>,
}

impl Examination<'_> {
    /// Analysis of one side; none if vectors are not analysed.
    fn side(&self, dimensions: usize) -> Option<VectorSide> {
        self.analyses_sparsity.then(|| VectorSide::new(dimensions, self.vocabulary.cloned()))
    }
}

/// Name of a model: the name of its folder, after the name of the folder above for `final` and `checkpoint-10`.
pub(crate) fn model_name(model: &ModelDir) -> Result<String> {
    let folder = std::fs::canonicalize(model.root()).map_err(splade_files::Error::io(model.root()))?;
    let last = |path: &std::path::Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    let name = last(&folder).unwrap_or_else(|| "model".into());
    Ok(match folder.parent().and_then(last) {
        Some(run) if name == "final" || name.starts_with("checkpoint-") => format!("{run}-{name}"),
        _ => name,
    })
}

/// Ranking mode, with the stemmer of its BM25.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct System {
    pub(crate) mode: Mode,
    pub(crate) language: Language,
}

/// Encodes a task into a temporary index and evaluates it with every system. `survey` is that of its corpus, `rankings` are
/// the settings of each system.
pub(crate) fn evaluate_task(
    task: &Task,
    survey: &Survey,
    encoders: &Encoders<'_>,
    systems: &[System],
    rankings: &[RankingSettings],
    examination: &Examination,
) -> Result<TaskEvaluation> {
    let prepared = Prepared::of(task, survey, encoders, systems, examination)?;
    let (mut evaluations, mut search_seconds) = (Vec::new(), Vec::new());
    for (system, ranking) in systems.iter().zip(rankings) {
        interrupt::check()?;
        let start = Instant::now();
        let Some(found) = prepared.searcher_of(*system) else { continue };
        evaluations.push(match examination.engine.filter(|_| system.mode == Mode::Sparse) {
            Some(engine) => engine.evaluate(&found.index, &prepared.task)?,
            None => evaluate_mode(system.mode, &found.searcher, ranking, &prepared.task)?,
        });
        search_seconds.push(start.elapsed().as_secs_f64());
    }
    remark_own_documents(task, &evaluations);
    let findings = examine(task, &prepared, systems, rankings, &evaluations, examination)?;
    Ok(TaskEvaluation {
        modes: evaluations,
        facts: prepared.facts,
        documents_per_second: prepared.documents_per_second,
        encode_seconds: prepared.encode_seconds,
        dense_seconds: prepared.dense_seconds,
        search_seconds,
        findings: TaskFindings { sparsity: prepared.sparsity, ..findings },
    })
}

/// Compares the evaluations with the baseline, and examines what a report shows.
fn examine(
    task: &Task,
    prepared: &Prepared,
    systems: &[System],
    rankings: &[RankingSettings],
    evaluations: &[Evaluation],
    examination: &Examination,
) -> Result<TaskFindings> {
    let (mut findings, encoded) = (TaskFindings::default(), &prepared.task);
    let explains = systems.iter().any(|system| matches!(system.mode, Mode::Sparse | Mode::Hybrid));
    let source = match (examination.vocabulary.filter(|_| explains), prepared.searchers.first()) {
        (Some(vocabulary), Some(first)) => Some(source(first.index.searcher()?, encoded, vocabulary)?),
        _ => None,
    };
    let named = systems.iter().zip(rankings).zip(&examination.names);
    for (((system, ranking), name), evaluation) in named.zip(evaluations) {
        let evaluated = Evaluated { data: &task.data, task: encoded, system: name, evaluation };
        if let Some((baseline_name, baseline)) = examination.baseline {
            let compared = compare(&evaluated, baseline, baseline_name, &examination.resampling, source.as_ref())?;
            findings.comparisons.extend(compared);
        }
        let Some(found) = prepared.searcher_of(*system).filter(|_| examination.is_reported) else { continue };
        interrupt::check()?;
        let stats = found.index.stats()?;
        let measure = |retriever: &dyn Retriever| cost(system.mode, retriever, encoded, &stats);
        findings.costs.push(with_retriever(system.mode, &found.searcher, ranking, measure)?);
    }
    if let Some(evaluation) = evaluations.first().filter(|_| examination.is_reported) {
        findings.extremes = best_and_worst(&source.unwrap_or_default(), evaluation, encoded, TOP)?;
    }
    Ok(findings)
}

fn evaluate_mode(mode: Mode, searcher: &Searcher, ranking: &RankingSettings, task: &EncodedTask) -> Result<Evaluation> {
    with_retriever(mode, searcher, ranking, |retriever| Ok(evaluate(retriever, task)?))
}

/// Calls `run` with the retriever of a mode.
fn with_retriever<T>(
    mode: Mode,
    searcher: &Searcher,
    ranking: &RankingSettings,
    run: impl FnOnce(&dyn Retriever) -> T,
) -> T {
    let options = SearchOptions { bm25: ranking.bm25, ..SearchOptions::default() };
    let sparse = ImpactRetriever::new(searcher, options.clone());
    let bm25 = Bm25Retriever::new(searcher, options.clone());
    let dense = DenseRetriever::new(searcher, options.clone());
    let hybrid = HybridRetriever::new(searcher, ranking.fusion.clone(), ranking.depth, options);
    let retriever: &dyn Retriever = match mode {
        Mode::Sparse => &sparse,
        Mode::Bm25 => &bm25,
        Mode::Dense => &dense,
        Mode::Hybrid => &hybrid,
    };
    run(retriever)
}

/// Logs rankings that have, or leave out, the document with the query's own id.
fn remark_own_documents(task: &Task, modes: &[Evaluation]) {
    let most =
        |count: fn(&OwnDocuments) -> usize| modes.iter().map(|mode| count(&mode.own_documents)).max().unwrap_or(0);
    let (name, queries) = (label(task), task.judged.queries.len());
    let (left_out, relevant, ranked) =
        (most(|own| own.left_out), most(|own| own.left_out_relevant), most(|own| own.ranked));
    if left_out > 0 {
        tracing::info!("{name}: the document with the query's own id was left out for {left_out} of {queries} queries");
    }
    if relevant > 0 {
        tracing::warn!("{name}: {relevant} of the documents left out are judged relevant and count as not found");
    }
    if ranked > 0 {
        tracing::warn!(
            "{name}: {ranked} of {queries} queries have the document with their own id among the first 10 hits; if queries \
             are documents of the corpus, --ignore-identical-ids leaves it out"
        );
    }
}
