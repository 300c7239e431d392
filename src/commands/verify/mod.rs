//! `splade verify`: all backends and files of a model folder, compared with its checkpoint stage by stage.

mod report;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use report::{Outcome, Stage, StageResult, VerifyReport};
use splade_core::{
    DocumentEncoder, DocumentSettings, Encoder, Network, QueryEncoder, SparseVector, TokenBatch, Vocabulary,
};
use splade_encode::{OnnxOptions, OnnxSummary, Provenance, load_onnx_runtime};
use splade_export::Head;
use splade_export::parity::{
    BackendNetwork, CandleOnnx, Finding, Limits, Sides, compare_rankings, compare_scores, compare_tokens,
    compare_vectors, limits,
};
use splade_files::{Architecture, ModelDir, Precision, read_texts, read_vectors_named};
use splade_index::{ImpactIndex, IndexSettings, SearchOptions, StoredDocument, WriterOptions};

use super::interrupt;
use crate::cli::{DeviceChoice, Role, VerifyArgs};
use crate::console;
use crate::encoders::{
    candle_network, onnx_files, onnx_options, onnx_runtime_candidates, open_onnx, provenance, read_as, use_threads,
};
use crate::failure::{bad_input, one_line};
use crate::hub::{self, Wants};
use crate::outputs::say;
use crate::texts::built_in;

pub(crate) fn run(args: &VerifyArgs) -> Result<()> {
    use_threads(args.threads);
    let wants = Wants { weights: true, onnx: Some(Precision::Fp32), only_queries: false };
    let model = read_as(hub::open(&args.model, wants)?, &args.reading)?;
    let subject = Subject::read(&model, args)?;
    let mut rows = subject.tokenization()?;
    rows.extend(subject.queries()?);
    rows.extend(subject.networks()?);
    rows.sort_by_key(|row| row.stage);
    let token = |dim: u32| subject.vocabulary.readable_token(dim);
    let texts = subject.ids.iter().map(String::as_str).collect();
    let report = VerifyReport { model: &args.model, texts, token: &token, rows };
    if args.json {
        say(format_args!("{:#}", report.json()))?;
    } else {
        report.print()?;
    }
    report.verdict()
}

/// Default maximum length in tokens: longer texts show nothing more, and attention takes time with the square of it.
const MAX_LENGTH: usize = 512;
/// Number of compared hits of a ranking.
const DEPTH: usize = 10;
/// Largest allowed difference of scores of fp16 files, as [`compare_scores`] measures it.
const FP16_SCORES: f32 = 2e-2;
/// Largest allowed difference of scores of int8 files, as [`compare_scores`] measures it.
const INT8_SCORES: f32 = 0.1;
/// Limits for values that must be equal.
const EXACT: Limits = Limits { difference: 0.0, cosine: 0.0 };
/// Largest number of queries, and of documents, that are scored: the number of scores is their product.
const MAX_SCORED: usize = 200;

/// A model, and the texts it is verified on.
struct Subject<'m> {
    model: &'m ModelDir,
    args: &'m VerifyArgs,
    /// the network's tokenizer
    vocabulary: Vocabulary,
    ids: Vec<String>,
    texts: Vec<String>,
    /// vectors of the texts by another implementation
    reference: Option<Vec<SparseVector>>,
}

impl<'m> Subject<'m> {
    fn read(model: &'m ModelDir, args: &'m VerifyArgs) -> Result<Self> {
        let length = args.max_length.map_or_else(|| model.max_length().min(MAX_LENGTH), |length| length as usize);
        let vocabulary = model.vocabulary(Some(length))?;
        let named = match &args.input {
            Some(path) => input(path)?,
            None => built_in(vocabulary.max_length()),
        };
        let (ids, texts): (Vec<String>, Vec<String>) = named.into_iter().unzip();
        let reference = args.reference.as_ref().map(|path| reference(path, &ids, &vocabulary, model.dimensions()?));
        Ok(Self { model, args, vocabulary, ids, texts, reference: reference.transpose()? })
    }

