//! [`Signature`]: inputs and outputs that an ONNX file declares.
//!
//! Files of other tools may take 32-bit ids, one text at a time, texts of one length, or no attention mask. Such files can be
//! run. A file that cannot be run is refused when it is opened, and the message names the input or output.

use ort::session::Session;
use ort::value::{Shape, TensorElementType, ValueType};

/// Content of an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InputRole {
    /// token ids
    Ids,
    /// 1 for a token, 0 for padding
    Mask,
    /// zeros, since every text is one segment
    Types,
}

impl InputRole {
    /// Names of the inputs in the exports of transformers.
    const NAMES: [(&'static str, Self); 3] =
        [("input_ids", Self::Ids), ("attention_mask", Self::Mask), ("token_type_ids", Self::Types)];
}

/// Input of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Input {
    pub(crate) name: String,
    pub(crate) role: InputRole,
    /// true for int32, false for int64
    pub(crate) is_32_bit: bool,
}

/// Output of a file that holds floats.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Output {
    /// position among the outputs of the session
    pub(crate) at: usize,
    pub(crate) name: String,
    /// true for float16, false for float32
    pub(crate) is_16_bit: bool,
    /// declared length of each axis, `None` for a free axis; empty if the file declares no shape
    pub(crate) axes: Vec<Option<usize>>,
}

impl Output {
    /// Declared length of the last axis.
    fn width(&self) -> Option<usize> {
        self.axes.last().copied().flatten()
    }
}

/// Names of hidden states of all tokens, in the exports of optimum and transformers.
const HIDDEN_STATES: [&str; 2] = ["token_embeddings", "last_hidden_state"];
/// Name of pooled vectors in the exports of optimum.
pub(crate) const POOLED: &str = "sentence_embedding";

/// Inputs and outputs of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Signature {
    pub(crate) inputs: Vec<Input>,
    /// outputs of floats
    outputs: Vec<Output>,
    /// number of texts in every run, if it is fixed
    pub(crate) batch: Option<usize>,
    /// number of tokens in every run, if it is fixed
    pub(crate) length: Option<usize>,
}

impl Signature {
    /// Reads the declarations of a session.
    ///
    /// # Errors
    /// A description of the declaration that cannot be run.
    pub(crate) fn of(session: &Session) -> Result<Self, String> {
        let inputs = session.inputs().iter().map(|input| (input.name(), input.dtype()));
        let outputs = session.outputs().iter().map(|output| (output.name(), output.dtype()));
        Self::declared(inputs, outputs)
    }

