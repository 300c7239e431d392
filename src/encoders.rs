//! Encoders of a model folder: which backend runs the network, and why.

use std::path::{Path, PathBuf};

use anyhow::Result;
use splade_core::{DocumentEncoder, DocumentSettings, Encoder, Network, QueryEncoder};
use splade_encode::{OnnxDevice, OnnxNetwork, OnnxOptions, Provenance, load_onnx_runtime};
use splade_files::{Architecture, CheckpointFiles, CheckpointFormat, HeadSource, ModelDir, Precision};

use crate::cli::{Backend, DeviceChoice, NetworkArgs, ReadingArgs};
use crate::failure::bad_input;

/// Makes rayon and everything that runs on it use `threads` threads; 0 leaves it at all of them.
pub(crate) fn use_threads(threads: usize) {
    if threads > 0 {
        // a pool that exists already keeps its size: only tests start two commands in one process
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
            HeadSource::Asked | HeadSource::Stated => return Ok(model),
            HeadSource::Code => "by the code beside its weights, which training may have changed in memory",
            HeadSource::Guessed => "as published, for nothing in the folder tells how it was trained",
        };
        tracing::warn!(
            "{}: logits are used in the mode {} ({known}); --mlm-head chooses another: published (no weight is ever 0, \
             prune the vectors), raw-shifted (trained from a base without the sigmoid), raw, soft-cap (trained here)",
            model.root().display(),
            choice.mode,
        );
    }
    Ok(model)
}

/// The query side: the static table of an inference-free model, else the network.
pub(crate) fn query_encoder(model: &ModelDir, args: &NetworkArgs) -> Result<Box<dyn Encoder>> {
    match model.architecture() {
        Architecture::InferenceFree => Ok(Box::new(static_query_encoder(model, args)?)),
        Architecture::Splade => Ok(Box::new(network_encoder(model, args, model.query_prompt())?)),
    }
}

/// The static table of an inference-free model.
pub(crate) fn static_query_encoder(model: &ModelDir, args: &NetworkArgs) -> Result<QueryEncoder> {
    let encoder = model.query_encoder()?;
    let dropped = if args.drop_special_terms { encoder.vocabulary().special_dims() } else { Vec::new() };
    Ok(encoder.without_terms(&dropped))
}

/// The document side.
pub(crate) fn document_encoder(model: &ModelDir, args: &NetworkArgs) -> Result<DocumentEncoder> {
    network_encoder(model, args, model.document_prompt())
}

fn network_encoder(model: &ModelDir, args: &NetworkArgs, prompt: &str) -> Result<DocumentEncoder> {
    use_threads(args.threads);
    let vocabulary = model.vocabulary(args.max_length.map(|length| length as usize))?;
    let settings = DocumentSettings {
        prompt: prompt.to_owned(),
        batch_tokens: args.batch_tokens as usize,
        dropped: if args.drop_special_terms { vocabulary.special_dims() } else { Vec::new() },
        ..model.document_settings(&vocabulary)?
    };
    let network = network(model, args)?;
    if let Some(most) = network.max_length().filter(|most| *most < vocabulary.max_length()) {
        tracing::warn!("texts are truncated to {most} tokens: the ONNX file takes no more");
    }
    Ok(DocumentEncoder::new(vocabulary, network, settings)?)
}

/// The network of a model folder in the backend that was asked for.
fn network(model: &ModelDir, args: &NetworkArgs) -> Result<Box<dyn Network>> {
    let precision = Precision::from(args.precision);
    match args.backend {
        Backend::Candle if precision != Precision::Fp32 => Err(bad_input(
            format!("--precision {precision} is one of ONNX files, not of Candle"),
            "take --backend onnx",
        )),
        Backend::Candle => candle(model, args.device),
        // a checkpoint has no other precision: only a file can be meant
        Backend::Auto if precision == Precision::Fp32 => auto(model, args),
        Backend::Auto | Backend::Onnx => {
            let path = onnx_path(model, precision)?;
            load_library()?;
            onnx_options(args.device, args.threads)?;
            onnx(model, &path, args).map_err(|error| advised(error, model))
        }
    }
}

/// The ONNX file where there is one that can be run, else the checkpoint in Candle.
fn auto(model: &ModelDir, args: &NetworkArgs) -> Result<Box<dyn Network>> {
    let why = if model.onnx_paths().is_empty() {
        "the model folder has no ONNX file".to_owned()
    } else if args.device == DeviceChoice::Metal {
        "metal is a device of Candle alone".to_owned()
    } else {
        match load_onnx_runtime(&onnx_runtime_candidates()) {
            Ok(_) => match onnx(model, &onnx_path(model, Precision::Fp32)?, args) {
                Ok(network) => return Ok(network),
                Err(error) if has_candle(&error, model, args) => {
                    tracing::warn!("{error}; the checkpoint runs in Candle instead");
                    return candle(model, args.device);
                }
                Err(error) => return Err(advised(error, model)),
            },
            Err(error) => error.to_string(),
        }
    };
    tracing::info!("the network runs in Candle: {why}");
    candle(model, args.device)
}

