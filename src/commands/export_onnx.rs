//! `splade export-onnx`: checkpoint → ONNX files that agree with it → evaluation of each precision.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::{Value, json};
use splade_core::{DocumentEncoder, DocumentSettings, Encoder, TokenBatch};
use splade_encode::{OnnxModel, load_onnx_runtime, metadata};
use splade_eval::{MAIN_SCORE, Task};
use splade_export::parity::{Backend, CandleOnnx, OnnxRuntime, Reference, Report, compare_within, limits};
use splade_export::{Head, ModelProto, Options, convert, export, write};
use splade_files::{Architecture, AtomicFile, AtomicFolder, ModelDir, Precision, to_idf};
use splade_index::Language;
use splade_trainer::model::{TransformerConfig, Weights};

use super::interrupt;
use crate::cli::{DeviceChoice, ExportOnnxArgs, HeadChoice, Mode};
use crate::console::{Table, size};
use crate::encoders::{load_library, onnx_network, onnx_options, onnx_runtime_candidates, read_as, use_threads};
use crate::evaluation::{Encoders, Examination, Side, Survey, System, evaluate_task, model_name};
use crate::failure::bad_input;
use crate::hub::{self, Wants};
use crate::outputs::{NewFolders, print, refuse_existing, say};
use crate::ranking::{DEPTH, RankingSettings};
use crate::tasks::{label, open_folders};
use crate::texts::built_in;

pub(crate) fn run(args: &ExportOnnxArgs) -> Result<()> {
    use_threads(args.threads);
    let place = hub::locate(&args.model, Wants::CHECKPOINT)?;
    let id = place.origin.as_ref().map(|origin| origin.id.clone());
    // the Hub's cache must not be written into
    let root = if args.output.is_some() { place.folder } else { place.into_writable()? };
    let model = read_as(ModelDir::open(&root)?, &args.reading)?;
    let folder = args.output.clone().unwrap_or_else(|| model.onnx_dir());
    let wanted = wanted(args, &model, &folder);
    for wanted in &wanted {
        refuse_existing(&wanted.path, args.overwrite)?;
    }
    if args.idf {
        refuse_existing(&folder.join(IDF), args.overwrite)?;
    }
    let tasks = open_folders(&args.eval, None)?;
    if !tasks.is_empty() {
        load_library()?;
    }
    let source = ExportSource::read(args, model, id)?;
    let folders = NewFolders::above(&folder.join("model.onnx"));
    let files = write_all(&source, wanted, &folder)?;
    folders.keep();
    let judged = if tasks.is_empty() { Vec::new() } else { source.judge(&files, &tasks)? };
    if args.json { print_json(&files, &judged) } else { print_tables(&files, &judged) }
}

/// Writes all files to a temporary folder, compares them with the checkpoint, and moves them to `folder`. If one fails,
/// none is moved.
fn write_all(source: &ExportSource<'_>, wanted: Vec<Wanted>, folder: &Path) -> Result<Vec<Exported>> {
    // Beside the destination, so that a move is a rename. It is never committed as a folder: it is removed on return, and
    // that of a killed process by the next export.
    let aside = AtomicFolder::create(&folder.join("export"))?;
    if source.args.idf {
        AtomicFile::write_whole(&aside.path().join(IDF), idf(&source.model)?.as_bytes())?;
    }
    let batches = if source.args.no_verify { Vec::new() } else { batches(&source.model)? };
    let mut verified = Vec::new();
    for wanted in wanted {
        interrupt::check()?;
        let unverified = aside.path().join(wanted.path.file_name().unwrap_or_default());
        write(source.record(wanted.head, wanted.precision)?, &unverified)
            .map_err(|error| moved(error, aside.path(), folder))?;
        let mut report = None;
        if !source.args.no_verify {
            let found = Report { file: wanted.path.clone(), ..source.verify(&unverified, &wanted, &batches)? };
            found.check()?;
            report = Some(found);
        }
        verified.push((wanted, report));
    }
    interrupt::check()?;
    let mut files = Vec::new();
    for (wanted, report) in verified {
        let bytes = put(aside.path(), &wanted.path).map_err(splade_files::Error::io(&wanted.path))?;
        tracing::info!("{}: {}", wanted.path.display(), size(bytes));
        files.push(Exported { wanted, bytes, report });
    }
    if source.args.idf {
        let path = folder.join(IDF);
        let bytes = put(aside.path(), &path).map_err(splade_files::Error::io(&path))?;
        tracing::info!("{}: {}", path.display(), size(bytes));
    }
    Ok(files)
}

