//! Evaluation of encoders on tasks, for `eval-mteb` and `export-onnx --eval`: a task is encoded into a temporary index,
//! which is searched in every mode.

mod cache;
mod dense;
mod engine;
mod facts;
mod side;
mod watch;

use std::time::Instant;

use anyhow::Result;
use splade_core::{Retriever, SparseVector, Vocabulary};
use splade_eval::{Baseline, EncodedTask, Evaluation, OwnDocuments, Resampling, Task, evaluate};
use splade_files::{Document, ModelDir};
use splade_index::{
    Bm25Retriever, DenseRetriever, HybridRetriever, ImpactIndex, ImpactRetriever, ImpactWriter, IndexSettings,
    Language, SearchOptions, Searcher, StoredDocument, WriterOptions,
};

use tempfile::TempDir;

use crate::cli::Mode;
use crate::commands::interrupt;
use crate::console;
use crate::dense::DenseModel;
use crate::failure::bad_input;
use crate::ranking::RankingSettings;
use crate::report::evaluated::{best_and_worst, cost, source};
use crate::report::mteb::{Evaluated, TOP, TaskFindings, compare};
use crate::sparsity::{Side as VectorSide, TaskSparsity};
use crate::tasks::label;

use self::dense::DenseTexts;
pub(crate) use cache::{VectorCache, fingerprint};
pub(crate) use engine::EvaluatedEngine;
pub(crate) use facts::{DenseFacts, Facts};
pub(crate) use side::{Lengths, Side, Survey};

/// Encoders of both sides of a model.
pub(crate) struct Encoders<'a> {
    pub(crate) query: Side<'a>,
    pub(crate) document: Side<'a>,
    /// model of the dense rankings; none without them
    pub(crate) dense: Option<&'a DenseModel>,
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
    let start = Instant::now();
    let (vectors, query_notes) = encoders.query.queries(task)?;
    let dimensions = query_notes.dimensions;
    let mut encoded = EncodedTask::new(&task.data.name, task.judged.qrels.clone(), dimensions);
    encoded.ignore_identical_ids(task.data.ignore_identical_ids);
    for (query, vector) in task.judged.queries.iter().zip(vectors) {
        encoded.add_query(&query.id, &query.text, vector);
    }
    let mut dense = encoders.dense.map(DenseTexts::new);
    if let Some(dense) = &mut dense {
        encoded.set_dense(|texts| dense.queries(texts))?;
    }
    let mut indexes = TemporaryIndex::of(systems, dimensions, encoders.dense)?;
    let bar = console::progress(&task.data.name, Some(survey.count));
    let mut documents = examination.side(dimensions);
    let keep = |document: Document, vector: SparseVector| -> Result<()> {
        if !encoded.add_document(&document.id, &vector) {
            return Err(task.data.duplicate_document(&document.id).into());
        }
        if let Some(side) = &mut documents {
            side.add(&document.id, Some(document.full_text().trim()), &vector)?;
        }
        let title = Some(document.title).filter(|title| !title.is_empty());
        let stored = StoredDocument { id: document.id, title, text: document.text, ..Default::default() };
        bar.inc(1);
        match &mut dense {
            Some(dense) => dense.push(stored, vector, &mut indexes),
            None => Ok(indexes.iter_mut().try_for_each(|index| index.writer.add(&stored, &vector))?),
        }
    };
    let document_notes = encoders.document.documents(task, survey, keep)?;
    if let Some(dense) = &mut dense {
        dense.flush(&mut indexes)?;
    }
    let encode_seconds = start.elapsed().as_secs_f64();
    let documents_per_second = bar.position() as f64 / bar.elapsed().as_secs_f64().max(1e-9);
    bar.finish_and_clear();
    if encoded.document_count() == 0 {
        return Err(bad_input(format!("{}: its corpus has no documents", task.data.name), ""));
    }
    let searchers = indexes.into_iter().map(TemporaryIndex::finish).collect::<Result<Vec<_>>>()?;
    if encoded.missing_relevant() > 0 {
        let missing = encoded.missing_relevant();
        tracing::warn!(
            "{}: relevant documents that are not in the corpus, which count as not found: {missing}",
            label(task)
        );
    }
    let (mut evaluations, mut search_seconds) = (Vec::new(), Vec::new());
    for (system, ranking) in systems.iter().zip(rankings) {
        interrupt::check()?;
        let start = Instant::now();
        let Some(found) = searcher_of(&searchers, *system) else { continue };
        evaluations.push(match examination.engine.filter(|_| system.mode == Mode::Sparse) {
            Some(engine) => engine.evaluate(&found.index, &encoded)?,
            None => evaluate_mode(system.mode, &found.searcher, ranking, &encoded)?,
        });
        search_seconds.push(start.elapsed().as_secs_f64());
    }
    remark_own_documents(task, &evaluations);
    let mut findings = examine(task, &encoded, &searchers, systems, rankings, &evaluations, examination)?;
    if let Some(documents) = documents {
        let mut queries = VectorSide::new(dimensions, examination.vocabulary.cloned());
        encoded.queries().iter().try_for_each(|query| queries.add(&query.id, Some(&query.text), &query.vector))?;
        findings.sparsity = Some(TaskSparsity { queries, documents });
    }
    let queries = encoded.query_stats();
    let documents = encoded.document_stats();
    let facts = Facts::of((&queries, &query_notes), (documents, &document_notes), survey.fingerprint.clone());
    let dense_seconds = dense.as_ref().map_or(0.0, DenseTexts::seconds);
    let facts = Facts { dense: dense.map(DenseTexts::facts).transpose()?, ..facts };
    Ok(TaskEvaluation {
        modes: evaluations,
        facts,
        documents_per_second,
        encode_seconds,
        dense_seconds,
        search_seconds,
        findings,
    })
}

