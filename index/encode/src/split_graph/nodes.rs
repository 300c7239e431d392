//! Nodes of a graph: those that a value needs, and chains that are replaced by one operator of this crate.

use std::collections::{HashMap, HashSet};

use prost::Message;

use crate::operators::{DOMAIN, LAYER_NORM, RELATIVE_SCORES};

/// `NodeProto`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Node {
    #[prost(string, repeated, tag = "1")]
    pub(super) inputs: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    outputs: Vec<String>,
    #[prost(string, tag = "3")]
    name: String,
    #[prost(string, tag = "4")]
    operator: String,
    /// still encoded
    #[prost(bytes = "vec", repeated, tag = "5")]
    attributes: Vec<Vec<u8>>,
    #[prost(string, tag = "7")]
    domain: String,
}

/// An attribute, as far as it is a whole number.
#[derive(Clone, PartialEq, Message)]
struct Attribute {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(int64, tag = "3")]
    integer: i64,
}

/// Nodes in which the last node of every chain that [`operators`](crate::operators) computes is replaced by that operator;
/// `stored` are the names of the graph's tensors.
///
/// Constant chains stay: ONNX Runtime computes them once when it loads the graph, but only through its own operators.
pub(super) fn with_own_operators<'s>(mut nodes: Vec<Node>, stored: impl Iterator<Item = &'s String>) -> Vec<Node> {
    let found: Vec<(usize, &str, Vec<String>)> = {
        let mut constant: HashSet<&str> = stored.map(String::as_str).collect();
        for node in &nodes {
            if !node.inputs.is_empty() && node.inputs.iter().all(|input| constant.contains(input.as_str())) {
                constant.extend(node.outputs.iter().map(String::as_str));
            }
        }
        let makers = nodes.iter().filter_map(|node| Some((node.outputs.first()?.as_str(), node))).collect();
        let chains = Chains { makers, constant };
        let last = |(at, node)| {
            let layer_norm = || Some((LAYER_NORM, chains.layer_norm(node)?));
            let (operator, inputs) = layer_norm().or_else(|| Some((RELATIVE_SCORES, chains.scores(node)?)))?;
            Some((at, operator, inputs.into_iter().map(str::to_owned).collect()))
        };
        nodes.iter().enumerate().filter(|(_, node)| node.operator == "Add").filter_map(last).collect()
    };
    for (at, operator, inputs) in found {
        let Node { outputs, name, .. } = std::mem::take(&mut nodes[at]);
        let (name, operator) = (format!("{name}/{operator}"), operator.to_owned());
        nodes[at] = Node { inputs, outputs, name, operator, domain: DOMAIN.to_owned(), attributes: Vec::new() };
    }
    nodes
}

/// The nodes that a value needs, in their order; none if no node gives it.
pub(super) fn up_to(nodes: Vec<Node>, value: &str) -> Option<Vec<Node>> {
    let (mut needed, mut kept) = (HashSet::from([value.to_owned()]), Vec::new());
    for node in nodes.into_iter().rev() {
        if node.outputs.iter().any(|output| needed.contains(output)) {
            // an input that is left out has no name
            needed.extend(node.inputs.iter().filter(|input| !input.is_empty()).cloned());
            kept.push(node);
        }
    }
    kept.reverse();
    (!kept.is_empty()).then_some(kept)
}

/// Nodes by their first outputs.
struct Chains<'g> {
    makers: HashMap<&'g str, &'g Node>,
    /// values that are the same in every run
    constant: HashSet<&'g str>,
}

impl<'g> Chains<'g> {
    /// The first two inputs of the node that gives a value, if it is of this operator.
    fn made_by(&self, value: &str, operator: &str) -> Option<[&'g str; 2]> {
        let node = self.makers.get(value).filter(|node| node.operator == operator && node.domain.is_empty())?;
        Some([node.inputs.first()?, node.inputs.get(1).map_or("", String::as_str)])
    }

    /// Inputs of a layer norm whose last node this is: `(x − mean)/√(mean((x − mean)²) + eps)·weight + bias`.
    fn layer_norm(&self, last: &'g Node) -> Option<Vec<&'g str>> {
        let [scaled, bias] = [last.inputs.first()?.as_str(), last.inputs.get(1)?];
        let [normed, weight] = self.made_by(scaled, "Mul")?;
        let [centered, deviation] = self.made_by(normed, "Div")?;
        let [x, mean] = self.made_by(centered, "Sub")?;
        let [variance, eps] = self.made_by(self.made_by(deviation, "Sqrt")?[0], "Add")?;
        let [squared, _] = self.made_by(variance, "ReduceMean")?;
        let is_constant = |value: &str| self.constant.contains(value);
        let fits = is_constant(weight) && is_constant(bias) && !is_constant(x);
        let is_one = fits && self.made_by(squared, "Pow")?[0] == centered && self.made_by(mean, "ReduceMean")?[0] == x;
        is_one.then(|| vec![x, weight, bias, eps])
    }

    /// Inputs of attention scores with relative positions whose last node this is:
    /// `(content + (of_queries[rows] + of_keys[rows])) + allowed`.
    fn scores(&self, last: &'g Node) -> Option<Vec<&'g str>> {
        let [scores, allowed] = [last.inputs.first()?.as_str(), last.inputs.get(1)?];
        let [content, positional] = self.made_by(scores, "Add")?;
        let [of_queries, of_keys] = self.made_by(positional, "Add")?;
        let looked_up = |value: &str, axis: i64| {
            let along = |attribute: &Vec<u8>| {
                // a whole number is short
                let attribute = Attribute::decode(attribute.get(..attribute.len().min(64)).unwrap_or_default());
                attribute.is_ok_and(|attribute| attribute.name == "axis" && attribute.integer == axis)
            };
            self.makers.get(value).filter(|node| node.attributes.iter().any(along))?;
            self.made_by(value, "GatherElements")
        };
        let ([of_queries, rows], [of_keys, same]) = (looked_up(of_queries, 3)?, looked_up(of_keys, 2)?);
        let [rows, _] = self.made_by(rows, "Expand").filter(|_| rows == same)?;
        Some(vec![content, of_queries, of_keys, rows, allowed])
    }
}
