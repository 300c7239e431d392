//! fp16: a recorded graph whose weights are stored in half the bytes.
//!
//! Only matrices and tables are: they are all of a file's size, and no more than 3 digits of a weight matter. Vectors
//! (biases, norms), constants and everything that is computed stay f32, so that nothing overflows or underflows (an
//! `eps` of 1e-12 is 0 in f16). A `Cast` stands behind each weight, which a session folds when it is made: a file takes
//! half the room and runs exactly as fast, and gives exactly what a checkpoint rounded to f16 gives.
//!
//! (A lookup in a table could cast its rows instead of the table, and save memory; but where such a `Cast` feeds a layer
//! norm, ONNX Runtime 1.32 fuses the two into a node it then refuses.)
//!
//! Arithmetic in f16 would gain nothing on a CPU, where ONNX Runtime turns most of it back into f32 in every run.

use std::collections::HashSet;

use candle_onnx::onnx::tensor_proto::DataType;
use candle_onnx::onnx::{ModelProto, NodeProto, TensorProto};
use half::f16;

use crate::proto;
use crate::{Error, Result};

/// The graph with its matrices and tables stored as f16.
///
/// # Errors
/// A weight beyond what f16 holds, by name.
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
            let message = format!("parameter {} holds {value:e}, which fp16 does not", tensor.name);
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