    /// Texts as encoders take them.
    fn texts(&self) -> Vec<&str> {
        self.texts.iter().map(String::as_str).collect()
    }

    fn tokens(&self, tokenize: impl Fn(&str) -> splade_core::Result<Vec<u32>>) -> Result<Vec<Vec<u32>>> {
        Ok(self.texts.iter().map(|text| tokenize(text)).collect::<splade_core::Result<_>>()?)
    }

    fn row(&self, stage: Stage, backend: &str, file: &Path, outcome: Outcome) -> StageResult {
        let file = file.strip_prefix(self.model.root()).unwrap_or(file).display().to_string();
        StageResult { stage, backend: backend.to_owned(), file, outcome }
    }

    /// Compares token ids: fast tokenization with the tokenizer itself, the query side's tokenizer with the network's.
    fn tokenization(&self) -> Result<Vec<StageResult>> {
        let file = self.model.transformer_dir().join("tokenizer.json");
        let network = &self.vocabulary;
        let exact = |finding| Outcome::Compared(finding, EXACT);
        let plain = self.tokens(|text| network.tokenize_plain(text, true))?;
        let finding = compare_tokens(&plain, &network.tokenize_all(&self.texts)?);
        let mut rows = vec![self.row(Stage::Tokenization, "documents", &file, exact(finding))];
        let overridden = |vocabulary: &Vocabulary, backend: &str, file: &Path| {
            let lines = vocabulary.overrides().iter();
            lines.map(|line| self.row(Stage::Tokenization, backend, file, Outcome::Overridden(line.clone()))).collect()
        };
        let found: Vec<StageResult> = overridden(network, "documents", &file);
        rows.extend(found);
        if let Some(side) = self.model.query_side() {
            // both truncated to the same length, since the two folders may state different ones
            let length = side.max_length.min(self.vocabulary.max_length());
            let query = splade_files::read_vocabulary(&side.tokenizer, length)?;
            let network = network.with_max_length(length)?;
            let row = |backend, finding| self.row(Stage::Tokenization, backend, &side.tokenizer, exact(finding));
            let (fast, plain) =
                (self.tokens(|text| query.tokenize(text))?, self.tokens(|text| query.tokenize_plain(text, false))?);
            rows.push(row("queries", compare_tokens(&plain, &fast)));
            rows.extend(overridden(&query, "queries", &side.tokenizer));
            let theirs = self.tokens(|text| network.tokenize_plain(text, false))?;
            rows.push(row("both sides", compare_tokens(&theirs, &plain)));
        }
        Ok(rows)
    }

    /// Compares vectors of the query table of an inference-free model: from its encoder, from its copy in an index, and by
    /// definition.
    fn queries(&self) -> Result<Vec<StageResult>> {
        let Some(side) = self.model.query_side() else { return Ok(Vec::new()) };
        let encoder = self.model.query_encoder()?;
        let found = encoder.encode(&self.texts())?;
        let by_hand = self.texts.iter().map(|text| self.look_up(&encoder, text)).collect::<Result<Vec<_>>>()?;
        let folder = tempfile::tempdir()?;
        splade_files::write_query_encoder(&encoder, folder.path())?;
        let copy = splade_files::read_query_encoder(folder.path())?.encode(&self.texts())?;
        let row =
            |backend, finding| self.row(Stage::QueryVectors, backend, &side.weights, Outcome::Compared(finding, EXACT));
        let mut rows =
            vec![row("table", compare_vectors(&by_hand, &found)), row("index copy", compare_vectors(&found, &copy))];
        if let (Some(reference), Role::Query) = (&self.reference, self.args.role) {
            let outcome = Outcome::Compared(compare_vectors(reference, &found), self.allowed(Precision::Fp32));
            rows.push(self.row(Stage::Reference, "table", &side.weights, outcome));
        }
        Ok(rows)
    }

