//! Helpers of the tests: golden models, exported files, and ONNX Runtime as a parity backend.
#![allow(dead_code, reason = "every test file uses a part of it")]

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};

use candle_core::{Device, Tensor};
use ndarray::{Array2, ArrayView1};
use ort::environment::Environment;
use ort::session::{Session, SessionInputValue};
use ort::value::Tensor as OrtTensor;
use splade_core::TokenBatch;
use splade_export::parity::Backend;
use splade_export::{Error, Head, ModelProto, Options, Result, export};
use splade_trainer::model::{TransformerConfig, Weights};

#[path = "../../../tests/fixtures/families.rs"]
mod fixtures;

/// Every golden model: a folder of `tests/fixtures/models`.
pub(crate) fn families() -> Vec<String> {
    fixtures::families(&Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
}

/// A model folder with what the reference implementation computes.
pub(crate) struct Golden {
    pub(crate) config: TransformerConfig,
    pub(crate) weights: Weights,
    pub(crate) expected: HashMap<String, Tensor>,
    /// the id of padding
    pub(crate) pad: u32,
}

impl Golden {
    pub(crate) fn load(model: &Path, expected: &Path) -> Self {
        let path = model.join("config.json");
        let config = TransformerConfig::parse(&std::fs::read_to_string(&path).unwrap(), &path).unwrap();
        let weights = Weights::read(&model.join("model.safetensors"), &config).unwrap();
        let dir = splade_files::ModelDir::open(model).unwrap();
        let pad = dir.pad_id(&dir.vocabulary(None).unwrap()).unwrap();
        Self { config, weights, expected: candle_core::safetensors::load(expected, &Device::Cpu).unwrap(), pad }
    }

    pub(crate) fn family(name: &str) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/models").join(name);
        Self::load(&folder, &folder.join("expected.safetensors"))
    }

    pub(crate) fn export(&self, head: Head, opset: i64) -> ModelProto {
        export(&self.config, &self.weights, head, &Options { opset, ..Options::default() }).unwrap()
    }

    /// The golden texts as one padded batch.
    pub(crate) fn batch(&self) -> TokenBatch {
        let column = |name: &str| self.expected[name].flatten_all().unwrap().to_vec1::<i64>().unwrap();
        let (ids, mask) = (column("input_ids"), column("attention_mask"));
        let &[rows, width] = self.expected["input_ids"].dims() else { panic!("ids have two axes") };
        let array = |values| Array2::from_shape_vec((rows, width), values).unwrap();
        TokenBatch { ids: array(ids), mask: array(mask), pad: self.pad }
    }

    /// The golden texts without padding.
    pub(crate) fn texts(&self) -> Vec<Vec<u32>> {
        let batch = self.batch();
        let rows = batch.ids.outer_iter().zip(batch.mask.outer_iter());
        let text = |(ids, mask): (ArrayView1<'_, i64>, ArrayView1<'_, i64>)| {
            let tokens = ids.into_iter().zip(mask).filter(|(_, mask)| **mask == 1);
            tokens.map(|(id, _)| u32::try_from(*id).unwrap()).collect()
        };
        rows.map(text).collect()
    }

    /// An expected output as vectors along its last axis.
    pub(crate) fn values(&self, name: &str) -> Array2<f32> {
        let tensor = &self.expected[name];
        let (width, values) = (*tensor.dims().last().unwrap(), tensor.flatten_all().unwrap().to_vec1().unwrap());
        Array2::from_shape_vec((values.len() / width, width), values).unwrap()
    }
}

/// Backend of one batch with its golden output.
pub(crate) struct Known(pub(crate) Array2<f32>);

impl Backend for Known {
    fn name(&self) -> &str {
        "golden"
    }

    fn run(&self, _: &TokenBatch) -> Result<Array2<f32>> {
        Ok(self.0.clone())
    }
}

/// An exported file in ONNX Runtime.
pub(crate) struct OnnxRuntime(Mutex<Session>);

impl OnnxRuntime {
    pub(crate) fn load(file: &Path) -> Self {
        Self::load_and_save(file, None)
    }

    /// Also saves the graph as the optimizer leaves it.
    pub(crate) fn load_and_save(file: &Path, optimized: Option<&Path>) -> Self {
        let mut builder = Session::builder(environment()).unwrap().with_intra_threads(1).unwrap();
        if let Some(optimized) = optimized {
            builder = builder.with_optimized_model_path(optimized).unwrap();
        }
        Self(Mutex::new(builder.commit_from_file(file).unwrap()))
    }
}

impl Backend for OnnxRuntime {
    fn name(&self) -> &str {
        "onnx runtime"
    }

    fn run(&self, batch: &TokenBatch) -> Result<Array2<f32>> {
        let mut session = self.0.lock().unwrap();
        let values = |name: &str| match name {
            "input_ids" => batch.ids.clone(),
            "attention_mask" => batch.mask.clone(),
            _ => Array2::zeros(batch.ids.raw_dim()),
        };
        let input = |name: &str| {
            let tensor = OrtTensor::from_array(values(name)).unwrap();
            (name.to_owned(), SessionInputValue::from(tensor))
        };
        let inputs: Vec<_> = session.inputs().iter().map(|outlet| input(outlet.name())).collect();
        let outputs = session.run(inputs).map_err(|error| Error::backend("", "onnx runtime", error))?;
        let output = outputs[0].try_extract_array::<f32>().unwrap();
        let width = output.shape().last().copied().unwrap();
        Ok(output.to_shape((output.len() / width, width)).unwrap().into_owned())
    }
}

/// ONNX Runtime as `make setup` leaves it.
pub(crate) fn environment() -> &'static Environment {
    static ENVIRONMENT: OnceLock<Environment> = OnceLock::new();
    ENVIRONMENT.get_or_init(|| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.onnxruntime");
        let files = std::fs::read_dir(&folder).expect("run `make setup` first");
        let library = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            name.starts_with("libonnxruntime.")
        };
        let library = files.map(|file| file.unwrap().path()).find(library).expect("run `make setup` first");
        let environment = ort::init_from(library).unwrap().build().unwrap();
        environment.set_log_level(ort::logging::LogLevel::Error);
        environment
    })
}
