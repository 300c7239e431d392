//! Encoders of a model folder, and the choice of the backend that runs the network.

use std::path::{Path, PathBuf};

use anyhow::Result;
use splade_core::{DocumentEncoder, DocumentSettings, Encoder, Network, QueryEncoder};
use splade_encode::{OnnxDevice, OnnxNetwork, OnnxOptions, Provenance, load_onnx_runtime};
use splade_files::{Architecture, CheckpointFiles, CheckpointFormat, HeadSource, ModelDir, Precision};

use crate::cli::{Backend, DeviceChoice, NetworkArgs, ReadingArgs};
use crate::failure::bad_input;

/// Sets the number of threads of rayon; 0 keeps the default, one per core.
pub(crate) fn use_threads(threads: usize) {
    if threads > 0 {
        // fails if the pool exists already; its size is then kept
        let _ = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
    }
}

/// Applies `--ignore-config-key` and `--mlm-head` to a model folder.
pub(crate) fn read_with_flags(model: ModelDir, args: &ReadingArgs) -> Result<ModelDir> {
    let model = model.ignoring_config_keys(args.ignore_config_key.clone());
    match args.mlm_head {
        Some(mode) => Ok(model.with_head_mode(mode)?),
        None => Ok(model),
    }
}

/// Applies the flags to a model folder. Logs a warning if nothing states how the logits are used.
pub(crate) fn read_as(model: ModelDir, args: &ReadingArgs) -> Result<ModelDir> {
    let model = read_with_flags(model, args)?;
    if let Some(choice) = model.head_choice() {
        let known = match choice.source {
            HeadSource::Requested | HeadSource::Stated => return Ok(model),
            HeadSource::Code => "according to the code in the folder, which training may have patched",
            HeadSource::Guessed => "a guess: the folder does not state how the model was trained",
        };
        tracing::warn!(
            "{}: logits are used in mode {} ({known}); --mlm-head selects another: published (no weight is 0: prune the \
             vectors), raw-shifted (trained from a base without the sigmoid), raw, soft-cap (trained with this program)",
            model.root().display(),
            choice.mode,
        );
    }
    Ok(model)
}

/// Encoder of queries: the query table of an inference-free model, else the network.
pub(crate) fn query_encoder(model: &ModelDir, args: &NetworkArgs) -> Result<Box<dyn Encoder>> {
    Ok(named_query_encoder(model, args)?.0)
}

/// As [`query_encoder`], with the name of its backend: `query table`, `onnx` or `candle`.
pub(crate) fn named_query_encoder(model: &ModelDir, args: &NetworkArgs) -> Result<(Box<dyn Encoder>, &'static str)> {
    match model.architecture() {
        Architecture::InferenceFree => Ok((Box::new(static_query_encoder(model, args)?), QUERY_TABLE)),
        Architecture::Splade => {
            let (encoder, backend) = named_encoder(model, args, model.query_prompt())?;
            Ok((Box::new(encoder), backend))
        }
    }
}

/// Encoder of queries by the query table of an inference-free model.
pub(crate) fn static_query_encoder(model: &ModelDir, args: &NetworkArgs) -> Result<QueryEncoder> {
    let encoder = model.query_encoder()?;
    let dropped = if args.drop_special_terms { encoder.vocabulary().special_dims() } else { Vec::new() };
    Ok(encoder.without_terms(&dropped))
}

/// Encoder of texts with this prompt by the network, and the name of its backend: `onnx` or `candle`.
pub(crate) fn named_encoder(
    model: &ModelDir,
    args: &NetworkArgs,
    prompt: &str,
) -> Result<(DocumentEncoder, &'static str)> {
    use_threads(args.threads);
    let vocabulary = model.vocabulary(args.max_length.map(|length| length as usize))?;
    let settings = DocumentSettings {
        prompt: prompt.to_owned(),
        batch_tokens: args.batch_tokens as usize,
        dropped: if args.drop_special_terms { vocabulary.special_dims() } else { Vec::new() },
        ..model.document_settings(&vocabulary)?
    };
    let (network, backend) = network(model, args)?;
    if let Some(most) = network.max_length().filter(|most| *most < vocabulary.max_length()) {
        tracing::warn!("texts are truncated to {most} tokens, the maximum of the ONNX file");
    }
    Ok((DocumentEncoder::new(vocabulary, network, settings)?, backend))
}

