//! Conversion to fp16: weights of a recorded graph are stored in half the bytes.
//!
//! Only matrices and tables are converted: they are nearly all of a file's size, and 3 digits of a weight are enough.
//! Vectors (biases, norms), constants and activations stay f32, so that nothing overflows or underflows (an `eps` of
//! 1e-12 is 0 in f16). A `Cast` follows each weight, and a session folds it at load. The file has half the size, runs
//! as fast as the f32 file, and gives the vectors of a checkpoint rounded to f16.
//!
//! (A lookup could cast rows instead of the whole table, which saves memory. But ONNX Runtime 1.32 fuses a layer norm after
//! such a `Cast` into a node that it then refuses.)
//!
//! Arithmetic in f16 gains nothing on a CPU, where ONNX Runtime converts most of it back to f32 in every run.

use std::collections::HashSet;

use candle_onnx::onnx::tensor_proto::DataType;
use candle_onnx::onnx::{ModelProto, NodeProto, TensorProto};
use half::f16;

use crate::proto;
use crate::{Error, Result};

/// Converts the matrices and tables of a graph to f16.
///
/// # Errors
/// A weight beyond the range of f16, by name.
pub(crate) fn store_half(mut model: ModelProto) -> Result<ModelProto> {
    let Some(graph) = &mut model.graph else { return Ok(model) };
    let mut halved = HashSet::new();
    for tensor in &mut graph.initializer {
        if tensor.data_type == i32::from(DataType::Float) && tensor.dims.len() >= 2 {
            *tensor = half(tensor)?;
            halved.insert(tensor.name.clone());
        }
    }
    let mut nodes = Vec::with_capacity(graph.node.len() + halved.len());
    let mut cast = HashSet::new();
    for mut node in std::mem::take(&mut graph.node) {
        for input in &mut node.input {
            if halved.contains(input) {
                let float = format!("{input}.f32");
                if cast.insert(float.clone()) {
                    nodes.push(to_f32(format!("{input}/Cast"), input, float.clone()));
                }
                *input = float;
            }
        }
        nodes.push(node);
    }
    graph.node = nodes;
    Ok(model)
}

fn half(tensor: &TensorProto) -> Result<TensorProto> {
    let mut bytes = Vec::with_capacity(tensor.raw_data.len() / 2);
    for value in proto::f32_values(tensor) {
        let half = f16::from_f32(value);
        if !half.is_finite() {
            let message =
                format!("parameter {} has the value {value:e}, which is beyond the range of fp16", tensor.name);
            return Err(Error::invalid(message, "export it in fp32"));
        }
        bytes.extend(half.to_le_bytes());
    }
    let shape: Vec<usize> = tensor.dims.iter().map(|&length| length as usize).collect();
    Ok(proto::tensor(&tensor.name, &shape, DataType::Float16, bytes))
}

fn to_f32(name: String, input: &str, output: String) -> NodeProto {
    NodeProto {
        name,
        op_type: "Cast".to_owned(),
        input: vec![input.to_owned()],
        output: vec![output],
        attribute: vec![proto::int("to", i32::from(DataType::Float).into())],
        ..Default::default()
    }
}
