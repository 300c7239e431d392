//! [`Prepared`]: a task whose texts are encoded and whose documents are in temporary indexes.

use std::time::Instant;

use anyhow::Result;
use splade_core::PassageLength;
use splade_eval::{EncodedTask, Task};
use splade_files::Document;
use splade_index::{
    DenseSettings, ImpactIndex, ImpactWriter, IndexSettings, Language, Searcher, StoredDocument, WriterOptions,
};
use tempfile::TempDir;

use super::dense::DenseTexts;
use super::facts::{DenseFacts, Facts, SideFacts};
use super::side::Notes;
use super::{Encoders, Examination, Survey, System};
use crate::cli::Mode;
use crate::console;
use crate::failure::bad_input;
use crate::passages::Vectors;
use crate::sparsity::{Side as VectorSide, TaskSparsity};
use crate::tasks::label;

/// Encoded queries, indexes of the corpus, and the facts about both.
pub(super) struct Prepared {
    pub(super) task: EncodedTask,
    /// one for each stemmer
    pub(super) searchers: Vec<TemporarySearcher>,
    pub(super) facts: Facts,
    /// none if vectors are not analysed
    pub(super) sparsity: Option<TaskSparsity>,
    pub(super) documents_per_second: f64,
    /// seconds for the encoding of both sides, by all models
    pub(super) encode_seconds: f64,
    /// those of them that the dense model took
    pub(super) dense_seconds: f64,
}

impl Prepared {
    /// Encodes a task and fills an index for each stemmer of the systems. `survey` is that of its corpus.
    pub(super) fn of(
        task: &Task,
        survey: &Survey,
        encoders: &Encoders<'_>,
        systems: &[System],
        examination: &Examination,
    ) -> Result<Self> {
        let start = Instant::now();
        let (encoded, query_notes) = encode_queries(task, encoders)?;
        let dimensions = encoded.dimensions();
        let dense = encoders.dense.as_ref().map(|dense| DenseTexts::new(dense, task, survey)).transpose()?;
        let form = Form {
            dimensions: u32::try_from(dimensions)?,
            dense: dense.as_ref().map(DenseTexts::settings).transpose()?,
            passages: encoders.document.passages(),
        };
        let indexes = TemporaryIndex::of(systems, &form)?;
        let mut corpus = Corpus { task, encoded, dense, indexes, analysed: examination.side(dimensions) };
        corpus.encode_dense_queries()?;
        let bar = console::progress(&task.data.identity.name, Some(survey.count));
        let document_notes = encoders.document.documents(task, survey, |document, vectors| {
            bar.inc(1);
            corpus.add(document, vectors)
        })?;
        let (dense, dense_seconds) = corpus.finish_dense()?.unzip();
        let encode_seconds = start.elapsed().as_secs_f64();
        let documents_per_second = bar.position() as f64 / bar.elapsed().as_secs_f64().max(1e-9);
        bar.finish_and_clear();
        let Corpus { encoded, indexes, analysed, .. } = corpus;
        expect_documents(task, &encoded)?;
        let (queries, documents) = (encoded.query_stats(), encoded.document_stats());
        let facts = Facts::of((&queries, &query_notes), (documents, &document_notes), survey.fingerprint.clone());
        let passages = form.passages.map(|_| documents.count());
        let documents = SideFacts { texts: encoded.document_count() as u64, passages, ..facts.documents };
        Ok(Self {
            sparsity: analysed.map(|documents| with_queries(documents, &encoded, examination)).transpose()?,
            task: encoded,
            searchers: indexes.into_iter().map(TemporaryIndex::finish).collect::<Result<_>>()?,
            facts: Facts { documents, dense, ..facts },
            documents_per_second,
            encode_seconds,
            dense_seconds: dense_seconds.unwrap_or_default(),
        })
    }

    /// Searcher with the stemmer of a system. Sparse search is independent of the stemmer.
    pub(super) fn searcher_of(&self, system: System) -> Option<&TemporarySearcher> {
        let same = self.searchers.iter().find(|searcher| searcher.language == system.language);
        same.or(self.searchers.first())
    }
}

fn encode_queries(task: &Task, encoders: &Encoders<'_>) -> Result<(EncodedTask, Notes)> {
    let (vectors, notes) = encoders.query.queries(task)?;
    let mut encoded = EncodedTask::new(&task.data.identity.name, task.judged.qrels.clone(), notes.dimensions);
    encoded.ignore_identical_ids(task.data.ignore_identical_ids);
    for (query, vector) in task.judged.queries.iter().zip(vectors) {
        encoded.add_query(&query.id, &query.text, vector);
    }
    Ok((encoded, notes))
}

/// Refuses a corpus without documents, and warns of one that lacks relevant ones.
fn expect_documents(task: &Task, encoded: &EncodedTask) -> Result<()> {
    if encoded.document_count() == 0 {
        return Err(bad_input(format!("{}: its corpus has no documents", task.data.identity.name), ""));
    }
    let (name, missing) = (label(task), encoded.missing_relevant());
    if missing > 0 {
        tracing::warn!("{name}: relevant documents that are not in the corpus, which count as not found: {missing}");
    }
    Ok(())
}

