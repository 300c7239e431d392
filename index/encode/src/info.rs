//! [`OnnxRuntimeInfo`]: version and execution providers of the loaded ONNX Runtime.

use ort::ep::ExecutionProvider;
use ort::session::builder::SessionBuilder;

/// The library that [`load_onnx_runtime`](crate::load_onnx_runtime) found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnnxRuntimeInfo {
    /// description of its build
    pub build: String,
    /// names of the execution providers it was compiled with, the CPU among them
    pub providers: Vec<&'static str>,
}

/// Facts about the loaded library; none if none is loaded.
#[must_use]
pub fn onnx_runtime_info() -> Option<OnnxRuntimeInfo> {
    crate::library::environment()
        .is_some()
        .then(|| OnnxRuntimeInfo { build: ort::info().to_owned(), providers: providers() })
}

/// A provider type that only tests for presence: registering is done by ort's own types, where a feature has them.
macro_rules! providers {
    ($($name:ident = $canonical:literal),*) => {
        $(
            struct $name;

            impl ExecutionProvider for $name {
                const NAME: &'static str = $canonical;

                fn register(&self, _: &mut SessionBuilder) -> ort::Result<()> {
                    Err(ort::Error::new("this type only tests for presence"))
                }
            }
        )*

        fn providers() -> Vec<&'static str> {
            let mut found = Vec::new();
            $(
                if $name::is_available().unwrap_or(false) {
                    found.push($canonical.trim_end_matches("ExecutionProvider"));
                }
            )*
            found
        }
    };
}

providers! {
    Cpu = "CPUExecutionProvider",
    Cuda = "CUDAExecutionProvider",
    TensorRt = "TensorrtExecutionProvider",
    CoreMl = "CoreMLExecutionProvider",
    DirectMl = "DmlExecutionProvider",
    Rocm = "ROCMExecutionProvider",
    MigraphX = "MIGraphXExecutionProvider",
    OpenVino = "OpenVINOExecutionProvider",
    OneDnn = "DnnlExecutionProvider",
    Xnnpack = "XnnpackExecutionProvider",
    Acl = "ACLExecutionProvider",
    Qnn = "QNNExecutionProvider",
    WebGpu = "WebGpuExecutionProvider"
}
