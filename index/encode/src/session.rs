//! [`OnnxModel`]: an ONNX file in one session of ONNX Runtime or several.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use half::f16;
use ndarray::{Array2, ArrayViewD, Axis, Slice};
use ort::environment::Environment;
use ort::session::builder::GraphOptimizationLevel;
use ort::session::{Session, SessionInputValue};
use ort::value::{Tensor, TensorRef};
use splade_core::TokenBatch;

use crate::error::first_line;
use crate::providers::{self, OnnxDevice, Placement};
use crate::signature::{Input, InputRole, Output, Signature};
use crate::{Error, OnnxSummary, Result, library, operators};

/// Options for running a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OnnxOptions {
    /// threads of all sessions together; 0 means one for every core
    pub threads: usize,
    /// sessions, each with its share of the threads; 0 chooses
    pub sessions: usize,
    /// device
    pub device: OnnxDevice,
    /// true to run a pooled file whole in ONNX Runtime, without the fused output layer
    pub whole: bool,
    /// options of the execution provider; on the CPU, entries of the session's configuration
    pub provider_options: Vec<(String, String)>,
}

/// Largest size of weights in bytes for a second session by default. Each session holds the weights, and the operators of a
/// large model use all threads of one session.
const SECOND_SESSION_BYTES: u64 = 1 << 28;

impl OnnxOptions {
    /// Number of threads of every session.
    ///
    /// Two sessions are faster than one session with all threads: fewer threads wait for one another within an operator, and
    /// one session computes while the inputs and vectors of the other are prepared. (Measured on two cores: f32 15 to 20 %
    /// faster, int8 3 %.) Every session holds the weights.
    fn threads_of_sessions(&self, device: OnnxDevice, bytes: u64) -> Vec<usize> {
        let threads = if self.threads > 0 { self.threads } else { cores() };
        let sessions = match self.sessions {
            0 if device == OnnxDevice::Cpu && bytes <= SECOND_SESSION_BYTES => threads.min(2),
            0 => 1,
            sessions => sessions,
        };
        (0..sessions).map(|session| ((threads + session) / sessions).max(1)).collect()
    }
}

/// Number of physical cores available to this process. Two threads of one core share its arithmetic units.
fn cores() -> usize {
    let allowed = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    num_cpus::get_physical().clamp(1, allowed)
}

/// An ONNX file in one session or several.
///
/// A session has a lock and runs one batch at a time. Each session holds the weights.
///
/// A batch is run as the file declares its inputs: with 64-bit or 32-bit ids; in parts, if the number of texts is fixed;
/// padded, if the number of tokens is fixed; in parts of texts of equal length, if there is no attention mask or padding
/// changes the vectors.
pub struct OnnxModel {
    sessions: Vec<Mutex<Session>>,
    /// threads of a session
    threads: usize,
    /// session to wait for if all are busy
    next: AtomicUsize,
    path: PathBuf,
    signature: Signature,
    /// the output that is read
    output: Output,
    metadata: Vec<(String, String)>,
    placement: Placement,
    /// true if texts of different lengths may share a run
    can_pad: bool,
}

impl OnnxModel {
    /// Opens a file. [`load_onnx_runtime`](crate::load_onnx_runtime) must have succeeded.
    ///
    /// # Errors
    /// A library that is not loaded, a file that is missing or broken, inputs or outputs that are not those of a masked-LM
    /// network. A device that cannot be used is not an error: [`placement`](Self::placement) has the reason.
    pub fn open(path: &Path, options: &OnnxOptions) -> Result<Self> {
        Self::open_part(path, options, |_| None)
    }

