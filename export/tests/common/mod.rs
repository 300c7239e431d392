//! What the tests share: golden models, exported files, and ONNX Runtime as a parity backend.
#![allow(dead_code)] // every test file uses a part of it

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};

use candle_core::{Device, Tensor};
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
        TokenBatch {
            ids: ids.iter().map(|&id| id.try_into().unwrap()).collect(),
            mask: mask.iter().map(|&mask| mask.try_into().unwrap()).collect(),
            rows,
            width,
        }
    }

    /// The golden texts without padding.
    pub(crate) fn texts(&self) -> Vec<Vec<u32>> {
        let batch = self.batch();
        let rows = batch.ids.chunks(batch.width).zip(batch.mask.chunks(batch.width));
        let text = |(ids, mask): (&[u32], &[u8])| {
            let tokens = ids.iter().zip(mask).filter(|(_, mask)| **mask == 1);
            tokens.map(|(&id, _)| id).collect()
        };
        rows.map(text).collect()
    }

    pub(crate) fn values(&self, name: &str) -> Vec<f32> {
        self.expected[name].flatten_all().unwrap().to_vec1().unwrap()
    }
}

/// A golden tensor in the place of a backend that knows one batch.
pub(crate) struct Known(pub(crate) Vec<f32>);

impl Backend for Known {
    fn name(&self) -> &str {
        "golden"
    }

    fn run(&self, _: &TokenBatch) -> Result<Vec<f32>> {
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

    fn run(&self, batch: &TokenBatch) -> Result<Vec<f32>> {
        let mut session = self.0.lock().unwrap();
        let values = |name: &str| match name {
            "input_ids" => batch.ids.iter().map(|&id| i64::from(id)).collect(),
            "attention_mask" => batch.mask.iter().map(|&mask| i64::from(mask)).collect(),
            _ => vec![0; batch.ids.len()],
        };
        let input = |name: &str| {
            let tensor = OrtTensor::from_array(([batch.rows, batch.width], values(name))).unwrap();
            (name.to_owned(), SessionInputValue::from(tensor))
        };
        let inputs: Vec<_> = session.inputs().iter().map(|outlet| input(outlet.name())).collect();
        let outputs = session.run(inputs).map_err(|error| Error::backend("", "onnx runtime", error))?;
        Ok(outputs[0].try_extract_tensor::<f32>().unwrap().1.to_vec())
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
