//! The library of ONNX Runtime: found and loaded at run time, once in a process.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use ort::environment::Environment;

use crate::{Error, Result};

/// The loaded library; the process has one.
static ENVIRONMENT: OnceLock<std::result::Result<(Environment, PathBuf), String>> = OnceLock::new();

/// File name of the library for the system's loader.
pub const LIBRARY: &str = if cfg!(target_os = "macos") {
    "libonnxruntime.dylib"
} else if cfg!(windows) {
    "onnxruntime.dll"
} else {
    "libonnxruntime.so"
};

/// Loads ONNX Runtime from the first of `candidates` that exists, or from the system's loader if none does.
///
/// A single candidate is what the user named: it is taken as it is, so that an error is about that file.
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
        Err(message) => Err(Error::Library(message.lines().next().unwrap_or_default().to_owned())),
    }
}

/// The environment of the loaded library; none if none is loaded.
pub(crate) fn environment() -> Option<&'static Environment> {
    match ENVIRONMENT.get() {
        Some(Ok((environment, _))) => Some(environment),
        _ => None,
    }
}