/// True if an error is one of the ONNX file alone, and the checkpoint can run in its place.
fn has_candle(error: &splade_encode::Error, model: &ModelDir, args: &NetworkArgs) -> bool {
    use splade_encode::Error::{Signature, Stale};
    cfg!(feature = "train")
        && matches!(error, Signature { .. } | Stale { .. })
        && model.checkpoint().is_ok()
        && args.device != DeviceChoice::Coreml
}

/// The preferred ONNX file of a precision.
fn onnx_path(model: &ModelDir, precision: Precision) -> Result<PathBuf> {
    model.onnx_paths_in(precision).into_iter().next().ok_or_else(|| no_file(model, precision))
}

/// An ONNX file in ONNX Runtime, which is loaded. Logs what runs where.
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
        Some(reason) => tracing::info!("output layer: in the file, several times slower than the fused one: {reason}"),
    }
    if !file.can_pad() {
        tracing::warn!(
            "{}: texts of different lengths run apart, which is slower: the file has no attention mask, or padding \
             changes its vectors",
            path.display()
        );
    }
    if let Some(texts) = file.fixed_batch() {
        tracing::info!("{}: runs {texts} texts at a time, as it declares", path.display());
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

/// An error of an ONNX file with what to do about it.
pub(crate) fn advised(error: splade_encode::Error, model: &ModelDir) -> anyhow::Error {
    use splade_encode::Error::{HeadMode, Signature, Stale};
    let root = model.root().display();
    let hint = match &error {
        Stale { .. } => format!("run `splade export-onnx {root} --overwrite`, or take --backend candle"),
        Signature { .. } => "take --backend candle, or a file that `splade export-onnx` writes".to_owned(),
        HeadMode { found, .. } => format!("export it again, or say --mlm-head {found}"),
        _ => return error.into(),
    };
    bad_input(error.to_string(), hint)
}

/// Loads ONNX Runtime.
pub(crate) fn load_library() -> Result<&'static Path> {
    load_onnx_runtime(&onnx_runtime_candidates()).map_err(|error| bad_input(error.to_string(), LIBRARY_HINT))
}

/// What to do where ONNX Runtime is missing.
pub(crate) const LIBRARY_HINT: &str = "run `make setup`, or let ORT_DYLIB_PATH name the library (it is in the Python \
                                       wheel onnxruntime), or take --backend candle";

/// The ONNX files of a model folder: those that are run by their names, then those of other tools.
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

/// Options for a file that is run on a device with so many threads.
pub(crate) fn onnx_options(device: DeviceChoice, threads: usize) -> Result<OnnxOptions> {
    let device = onnx_device(device)
        .ok_or_else(|| bad_input("metal is a device of Candle", "take --backend candle, or --device coreml"))?;
    Ok(OnnxOptions { device, threads, ..OnnxOptions::default() })
}

/// A device as ONNX Runtime knows it; none for one of Candle alone.
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

/// Names the devices that could not be used.
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
            format!("run `splade export-onnx {root}`, or take --backend candle"),
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

/// The checkpoint of a model folder in Candle.
#[cfg(feature = "train")]
pub(crate) fn candle_network(model: &ModelDir, device: DeviceChoice) -> Result<splade_trainer::model::CandleNetwork> {
    let device = match device {
        DeviceChoice::Auto => splade_trainer::best_device(),
        DeviceChoice::Cpu => splade_trainer::device("cpu")?,
        DeviceChoice::Cuda => splade_trainer::device("cuda")?,
        DeviceChoice::Metal => splade_trainer::device("metal")?,
        DeviceChoice::Coreml => return Err(bad_input("coreml is a device of ONNX Runtime", "take --device metal")),
    };
    Ok(splade_trainer::model::CandleNetwork::read(model, &device)?)
}

#[cfg(not(feature = "train"))]
fn candle(_: &ModelDir, _: DeviceChoice) -> Result<Box<dyn Network>> {
    Err(bad_input("this program was built without Candle", "build it with the feature train, or use ONNX Runtime"))
}

/// Where ONNX Runtime is looked for, in this order: `ORT_DYLIB_PATH` (alone, if it is set), beside the program, and in
/// `.onnxruntime/` of this folder and those above it. The system's loader comes last, by itself.
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

/// Files named like the library, versioned ones too, newest name first.
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