/// File of the query table for other tools.
const IDF: &str = "idf.json";

/// Text of the query table by token.
fn idf(model: &ModelDir) -> Result<String> {
    if model.architecture() == Architecture::Splade {
        return Err(bad_input(
            format!("{}: --idf: the model has no query table", model.root().display()),
            "leave it out: queries of this model go through the network",
        ));
    }
    let prompt = model.query_prompt();
    if !prompt.is_empty() {
        tracing::warn!("{IDF}: readers of it do not put the prompt {prompt:?} before queries, which this model does");
    }
    Ok(to_idf(&model.query_encoder()?)?)
}

/// The error of a file in `aside` as the error of the file in `folder` that it would become.
fn moved(mut error: splade_export::Error, aside: &Path, folder: &Path) -> splade_export::Error {
    if let splade_export::Error::Files(splade_files::Error::Io { path, .. }) = &mut error
        && let Ok(name) = path.strip_prefix(aside)
    {
        *path = folder.join(name);
    }
    error
}

/// A file to write.
struct Wanted {
    head: Head,
    precision: Precision,
    path: PathBuf,
}

/// A file that was written.
struct Exported {
    wanted: Wanted,
    bytes: u64,
    /// its agreement with the checkpoint; none with `--no-verify`
    report: Option<Report>,
}

/// Files to write, by the flags.
fn wanted(args: &ExportOnnxArgs, model: &ModelDir, folder: &Path) -> Vec<Wanted> {
    let mut precisions: Vec<Precision> = args.precision.iter().map(|&choice| choice.into()).collect();
    precisions.sort();
    precisions.dedup();
    [(HeadChoice::Logits, Head::Logits), (HeadChoice::Splade, Head::Splade(model.pooling()))]
        .into_iter()
        .filter(|(choice, _)| args.head.is_none_or(|wanted| wanted == *choice))
        .flat_map(|(_, head)| precisions.iter().map(move |&precision| (head, precision)))
        .map(|(head, precision)| {
            let path = folder.join(precision.file_name(head.file_name()));
            Wanted { head, precision, path }
        })
        .collect()
}

/// Quality and speed of one precision on one task.
struct Judged {
    task: String,
    precision: Precision,
    ndcg: f64,
    /// nDCG minus the nDCG of fp32
    difference: f64,
    documents_per_second: f64,
}

/// The checkpoint that is exported.
struct ExportSource<'a> {
    args: &'a ExportOnnxArgs,
    /// its id in the Hub, or its folder's name
    name: String,
    model: ModelDir,
    config: TransformerConfig,
    weights: Weights,
}

impl<'a> ExportSource<'a> {
    fn read(args: &'a ExportOnnxArgs, model: ModelDir, id: Option<String>) -> Result<Self> {
        let config = TransformerConfig::of(&model)?;
        let weights = Weights::from_files(&model.checkpoint()?, &config)?;
        let name = id.map_or_else(|| model_name(&model), Ok)?;
        Ok(Self { args, name, model, config, weights })
    }

    fn record(&self, head: Head, precision: Precision) -> Result<ModelProto> {
        let options = Options { opset: self.args.opset, metadata: self.metadata(head)? };
        Ok(convert(export(&self.config, &self.weights, head, &options)?, precision)?)
    }