    /// Vector of a query by definition: the non-zero weight of each distinct token.
    fn look_up(&self, encoder: &QueryEncoder, text: &str) -> Result<SparseVector> {
        let ids = encoder.vocabulary().tokenize_plain(&format!("{}{text}", self.model.query_prompt()), false)?;
        let weights = encoder.weights().as_slice();
        let distinct: std::collections::BTreeSet<u32> = ids.into_iter().collect();
        let weight = |id: u32| Some((id, *weights.get(id as usize)?));
        let vector = SparseVector::from_pairs(distinct.into_iter().filter_map(weight))?;
        Ok(match self.model.max_active_dims() {
            Some(k) => vector.top_k(k),
            None => vector,
        })
    }

    /// Compares every backend and file with the checkpoint in Candle on the CPU.
    fn networks(&self) -> Result<Vec<StageResult>> {
        let checkpoint = self.model.checkpoint()?.path().to_owned();
        let candle = Shared(Arc::new(candle_network(self.model, DeviceChoice::Cpu)?));
        let reference = self.encode(&candle)?;
        let mut rows = self.network_rows("candle", &checkpoint, &reference, None, Precision::Fp32);
        rows.push(self.index_row(&reference)?);
        let accelerated = match self.args.device {
            DeviceChoice::Auto => !splade_trainer::best_device().is_cpu(),
            DeviceChoice::Cuda | DeviceChoice::Metal => true,
            DeviceChoice::Cpu | DeviceChoice::Coreml => false,
        };
        if accelerated {
            let network = candle_network(self.model, self.args.device).map(|network| Shared(Arc::new(network)));
            rows.extend(self.compared("candle, device", &checkpoint, network, &reference, Precision::Fp32)?);
        }
        let files = onnx_files(self.model);
        if files.is_empty() {
            let root = self.model.root().display();
            tracing::info!("{root}: no ONNX file to compare; `splade export-onnx {root}` writes them");
        }
        let bar = console::progress("files", Some(files.len() as u64));
        for file in &files {
            interrupt::check()?;
            rows.extend(self.file_rows(file, &reference)?);
            bar.inc(1);
        }
        bar.finish_and_clear();
        Ok(rows)
    }

    /// Compares an ONNX file in both runtimes.
    fn file_rows(&self, file: &Path, reference: &TextVectors) -> Result<Vec<StageResult>> {
        let failed = |reason| Ok(vec![self.row(Stage::DocumentVectors, "onnx", file, Outcome::Failed(reason))]);
        let summary = match OnnxSummary::read(file) {
            Ok(summary) => summary,
            Err(error) => return failed(reason(&error.into(), file)),
        };
        if let Provenance::Other(reason) = provenance(file, self.model)? {
            return failed(format!("not exported from this checkpoint: {reason}"));
        }
        let precision = summary.precision();
        let mut rows = match load_onnx_runtime(&onnx_runtime_candidates()) {
            Ok(_) => {
                // whole, as other programs run it, and split before the output layer, as this program runs it
                let open = |whole| -> Result<_> {
                    let options = onnx_options(self.args.device, self.args.threads)?;
                    Ok(open_onnx(self.model, file, &OnnxOptions { whole, ..options })?)
                };
                let network = open(true).map(|network| Shared(Arc::new(network)));
                let mut rows = self.compared("onnx runtime", file, network, reference, precision)?;
                if let Ok(network) = open(false)
                    && network.not_split().is_none()
                {
                    let network = Ok(Shared(Arc::new(network)));
                    rows.extend(self.compared("onnx, fused head", file, network, reference, precision)?);
                }
                rows
            }
            Err(error) => {
                vec![self.row(Stage::DocumentVectors, "onnx runtime", file, Outcome::Skipped(error.to_string()))]
            }
        };
        interrupt::check()?;
        let (terms, pooling) = (self.model.dimensions()?, self.model.pooling());
        let network = CandleOnnx::read(file).map_err(anyhow::Error::from);
        let is_pooled = summary.outputs.first().is_some_and(|output| output.axes.len() == 2);
        let network = network.map(|model| Shared(Arc::new(BackendNetwork::new(model, is_pooled, terms, pooling))));
        rows.extend(self.compared("candle-onnx", file, network, reference, precision)?);
        Ok(rows)
    }