/// Encoder of documents.
#[cfg(any(feature = "serve", feature = "train"))]
pub(crate) fn document_encoder(model: &ModelDir, args: &NetworkArgs) -> Result<DocumentEncoder> {
    Ok(named_encoder(model, args, model.document_prompt())?.0)
}

/// Name of the encoder of queries that needs no network.
pub(crate) const QUERY_TABLE: &str = "query table";
/// Name of the backend ONNX Runtime.
pub(crate) const ONNX: &str = "onnx";
/// Name of the backend Candle.
const CANDLE: &str = "candle";

/// Opens the network of a model folder in the requested backend, and names it.
fn network(model: &ModelDir, args: &NetworkArgs) -> Result<(Box<dyn Network>, &'static str)> {
    let precision = Precision::from(args.precision);
    match args.backend {
        Backend::Candle if precision != Precision::Fp32 => {
            Err(bad_input(format!("--precision {precision} is for ONNX files, not for Candle"), "use --backend onnx"))
        }
        Backend::Candle => Ok((candle(model, args.device)?, CANDLE)),
        // other precisions exist as ONNX files only
        Backend::Auto if precision == Precision::Fp32 => auto(model, args),
        Backend::Auto | Backend::Onnx => {
            let path = onnx_path(model, precision)?;
            load_library()?;
            onnx_options(args.device, args.threads)?;
            let network = onnx(model, &path, args).map_err(|error| advised(error, model))?;
            Ok((network, ONNX))
        }
    }
}

/// Opens an ONNX file if there is one that can run, else the checkpoint in Candle.
fn auto(model: &ModelDir, args: &NetworkArgs) -> Result<(Box<dyn Network>, &'static str)> {
    let why = if model.onnx_paths().is_empty() {
        "the model folder has no ONNX file".to_owned()
    } else if args.device == DeviceChoice::Metal {
        "only Candle supports the device metal".to_owned()
    } else {
        match load_onnx_runtime(&onnx_runtime_candidates()) {
            Ok(_) => match onnx(model, &onnx_path(model, Precision::Fp32)?, args) {
                Ok(network) => return Ok((network, ONNX)),
                Err(error) if has_candle(&error, model, args) => {
                    tracing::warn!("{error}; the checkpoint runs in Candle instead");
                    return Ok((candle(model, args.device)?, CANDLE));
                }
                Err(error) => return Err(advised(error, model)),
            },
            Err(error) => error.to_string(),
        }
    };
    tracing::info!("the network runs in Candle: {why}");
    Ok((candle(model, args.device)?, CANDLE))
}

/// True if an error is about the ONNX file alone, and the checkpoint can run instead.
fn has_candle(error: &splade_encode::Error, model: &ModelDir, args: &NetworkArgs) -> bool {
    use splade_encode::Error::{Signature, Stale};
    cfg!(feature = "train")
        && matches!(error, Signature { .. } | Stale { .. })
        && model.checkpoint().is_ok()
        && args.device != DeviceChoice::Coreml
}

/// Preferred ONNX file of a precision.
fn onnx_path(model: &ModelDir, precision: Precision) -> Result<PathBuf> {
    model.onnx_paths_in(precision).into_iter().next().ok_or_else(|| no_file(model, precision))
}

/// Opens an ONNX file in ONNX Runtime, which must be loaded, and logs how it runs.
fn onnx(model: &ModelDir, path: &Path, args: &NetworkArgs) -> splade_encode::Result<Box<dyn Network>> {
    let device = onnx_device(args.device).unwrap_or_default();
    let provider_options = args.ep_option.clone();
    let options = OnnxOptions { device, threads: args.threads, provider_options, ..OnnxOptions::default() };
    let network = open_onnx(model, path, &options)?;
    let file = network.model();
    let sessions = if file.sessions() == 1 { "1 session".to_owned() } else { format!("{} sessions", file.sessions()) };
    tracing::info!(
        "the network runs in ONNX Runtime ({}), {sessions}: {}",
        file.placement().device.name(),
        path.display()
    );
    match network.not_split() {
        None => tracing::info!("output layer: fused with the maximum over tokens, in this program"),
        Some(reason) => tracing::info!("output layer: in the file, several times slower: {reason}"),
    }
    if !file.can_pad() {
        tracing::warn!(
            "{}: texts of different lengths run apart, which is slower: the file has no attention mask, or padding \
             changes its vectors",
            path.display()
        );
    }
    if let Some(texts) = file.fixed_batch() {
        tracing::info!("{}: runs {texts} texts at a time, its fixed batch size", path.display());
    }
    Ok(Box::new(network))
}

