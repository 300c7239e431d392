//! `splade doctor`: what is found on this machine and what is missing.

use anyhow::Result;
use splade_index::load_onnx_runtime;

use crate::cli::DoctorArgs;
use crate::encoders::onnx_runtime_candidates;
use crate::outputs::say;

pub(crate) fn run(args: &DoctorArgs) -> Result<()> {
    let candidates = onnx_runtime_candidates();
    let runtime = load_onnx_runtime(&candidates);
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let backends = if cfg!(feature = "train") { vec!["onnx", "candle"] } else { vec!["onnx"] };
    if args.json {
        let report = serde_json::json!({
            "version": env!("CARGO_PKG_VERSION"),
            "onnx_runtime": runtime.as_ref().ok().map(|path| path.display().to_string()),
            "onnx_runtime_error": runtime.as_ref().err().map(ToString::to_string),
            "threads": threads,
            "backends": backends,
        });
        return say(format_args!("{report:#}"));
    }
    say(format_args!("splade        {}", env!("CARGO_PKG_VERSION")))?;
    match &runtime {
        Ok(path) => say(format_args!("ONNX Runtime  {}", path.display()))?,
        Err(error) => {
            say(format_args!("ONNX Runtime  {}", error.to_string().trim_start_matches("ONNX Runtime ")))?;
            say(format_args!("              {}", error.hint().unwrap_or_default()))?;
        }
    }
    for path in candidates.iter().filter(|path| runtime.as_ref().ok().is_none_or(|found| *found != path.as_path())) {
        say(format_args!("              also looked at {}", path.display()))?;
    }
    say(format_args!("threads       {threads}"))?;
    say(format_args!("backends      {}", backends.join(", ")))
}