    /// Opens a file, or the part of it that `part` gives for a device.
    pub(crate) fn open_part<'p>(
        path: &Path,
        options: &OnnxOptions,
        part: impl Fn(OnnxDevice) -> Option<&'p [u8]>,
    ) -> Result<Self> {
        let environment = library::environment().ok_or_else(|| Error::Library("is not loaded".to_owned()))?;
        if path.is_dir() {
            return Err(Error::io(path)(std::io::ErrorKind::IsADirectory.into()));
        }
        splade_files::open_file(path)?;
        let nul = |(key, value): &(String, String)| key.contains('\0') || value.contains('\0');
        if options.provider_options.iter().any(nul) {
            return Err(Error::invalid("an option of the execution provider has a NUL character", ""));
        }
        let open = |device| {
            let threads = options.threads_of_sessions(device, weight_bytes(path));
            // the options are for the chosen device, not for the CPU as its replacement
            let is_chosen = options.device == OnnxDevice::Auto || options.device == device;
            let own_options = if is_chosen { options.provider_options.as_slice() } else { &[] };
            let source = part(device).map_or(SessionSource::File(path), SessionSource::Bytes);
            let sessions: std::result::Result<Vec<Session>, String> =
                threads.iter().map(|threads| session(environment, source, *threads, device, own_options)).collect();
            Ok((sessions?, threads[0]))
        };
        let ((sessions, threads), placement) =
            providers::place(options.device, open).map_err(|error| broken(path, &error))?;
        let first = &sessions[0];
        let signature = Signature::of(first).map_err(|message| Error::Signature { file: path.to_owned(), message })?;
        let (output, metadata) = (signature.first_output().clone(), read_metadata(first));
        let sessions = sessions.into_iter().map(Mutex::new).collect();
        let (next, path) = (AtomicUsize::new(0), path.to_owned());
        let can_pad = signature.can_pad();
        Ok(Self { sessions, threads, next, path, signature, output, metadata, placement, can_pad })
    }

    /// Device of the sessions, and the reasons against others.
    #[must_use]
    pub fn placement(&self) -> &Placement {
        &self.placement
    }

    /// Number of sessions, which is the number of batches that run at the same time.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// Number of threads of a session.
    pub(crate) fn threads(&self) -> usize {
        self.threads
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Largest number of tokens of a text; none if the file does not fix it.
    #[must_use]
    pub fn max_length(&self) -> Option<usize> {
        self.signature.length
    }

    /// Number of texts in every run; none if the file does not fix it.
    #[must_use]
    pub fn fixed_batch(&self) -> Option<usize> {
        self.signature.batch
    }

    /// True if texts of different lengths share a run. False if the file has no attention mask, or if padding changes the
    /// vectors in spite of it.
    #[must_use]
    pub fn can_pad(&self) -> bool {
        self.can_pad
    }

    /// Runs only texts of equal length together from now on.
    pub(crate) fn without_padding(mut self) -> Self {
        self.can_pad = false;
        self
    }

    /// Value of a key of [`metadata`](crate::metadata).
    #[must_use]
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.metadata.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// Reads the output with `terms` columns from now on.
    ///
    /// # Errors
    /// A file that declares no such output.
    pub(crate) fn reading(mut self, terms: usize) -> Result<Self> {
        let chosen = self.signature.output_of(terms).cloned();
        self.output = chosen.map_err(|message| Error::Signature { file: self.path.clone(), message })?;
        Ok(self)
    }

    /// Reads the output of a dense encoder from now on.
    ///
    /// # Errors
    /// A file that declares no such output.
    pub(crate) fn reading_dense(mut self) -> Result<Self> {
        let chosen = self.signature.dense_output().cloned();
        self.output = chosen.map_err(|message| Error::Signature { file: self.path.clone(), message })?;
        Ok(self)
    }

    /// Name of the output that is read.
    pub(crate) fn output_name(&self) -> &str {
        &self.output.name
    }

    /// Runs a batch and collects the values of `read`, text by text.
    ///
    /// `read` gets the texts of a run and their output, one row per text, without a copy. A run has the whole batch or
    /// a part of it.
    ///
    /// # Errors
    /// Errors of ONNX Runtime and of `read`, a text with more tokens than the file accepts.
    pub fn run<R>(
        &self,
        batch: &TokenBatch,
        mut read: impl FnMut(&TokenBatch, ArrayViewD<'_, f32>) -> Result<Vec<R>>,
    ) -> Result<Vec<R>> {
        let signature = &self.signature;
        if self.can_pad && signature.has_free_axes() {
            return self.run_once(batch, |output| read(batch, output));
        }
        let mut all = Vec::with_capacity(batch.rows());
        for texts in self.parts(batch) {
            let part = batch.part(texts);
            let width = signature.length.unwrap_or(part.width());
            if part.width() > width {
                let message = format!("a text has {} tokens, the file takes {width}", part.width());
                return Err(Error::Signature { file: self.path.clone(), message });
            }
            let full = part.fitted(signature.batch.unwrap_or(part.rows()), width);
            all.extend(self.run_once(&full, |output| read(&part, cropped(output, &full, &part)))?);
        }
        Ok(all)
    }

    /// Texts of each run: as many as the file accepts, and of equal length if padding would change their vectors.
    fn parts(&self, batch: &TokenBatch) -> Vec<Range<usize>> {
        let limit = self.signature.batch.unwrap_or(batch.rows()).max(1);
        let length = |text: usize| batch.mask.row(text).sum();
        let mut parts: Vec<Range<usize>> = Vec::new();
        for text in 0..batch.rows() {
            match parts.last_mut() {
                Some(part) if part.len() < limit && (self.can_pad || length(part.start) == length(text)) => {
                    part.end = text + 1;
                }
                _ => parts.push(text..text + 1),
            }
        }
        parts
    }

    /// Runs a batch that fits the declared inputs.
    fn run_once<R>(&self, batch: &TokenBatch, read: impl FnOnce(ArrayViewD<'_, f32>) -> Result<R>) -> Result<R> {
        let failed = |error: ort::Error| Error::run(&self.path, error);
        let types = Array2::zeros(batch.ids.raw_dim());
        let inputs = self.signature.inputs.iter().map(|input| {
            let values = match input.role {
                InputRole::Ids => &batch.ids,
                InputRole::Mask => &batch.mask,
                InputRole::Types => &types,
            };
            Ok((input.name.as_str(), tensor(input, values)?))
        });
        let inputs = inputs.collect::<ort::Result<Vec<_>>>().map_err(failed)?;
        let mut session = self.free_session();
        let outputs = session.run(inputs).map_err(failed)?;
        let output = &outputs[self.output.at];
        if self.output.is_16_bit {
            let halves = output.try_extract_array::<f16>().map_err(failed)?;
            return read(halves.mapv(f16::to_f32).view());
        }
        read(output.try_extract_array::<f32>().map_err(failed)?)
    }

    /// Locks a session that is free, otherwise waits for one.
    fn free_session(&self) -> MutexGuard<'_, Session> {
        for session in &self.sessions {
            match session.try_lock() {
                Ok(session) => return session,
                Err(TryLockError::Poisoned(poisoned)) => return poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => {}
            }
        }
        let session = self.next.fetch_add(1, Ordering::Relaxed) % self.sessions.len();
        self.sessions[session].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Values of an input in its declared type; 64-bit values are not copied.
fn tensor<'v>(input: &Input, values: &'v Array2<i64>) -> ort::Result<SessionInputValue<'v>> {
    if input.is_32_bit {
        // ids are u32 and small
        return Ok(Tensor::from_array(values.mapv(|value| value as i32))?.into());
    }
    Ok(TensorRef::from_array_view(values.view())?.into())
}

/// Crops the output for `full` to the rows and tokens of `part`. An output of another shape is returned whole, and its
/// reader refuses it.
fn cropped<'o>(mut output: ArrayViewD<'o, f32>, full: &TokenBatch, part: &TokenBatch) -> ArrayViewD<'o, f32> {
    if output.shape().first() == Some(&full.rows()) {
        output.slice_axis_inplace(Axis(0), Slice::from(..part.rows()));
    }
    if output.ndim() == 3 && output.shape()[1] == full.width() {
        output.slice_axis_inplace(Axis(1), Slice::from(..part.width()));
    }
    output
}

