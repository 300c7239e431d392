//! ONNX Runtime: the library found and loaded at run time, and a pooled or plain file of a model run by it.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, TryLockError};

use ort::environment::Environment;
use ort::session::Session;
use ort::session::builder::GraphOptimizationLevel;
use ort::value::TensorRef;

use crate::onnx_cut::{self, Cap, Cut};
use crate::onnx_providers::{self, OnnxDevice, Placement};
use crate::output_layer::OutputLayer;
use crate::{Error, Result, onnx_operators};
use splade_core::{HeadMode, Pooling, SparseVector, SpladePooling, activate, pool};
use splade_core::{Network, TokenBatch};
use splade_files::ModelDir;

/// The loaded library; the process has one.
static ENVIRONMENT: OnceLock<std::result::Result<(Environment, PathBuf), String>> = OnceLock::new();

/// Loads ONNX Runtime from the first of `candidates` that exists, or from the system's loader if none does.
///
/// A single candidate is what the user named: it is taken as it is, so that an error is about it and nothing else.
/// The library stays loaded for the process; later calls return what the first one found.
///
/// # Errors
/// No library, or one too old.
pub fn load_onnx_runtime(candidates: &[PathBuf]) -> Result<&'static Path> {
    let loaded = ENVIRONMENT.get_or_init(|| {
        let found = candidates.iter().find(|path| path.is_file());
        let named = || if let [named] = candidates { named.clone() } else { PathBuf::from(LIBRARY) };
        let path = found.cloned().unwrap_or_else(named);
        let builder = ort::init_from(&path).map_err(|error| match (found, candidates) {
            (Some(path), _) => format!("cannot be loaded: {}: {error}", path.display()),
            (None, [only]) => format!("was not found: there is no {}", only.display()),
            (None, _) => format!("was not found: no {LIBRARY} here or on the system"),
        })?;
        let environment = builder.with_name("splade").build().map_err(|error| error.to_string())?;
        environment.set_log_level(ort::logging::LogLevel::Error);
        Ok((environment, path))
    });
    match loaded {
        Ok((_, path)) => Ok(path),
        Err(message) => Err(Error::invalid(
            format!("ONNX Runtime {}", message.lines().next().unwrap_or_default()),
            "run `make setup`, or let ORT_DYLIB_PATH name the library (it is in the Python wheel onnxruntime), \
             or take --backend candle",
        )),
    }
}

/// Whether a library is loaded.
pub(crate) fn is_loaded() -> bool {
    matches!(ENVIRONMENT.get(), Some(Ok(_)))
}

/// The library's name for the system's loader.
pub const LIBRARY: &str = if cfg!(target_os = "macos") {
    "libonnxruntime.dylib"
} else if cfg!(windows) {
    "onnxruntime.dll"
} else {
    "libonnxruntime.so"
};

/// How a file is run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OnnxOptions {
    /// threads in all; 0 means one for every core
    pub threads: usize,
    /// batches at the same time, each on its share of the threads; 0 chooses
    pub lanes: usize,
    /// where it runs
    pub device: OnnxDevice,
    /// whether a pooled file is run as it is, its output layer too, where that could be computed here
    pub whole: bool,
    /// options of the execution provider; on the CPU, entries of the session's configuration
    pub provider_options: Vec<(String, String)>,
}

/// Weights of more bytes than this are not held twice for the sake of a second lane: they would be most of the memory, and
/// the operators of a large model keep all threads of one lane busy.
const LANE_BYTES: u64 = 1 << 28;

impl OnnxOptions {
    /// Threads of every lane.
    ///
    /// Two lanes are faster than one of twice the threads: nobody waits for the other half of an operator, and what one
    /// thread does alone (inputs, vectors) happens while the other lane computes. (Measured on two cores: f32 15 to 20 %
    /// faster, int8 3 %.) Every lane holds the weights.
    fn lanes(&self, device: OnnxDevice, bytes: u64) -> Vec<usize> {
        let threads = if self.threads > 0 { self.threads } else { cores() };
        let lanes = match self.lanes {
            0 if device == OnnxDevice::Cpu && bytes <= LANE_BYTES => threads.min(2),
            0 => 1,
            lanes => lanes,
        };
        (0..lanes).map(|lane| ((threads + lane) / lanes).max(1)).collect()
    }
}