/// Documents on their way from the encoder to the indexes.
struct Corpus<'a> {
    task: &'a Task,
    encoded: EncodedTask,
    /// none without a dense model
    dense: Option<DenseTexts<'a>>,
    indexes: Vec<TemporaryIndex>,
    /// none if vectors are not analysed
    analysed: Option<VectorSide>,
}

impl Corpus<'_> {
    fn encode_dense_queries(&mut self) -> Result<()> {
        let Some(dense) = &mut self.dense else { return Ok(()) };
        self.encoded.set_dense(|texts| dense.queries(texts))
    }

    /// Counts a document and adds it to every index.
    fn add(&mut self, document: Document, vectors: Vectors) -> Result<()> {
        let is_new = match &vectors {
            Vectors::Whole(vector) => self.encoded.add_document(&document.id, vector),
            Vectors::Passages(passages) => {
                self.encoded.add_passages(&document.id, passages.iter().map(|(_, vector)| vector))
            }
        };
        if !is_new {
            return Err(self.task.data.duplicate_document(&document.id).into());
        }
        if let Some(side) = &mut self.analysed {
            analyse(side, &document, &vectors)?;
        }
        match (&mut self.dense, vectors) {
            (Some(dense), Vectors::Whole(vector)) => dense.push(stored(document), vector, &mut self.indexes),
            (_, vectors) => self.write(document, vectors),
        }
    }

    fn write(&mut self, document: Document, vectors: Vectors) -> Result<()> {
        let whole = document.full_text();
        // white space before the text, which was not encoded
        let skipped = whole.len() - whole.trim_start().len();
        let stored = stored(document);
        let mut indexes = self.indexes.iter_mut();
        match vectors {
            Vectors::Whole(vector) => indexes.try_for_each(|index| index.writer.add(&stored, &vector))?,
            Vectors::Passages(mut passages) => {
                passages.iter_mut().for_each(|(range, _)| *range = range.start + skipped..range.end + skipped);
                indexes.try_for_each(|index| index.writer.add_passages(&stored, &passages))?;
            }
        }
        Ok(())
    }

    /// Adds the documents that wait for dense vectors. Returns the facts about these and the seconds that they took.
    fn finish_dense(&mut self) -> Result<Option<(DenseFacts, f64)>> {
        let Some(mut dense) = self.dense.take() else { return Ok(None) };
        dense.flush(&mut self.indexes)?;
        let seconds = dense.seconds();
        Ok(Some((dense.finish()?, seconds)))
    }
}

fn analyse(side: &mut VectorSide, document: &Document, vectors: &Vectors) -> Result<()> {
    let text = document.full_text();
    let text = text.trim();
    match vectors {
        Vectors::Whole(vector) => side.add(&document.id, Some(text), vector),
        Vectors::Passages(passages) => {
            passages.iter().try_for_each(|(range, vector)| side.add(&document.id, text.get(range.clone()), vector))
        }
    }
}

fn stored(document: Document) -> StoredDocument {
    let title = Some(document.title).filter(|title| !title.is_empty());
    StoredDocument { id: document.id, title, text: document.text, ..Default::default() }
}

/// Analysis of both sides, from that of the documents.
fn with_queries(documents: VectorSide, task: &EncodedTask, examination: &Examination) -> Result<TaskSparsity> {
    let mut queries = VectorSide::new(task.dimensions(), examination.vocabulary.cloned());
    task.queries().iter().try_for_each(|query| queries.add(&query.id, Some(&query.text), &query.vector))?;
    Ok(TaskSparsity { queries, documents })
}

/// Form of the documents of a [`TemporaryIndex`].
struct Form {
    /// number of terms
    dimensions: u32,
    /// none without dense vectors
    dense: Option<DenseSettings>,
    /// none if documents are not split
    passages: Option<PassageLength>,
}

/// Index of a corpus in a temporary folder, with one stemmer.
pub(super) struct TemporaryIndex {
    language: Language,
    // the folder is removed after the index is closed
    index: ImpactIndex,
    pub(super) writer: ImpactWriter,
    folder: TempDir,
}

/// Searcher over a [`TemporaryIndex`].
pub(super) struct TemporarySearcher {
    language: Language,
    pub(super) searcher: Searcher,
    // the folder is removed after the index is closed
    pub(super) index: ImpactIndex,
    _folder: TempDir,
}

impl TemporaryIndex {
    /// An index for each stemmer, one for systems without BM25.
    fn of(systems: &[System], form: &Form) -> Result<Vec<Self>> {
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
        languages.into_iter().map(|language| Self::create(language, form)).collect()
    }

    fn create(language: Language, form: &Form) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("splade-eval-").tempdir()?;
        let mut settings = IndexSettings::new(form.dimensions, "evaluation", "evaluation");
        settings.language = language;
        settings.dense.clone_from(&form.dense);
        settings.passages = form.passages;
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
