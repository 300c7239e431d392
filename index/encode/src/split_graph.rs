//! [`SplitGraph`]: a pooled ONNX file split at its features, into the graph before them and the output layer.
//!
//! A pooled file of this program gives vectors in ONNX Runtime alone. But no ONNX operator fuses the product with the
//! maximum as [`OutputLayer`] does, and this product is most of the work. The metadata of the file name its features
//! and the operands of its output layer ([`metadata::OUTPUT_LAYER`]). The session gets the graph up to the features.

mod nodes;

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::Path;

use ndarray::Array2;
use nodes::{Node, up_to, with_own_operators};
use serde::Deserialize;

use crate::network::NotSplit;
use crate::onnx_file::{OnnxFile, OperatorSet, Stored, TensorType, Type, ValueInfo, element, graph, model};
use crate::operators::DOMAIN;
use crate::output_layer::OutputLayer;
use crate::protobuf::{Part, head};
use crate::tensor_names::{self, Channels};
use crate::{Error, metadata};

/// Graph and output layer of a file.
pub(crate) struct SplitGraph {
    /// model whose output is the features
    pub(crate) model: Vec<u8>,
    pub(crate) layer: OutputLayer,
    pub(crate) cap: Cap,
}

/// Cap of every logit: the variants of `splade_trainer::model::Cap` that keep zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Cap {
    None,
    Soft,
}

impl Cap {
    pub(crate) fn of(self, logit: f32) -> f32 {
        match self {
            Self::None => logit,
            Self::Soft => 15.0 * (logit / 15.0).tanh(),
        }
    }
}

/// Value of [`metadata::OUTPUT_LAYER`].
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Operands {
    features: String,
    weight: String,
    bias: String,
    cap: Cap,
}

impl SplitGraph {
    /// Splits a file. Reads weights one by one, and copies those before the features as bytes.
    ///
    /// # Errors
    /// The reason why the file cannot be split. It is then run whole, and ONNX Runtime reports other defects.
    pub(crate) fn read(path: &Path) -> Result<Self, NotSplit> {
        if !OutputLayer::is_supported() {
            return Err(NotSplit::Processor);
        }
        let unread = |error: Error| NotSplit::Broken(error.to_string());
        let mut file = OnnxFile::open(path).map_err(unread)?;
        let metadata = file.metadata().map_err(broken)?;
        let stated = metadata.get(metadata::OUTPUT_LAYER).ok_or(NotSplit::NotStated)?;
        let operands: Operands = serde_json::from_str(stated)
            .map_err(|error| NotSplit::Broken(format!("{}: {error}", metadata::OUTPUT_LAYER)))?;
        let mut tensors = Tensors::of(&mut file)?;
        let layer = tensors.output_layer(&operands)?;
        let stored = tensors.stored;
        let model = graph_before(&mut file, &stored, &operands.features).map_err(broken)?;
        let model = model.ok_or_else(|| NotSplit::Broken(format!("no node gives {}", operands.features)))?;
        Ok(Self { model, layer, cap: operands.cap })
    }
}

fn broken(error: io::Error) -> NotSplit {
    NotSplit::Broken(error.to_string())
}

/// Model with the features as its output and all they need; none if no node gives them.
fn graph_before(file: &mut OnnxFile, stored: &HashMap<String, Stored>, features: &str) -> io::Result<Option<Vec<u8>>> {
    let nodes = file.encoded.all::<Node>(&file.graph, graph::NODES)?;
    let Some(nodes) = up_to(with_own_operators(nodes, stored.keys()), features) else { return Ok(None) };
    let needed: HashSet<&str> = nodes.iter().flat_map(|node| node.inputs.iter().map(String::as_str)).collect();
    let names: HashMap<u64, &str> = stored.iter().map(|(name, tensor)| (tensor.at, name.as_str())).collect();

    let mut parts: Vec<Part> = nodes.iter().map(|node| Part::message(graph::NODES, node)).collect();
    let of = Some(Type { tensor: Some(TensorType { element: element::FLOAT, shape: None }) });
    parts.push(Part::message(graph::OUTPUTS, &ValueInfo { name: features.to_owned(), of }));
    for field in &file.graph {
        let is_kept = match field.tag {
            graph::NODES | graph::OUTPUTS => false,
            graph::TENSORS => names.get(&field.payload.start).is_some_and(|name| needed.contains(name)),
            graph::VALUES => needed.contains(file.encoded.message::<ValueInfo>(field)?.name.as_str()),
            _ => true,
        };
        if is_kept {
            parts.push(Part::Kept(field.whole.clone()));
        }
    }
    let own = OperatorSet { domain: DOMAIN.to_owned(), version: 1 };
    let mut all = vec![Part::message(model::OPERATOR_SETS, &own)];
    let others = file.model.iter().filter(|field| field.tag != model::GRAPH);
    all.extend(others.map(|field| Part::Kept(field.whole.clone())));
    all.push(Part::Written(head(model::GRAPH, parts.iter().map(Part::length).sum())));
    all.extend(parts);
    file.encoded.joined(&all).map(Some)
}