/// Cores this process may use; two threads of one core would only wait for each other's arithmetic.
fn cores() -> usize {
    let allowed = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    num_cpus::get_physical().clamp(1, allowed)
}

/// An ONNX file in one session or several.
///
/// A session runs one batch at a time and sits behind a lock; several have the same weights and share nothing.
pub struct OnnxModel {
    lanes: Vec<Mutex<Session>>,
    /// threads of a lane
    threads: usize,
    /// the lane that is waited for when all are busy
    next: AtomicUsize,
    path: PathBuf,
    inputs: Vec<String>,
    metadata: Vec<(String, String)>,
    placement: Placement,
}

impl OnnxModel {
    /// Opens a file. [`load_onnx_runtime`] must have succeeded.
    ///
    /// # Errors
    /// A library not loaded, a file that is missing or broken, inputs that are not those of a masked-LM model. A device
    /// that cannot be used is none: [`placement`](Self::placement) says so.
    pub fn open(path: &Path, options: &OnnxOptions) -> Result<Self> {
        Self::open_some(path, options, |_| None)
    }

    /// Opens a file, or for some devices the part of it that `part` gives.
    fn open_some<'p>(
        path: &Path,
        options: &OnnxOptions,
        part: impl Fn(OnnxDevice) -> Option<&'p [u8]>,
    ) -> Result<Self> {
        splade_files::open_file(path)?;
        let Some(Ok((environment, _))) = ENVIRONMENT.get() else {
            return Err(Error::invalid("ONNX Runtime is not loaded", ""));
        };
        if !path.is_file() {
            return Err(Error::io(path)(std::io::ErrorKind::NotFound.into()));
        }
        let nul = |(key, value): &(String, String)| key.contains('\0') || value.contains('\0');
        if options.provider_options.iter().any(nul) {
            return Err(Error::invalid("an option of the execution provider has a NUL character", ""));
        }
        let broken = |error: String| match missing_data(path, &error) {
            Some(data) => Error::file(data, "no such file: it holds the weights of the model beside it"),
            None => Error::file(path, format!("not a model ONNX Runtime can load: {}", first_line(&error))),
        };
        let open = |device| {
            let threads = options.lanes(device, weight_bytes(path));
            // the CPU that is taken instead of a device has nothing to do with the device's options
            let meant = options.device == OnnxDevice::Auto || options.device == device;
            let own_options = if meant { options.provider_options.as_slice() } else { &[] };
            let source = part(device).map_or(Source::File(path), Source::Bytes);
            let sessions: std::result::Result<Vec<Session>, String> =
                threads.iter().map(|threads| session(environment, source, *threads, device, own_options)).collect();
            Ok((sessions?, threads[0]))
        };
        let ((sessions, threads), placement) = onnx_providers::place(options.device, open).map_err(broken)?;
        let session = &sessions[0];
        let inputs: Vec<String> = session.inputs().iter().map(|input| input.name().to_owned()).collect();
        let known = ["input_ids", "attention_mask", "token_type_ids"];
        if let Some(other) = inputs.iter().find(|name| !known.contains(&name.as_str())) {
            return Err(Error::file(path, format!("input {other} is not one of {}", known.join(", "))));
        }
        if session.outputs().is_empty() {
            return Err(Error::file(path, "it has no output"));
        }
        let metadata = read_metadata(session);
        let lanes = sessions.into_iter().map(Mutex::new).collect();
        Ok(Self { lanes, threads, next: AtomicUsize::new(0), path: path.to_owned(), inputs, metadata, placement })
    }

    /// Where it runs, and why not elsewhere.
    #[must_use]
    pub fn placement(&self) -> &Placement {
        &self.placement
    }

    /// How many batches it runs at the same time.
    #[must_use]
    pub fn lanes(&self) -> usize {
        self.lanes.len()
    }

    /// A session that nobody uses, else the next one that is given back.
    fn free_lane(&self) -> MutexGuard<'_, Session> {
        for lane in &self.lanes {
            match lane.try_lock() {
                Ok(session) => return session,
                Err(TryLockError::Poisoned(poisoned)) => return poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => {}
            }
        }
        let lane = self.next.fetch_add(1, Ordering::Relaxed) % self.lanes.len();
        self.lanes[lane].lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// A custom metadata entry of the file.
    #[must_use]
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.metadata.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// Runs a batch and hands the first output, with its shape, to `read` without copying it.
    ///
    /// # Errors
    /// ONNX Runtime's own, or what `read` says.
    pub fn run<R>(&self, batch: &TokenBatch, read: impl FnOnce(&[usize], &[f32]) -> Result<R>) -> Result<R> {
        let shape = [batch.rows, batch.width];
        let ids: Vec<i64> = batch.ids.iter().map(|id| i64::from(*id)).collect();
        let mask: Vec<i64> = batch.mask.iter().map(|mask| i64::from(*mask)).collect();
        let types = vec![0_i64; ids.len()];
        let failed = |error: ort::Error| {
            Error::Runtime(format!("{}: {}", self.path.display(), first_line(&error.to_string())).into())
        };
        let mut inputs = Vec::with_capacity(self.inputs.len());
        for name in &self.inputs {
            let data = match name.as_str() {
                "input_ids" => &ids,
                "attention_mask" => &mask,
                _ => &types,
            };
            let tensor = TensorRef::from_array_view((shape, data.as_slice())).map_err(failed)?;
            inputs.push((name.as_str(), tensor));
        }
        let mut session = self.free_lane();
        let outputs = session.run(inputs).map_err(failed)?;
        let (shape, data) = outputs[0].try_extract_tensor::<f32>().map_err(failed)?;
        let shape: Vec<usize> = shape.iter().map(|axis| usize::try_from(*axis).unwrap_or(0)).collect();
        read(&shape, data)
    }
}

