//! [`attach`]: a result whose gradients something other than Candle's graph computes.
//!
//! An operation of Candle has at most three arguments, and such a result depends on more tensors than that. They are therefore
//! linked by a chain of [`Link`] nodes, each of which hands on the gradient that the backward pass of the result left for it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::backend::BackendStorage;
use candle_core::{
    CpuStorage, CudaStorage, CustomOp2, DType, Error as CandleError, Layout, MetalStorage, Result, Shape, Tensor,
    TensorId, bail,
};

use crate::Error;

/// Gradients by the tensor they belong to.
pub(super) type ById = HashMap<TensorId, Tensor>;

/// From the gradient of a result to those of the tensors it depends on.
pub(super) type Backward = Box<dyn FnOnce(&Tensor) -> std::result::Result<ById, Error> + Send>;

/// `output` as a tensor that depends on `tensors`, with gradients from `backward`, which is called at most once.
///
/// # Errors
/// A tensor operation.
pub(super) fn attach(output: &Tensor, tensors: &[Tensor], backward: Backward) -> std::result::Result<Tensor, Error> {
    let left = Left::default();
    let mut chain = Tensor::zeros(1, DType::F32, output.device())?;
    for tensor in tensors.iter().filter(|tensor| tensor.track_op()) {
        chain = chain.apply_op2(tensor, Link { left: left.clone() })?;
    }
    Ok(output.contiguous()?.apply_op2(&chain, Attached { backward: Mutex::new(Some(backward)), left })?)
}

/// Gradients that wait for their [`Link`].
type Left = Arc<Mutex<ById>>;

/// The result; its arguments are the output, which it returns, and the end of the chain.
struct Attached {
    backward: Mutex<Option<Backward>>,
    left: Left,
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

impl CustomOp2 for Attached {
    fn name(&self) -> &'static str {
        "attached"
    }

    returns_first!();

    fn bwd(&self, _: &Tensor, chain: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let Some(backward) = self.backward.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            bail!("a second backward pass: what the first one needed is gone");
        };
        *self.left.lock().unwrap_or_else(PoisonError::into_inner) = backward(grad).map_err(CandleError::wrap)?;
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