    /// Rows of a backend, or one row with the reason why it gives no vectors.
    fn compared(
        &self,
        backend: &str,
        file: &Path,
        network: Result<Shared>,
        reference: &TextVectors,
        precision: Precision,
    ) -> Result<Vec<StageResult>> {
        Ok(match network.and_then(|network| self.encode(&network)) {
            Ok(found) => self.network_rows(backend, file, &found, Some(reference), precision),
            Err(error) => {
                let reason = reason(&error, file);
                // that candle-onnx lacks an operator is no fault of the file
                let lacks = error.chain().any(|cause| {
                    matches!(
                        cause.downcast_ref::<splade_export::Error>(),
                        Some(splade_export::Error::MissingOperator { .. })
                    )
                });
                let outcome = if lacks { Outcome::Skipped(reason) } else { Outcome::Failed(reason) };
                vec![self.row(Stage::DocumentVectors, backend, file, outcome)]
            }
        })
    }

    /// Compares a backend with the reference; the reference itself only with its padded batches.
    fn network_rows(
        &self,
        backend: &str,
        file: &Path,
        found: &TextVectors,
        reference: Option<&TextVectors>,
        precision: Precision,
    ) -> Vec<StageResult> {
        let allowed = self.allowed(precision);
        let row =
            |stage, finding: Finding, allowed| self.row(stage, backend, file, Outcome::Compared(finding, allowed));
        let scores = self.allowed_scores(precision);
        let mut rows = Vec::new();
        if let Some(reference) = reference {
            if self.model.architecture() == Architecture::Splade {
                let finding = compare_vectors(&reference.queries, &found.queries);
                rows.push(row(Stage::QueryVectors, finding, allowed));
            }
            let finding = compare_vectors(&reference.documents, &found.documents);
            rows.push(row(Stage::DocumentVectors, finding, allowed));
            let (expected, sides) = (reference.sides(), found.sides());
            let score = |query, document| sides.score(query, document);
            rows.push(row(Stage::Scores, compare_scores(expected, score), scores));
            // the scores of two documents may each differ by this much
            let twice = Limits { difference: 2.0 * scores.difference, ..scores };
            rows.push(row(Stage::Ranking, compare_rankings(expected, score, DEPTH), twice));
        }
        rows.push(row(Stage::PaddedBatch, compare_vectors(&found.documents, &found.padded), allowed));
        if let Some(theirs) = &self.reference {
            let ours = match (self.args.role, self.model.architecture()) {
                (Role::Document, _) => Some(&found.documents),
                (Role::Query, Architecture::Splade) => Some(&found.queries),
                // the query table has a row of its own
                (Role::Query, Architecture::InferenceFree) => None,
            };
            rows.extend(ours.map(|ours| {
                let pruned = |vector: &SparseVector| match self.model.max_active_dims() {
                    Some(k) => vector.top_k(k),
                    None => vector.clone(),
                };
                row(Stage::Reference, compare_vectors(theirs, &ours.iter().map(pruned).collect::<Vec<_>>()), allowed)
            }));
        }
        rows
    }

    /// Compares the scores of an index with dot products.
    fn index_row(&self, reference: &TextVectors) -> Result<StageResult> {
        let folder = tempfile::tempdir()?;
        let terms = u32::try_from(self.model.dimensions()?)?;
        let index = ImpactIndex::create(folder.path(), &IndexSettings::new(terms, "model", "tokenizer"))?;
        let sides = reference.sides();
        let mut writer = index.writer(WriterOptions::default())?;
        for (id, vector) in sides.documents.iter().enumerate() {
            let document = StoredDocument { id: format!("{id:09}"), ..StoredDocument::default() };
            writer.add(&document, vector)?;
        }
        writer.finish()?;
        let searcher = index.searcher()?;
        let search = |query| -> Result<HashMap<usize, f32>> {
            let hits = searcher.search(query, sides.documents.len().max(1), &SearchOptions::default())?;
            Ok(hits.iter().filter_map(|found| Some((found.hit.id.parse().ok()?, found.hit.score))).collect())
        };
        let scores = sides.queries.iter().map(search).collect::<Result<Vec<_>>>()?;
        // only scores above zero are found
        let found = |query: usize, document: usize| {
            scores[query].get(&document).copied().unwrap_or_else(|| sides.score(query, document).min(0.0))
        };
        let outcome = Outcome::Compared(compare_scores(sides, found), EXACT);
        Ok(StageResult { stage: Stage::Scores, backend: "index".to_owned(), file: "temporary".to_owned(), outcome })
    }