/// What a session is made of; bytes may have our own operators.
#[derive(Clone, Copy)]
enum Source<'s> {
    File(&'s Path),
    Bytes(&'s [u8]),
}

/// One session.
fn session(
    environment: &Environment,
    source: Source<'_>,
    threads: usize,
    device: OnnxDevice,
    options: &[(String, String)],
) -> std::result::Result<Session, String> {
    let builder = Session::builder(environment).map_err(|error| error.to_string())?;
    let builder = builder.with_optimization_level(GraphOptimizationLevel::All).map_err(|error| error.to_string())?;
    let builder = builder.with_intra_threads(threads).map_err(|error| error.to_string())?;
    // a plan is kept for every shape there ever was, and measured, none is faster with one
    let builder = builder.with_memory_pattern(false).map_err(|error| error.to_string())?;
    // the fused node walks a row number by number; apart, the two take a fifth of its time
    let builder = builder
        .with_config_entry("optimization.disable_specified_optimizers", "SkipLayerNormFusion;BiasSkipLayerNormFusion")
        .map_err(|error| error.to_string())?;
    let mut builder = onnx_providers::register(builder, device, options)?;
    let session = match source {
        Source::File(path) => builder.commit_from_file(path),
        Source::Bytes(bytes) => {
            let domain = onnx_operators::domain().map_err(|error| error.to_string())?;
            let builder = builder.with_operators(domain).map_err(|error| error.to_string());
            builder?.commit_from_memory(bytes)
        }
    };
    session.map_err(|error| error.to_string())
}

/// The size of a model file, with the weights that a large one has beside it.
fn weight_bytes(path: &Path) -> u64 {
    let mut beside = path.as_os_str().to_owned();
    beside.push("_data");
    [path, Path::new(&beside)].iter().filter_map(|path| path.metadata().ok()).map(|metadata| metadata.len()).sum()
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// The file with the weights of a large model, `model.onnx_data`, if an error is about it and it is not there.
fn missing_data(path: &Path, error: &str) -> Option<PathBuf> {
    let name = format!("{}_data", path.file_name()?.to_string_lossy());
    let data = path.with_file_name(&name);
    (error.contains(&name) && !data.exists()).then_some(data)
}

fn read_metadata(session: &Session) -> Vec<(String, String)> {
    let Ok(metadata) = session.metadata() else { return Vec::new() };
    let keys = metadata.custom_keys().unwrap_or_default();
    keys.into_iter().filter_map(|key| metadata.custom(&key).map(|value| (key, value))).collect()
}

/// A model file as a [`Network`]: a pooled file as it is, or up to its output layer, which is then computed here; a file of
/// logits with the pooling done here.
pub struct OnnxNetwork {
    model: OnnxModel,
    dimensions: usize,
    pooling: SpladePooling,
    /// the output layer, where the file is run without
    output: Option<(OutputLayer, Cap)>,
}

impl OnnxNetwork {
    /// Opens a file of a model folder, which must use the logits as the folder says.
    ///
    /// On a CPU with the instructions for it, a pooled file of max pooling is run up to its features, and the output layer
    /// is computed here, several times as fast. `OnnxOptions::whole` is the plain way.
    ///
    /// # Errors
    /// As [`OnnxModel::open`] and [`new`](Self::new), and a file exported with other logits than the folder's.
    pub fn open(path: &Path, options: &OnnxOptions, model: &ModelDir) -> Result<Self> {
        Self::open_with(path, options, model.dimensions()?, model.pooling())?.checked(model)
    }

    /// The same, for a file of a model with V terms and this pooling.
    ///
    /// # Errors
    /// As [`OnnxModel::open`] and [`new`](Self::new).
    pub fn open_with(path: &Path, options: &OnnxOptions, dimensions: usize, pooling: SpladePooling) -> Result<Self> {
        let cut_once: OnceCell<Option<Cut>> = OnceCell::new();
        let part = |device| {
            let cut = || onnx_cut::cut(path).filter(|cut| cut.layer.terms() == dimensions);
            let is_for_cpu = device == OnnxDevice::Cpu && !options.whole && pooling.strategy == Pooling::Max;
            is_for_cpu.then(|| cut_once.get_or_init(cut).as_ref()).flatten().map(|cut| cut.model.as_slice())
        };
        let Ok(file) = OnnxModel::open_some(path, options, part) else {
            // whatever is wrong, it is the file's own error that tells
            return Self::new(OnnxModel::open(path, options)?, dimensions, pooling);
        };
        let is_cut = file.placement().device == OnnxDevice::Cpu;
        let network = Self::new(file, dimensions, pooling)?;
        let output = cut_once.into_inner().flatten().filter(|_| is_cut).map(|cut| (cut.layer, cut.cap));
        Ok(Self { output, ..network })
    }

    fn checked(self, model: &ModelDir) -> Result<Self> {
        let file = &self.model;
        if let Some(choice) = model.head_choice() {
            // what other tools export is what the published code gives
            let found = file.metadata(HEAD_MODE_KEY).unwrap_or(HeadMode::Published.name());
            if found != choice.mode.name() {
                let message = format!("its logits are {found}, but the model is used as {}", choice.mode);
                return Err(Error::invalid(
                    format!("{}: {message}", file.path.display()),
                    format!("export it again, or say --mlm-head {found}"),
                ));
            }
        }
        Ok(self)
    }

    /// Whether this machine can compute output layers itself.
    #[must_use]
    pub fn can_be_cut() -> bool {
        OutputLayer::is_supported()
    }

    /// Whether the file is run up to its features, and the output layer is computed here.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.output.is_some()
    }

    /// The file.
    #[must_use]
    pub fn model(&self) -> &OnnxModel {
        &self.model
    }

    /// `dimensions` is V, `pooling` what the model folder states; a pooled file must agree with it.
    ///
    /// # Errors
    /// A file pooled in another way than the folder states.
    pub fn new(model: OnnxModel, dimensions: usize, pooling: SpladePooling) -> Result<Self> {
        let stated = serde_json::to_value((pooling.strategy, pooling.activation)).map(|value| value.to_string());
        // logits are pooled here, whatever the file says about it
        let pooled = model.metadata(POOLING_KEY).filter(|_| model.metadata(HEAD_KEY) != Some("logits"));
        match (pooled, stated) {
            (Some(found), Ok(stated)) if found != stated => Err(Error::file(
                &model.path,
                format!("pooled as {found}, but the model folder says {stated}: export it again"),
            )),
            _ => Ok(Self { model, dimensions, pooling, output: None }),
        }
    }
}

/// The metadata key under which a file of a NorBERT4 model states its [`HeadMode`].
pub const HEAD_MODE_KEY: &str = "splade.mlm_head";

/// The metadata key under which a file states the model's pooling, as JSON.
pub const POOLING_KEY: &str = "splade.pooling";
/// The metadata key under which a file states what it gives: `logits` or `splade`. Files of the first version state nothing.
pub const HEAD_KEY: &str = "splade.head";

impl Network for OnnxNetwork {
    fn dimensions(&self) -> usize {
        self.dimensions
    }

    fn at_once(&self) -> usize {
        self.model.lanes()
    }

    fn forward(&self, batch: &TokenBatch) -> splade_core::Result<Vec<SparseVector>> {
        Ok(self.run_batch(batch)?)
    }
}

impl OnnxNetwork {
    fn run_batch(&self, batch: &TokenBatch) -> Result<Vec<SparseVector>> {
        if let Some((layer, cap)) = &self.output {
            return self.forward_cut(batch, layer, *cap);
        }
        let wrong = |shape: &[usize]| {
            Error::file(
                &self.model.path,
                format!("its output has shape {shape:?}, not {} rows of {} terms", batch.rows, self.dimensions),
            )
        };
        self.model.run(batch, |shape, data| match *shape {
            [rows, terms] if rows == batch.rows && terms == self.dimensions => {
                data.chunks_exact(terms).map(sparse).collect()
            }
            [rows, width, terms] if rows == batch.rows && width == batch.width && terms == self.dimensions => {
                let rows = data.chunks_exact(width * terms).zip(batch.mask.chunks_exact(width));
                rows.map(|(logits, mask)| sparse(&pool(logits, mask, terms, self.pooling))).collect()
            }
            _ => Err(wrong(shape)),
        })
    }
}

impl OnnxNetwork {
    /// Features from the session, vectors from the output layer, in the lane's turn. Padding costs nothing.
    ///
    /// A lane of several threads shares the layer out to rayon, and holds its lock meanwhile: not to be called from rayon's own.
    fn forward_cut(&self, batch: &TokenBatch, layer: &OutputLayer, cap: Cap) -> Result<Vec<SparseVector>> {
        self.model.run(batch, |shape, data| {
            if shape != [batch.rows, batch.width, layer.size()] {
                let message = format!("its features have shape {shape:?}, not {} texts", batch.rows);
                return Err(Error::file(&self.model.path, message));
            }
            let rows =
                data.chunks_exact((batch.width * layer.size()).max(1)).zip(batch.mask.chunks_exact(batch.width.max(1)));
            let texts: Vec<Cow<'_, [f32]>> = rows.map(|(row, mask)| tokens_of(row, mask, layer.size())).collect();
            let texts: Vec<&[f32]> = texts.iter().map(AsRef::as_ref).collect();
            let logits = layer
                .positive_logits(&texts, self.model.threads)
                .ok_or_else(|| Error::file(&self.model.path, "the network gives a number that is not finite"))?;
            let weights = |text: Vec<(u32, f32)>| {
                text.into_iter().map(|(term, logit)| (term, activate(cap.of(logit), self.pooling.activation)))
            };
            logits.into_iter().map(|text| SparseVector::from_pairs(weights(text)).map_err(refused)).collect()
        })
    }
}

/// The features of a row's tokens, without those of its padding.
fn tokens_of<'r>(row: &'r [f32], mask: &[u8], size: usize) -> Cow<'r, [f32]> {
    let count = mask.iter().filter(|mask| **mask != 0).count();
    if mask[..count].iter().all(|mask| *mask != 0) {
        return Cow::Borrowed(&row[..count * size]);
    }
    let tokens = row.chunks_exact(size).zip(mask).filter(|(_, mask)| **mask != 0);
    Cow::Owned(tokens.flat_map(|(features, _)| features).copied().collect())
}

fn sparse(row: &[f32]) -> Result<SparseVector> {
    SparseVector::from_dense(row).map_err(refused)
}

fn refused(source: splade_core::VectorError) -> Error {
    splade_core::Error::Vector { of: "the network's output".into(), source }.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_that_gives_nan_is_refused() {
        for strategy in [Pooling::Max, Pooling::Sum] {
            let pooling = SpladePooling { strategy, activation: splade_core::PoolingActivation::Relu };
            for logits in [[1.0, f32::NAN, 2.0, 3.0], [1.0, 3.0, 2.0, f32::NAN]] {
                let error = sparse(&pool(&logits, &[1, 1], 2, pooling)).unwrap_err();
                assert!(error.to_string().contains("index 1"), "{error}");
            }
            assert_eq!(pool(&[1.0, 2.0, f32::NAN, f32::NAN], &[1, 0], 2, pooling), [2_f32.ln(), 3_f32.ln()]);
        }
    }
}