    fn declared<'d>(
        inputs: impl Iterator<Item = (&'d str, &'d ValueType)>,
        outputs: impl Iterator<Item = (&'d str, &'d ValueType)>,
    ) -> Result<Self, String> {
        let mut found = Self { inputs: Vec::new(), outputs: Vec::new(), batch: None, length: None };
        for (name, declared) in inputs {
            found.add_input(name, declared)?;
        }
        if !found.has(InputRole::Ids) {
            return Err("it has no input input_ids".to_owned());
        }
        if let (Some(length), false) = (found.length, found.has(InputRole::Mask)) {
            return Err(format!("it takes {length} tokens and no attention_mask, so padding would count as text"));
        }
        let mut unread = None;
        for (at, (name, declared)) in outputs.enumerate() {
            match floats(declared) {
                Some((is_16_bit, shape)) => {
                    let output = Output { at, name: name.to_owned(), is_16_bit, axes: lengths(shape) };
                    found.outputs.push(output);
                }
                None => unread = unread.or(Some(format!("{name} is {declared}"))),
            }
        }
        if found.outputs.is_empty() {
            return Err(unread.map_or_else(
                || "it has no output".to_owned(),
                |unread| format!("it has no output of 32-bit or 16-bit floats: {unread}"),
            ));
        }
        Ok(found)
    }

    fn add_input(&mut self, name: &str, declared: &ValueType) -> Result<(), String> {
        let Some((_, role)) = InputRole::NAMES.iter().find(|(known, _)| *known == name) else {
            let names = InputRole::NAMES.map(|(name, _)| name).join(", ");
            return Err(format!("input {name} is not one of {names}"));
        };
        let ValueType::Tensor { ty, shape, .. } = declared else {
            return Err(format!("input {name} is {declared}, not a tensor"));
        };
        let is_32_bit = match ty {
            TensorElementType::Int32 => true,
            TensorElementType::Int64 => false,
            other => return Err(format!("input {name} is of type {other}, not int64 or int32")),
        };
        if let [batch, length] = *lengths(shape) {
            for (name_of_axis, known, declared) in
                [("texts", &mut self.batch, batch), ("tokens", &mut self.length, length)]
            {
                match (&known, declared) {
                    (Some(known), Some(declared)) if *known != declared => {
                        return Err(format!("inputs disagree on the number of {name_of_axis}: {known} and {declared}"));
                    }
                    (_, Some(0)) => return Err(format!("input {name} takes 0 {name_of_axis}")),
                    (_, Some(declared)) => *known = Some(declared),
                    (_, None) => {}
                }
            }
        } else if !shape.is_empty() {
            return Err(format!("input {name} has {} axes, not 2 (texts and tokens)", shape.len()));
        }
        self.inputs.push(Input { name: name.to_owned(), role: *role, is_32_bit });
        Ok(())
    }

    fn has(&self, role: InputRole) -> bool {
        self.inputs.iter().any(|input| input.role == role)
    }

    /// True if texts of different lengths can share a run: the file has an input for the attention mask.
    pub(crate) fn can_pad(&self) -> bool {
        self.has(InputRole::Mask)
    }

    /// True if the file takes any number of texts and tokens.
    pub(crate) fn has_free_axes(&self) -> bool {
        self.batch.is_none() && self.length.is_none()
    }

    /// The output with the name of a pooled vector or of logits, else the first output.
    pub(crate) fn first_output(&self) -> &Output {
        let named = ["sentence_embedding", "logits"].iter();
        named
            .filter_map(|name| self.outputs.iter().find(|output| output.name == *name))
            .next()
            .unwrap_or(&self.outputs[0])
    }

    /// The output of a dense encoder: hidden states of all tokens, else pooled vectors.
    ///
    /// # Errors
    /// Outputs of which none is known to be one of these.
    pub(crate) fn dense_output(&self) -> Result<&Output, String> {
        let has_tokens = |output: &&Output| matches!(output.axes.len(), 0 | 3);
        let named = |name: &str| self.outputs.iter().find(|output| output.name == name);
        let of_tokens = HIDDEN_STATES.iter().find_map(|name| named(name).filter(has_tokens));
        let pooled = || named(POOLED).filter(|output| matches!(output.axes.len(), 0 | 2));
        let unnamed = || self.outputs.iter().find(|output| output.axes.len() == 3);
        of_tokens.or_else(pooled).or_else(unnamed).ok_or_else(|| {
            let names: Vec<&str> = self.outputs.iter().map(|output| output.name.as_str()).collect();
            format!("none of its outputs ({}) has hidden states of tokens, or is {POOLED}", names.join(", "))
        })
    }

    /// The output with one column per term: [`first_output`](Self::first_output) if its declaration allows so many columns, else
    /// another output that declares so many.
    ///
    /// # Errors
    /// No output may have so many columns.
    pub(crate) fn output_of(&self, terms: usize) -> Result<&Output, String> {
        let has_rank = |output: &&Output| matches!(output.axes.len(), 0 | 2 | 3);
        let fits = |output: &&Output| has_rank(output) && output.width().is_none_or(|width| width == terms);
        let first = self.first_output();
        if fits(&first) {
            return Ok(first);
        }
        let declared = |output: &&Output| has_rank(output) && output.width() == Some(terms);
        self.outputs.iter().find(declared).ok_or_else(|| match (has_rank(&first), first.width()) {
            (true, Some(width)) => {
                format!("output {} has {width} columns, but the model has {terms} terms: not its logits", first.name)
            }
            _ => format!("output {} has {} axes, not 2 or 3", first.name, first.axes.len()),
        })
    }
}

/// Type and shape of a tensor of floats; `None` for other values.
fn floats(declared: &ValueType) -> Option<(bool, &Shape)> {
    match declared {
        ValueType::Tensor { ty: TensorElementType::Float32, shape, .. } => Some((false, shape)),
        ValueType::Tensor { ty: TensorElementType::Float16, shape, .. } => Some((true, shape)),
        _ => None,
    }
}