    /// Metadata of a file, besides its precision and output layer.
    fn metadata(&self, head: Head) -> Result<BTreeMap<String, String>> {
        let (model, pooling) = (&self.model, self.model.pooling());
        let mut stated = BTreeMap::from([
            (metadata::VERSION.to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
            (metadata::MODEL.to_owned(), self.name.clone()),
            (metadata::MAX_LENGTH.to_owned(), model.max_length().to_string()),
            (metadata::HEAD.to_owned(), if head == Head::Logits { "logits" } else { "splade" }.to_owned()),
            (metadata::POOLING.to_owned(), metadata::pooling(pooling)),
        ]);
        if let Some(fingerprint) = model.network_fingerprint()? {
            stated.insert(metadata::NETWORK.to_owned(), fingerprint);
        }
        let config: Value = splade_files::read_json(&model.config_path())?;
        if let Some(base) = config["_name_or_path"].as_str().filter(|base| !base.is_empty()) {
            stated.insert(metadata::BASE_MODEL.to_owned(), base.to_owned());
        }
        if let Some(choice) = model.head_choice() {
            stated.insert(metadata::HEAD_MODE.to_owned(), choice.mode.to_string());
        }
        Ok(stated)
    }

    /// Compares a file with the checkpoint, in ONNX Runtime if its library is found, and in candle-onnx if it has all
    /// operators.
    fn verify(&self, file: &Path, wanted: &Wanted, batches: &[TokenBatch]) -> Result<Report> {
        let Wanted { head, precision, .. } = *wanted;
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let candle_onnx = if precision == Precision::Int8 {
            tracing::info!(
                "{name}: compared in ONNX Runtime only, candle-onnx lacks DynamicQuantizeLinear and MatMulInteger"
            );
            None
        } else {
            Some(CandleOnnx::read(file)?)
        };
        let onnx_runtime = match load_onnx_runtime(&onnx_runtime_candidates()) {
            Ok(_) => {
                Some(OnnxRuntime::new(OnnxModel::open(file, &onnx_options(DeviceChoice::Cpu, self.args.threads)?)?))
            }
            Err(error) if candle_onnx.is_none() => {
                return Err(bad_input(
                    format!("{name}: it can be compared in ONNX Runtime only: {error}"),
                    "run `make setup`, or set ORT_DYLIB_PATH to the library, or use --no-verify",
                ));
            }
            Err(error) => {
                tracing::warn!("{name}: not compared in ONNX Runtime: {error}");
                None
            }
        };
        let runtimes: Vec<&dyn Backend> = (onnx_runtime.iter().map(|runtime| runtime as &dyn Backend))
            .chain(candle_onnx.iter().map(|runtime| runtime as &dyn Backend))
            .collect();
        let reference = Reference::new(&self.config, &self.weights, head);
        Ok(compare_within(limits(head, precision), file, head, &reference, &runtimes, batches)?)
    }

    /// Evaluates every exported precision, and fp32 as the baseline.
    fn judge(&self, files: &[Exported], tasks: &[Task]) -> Result<Vec<Judged>> {
        // the pooled file if there is one: it gives the same ranking and is faster
        let best = |precision: Precision| {
            let of_it = files.iter().map(|file| &file.wanted).filter(|wanted| wanted.precision == precision);
            of_it.max_by_key(|wanted| wanted.head != Head::Logits).map(|wanted| wanted.path.clone())
        };
        let baseline = tempfile::Builder::new().prefix("splade-fp32-").tempdir()?;
        let mut chosen = vec![(Precision::Fp32, best(Precision::Fp32))];
        chosen.extend(Precision::ALL[1..].iter().map(|&precision| (precision, best(precision))));
        if let (_, fp32 @ None) = &mut chosen[0] {
            let path = baseline.path().join(splade_export::SPLADE_FILE);
            write(self.record(Head::Splade(self.model.pooling()), Precision::Fp32)?, &path)?;
            *fp32 = Some(path);
        }
        let mut judged: Vec<Judged> = Vec::new();
        for (precision, path) in chosen.into_iter().filter_map(|(precision, path)| Some((precision, path?))) {
            tracing::info!("evaluating {precision}: {}", path.display());
            let encoders = self.encoders(&path)?;
            let sparse = System { mode: Mode::Sparse, language: Language::default() };
            for (at, task) in tasks.iter().enumerate() {
                let survey = Survey::of_corpus(task, |_| Ok(()))?;
                let rankings = [RankingSettings::untuned(sparse.language, DEPTH, 2)];
                let evaluated = evaluate_task(task, &survey, &encoders, &[sparse], &rankings, &Examination::default())?;
                let ndcg = evaluated.modes[0].mteb.get(MAIN_SCORE).unwrap_or(f64::NAN);
                judged.push(Judged {
                    task: label(task),
                    precision,
                    ndcg,
                    difference: ndcg - judged.get(at).map_or(ndcg, |fp32| fp32.ndcg),
                    documents_per_second: evaluated.documents_per_second,
                });
            }
        }
        Ok(judged)
    }

    /// Encoders that run a file. Queries use the query table if the model has one.
    fn encoders(&self, file: &Path) -> Result<Encoders<'_>> {
        let network = |prompt: &str| -> Result<Box<dyn Encoder>> {
            let vocabulary = self.model.vocabulary(self.args.max_length.map(|length| length as usize))?;
            let settings = DocumentSettings { prompt: prompt.to_owned(), ..self.model.document_settings(&vocabulary)? };
            let network = onnx_network(&self.model, file, &onnx_options(DeviceChoice::Cpu, self.args.threads)?)?;
            Ok(Box::new(DocumentEncoder::new(vocabulary, Box::new(network), settings)?))
        };
        let query: Box<dyn Encoder> = match self.model.architecture() {
            Architecture::InferenceFree => Box::new(self.model.query_encoder()?),
            Architecture::Splade => network(self.model.query_prompt())?,
        };
        let document = network(self.model.document_prompt())?;
        Ok(Encoders { query: Side::ready("query", query), document: Side::ready("document", document), dense: None })
    }
}

