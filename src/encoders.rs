//! Encoders of a model folder: which backend runs the network, and why.

use std::path::{Path, PathBuf};

use anyhow::Result;
use splade_core::{DocumentEncoder, DocumentSettings, Encoder, QueryEncoder, Vocabulary};
use splade_encode::{OnnxDevice, OnnxNetwork, OnnxOptions, load_onnx_runtime};
use splade_files::{Architecture, HeadSource, ModelDir, Precision};

use crate::cli::{Backend, DeviceChoice, NetworkArgs, PrecisionChoice, ReadingArgs};
use crate::failure::bad_input;

/// Makes rayon and everything that runs on it use `threads` threads; 0 leaves it at all of them.
pub(crate) fn use_threads(threads: usize) {
    if threads > 0 {
        // a pool that exists already keeps its size: only tests start two commands in one process
        let _ = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
    }
}

/// The model read as the flags say; a warning where only the user can know the head mode.
pub(crate) fn read_as(model: ModelDir, args: &ReadingArgs) -> Result<ModelDir> {
    let model = model.ignoring_config_keys(args.ignore_config_key.clone());
    if let Some(mode) = args.mlm_head {
        return Ok(model.with_head_mode(mode)?);
    }
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
    match args.backend {
        // a checkpoint has no other precision: only a file can be meant
        Backend::Auto if args.precision != PrecisionChoice::Fp32 => onnx(model, vocabulary, settings, args),
        Backend::Candle if args.precision != PrecisionChoice::Fp32 => {
            let precision = Precision::from(args.precision);
            Err(bad_input(
                format!("--precision {precision} is one of ONNX files, not of Candle"),
                "take --backend onnx",
            ))
        }
        Backend::Candle => candle(model, vocabulary, settings, args.device),
        Backend::Onnx => onnx(model, vocabulary, settings, args),
        Backend::Auto => auto(model, vocabulary, settings, args),
    }
}

fn auto(
    model: &ModelDir,
    vocabulary: Vocabulary,
    settings: DocumentSettings,
    args: &NetworkArgs,
) -> Result<DocumentEncoder> {
    let why = if model.onnx_paths().is_empty() {
        "the model folder has no ONNX file".to_owned()
    } else if args.device == DeviceChoice::Metal {
        "metal is a device of Candle alone".to_owned()
    } else {
        match load_onnx_runtime(&onnx_runtime_candidates()) {
            Ok(_) => return onnx(model, vocabulary, settings, args),
            Err(error) => error.to_string(),
        }
    };
    tracing::info!("the network runs in Candle: {why}");
    candle(model, vocabulary, settings, args.device)
}

fn onnx(
    model: &ModelDir,
    vocabulary: Vocabulary,
    settings: DocumentSettings,
    args: &NetworkArgs,
) -> Result<DocumentEncoder> {
    let precision = Precision::from(args.precision);
    let path = model.onnx_paths_in(precision).into_iter().next().ok_or_else(|| no_file(model, precision))?;
    let library = load_onnx_runtime(&onnx_runtime_candidates())?;
    tracing::info!("the network runs in ONNX Runtime ({}): {}", library.display(), path.display());
    let options = onnx_options(args.device, args.threads)?;
    let options = OnnxOptions { provider_options: args.ep_option.clone(), ..options };
    let network = onnx_network(model, &path, &options)?;
    Ok(DocumentEncoder::new(vocabulary, Box::new(network), settings)?)
}

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

/// How ONNX Runtime runs a file.
pub(crate) fn onnx_options(device: DeviceChoice, threads: usize) -> Result<OnnxOptions> {
    let device = match device {
        DeviceChoice::Auto => OnnxDevice::Auto,
        DeviceChoice::Cpu => OnnxDevice::Cpu,
        DeviceChoice::Cuda => OnnxDevice::Cuda,
        DeviceChoice::Coreml => OnnxDevice::CoreMl,
        DeviceChoice::Metal => {
            return Err(bad_input("metal is a device of Candle", "take --backend candle, or --device coreml"));
        }
    };
    Ok(OnnxOptions { device, threads, ..OnnxOptions::default() })
}

/// An ONNX file of a model folder in ONNX Runtime, which is loaded if it is not yet.
pub(crate) fn onnx_network(model: &ModelDir, path: &Path, options: &OnnxOptions) -> Result<OnnxNetwork> {
    load_onnx_runtime(&onnx_runtime_candidates())?;
    let network = OnnxNetwork::open(path, options, model)?;
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
    Ok(network)
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
fn candle(
    model: &ModelDir,
    vocabulary: Vocabulary,
    settings: DocumentSettings,
    device: DeviceChoice,
) -> Result<DocumentEncoder> {
    let network = candle_network(model, device)?;
    Ok(DocumentEncoder::new(vocabulary, Box::new(network), settings)?)
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
fn candle(_: &ModelDir, _: Vocabulary, _: DocumentSettings, _: DeviceChoice) -> Result<DocumentEncoder> {
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