/// Searcher with the stemmer of a system. Sparse search is independent of the stemmer.
fn searcher_of(searchers: &[TemporarySearcher], system: System) -> Option<&TemporarySearcher> {
    searchers.iter().find(|searcher| searcher.language == system.language).or(searchers.first())
}

/// Compares the evaluations with the baseline, and examines what a report shows.
fn examine(
    task: &Task,
    encoded: &EncodedTask,
    searchers: &[TemporarySearcher],
    systems: &[System],
    rankings: &[RankingSettings],
    evaluations: &[Evaluation],
    examination: &Examination,
) -> Result<TaskFindings> {
    let mut findings = TaskFindings::default();
    let explains = systems.iter().any(|system| matches!(system.mode, Mode::Sparse | Mode::Hybrid));
    let source = match (examination.vocabulary.filter(|_| explains), searchers.first()) {
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
        let Some(found) = searcher_of(searchers, *system).filter(|_| examination.is_reported) else { continue };
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

/// Index of a corpus in a temporary folder, with one stemmer.
struct TemporaryIndex {
    language: Language,
    // the folder is removed after the index is closed
    index: ImpactIndex,
    writer: ImpactWriter,
    folder: TempDir,
}

/// Searcher over a [`TemporaryIndex`].
struct TemporarySearcher {
    language: Language,
    searcher: Searcher,
    // the folder is removed after the index is closed
    index: ImpactIndex,
    _folder: TempDir,
}

impl TemporaryIndex {
    /// An index for each stemmer, one for systems without BM25.
    fn of(systems: &[System], dimensions: usize, dense: Option<&DenseModel>) -> Result<Vec<Self>> {
        let has_bm25 = |system: &&System| matches!(system.mode, Mode::Bm25 | Mode::Hybrid);
        let of_bm25 = systems.iter().filter(has_bm25).map(|system| system.language);
        let mut languages: Vec<Language> = Vec::new();
        for language in of_bm25 {
            let is_new = !languages.contains(&language);
            languages.extend(is_new.then_some(language));
        }
        if languages.is_empty() {
            languages.push(Language::default());
        }
        languages.into_iter().map(|language| Self::create(language, dimensions, dense)).collect()
    }

    fn create(language: Language, dimensions: usize, dense: Option<&DenseModel>) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("splade-eval-").tempdir()?;
        let mut settings = IndexSettings::new(u32::try_from(dimensions)?, "evaluation", "evaluation");
        settings.language = language;
        settings.dense = dense.map(DenseModel::settings).transpose()?;
        let index = ImpactIndex::create(folder.path(), &settings)?;
        let writer = index.writer(WriterOptions::default())?;
        Ok(Self { language, index, writer, folder })
    }

    fn finish(self) -> Result<TemporarySearcher> {
        self.writer.finish()?;
        let searcher = self.index.searcher()?;
        Ok(TemporarySearcher { language: self.language, searcher, index: self.index, _folder: self.folder })
    }
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