/// Moves a file, with its external data if it has some, to its destination. Returns their size in bytes.
fn put(aside: &Path, path: &Path) -> std::io::Result<u64> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let data = format!("{name}_data");
    let (from, to) = (aside.join(&data), path.with_file_name(&data));
    let length = |path: &Path| std::fs::metadata(path).map(|metadata| metadata.len());
    let has_data = from.exists();
    if has_data {
        std::fs::rename(&from, &to)?;
    }
    std::fs::rename(aside.join(&name), path)?;
    if has_data {
        return Ok(length(path)? + length(&to)?);
    }
    if to.exists() {
        // external data of the replaced file
        std::fs::remove_file(&to)?;
    }
    length(path)
}

/// Batches of the built-in texts: one for each text, and one of several texts padded to the longest.
fn batches(model: &ModelDir) -> Result<Vec<TokenBatch>> {
    // longer texts take more time and show nothing more
    let vocabulary = model.vocabulary(Some(model.max_length().min(256)))?;
    let pad = model.pad_id(&vocabulary)?;
    let texts: Vec<String> = built_in(vocabulary.max_length()).into_iter().map(|(_, text)| text).collect();
    let mut ids = vocabulary.tokenize_all(&texts)?;
    // an empty text has no tokens where the tokenizer adds no special ones
    ids.retain(|ids| !ids.is_empty());
    let mut batches: Vec<TokenBatch> = ids.iter().map(|ids| TokenBatch::new(&[ids], pad)).collect();
    // only every third: logits take batch × tokens × vocabulary floats
    let padded: Vec<&Vec<u32>> = ids.iter().rev().step_by(3).collect();
    batches.push(TokenBatch::new(&padded, pad));
    Ok(batches)
}

fn print_json(files: &[Exported], judged: &[Judged]) -> Result<()> {
    let of_file = |file: &Exported| {
        let agreements = file.report.iter().flat_map(|report| &report.agreements);
        let runtimes: Vec<Value> = agreements
            .map(|a| {
                json!({"runtime": a.backend, "vectors": a.vectors, "difference": a.difference,
                       "cosine": a.cosine, "same_top": a.same_top})
            })
            .collect();
        let report = file.report.as_ref();
        json!({
            "file": file.wanted.path,
            "precision": file.wanted.precision.name(),
            "bytes": file.bytes,
            "tolerance": report.map(|report| report.tolerance),
            "least_cosine": report.map(|report| report.least_cosine),
            "runtimes": runtimes,
        })
    };
    let of_task = |judged: &Judged| {
        json!({"task": judged.task, "precision": judged.precision.name(), "ndcg_at_10": judged.ndcg,
               "difference": judged.difference, "documents_per_second": judged.documents_per_second})
    };
    let files: Vec<Value> = files.iter().map(of_file).collect();
    let mut document = json!({"files": files});
    if !judged.is_empty() {
        document["evaluation"] = judged.iter().map(of_task).collect();
    }
    say(format_args!("{document:#}"))
}

fn print_tables(files: &[Exported], judged: &[Judged]) -> Result<()> {
    let mut table =
        Table::new(["file", "size", "runtime", "vectors", "difference", "allowed", "cosine", "same top 10"]);
    for file in files {
        let name = file.wanted.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Some(report) = &file.report else {
            table.row([name, size(file.bytes), "not compared".to_owned()]);
            continue;
        };
        for agreement in &report.agreements {
            table.row([
                name.clone(),
                size(file.bytes),
                agreement.backend.clone(),
                agreement.vectors.to_string(),
                format!("{:.1e}", agreement.difference),
                format!("{:.0e}", report.tolerance),
                format!("{:.7}", agreement.cosine),
                format!("{}/{}", agreement.same_top, agreement.vectors),
            ]);
        }
    }
    print(table)?;
    if !judged.is_empty() {
        let mut table = Table::new(["task", "precision", "ndcg_at_10", "difference", "documents a second"]);
        for judged in judged {
            table.row([
                judged.task.clone(),
                judged.precision.to_string(),
                format!("{:.4}", judged.ndcg),
                format!("{:+.4}", judged.difference),
                format!("{:.0}", judged.documents_per_second),
            ]);
        }
        print(format_args!("\n{table}"))?;
    }
    Ok(())
}
