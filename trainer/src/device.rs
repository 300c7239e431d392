//! The device of the tensors.

use candle_core::Device;

use crate::{Error, Result};

/// Opens `cpu`, `cuda` or `metal`.
///
/// # Errors
/// A device that this program was not built for, or that the machine lacks.
pub fn device(name: &str) -> Result<Device> {
    let missing = |error: candle_core::Error| {
        Error::invalid(
            format!("device {name} cannot be used: {error}"),
            format!("take cpu, or build the program with the feature {name} on a machine that has one"),
        )
    };
    match name {
        "cpu" => Ok(Device::Cpu),
        "cuda" => Device::new_cuda(0).map_err(missing),
        "metal" => Device::new_metal(0).map_err(missing),
        other => Err(Error::invalid(format!("device {other:?} is not known"), "cpu, cuda or metal")),
    }
}

/// The best device there is: CUDA, Metal, else the CPU.
#[must_use]
pub fn best_device() -> Device {
    Device::new_cuda(0).or_else(|_| Device::new_metal(0)).unwrap_or(Device::Cpu)
}