/// Stored tensors of a graph, by name.
struct Tensors<'f> {
    file: &'f mut OnnxFile,
    stored: HashMap<String, Stored>,
}

impl<'f> Tensors<'f> {
    fn of(file: &'f mut OnnxFile) -> Result<Self, NotSplit> {
        let stored = file.tensors().map_err(broken)?;
        let stored = stored.into_iter().map(|tensor| (tensor.header.name.clone(), tensor)).collect();
        Ok(Self { file, stored })
    }

    /// Reads the output layer: a matrix in floats, also transposed, or in 8 bits with a scale per term.
    fn output_layer(&mut self, operands: &Operands) -> Result<OutputLayer, NotSplit> {
        let (weight, transposed) = (operands.weight.as_str(), tensor_names::transposed(&operands.weight));
        let bias = self.vector(&operands.bias)?;
        let layer = if self.has(weight) {
            OutputLayer::of_floats(self.matrix(weight)?, bias)
        } else if self.has(&transposed) {
            OutputLayer::of_floats(by_rows(self.matrix(&transposed)?), bias)
        } else if self.has(&tensor_names::codes(weight, Channels::Rows)) {
            let codes = self.codes(&tensor_names::codes(weight, Channels::Rows))?;
            OutputLayer::of_codes(codes.view(), self.vector(&tensor_names::scales(weight, Channels::Rows))?, bias)
        } else {
            let codes = self.codes(&tensor_names::codes(&transposed, Channels::Columns))?;
            let scales = self.vector(&tensor_names::scales(&transposed, Channels::Columns))?;
            OutputLayer::of_codes(by_rows(codes).view(), scales, bias)
        };
        layer.ok_or_else(|| NotSplit::Broken(format!("{weight} and {} are no output layer", operands.bias)))
    }

    fn has(&self, name: &str) -> bool {
        self.stored.contains_key(name)
    }

    /// Reads a tensor of floats with one axis.
    fn vector(&mut self, name: &str) -> Result<Vec<f32>, NotSplit> {
        let stored = self.known(name)?;
        let values = self.file.floats(&stored).map_err(broken)?;
        values.filter(|_| stored.header.dims.len() == 1).ok_or_else(|| wrong(name, "a vector of floats"))
    }

    /// Reads a tensor of floats with two axes.
    fn matrix(&mut self, name: &str) -> Result<Array2<f32>, NotSplit> {
        let stored = self.known(name)?;
        let values = self.file.floats(&stored).map_err(broken)?;
        values.and_then(|values| shaped(&stored, values)).ok_or_else(|| wrong(name, "a matrix of floats"))
    }

    /// Reads a tensor of 8-bit numbers with two axes.
    fn codes(&mut self, name: &str) -> Result<Array2<i8>, NotSplit> {
        let stored = self.known(name)?;
        let bytes = self.file.bytes(&stored).map_err(broken)?.filter(|(element, _)| *element == element::INT8);
        let codes = bytes.map(|(_, bytes)| bytes.into_iter().map(u8::cast_signed).collect());
        codes.and_then(|codes| shaped(&stored, codes)).ok_or_else(|| wrong(name, "a matrix of 8-bit numbers"))
    }

    fn known(&self, name: &str) -> Result<Stored, NotSplit> {
        self.stored.get(name).cloned().ok_or_else(|| NotSplit::Broken(format!("there is no tensor {name}")))
    }
}

fn wrong(name: &str, expected: &str) -> NotSplit {
    NotSplit::Broken(format!("tensor {name} is not {expected} in this file"))
}

/// Values as a matrix; none if the tensor does not have two axes.
fn shaped<T>(stored: &Stored, values: Vec<T>) -> Option<Array2<T>> {
    let &[rows, columns] = stored.header.dims.as_slice() else { return None };
    Array2::from_shape_vec((usize::try_from(rows).ok()?, usize::try_from(columns).ok()?), values).ok()
}

/// Transpose of a matrix, with contiguous rows.
fn by_rows<T: Clone>(columns: Array2<T>) -> Array2<T> {
    columns.reversed_axes().as_standard_layout().into_owned()
}