/// Compares an ONNX file with the checkpoint of its model folder, a torch checkpoint too.
pub(crate) fn provenance(file: &Path, model: &ModelDir) -> splade_encode::Result<Provenance> {
    Provenance::of(file, model, |checkpoint| Ok(torch_vectors(model, checkpoint)))
}

/// Refuses an ONNX file of another torch checkpoint than the one beside it.
///
/// [`OnnxNetwork::open`] does the same for safetensors, but cannot read torch files.
fn refuse_stale(file: &Path, model: &ModelDir) -> splade_encode::Result<()> {
    let is_torch = model.checkpoint().is_ok_and(|checkpoint| checkpoint.format() == CheckpointFormat::Torch);
    match if is_torch { provenance(file, model)? } else { Provenance::Unknown } {
        Provenance::Other(reason) => Err(splade_encode::Error::Stale { file: file.to_owned(), reason }),
        _ => Ok(()),
    }
}

/// Vectors of a torch checkpoint; none if this program cannot read it, which is no fault of an ONNX file beside it.
#[cfg(feature = "train")]
fn torch_vectors(model: &ModelDir, checkpoint: &CheckpointFiles) -> Option<Vec<(String, Vec<f32>)>> {
    use splade_trainer::model::{TransformerConfig, Weights};
    let weights = TransformerConfig::of(model).and_then(|config| Weights::from_files(checkpoint, &config));
    let weights = weights.inspect_err(|error| tracing::debug!("no tensors to compare: {error}")).ok()?;
    let vectors = weights.tensors().iter().filter_map(|(name, tensor)| Some((name.clone(), tensor.to_vec1().ok()?)));
    Some(vectors.collect())
}

#[cfg(not(feature = "train"))]
fn torch_vectors(_: &ModelDir, _: &CheckpointFiles) -> Option<Vec<(String, Vec<f32>)>> {
    None
}

/// Adds a hint to an error of an ONNX file.
pub(crate) fn advised(error: splade_encode::Error, model: &ModelDir) -> anyhow::Error {
    use splade_encode::Error::{HeadMode, Signature, Stale};
    let root = model.root().display();
    let hint = match &error {
        Stale { .. } => format!("run `splade export-onnx {root} --overwrite`, or use --backend candle"),
        Signature { .. } => "use --backend candle, or export the model with `splade export-onnx`".to_owned(),
        HeadMode { found, .. } => format!("export it again, or use --mlm-head {found}"),
        _ => return error.into(),
    };
    bad_input(error.to_string(), hint)
}

/// Loads ONNX Runtime.
pub(crate) fn load_library() -> Result<&'static Path> {
    load_onnx_runtime(&onnx_runtime_candidates()).map_err(|error| bad_input(error.to_string(), LIBRARY_HINT))
}

/// Hint for a missing ONNX Runtime.
pub(crate) const LIBRARY_HINT: &str = "run `make setup`, or set ORT_DYLIB_PATH to the library (it is in the Python \
                                       wheel onnxruntime), or use --backend candle";

/// ONNX files of a model folder: first those with the names that this program runs, then the others.
pub(crate) fn onnx_files(model: &ModelDir) -> Vec<PathBuf> {
    let mut files = model.all_onnx_paths();
    for folder in [model.onnx_dir(), model.transformer_dir().to_owned()] {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
        let is_onnx = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "onnx") && path.is_file();
        let mut others: Vec<PathBuf> = entries.filter(is_onnx).filter(|path| !files.contains(path)).collect();
        others.sort();
        files.extend(others);
    }
    files
}

/// Options for a device and a number of threads.
pub(crate) fn onnx_options(device: DeviceChoice, threads: usize) -> Result<OnnxOptions> {
    let device = onnx_device(device)
        .ok_or_else(|| bad_input("metal is a device of Candle only", "use --backend candle, or --device coreml"))?;
    Ok(OnnxOptions { device, threads, ..OnnxOptions::default() })
}

/// Device of ONNX Runtime; none for a device that only Candle supports.
fn onnx_device(device: DeviceChoice) -> Option<OnnxDevice> {
    match device {
        DeviceChoice::Auto => Some(OnnxDevice::Auto),
        DeviceChoice::Cpu => Some(OnnxDevice::Cpu),
        DeviceChoice::Cuda => Some(OnnxDevice::Cuda),
        DeviceChoice::Coreml => Some(OnnxDevice::CoreMl),
        DeviceChoice::Metal => None,
    }
}

