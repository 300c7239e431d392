//! Parts of a forward pass that keep only their inputs and output, and compute the rest again in the backward pass.
//!
//! Chen et al., Training Deep Nets with Sublinear Memory Cost, 2016. Candle's graph holds every intermediate tensor until
//! the whole backward pass is over. A [`Recompute`] node instead holds the inputs of its part. Its backward pass builds the
//! graph of the part, runs it and drops it, so that the graph of one part at a time is in memory.
//!
//! An operation of Candle has at most three arguments, and a layer reads more parameters than that. Inputs and parameters
//! are therefore linked by a chain of [`Link`] nodes, each of which hands on the gradient that [`Recompute`] left for it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::backend::BackendStorage;
use candle_core::{
    CpuStorage, CudaStorage, CustomOp2, DType, Error as CandleError, Layout, MetalStorage, Result, Shape, Tensor,
    TensorId, Var,
};

use super::Candle;
use super::candle::Snapshot;
use crate::Error;

/// A part of a forward pass, as a function of its inputs and of the parameters it reads.
type Function = Box<dyn Fn(&Candle, &[Tensor]) -> std::result::Result<Tensor, Error> + Send + Sync>;

/// Gradients that wait for their [`Link`], by the tensor they belong to.
type Left = Arc<Mutex<HashMap<TensorId, Tensor>>>;

/// Runs `part` without its intermediate tensors in the graph. Values and gradients are those of `part(a, inputs)`.
///
/// # Errors
/// Those of `part`.
pub(super) fn recompute(a: &Candle, inputs: &[&Tensor], part: Function) -> std::result::Result<Tensor, Error> {
    let replay = a.snapshot();
    let detached: Vec<Tensor> = inputs.iter().map(|input| input.detach()).collect();
    let (output, parameters) = a.without_graph(|a| part(a, &detached))?;
    let output = output.contiguous()?;
    let left = Left::default();
    let mut chain = Tensor::zeros(1, DType::F32, output.device())?;
    for tensor in inputs.iter().copied().chain(&parameters).filter(|tensor| tensor.track_op()) {
        chain = chain.apply_op2(tensor, Link { left: left.clone() })?;
    }
    let tracked = inputs.iter().map(|input| input.track_op().then(|| input.id())).collect();
    let node = Recompute { part, inputs: detached, tracked, parameters, replay, left };
    Ok(output.apply_op2(&chain, node)?)
}

/// The node of a part; its arguments are the part's output, which it returns, and the end of the chain.
struct Recompute {
    part: Function,
    inputs: Vec<Tensor>,
    /// by input, its id if it has a gradient
    tracked: Vec<Option<TensorId>>,
    parameters: Vec<Tensor>,
    /// the algebra as it was before the part
    replay: Snapshot,
    left: Left,
}

impl Recompute {
    /// Builds the graph of the part, runs its backward pass, and leaves the gradients for the chain.
    fn replay(&self, grad: &Tensor) -> std::result::Result<(), Error> {
        let variable = |(input, id): (&Tensor, &Option<TensorId>)| match id {
            Some(_) => Ok(Var::from_tensor(input)?.into_inner()),
            None => Ok(input.clone()),
        };
        let inputs = self.inputs.iter().zip(&self.tracked).map(variable).collect::<Result<Vec<Tensor>>>()?;
        let output = (self.part)(&Candle::from(self.replay.clone()), &inputs)?;
        // the gradient of Σ output · grad with respect to the output is `grad`
        let mut grads = (output * grad)?.sum_all()?.backward()?;
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let ids = inputs.iter().zip(&self.tracked).filter_map(|(input, id)| Some((input, (*id)?)));
        for (tensor, id) in ids.chain(self.parameters.iter().map(|parameter| (parameter, parameter.id()))) {
            // detached: what candle returns may hold the graph it was made from
            let Some(gradient) = grads.remove(tensor).map(|gradient| gradient.detach()) else { continue };
            // one tensor may be given as two inputs
            let sum = match left.remove(&id) {
                Some(other) => (other + gradient)?,
                None => gradient,
            };
            left.insert(id, sum);
        }
        Ok(())
    }
}

/// A link of the chain; its arguments are the chain so far, which it returns, and a tensor with a gradient.
struct Link {
    left: Left,
}

/// The forward pass of an operation that returns its first argument, on every device.
macro_rules! returns_first {
    () => {
        fn cpu_fwd(&self, s: &CpuStorage, l: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
            copy(s, l)
        }

        fn cuda_fwd(&self, s: &CudaStorage, l: &Layout, _: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
            copy(s, l)
        }

        fn metal_fwd(
            &self,
            s: &MetalStorage,
            l: &Layout,
            _: &MetalStorage,
            _: &Layout,
        ) -> Result<(MetalStorage, Shape)> {
            copy(s, l)
        }
    };
}

/// A copy of an argument that is contiguous and fills its storage.
fn copy<S: BackendStorage>(storage: &S, layout: &Layout) -> Result<(S, Shape)> {
    Ok((storage.try_clone(layout)?, layout.shape().clone()))
}

impl CustomOp2 for Recompute {
    fn name(&self) -> &'static str {
        "recompute"
    }

    returns_first!();

    fn bwd(&self, _: &Tensor, chain: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        self.replay(grad).map_err(CandleError::wrap)?;
        Ok((None, Some(chain.zeros_like()?)))
    }
}

impl CustomOp2 for Link {
    fn name(&self) -> &'static str {
        "link"
    }

    returns_first!();

    fn bwd(&self, _: &Tensor, tensor: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let left = self.left.lock().unwrap_or_else(PoisonError::into_inner).remove(&tensor.id());
        Ok((Some(grad.clone()), left))
    }
}
