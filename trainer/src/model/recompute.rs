//! Parts of a forward pass that keep only their inputs and output, and compute the rest again in the backward pass.
//!
//! Chen et al., Training Deep Nets with Sublinear Memory Cost, 2016. Candle's graph holds every intermediate tensor until
//! the whole backward pass is over. A part instead holds its inputs. Its backward pass builds the graph of the part, runs it
//! and drops it, so that the graph of one part at a time is in memory.

use candle_core::{Result, Tensor, TensorId, Var};

use super::Candle;
use super::attach::{ById, attach};
use super::candle::Snapshot;
use crate::Error;

/// A part of a forward pass, as a function of its inputs and of the parameters it reads.
type Function = Box<dyn Fn(&Candle, &[Tensor]) -> std::result::Result<Tensor, Error> + Send + Sync>;

/// Runs `part` without its intermediate tensors in the graph. Values and gradients are those of `part(a, inputs)`.
///
/// # Errors
/// Those of `part`.
pub(super) fn recompute(a: &Candle, inputs: &[&Tensor], part: Function) -> std::result::Result<Tensor, Error> {
    let replay = a.snapshot();
    let detached: Vec<Tensor> = inputs.iter().map(|input| input.detach()).collect();
    let (output, parameters) = a.without_graph(|a| part(a, &detached))?;
    let tracked = inputs.iter().map(|input| input.track_op().then(|| input.id())).collect();
    let tensors: Vec<Tensor> = inputs.iter().copied().chain(&parameters).cloned().collect();
    let again = Recompute { part, inputs: detached, tracked, parameters, replay };
    attach(&output, &tensors, Box::new(move |gradient| again.run(gradient)))
}

/// All that the backward pass of a part needs.
struct Recompute {
    part: Function,
    inputs: Vec<Tensor>,
    /// by input, its id if it has a gradient
    tracked: Vec<Option<TensorId>>,
    parameters: Vec<Tensor>,
    /// the algebra as it was before the part
    replay: Snapshot,
}

impl Recompute {
    /// Builds the graph of the part and runs its backward pass.
    fn run(self, grad: &Tensor) -> std::result::Result<ById, Error> {
        let variable = |(input, id): (&Tensor, &Option<TensorId>)| match id {
            Some(_) => Ok(Var::from_tensor(input)?.into_inner()),
            None => Ok(input.clone()),
        };
        let inputs = self.inputs.iter().zip(&self.tracked).map(variable).collect::<Result<Vec<Tensor>>>()?;
        let output = (self.part)(&Candle::from(self.replay), &inputs)?;
        // the gradient of Σ output · grad with respect to the output is `grad`
        let mut grads = (output * grad)?.sum_all()?.backward()?;
        let mut found = ById::new();
        let ids = inputs.iter().zip(&self.tracked).filter_map(|(input, id)| Some((input, (*id)?)));
        for (tensor, id) in ids.chain(self.parameters.iter().map(|parameter| (parameter, parameter.id()))) {
            // detached: what candle returns may hold the graph it was made from
            let Some(gradient) = grads.remove(tensor).map(|gradient| gradient.detach()) else { continue };
            // one tensor may be given as two inputs
            let sum = match found.remove(&id) {
                Some(other) => (other + gradient)?,
                None => gradient,
            };
            found.insert(id, sum);
        }
        Ok(found)
    }
}
