//! [`Declaration`]: the implementation of the algebra that collects the parameters a forward pass reads.

use std::cell::RefCell;
use std::collections::BTreeSet;

use super::algebra::{Activation, Algebra, AttentionInputs, AttentionSettings, Init, Inputs, Positions};
use crate::Error;

/// A parameter that a forward pass reads.
#[derive(Debug, Clone, PartialEq)]
pub struct Declared {
    /// its name in a checkpoint
    pub name: String,
    /// its shape as stored
    pub shape: Vec<usize>,
    /// its values in a new model
    pub init: Init,
}

/// Collects the parameters of a model by running its forward pass without values.
///
/// The list of parameters is therefore not written down a second time: a checkpoint must hold what the forward pass reads.
#[derive(Debug, Default)]
pub struct Declaration {
    present: BTreeSet<String>,
    declared: RefCell<Vec<Declared>>,
}

impl Declaration {
    /// `present` answers [`Algebra::has`]: the names a checkpoint holds, none for a new model.
    pub fn new(present: impl IntoIterator<Item = String>) -> Self {
        Self { present: present.into_iter().collect(), declared: RefCell::default() }
    }

    /// The inputs to call a forward pass with.
    #[must_use]
    pub fn inputs(&self) -> Inputs<()> {
        Inputs { ids: (), mask: (), token_types: None }
    }

    /// The parameters in the order of their first use, each once.
    #[must_use]
    pub fn into_declared(self) -> Vec<Declared> {
        self.declared.into_inner()
    }
}

impl Algebra for Declaration {
    type Tensor = ();
    type Error = Error;

    fn parameter(&self, name: &str, shape: &[usize], init: Init) -> Result<(), Error> {
        let mut declared = self.declared.borrow_mut();
        if !declared.iter().any(|known| known.name == name) {
            declared.push(Declared { name: name.to_owned(), shape: shape.to_vec(), init });
        }
        Ok(())
    }

    fn has(&self, name: &str) -> bool {
        self.present.contains(name)
    }

    fn embed(&self, (): &(), (): &()) -> Result<(), Error> {
        Ok(())
    }

    fn positions(&self, (): &(), _: Positions) -> Result<(), Error> {
        Ok(())
    }

    fn first_row(&self, (): &()) -> Result<(), Error> {
        Ok(())
    }

    fn constant(&self, _: Vec<f32>, _: &[usize]) -> Result<(), Error> {
        Ok(())
    }

    fn element(&self, (): &(), _: usize) -> Result<(), Error> {
        Ok(())
    }

    fn mul(&self, (): &(), (): &()) -> Result<(), Error> {
        Ok(())
    }

    fn affine(&self, (): &(), _: f64, _: f64) -> Result<(), Error> {
        Ok(())
    }

    fn split(&self, (): &(), parts: usize) -> Result<Vec<()>, Error> {
        Ok(vec![(); parts])
    }

    fn per_head(&self, (): &()) -> Result<(), Error> {
        Ok(())
    }

    fn followed(&self, (): &()) -> Result<(), Error> {
        Ok(())
    }

    fn has_token(&self, (): &()) -> Result<(), Error> {
        Ok(())
    }

    fn shift_right(&self, (): &(), (): &()) -> Result<(), Error> {
        Ok(())
    }

    fn add(&self, (): &(), (): &()) -> Result<(), Error> {
        Ok(())
    }

    fn linear(&self, (): &(), (): &(), _: Option<&()>) -> Result<(), Error> {
        Ok(())
    }

    fn layer_norm(&self, (): &(), _: Option<&()>, _: Option<&()>, _: f64) -> Result<(), Error> {
        Ok(())
    }

    fn activate(&self, (): &(), _: Activation) -> Result<(), Error> {
        Ok(())
    }

    fn dropout(&self, (): &(), _: f64) -> Result<(), Error> {
        Ok(())
    }

    fn split_heads(&self, (): &(), _: usize, _: usize) -> Result<(), Error> {
        Ok(())
    }

    fn rope(&self, (): &(), _: f64) -> Result<(), Error> {
        Ok(())
    }

    fn allowed_keys(&self, (): &(), _: Option<usize>) -> Result<(), Error> {
        Ok(())
    }

    fn attention(&self, _: AttentionInputs<'_, ()>, _: &AttentionSettings<'_>) -> Result<(), Error> {
        Ok(())
    }

    fn max_logits(&self, (): &(), (): &(), (): &(), (): &()) -> Result<(), Error> {
        Ok(())
    }

    fn log1p_relu(&self, (): &()) -> Result<(), Error> {
        Ok(())
    }

    fn masked_sum(&self, (): &(), (): &()) -> Result<(), Error> {
        Ok(())
    }
}
