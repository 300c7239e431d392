//! Defects of the files of a network: its `config.json` and its checkpoint.

use std::sync::LazyLock;

use splade_files::{FAMILIES, UnknownFamily};

/// Defect of a `config.json`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigProblem {
    /// It is no JSON, or a value has the wrong type.
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    /// It describes a model of no family here.
    #[error(transparent)]
    Family(#[from] UnknownFamily),
    /// It has keys that may change the forward pass in a way that is not known.
    #[error("{} not known to this architecture", keys(.0))]
    UnknownKeys(Vec<String>),
    /// A key has a value the forward pass cannot have.
    #[error("{key}: {message}")]
    Value {
        /// the key
        key: String,
        /// what is wrong
        message: String,
    },
    /// A head mode was asked of a family that has none.
    #[error("this architecture has no head modes")]
    NoHeadModes,
}

/// `the key a is`, `the keys a, b are`.
fn keys(keys: &[String]) -> String {
    match keys {
        [key] => format!("the key {key} is"),
        keys => format!("the keys {} are", keys.join(", ")),
    }
}

impl ConfigProblem {
    pub(super) fn value(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Value { key: key.into(), message: message.into() }
    }

    /// Advice on what to do about it, if there is some.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Family(UnknownFamily::NotStated) => {
                Some("add the model_type of the network, such as \"model_type\": \"bert\"")
            }
            Self::Family(_) => Some(&LOADABLE),
            Self::UnknownKeys(_) => Some("remove what changes nothing in the forward pass, or have it ignored"),
            Self::NoHeadModes => Some("leave it out: only NorBERT4 models have them"),
            Self::Json(_) | Self::Value { .. } => None,
        }
    }
}

/// The masked-LM class of every family.
static LOADABLE: LazyLock<String> = LazyLock::new(|| {
    let classes = FAMILIES.iter().flat_map(|family| family.classes).map(|class| format!("{class}ForMaskedLM"));
    format!("architectures that can be loaded: {}", classes.collect::<Vec<_>>().join(", "))
});

/// Defect of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointProblem {
    /// A file cannot be read as what its name says.
    #[error("not a whole {format} file: {message}")]
    Format {
        /// `safetensors` or `torch`
        format: &'static str,
        /// what is wrong
        message: String,
    },
    /// A tensor of the network is of a type that is not computed with.
    #[error("tensor {name} is of type {dtype}, not F32, F16, BF16 or F64")]
    Type {
        /// the name in the file
        name: String,
        /// the type, as the format writes it
        dtype: String,
    },
    /// No tensor of the masked-LM head is there.
    #[error("the checkpoint has no masked-LM head ({name} is missing) and so cannot give SPLADE weights")]
    NoHead {
        /// a tensor of the head
        name: String,
    },
    /// A tensor is missing.
    #[error("tensor {name} of shape {shape:?} is missing")]
    Missing {
        /// the name in the family
        name: String,
        /// its shape by `config.json`
        shape: Vec<usize>,
    },
    /// A tensor has another shape than the sizes of `config.json` make it.
    #[error("tensor {name} has shape {found:?}, config.json makes it {expected:?}")]
    Shape {
        /// the name in the family
        name: String,
        /// the shape in the file
        found: Vec<usize>,
        /// the shape by `config.json`
        expected: Vec<usize>,
    },
    /// A tensor belongs to no part of the network.
    #[error("tensor {name} is unknown to this architecture")]
    Unknown {
        /// the name, without the prefixes of other tools
        name: String,
    },
    /// Two tensors with different values are the same parameter.
    #[error("tensors {first} and {second} are both {name} and differ")]
    Conflict {
        /// the name in the family
        name: String,
        /// a name in the file
        first: String,
        /// another name in the file
        second: String,
    },
}

impl CheckpointProblem {
    /// Advice on what to do about it, if there is some.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NoHead { .. } => Some("give the masked-LM checkpoint of this model"),
            _ => None,
        }
    }
}