    /// Encodes all texts as queries, as single documents, and as documents in padded batches.
    fn encode(&self, network: &Shared) -> Result<TextVectors> {
        let texts = self.texts();
        let run = |prompt: &str, batch_tokens: usize| -> Result<Vec<SparseVector>> {
            // not pruned: of two entries of equal weight either may be kept
            let settings = DocumentSettings {
                prompt: prompt.to_owned(),
                batch_tokens,
                max_active_dims: None,
                ..self.model.document_settings(&self.vocabulary)?
            };
            let encoder = DocumentEncoder::new(self.vocabulary.clone(), Box::new(network.clone()), settings)?;
            Ok(encoder.encode(&texts)?)
        };
        let (query, document) = (self.model.query_prompt(), self.model.document_prompt());
        let documents = run(document, 1)?;
        let queries = match self.model.architecture() {
            Architecture::InferenceFree => self.model.query_encoder()?.encode(&texts)?,
            Architecture::Splade if query == document => documents.clone(),
            Architecture::Splade => run(query, 1)?,
        };
        Ok(TextVectors { padded: run(document, self.args.batch_tokens as usize)?, queries, documents })
    }

    /// Limits for vectors.
    fn allowed(&self, precision: Precision) -> Limits {
        match self.args.tolerance {
            Some(difference) => Limits { difference, cosine: 0.0 },
            None => limits(Head::Splade(self.model.pooling()), precision),
        }
    }

    /// Limits for scores. The errors of a vector's entries cancel out in part.
    fn allowed_scores(&self, precision: Precision) -> Limits {
        let difference = self.args.tolerance.unwrap_or(match precision {
            Precision::Fp32 => self.allowed(precision).difference,
            Precision::Fp16 => FP16_SCORES,
            Precision::Int8 => INT8_SCORES,
        });
        Limits { difference, cosine: 0.0 }
    }
}

/// Vectors of all texts by one backend.
struct TextVectors {
    queries: Vec<SparseVector>,
    documents: Vec<SparseVector>,
    padded: Vec<SparseVector>,
}

impl TextVectors {
    /// Queries and documents that are scored: the first of each.
    fn sides(&self) -> Sides<'_> {
        let first = |vectors: &'_ [SparseVector]| vectors.len().min(MAX_SCORED);
        Sides { queries: &self.queries[..first(&self.queries)], documents: &self.documents[..first(&self.documents)] }
    }
}

/// Network that several encoders share.
#[derive(Clone)]
struct Shared(Arc<dyn Network>);

impl Network for Shared {
    fn dimensions(&self) -> usize {
        self.0.dimensions()
    }

    fn forward(&self, batch: &TokenBatch) -> splade_core::Result<Vec<SparseVector>> {
        self.0.forward(batch)
    }
}

/// Reason of an error about an ONNX file: its message without the file, which the row names, where the error keeps the two
/// apart; else the whole message.
fn reason(error: &anyhow::Error, file: &Path) -> String {
    let of_cause = |cause: &(dyn std::error::Error + 'static)| {
        let export = cause.downcast_ref().and_then(|error| export_reason(error, file));
        let encode = || cause.downcast_ref().and_then(|error| encode_reason(error, file));
        export.or_else(encode).or_else(|| cause.downcast_ref().and_then(|error| files_reason(error, file)))
    };
    error.chain().find_map(of_cause).unwrap_or_else(|| one_line(error))
}

