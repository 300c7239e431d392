//! Builder of ONNX graphs: makes equal nodes once and leaves out unused nodes.

use std::collections::{HashMap, HashSet};
use std::hash::{Hash as _, Hasher as _};
use std::rc::Rc;

use candle_onnx::onnx::tensor_proto::DataType;
use candle_onnx::onnx::{AttributeProto, GraphProto, NodeProto, TensorProto, ValueInfoProto};
use prost::Message as _;

use crate::proto::{self, Axis};

/// A value of the graph: an input, an initializer or an output of a node.
#[derive(Debug, Clone)]
pub(crate) struct Value {
    name: Rc<str>,
    /// length of the last axis, if it is known
    width: Option<usize>,
}

impl Value {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn width(&self) -> Option<usize> {
        self.width
    }

    pub(crate) fn with_width(self, width: Option<usize>) -> Self {
        Self { width, ..self }
    }
}

/// Collects nodes in the order of their requests, which is a valid order of execution.
///
/// All operators are pure functions, so that a second request with equal inputs and attributes returns the first node.
/// Values that layers share (masks, positions) are therefore computed once.
#[derive(Debug)]
pub(crate) struct Graph {
    opset: i64,
    nodes: Vec<NodeProto>,
    initializers: Vec<TensorProto>,
    /// nodes by all their contents but the names
    made: HashMap<Vec<u8>, Value>,
    /// number of uses of a name
    taken: HashMap<String, usize>,
    constants: HashSet<String>,
    shapes: Vec<ValueInfoProto>,
}

impl Graph {
    pub(crate) fn new(opset: i64) -> Self {
        Self {
            opset,
            nodes: Vec::new(),
            initializers: Vec::new(),
            made: HashMap::new(),
            taken: HashMap::new(),
            constants: HashSet::new(),
            shapes: Vec::new(),
        }
    }

    /// Value with a known name: an input, or an initializer that is added in [`finish`](Self::finish).
    pub(crate) fn named(&self, name: &str, width: Option<usize>) -> Value {
        Value { name: name.into(), width }
    }

    /// Value of a node; `scope` is its position in the model, often empty.
    pub(crate) fn node(
        &mut self,
        scope: &str,
        operator: &str,
        inputs: &[&Value],
        attributes: Vec<AttributeProto>,
    ) -> Value {
        let mut node = NodeProto {
            op_type: operator.to_owned(),
            input: inputs.iter().map(|value| value.name().to_owned()).collect(),
            attribute: attributes,
            ..Default::default()
        };
        let key = node.encode_to_vec();
        if let Some(value) = self.made.get(&key) {
            return value.clone();
        }
        node.name = self.free_name(scope, operator);
        let name: Rc<str> = format!("{}.out", node.name).into();
        node.output = vec![name.to_string()];
        self.nodes.push(node);
        let value = Value { name, width: None };
        self.made.insert(key, value.clone());
        value
    }

    /// States the shape of a value that no reader can infer.
    pub(crate) fn state(&mut self, value: &Value, data_type: DataType, axes: &[Axis]) {
        if !self.shapes.iter().any(|known| known.name == value.name()) {
            self.shapes.push(proto::value_info(value.name(), data_type, axes));
        }
    }

    /// A constant number.
    pub(crate) fn number(&mut self, value: f32) -> Value {
        self.constant(format!("f32[{value:e}]"), |name| proto::f32_tensor(name, &[], &[value]))
    }

    /// A vector of equal numbers.
    pub(crate) fn filled(&mut self, value: f32, length: usize) -> Value {
        let tensor = |name: &str| proto::f32_tensor(name, &[length], &vec![value; length]);
        self.constant(format!("f32[{value:e}; {length}]"), tensor)
    }

    /// A constant of any shape; equal constants are stored once.
    pub(crate) fn tensor(&mut self, values: &[f32], shape: &[usize]) -> Value {
        let mut hasher = std::hash::DefaultHasher::new();
        values.iter().for_each(|value| value.to_bits().hash(&mut hasher));
        let name = format!("f32{shape:?}#{:016x}", hasher.finish());
        self.constant(name, |name| proto::f32_tensor(name, shape, values))
    }