/// Loads ONNX Runtime and opens an ONNX file of a model folder.
#[cfg(feature = "train")]
pub(crate) fn onnx_network(model: &ModelDir, path: &Path, options: &OnnxOptions) -> Result<OnnxNetwork> {
    load_library()?;
    open_onnx(model, path, options).map_err(|error| advised(error, model))
}

/// Opens an ONNX file of a model folder in ONNX Runtime, which must be loaded, and logs the devices that cannot be used.
pub(crate) fn open_onnx(model: &ModelDir, path: &Path, options: &OnnxOptions) -> splade_encode::Result<OnnxNetwork> {
    refuse_stale(path, model)?;
    let network = OnnxNetwork::open(path, options, model)?;
    log_placement(&network, options);
    Ok(network)
}

/// Logs the devices that could not be used.
fn log_placement(network: &OnnxNetwork, options: &OnnxOptions) {
    let placement = network.model().placement();
    for (refused, reason) in &placement.refused {
        let (refused, taken) = (refused.name(), placement.device.name());
        let reason = reason.lines().next().unwrap_or_default();
        if options.device == OnnxDevice::Auto {
            tracing::info!("{refused} is not used: {reason}");
        } else {
            tracing::warn!("--device {refused} cannot be used, {taken} is used instead: {reason}");
        }
    }
}

fn no_file(model: &ModelDir, precision: Precision) -> anyhow::Error {
    let root = model.root().display();
    match precision {
        Precision::Fp32 => bad_input(
            format!("{root}: no ONNX file"),
            format!("run `splade export-onnx {root}`, or use --backend candle"),
        ),
        _ => bad_input(
            format!("{root}: no ONNX file in {precision}"),
            format!("run `splade export-onnx {root} --precision {precision}`"),
        ),
    }
}

#[cfg(feature = "train")]
fn candle(model: &ModelDir, device: DeviceChoice) -> Result<Box<dyn Network>> {
    Ok(Box::new(candle_network(model, device)?))
}

/// Opens the checkpoint of a model folder in Candle.
#[cfg(feature = "train")]
pub(crate) fn candle_network(model: &ModelDir, device: DeviceChoice) -> Result<splade_trainer::model::CandleNetwork> {
    let device = match device {
        DeviceChoice::Auto => splade_trainer::best_device(),
        DeviceChoice::Cpu => splade_trainer::device("cpu")?,
        DeviceChoice::Cuda => splade_trainer::device("cuda")?,
        DeviceChoice::Metal => splade_trainer::device("metal")?,
        DeviceChoice::Coreml => {
            return Err(bad_input("coreml is a device of ONNX Runtime only", "use --device metal"));
        }
    };
    Ok(splade_trainer::model::CandleNetwork::read(model, &device)?)
}

#[cfg(not(feature = "train"))]
fn candle(_: &ModelDir, _: DeviceChoice) -> Result<Box<dyn Network>> {
    Err(bad_input("this program was built without Candle", "build it with the feature train, or use ONNX Runtime"))
}

/// Paths of ONNX Runtime's library, in the order in which they are tried: `ORT_DYLIB_PATH` (alone, if it is set), beside
/// the program, in `.onnxruntime/` of the working folder and of the folders above it. The loader of the system is last.
pub(crate) fn onnx_runtime_candidates() -> Vec<PathBuf> {
    if let Some(path) = std::env::var_os("ORT_DYLIB_PATH").filter(|path| !path.is_empty()) {
        return vec![PathBuf::from(path)];
    }
    let mut folders = Vec::new();
    if let Ok(program) = std::env::current_exe() {
        folders.extend(program.parent().map(PathBuf::from));
    }
    if let Ok(here) = std::env::current_dir() {
        folders.extend(here.ancestors().map(|folder| folder.join(".onnxruntime")));
    }
    folders.iter().flat_map(|folder| libraries_in(folder)).collect()
}

/// Files with the name of the library, with and without a version, by descending name.
fn libraries_in(folder: &Path) -> Vec<PathBuf> {
    let (stem, _) = splade_encode::LIBRARY.split_once('.').unwrap_or((splade_encode::LIBRARY, ""));
    let is_library = |path: &PathBuf| {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        name.starts_with(&format!("{stem}.")) && [".so", ".dylib", ".dll"].iter().any(|kind| name.contains(kind))
    };
    let mut found: Vec<PathBuf> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(is_library)
        .collect();
    found.sort();
    found.reverse();
    found
}