/// Lengths of axes. In a shape, −1 is a free axis.
fn lengths(shape: &Shape) -> Vec<Option<usize>> {
    shape.iter().map(|length| usize::try_from(*length).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(ty: TensorElementType, axes: &[i64]) -> ValueType {
        let symbols = ort::value::SymbolicDimensions::empty(axes.len());
        ValueType::Tensor { ty, shape: axes.iter().copied().collect(), dimension_symbols: symbols }
    }

    fn declared(inputs: &[(&str, ValueType)], outputs: &[(&str, ValueType)]) -> Result<Signature, String> {
        let pairs = |declared: &'_ [(&'_ str, ValueType)]| -> Vec<(String, ValueType)> {
            declared.iter().map(|(name, declared)| ((*name).to_owned(), declared.clone())).collect()
        };
        let (inputs, outputs) = (pairs(inputs), pairs(outputs));
        Signature::declared(
            inputs.iter().map(|(name, declared)| (name.as_str(), declared)),
            outputs.iter().map(|(name, declared)| (name.as_str(), declared)),
        )
    }

    const I64: TensorElementType = TensorElementType::Int64;
    const F32: TensorElementType = TensorElementType::Float32;

    fn ids(axes: &[i64]) -> (&'static str, ValueType) {
        ("input_ids", tensor(I64, axes))
    }

    fn mask(axes: &[i64]) -> (&'static str, ValueType) {
        ("attention_mask", tensor(I64, axes))
    }

    fn logits(axes: &[i64]) -> (&'static str, ValueType) {
        ("logits", tensor(F32, axes))
    }

    #[test]
    fn fixed_and_free_axes_are_distinguished() {
        let out = [logits(&[-1, -1, 9])];
        let free = declared(&[ids(&[-1, -1]), mask(&[-1, -1])], &out).unwrap();
        assert!(free.has_free_axes() && free.can_pad());
        let fixed = declared(&[ids(&[1, 16]), mask(&[-1, 16])], &out).unwrap();
        assert_eq!((fixed.batch, fixed.length, fixed.has_free_axes()), (Some(1), Some(16), false));
        let no_mask = declared(&[ids(&[-1, -1])], &out).unwrap();
        assert!(!no_mask.can_pad() && no_mask.has_free_axes());
        let narrow = declared(&[("input_ids", tensor(TensorElementType::Int32, &[-1, -1]))], &out).unwrap();
        assert!(narrow.inputs[0].is_32_bit);
        assert!(declared(&[ids(&[])], &out).is_ok(), "a file may declare no shape");
    }

    #[test]
    fn declarations_that_cannot_be_run_are_refused_with_a_reason() {
        let out = || vec![logits(&[-1, -1, 9])];
        let cases = [
            (vec![ids(&[-1, -1]), ("position_ids", tensor(I64, &[-1, -1]))], out(), "input position_ids is not one of"),
            (vec![mask(&[-1, -1])], out(), "no input input_ids"),
            (vec![ids(&[-1])], out(), "1 axes, not 2"),
            (vec![("input_ids", tensor(F32, &[-1, -1]))], out(), "not int64 or int32"),
            (vec![ids(&[1, 16]), mask(&[2, 16])], out(), "disagree on the number of texts: 1 and 2"),
            (vec![ids(&[-1, 16])], out(), "padding would count as text"),
            (vec![ids(&[0, -1])], out(), "takes 0 texts"),
            (vec![ids(&[-1, -1])], vec![], "no output"),
            (vec![ids(&[-1, -1])], vec![("logits", tensor(I64, &[-1, -1, 9]))], "no output of 32-bit or 16-bit floats"),
        ];
        for (inputs, outputs, expected) in cases {
            let error = declared(&inputs, &outputs).unwrap_err();
            assert!(error.contains(expected), "{error}: {expected}");
        }
    }

    #[test]
    fn hidden_states_are_preferred_to_pooled_vectors_and_both_to_others() {
        let hidden = || ("last_hidden_state", tensor(F32, &[-1, -1, 4]));
        let pooler = || ("pooler_output", tensor(F32, &[-1, 4]));
        let pooled = || ("sentence_embedding", tensor(F32, &[-1, 4]));
        let other = || ("output_0", tensor(F32, &[-1, -1, 4]));
        let cases = [
            (vec![pooler(), hidden()], Ok("last_hidden_state")),
            (vec![pooled(), ("token_embeddings", tensor(F32, &[-1, -1, 4]))], Ok("token_embeddings")),
            (vec![pooler(), pooled()], Ok("sentence_embedding")),
            (vec![pooler(), other()], Ok("output_0")),
            (vec![pooler()], Err("none of its outputs (pooler_output) has hidden states of tokens")),
        ];
        for (outputs, expected) in cases {
            let signature = declared(&[ids(&[-1, -1])], &outputs).unwrap();
            match (signature.dense_output(), expected) {
                (Ok(output), Ok(name)) => assert_eq!(output.name, name),
                (Err(error), Err(message)) => assert!(error.contains(message), "{error}"),
                (found, expected) => panic!("{found:?} {expected:?}"),
            }
        }
    }

    #[test]
    fn the_output_with_one_column_per_term_is_chosen() {
        let hidden = || ("last_hidden_state", tensor(F32, &[-1, -1, 4]));
        let other = || ("prediction", tensor(F32, &[-1, -1, 9]));
        let unknown = || ("scores", tensor(F32, &[-1, -1, -1]));
        let cases = [
            (vec![hidden(), logits(&[-1, -1, 9])], Ok("logits")),
            (vec![hidden(), other()], Ok("prediction")),
            (vec![unknown()], Ok("scores")),
            (vec![("sentence_embedding", tensor(F32, &[-1, 9])), logits(&[-1, -1, 9])], Ok("sentence_embedding")),
            (vec![hidden()], Err("output last_hidden_state has 4 columns, but the model has 9 terms")),
            (vec![("scores", tensor(F32, &[-1]))], Err("output scores has 1 axes")),
        ];
        for (outputs, expected) in cases {
            let signature = declared(&[ids(&[-1, -1])], &outputs).unwrap();
            match (signature.output_of(9), expected) {
                (Ok(output), Ok(name)) => assert_eq!(output.name, name),
                (Err(error), Err(message)) => assert!(error.contains(message), "{error}"),
                (found, expected) => panic!("{found:?} {expected:?}"),
            }
        }
    }
}