/// Source of a session. Only bytes may have operators of this crate.
#[derive(Clone, Copy)]
enum SessionSource<'s> {
    File(&'s Path),
    Bytes(&'s [u8]),
}

/// Makes a session.
fn session(
    environment: &Environment,
    source: SessionSource<'_>,
    threads: usize,
    device: OnnxDevice,
    options: &[(String, String)],
) -> std::result::Result<Session, String> {
    let builder = Session::builder(environment).map_err(|error| error.to_string())?;
    let builder = builder.with_optimization_level(GraphOptimizationLevel::All).map_err(|error| error.to_string())?;
    let builder = builder.with_intra_threads(threads).map_err(|error| error.to_string())?;
    // a memory plan is kept for every shape of input, and measured, no model is faster with one
    let builder = builder.with_memory_pattern(false).map_err(|error| error.to_string())?;
    // the fused node is not vectorized: the two separate nodes take a fifth of its time
    let builder = builder
        .with_config_entry("optimization.disable_specified_optimizers", "SkipLayerNormFusion;BiasSkipLayerNormFusion")
        .map_err(|error| error.to_string())?;
    let mut builder = providers::register(builder, device, options)?;
    let session = match source {
        SessionSource::File(path) => builder.commit_from_file(path),
        SessionSource::Bytes(bytes) => {
            let domain = operators::domain().map_err(|error| error.to_string())?;
            let builder = builder.with_operators(domain).map_err(|error| error.to_string());
            builder?.commit_from_memory(bytes)
        }
    };
    session.map_err(|error| error.to_string())
}

/// Error for a file that does not load: a missing file of weights, else the message of ONNX Runtime.
fn broken(path: &Path, error: &str) -> Error {
    let missing = OnnxSummary::read(path).ok().and_then(|file| {
        let mut missing = file.external.into_iter().filter(|data| data.found.is_none());
        missing.next()
    });
    match missing {
        Some(data) => {
            Error::file(path.with_file_name(data.location), "no such file: it holds the weights of the model beside it")
        }
        None => Error::file(path, format!("not a model ONNX Runtime can load: {}", first_line(error))),
    }
}

/// Size of a model file in bytes, with the file of weights beside it.
fn weight_bytes(path: &Path) -> u64 {
    let mut beside = path.as_os_str().to_owned();
    beside.push("_data");
    [path, Path::new(&beside)].iter().filter_map(|path| path.metadata().ok()).map(|metadata| metadata.len()).sum()
}

fn read_metadata(session: &Session) -> Vec<(String, String)> {
    let Ok(metadata) = session.metadata() else { return Vec::new() };
    let keys = metadata.custom_keys().unwrap_or_default();
    keys.into_iter().filter_map(|key| metadata.custom(&key).map(|value| (key, value))).collect()
}