fn export_reason(error: &splade_export::Error, file: &Path) -> Option<String> {
    use splade_export::Error::{Backend, Encode, Files, MissingOperator};
    match error {
        Backend { message, .. } => Some(message.clone()),
        MissingOperator { backend, operator, .. } => Some(format!("{backend} has no operator {operator}")),
        Encode(error) => encode_reason(error, file),
        Files(error) => files_reason(error, file),
        _ => None,
    }
}

fn encode_reason(error: &splade_encode::Error, file: &Path) -> Option<String> {
    use splade_encode::Error::{Files, HeadMode, Run, Signature, Stale};
    match error {
        Run { message, .. } | Signature { message, .. } => Some(message.clone()),
        Stale { reason, .. } => Some(format!("not exported from this checkpoint: {reason}")),
        HeadMode { found, expected, .. } => {
            Some(format!("its logits are {found}, but the model is used as {expected}"))
        }
        Files(error) => files_reason(error, file),
        _ => None,
    }
}

fn files_reason(error: &splade_files::Error, file: &Path) -> Option<String> {
    match error {
        splade_files::Error::File { path, message } if path == file => Some(message.clone()),
        _ => None,
    }
}

/// Reads the ids and texts of a file.
fn input(path: &Path) -> Result<Vec<(String, String)>> {
    let texts = read_texts(path)?.map(|text| text.map(|text| (text.id, text.text)));
    let texts = texts.collect::<splade_files::Result<Vec<_>>>()?;
    if texts.is_empty() {
        return Err(bad_input(format!("{}: there are no texts in it", path.display()), ""));
    }
    Ok(texts)
}

/// Reads the vectors of a file, in the order of `ids`.
fn reference(path: &Path, ids: &[String], vocabulary: &Vocabulary, dimensions: usize) -> Result<Vec<SparseVector>> {
    let dim = |token: &str| {
        // a dimension without a token is written as its number in brackets
        let number = || token.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
        vocabulary.dim(token).or_else(number)
    };
    let mut by_id = HashMap::new();
    for vector in read_vectors_named(path, dim)? {
        let (id, vector) = vector?;
        if let Some(dim) = vector.dims().last().filter(|dim| **dim as usize >= dimensions) {
            let message = format!("{}: {id:?} has the dimension {dim}, but the model has {dimensions}", path.display());
            return Err(bad_input(message, "give vectors of this model"));
        }
        if by_id.insert(id.clone(), vector).is_some() {
            return Err(bad_input(format!("{}: duplicate id {id:?}", path.display()), "make the ids unique"));
        }
    }
    let vectors = ids.iter().map(|id| {
        by_id.remove(id).ok_or_else(|| {
            bad_input(
                format!("{}: no vector for the text {id:?}", path.display()),
                "give vectors of the texts of --input",
            )
        })
    });
    let vectors = vectors.collect::<Result<Vec<_>>>()?;
    match by_id.keys().min() {
        Some(id) => Err(bad_input(
            format!("{}: {id:?} is not a text of --input", path.display()),
            "give vectors of the texts of --input",
        )),
        None => Ok(vectors),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_the_message_without_the_file() {
        let file = Path::new("m/model.onnx");
        let message = "encoder: candle-onnx: m/model.onnx: it failed.".to_owned();
        let run = || splade_encode::Error::Run { file: file.to_owned(), message: message.clone() };
        let operator = splade_export::Error::MissingOperator {
            file: file.to_owned(),
            backend: "candle-onnx".to_owned(),
            operator: "Gelu".to_owned(),
        };
        let cases: [(anyhow::Error, &str); 7] = [
            (run().into(), &message),
            (splade_core::Error::from(run()).into(), &message),
            (splade_export::Error::from(run()).into(), &message),
            (splade_export::Error::backend(file, "candle-onnx", &message).into(), &message),
            (operator.into(), "candle-onnx has no operator Gelu"),
            (splade_files::Error::file(file, "not an onnx file").into(), "not an onnx file"),
            (splade_files::Error::file("m/config.json", "broken").into(), "m/config.json: broken"),
        ];
        for (error, expected) in cases {
            assert_eq!(reason(&error, file), expected);
        }
    }
}
