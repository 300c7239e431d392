//! Evaluation of encoders on tasks, for `eval-mteb` and `export-onnx --eval`: a task is encoded into a temporary index,
//! which is searched in every mode.

use anyhow::Result;
use splade_core::{Encoder, Fusion, Hybrid, Retriever};
use splade_eval::{EncodedTask, Evaluation, MTEB_DEPTH, OwnDocuments, Task, evaluate};
use splade_files::{Document, ModelDir};
use splade_index::{
    Bm25Retriever, ImpactIndex, ImpactRetriever, IndexSettings, Language, SearchOptions, Searcher, StoredDocument,
    WriterOptions,
};

use crate::cli::Mode;
use crate::commands::interrupt;
use crate::console;
use crate::tasks::label;

/// Encoders of both sides of a model.
pub(crate) struct Encoders {
    pub(crate) query: Box<dyn Encoder>,
    pub(crate) document: Box<dyn Encoder>,
}

/// Evaluations of one task.
pub(crate) struct TaskEvaluation {
    /// one for each mode, in their order
    pub(crate) modes: Vec<Evaluation>,
    /// queries and statistics of the corpus
    pub(crate) task: EncodedTask,
    pub(crate) documents_per_second: f64,
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

/// Encodes a task into a temporary index and evaluates it in every mode. `check_id` may refuse the id of a document.
pub(crate) fn evaluate_task(
    task: &Task,
    encoders: &Encoders,
    modes: &[Mode],
    language: Language,
    check_id: impl Fn(&str) -> Result<()>,
) -> Result<TaskEvaluation> {
    let folder = tempfile::Builder::new().prefix("splade-eval-").tempdir()?;
    let mut settings = IndexSettings::new(u32::try_from(encoders.document.dimensions())?, "evaluation", "evaluation");
    settings.language = language;
    let index = ImpactIndex::create(folder.path(), &settings)?;
    let mut writer = index.writer(WriterOptions::default())?;
    let bar = console::progress(&task.data.name, None);
    let keep = |document: Document, vector| -> Result<()> {
        interrupt::check()?;
        check_id(&document.id)?;
        let title = Some(document.title).filter(|title| !title.is_empty());
        writer.add(&StoredDocument { id: document.id, title, text: document.text, ..Default::default() }, &vector)?;
        bar.inc(1);
        Ok(())
    };
    let encoded = task.encode(encoders.query.as_ref(), encoders.document.as_ref(), keep)?;
    let documents_per_second = bar.position() as f64 / bar.elapsed().as_secs_f64().max(1e-9);
    bar.finish_and_clear();
    writer.finish()?;
    if encoded.missing_relevant() > 0 {
        let missing = encoded.missing_relevant();
        tracing::warn!(
            "{}: relevant documents that are not in the corpus, which count as not found: {missing}",
            label(task)
        );
    }
    let searcher = index.searcher()?;
    let evaluations = modes.iter().map(|mode| {
        interrupt::check()?;
        evaluate_mode(*mode, &searcher, &encoded)
    });
    let modes = evaluations.collect::<Result<Vec<_>>>()?;
    remark_own_documents(task, &modes);
    Ok(TaskEvaluation { modes, task: encoded, documents_per_second })
}

fn evaluate_mode(mode: Mode, searcher: &Searcher, task: &EncodedTask) -> Result<Evaluation> {
    let sparse = ImpactRetriever::new(searcher, SearchOptions::default());
    let bm25 = Bm25Retriever::new(searcher, SearchOptions::default());
    let hybrid = Hybrid::new(vec![&sparse, &bm25], Fusion::default(), MTEB_DEPTH);
    let retriever: &dyn Retriever = match mode {
        Mode::Sparse => &sparse,
        Mode::Bm25 => &bm25,
        Mode::Hybrid => &hybrid,
    };
    Ok(evaluate(retriever, task)?)
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