    /// Values of a constant of floats with one axis.
    pub(crate) fn stored_vector(&self, value: &Value) -> Option<Vec<f32>> {
        let tensor = self.initializers.iter().find(|tensor| tensor.name == value.name())?;
        let is_vector = tensor.data_type == i32::from(DataType::Float) && tensor.dims.len() == 1;
        is_vector.then(|| proto::f32_values(tensor))
    }

    /// A constant integer.
    pub(crate) fn integer(&mut self, value: i64) -> Value {
        self.constant(format!("i64[{value}]"), |name| proto::i64_tensor(name, &[], &[value]))
    }

    /// A constant vector of integers: shapes, axes.
    pub(crate) fn integers(&mut self, values: &[i64]) -> Value {
        let name = match values {
            [] | [_] | [_, _] | [_, _, _] | [_, _, _, _] => format!("i64{values:?}[]"),
            many => {
                let mut hasher = std::hash::DefaultHasher::new();
                many.hash(&mut hasher);
                format!("i64[{}]#{:016x}", many.len(), hasher.finish())
            }
        };
        self.constant(name, |name| proto::i64_tensor(name, &[values.len()], values))
    }

    /// `ReduceMax` or `ReduceMean` over one axis, which is an attribute before opset 18 and an input from then on.
    pub(crate) fn reduce(&mut self, scope: &str, operator: &str, x: &Value, axis: i64, keep: bool) -> Value {
        let keep = proto::int("keepdims", keep.into());
        if self.opset < 18 {
            return self.node(scope, operator, &[x], vec![proto::ints("axes", &[axis]), keep]);
        }
        let axes = self.integers(&[axis]);
        self.node(scope, operator, &[x, &axes], vec![keep])
    }

    /// Returns the graph with these outputs, without nodes that they do not need.
    ///
    /// `parameters` are the initializers that are used by name; `first` are nodes that need only initializers.
    pub(crate) fn finish(
        self,
        name: &str,
        inputs: Vec<ValueInfoProto>,
        outputs: Vec<ValueInfoProto>,
        first: Vec<NodeProto>,
        parameters: Vec<TensorProto>,
    ) -> GraphProto {
        let mut needed: HashSet<String> = outputs.iter().map(|output| output.name.clone()).collect();
        let mut nodes: Vec<NodeProto> = Vec::new();
        for node in first.into_iter().chain(self.nodes).rev() {
            if node.output.iter().any(|output| needed.contains(output)) {
                needed.extend(node.input.iter().cloned());
                nodes.push(node);
            }
        }
        nodes.reverse();
        let mut initializers = parameters;
        initializers.extend(self.initializers);
        initializers.retain(|tensor| needed.contains(&tensor.name));
        let mut value_info = self.shapes;
        value_info.retain(|value| needed.contains(&value.name));
        GraphProto {
            name: name.to_owned(),
            node: nodes,
            initializer: initializers,
            input: inputs,
            output: outputs,
            value_info,
            ..Default::default()
        }
    }

    /// Copy of a value under the name `name`: an output of the graph.
    pub(crate) fn output(&mut self, name: &str, value: &Value) {
        self.nodes.push(NodeProto {
            name: format!("{name}.identity"),
            op_type: "Identity".to_owned(),
            input: vec![value.name().to_owned()],
            output: vec![name.to_owned()],
            ..Default::default()
        });
    }

    fn constant(&mut self, name: String, tensor: impl FnOnce(&str) -> TensorProto) -> Value {
        if self.constants.insert(name.clone()) {
            self.initializers.push(tensor(&name));
        }
        self.named(&name, None)
    }

    fn free_name(&mut self, scope: &str, operator: &str) -> String {
        let name = if scope.is_empty() { operator.to_owned() } else { format!("{scope}/{operator}") };
        let taken = self.taken.entry(name.clone()).or_default();
        *taken += 1;
        if *taken == 1 { name } else { format!("{name}_{taken}") }
    }
}
