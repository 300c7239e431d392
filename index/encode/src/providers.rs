//! [`OnnxDevice`] and [`Placement`]: the execution provider that runs a network.
//!
//! The CPU is always there. Another provider needs a cargo feature, a library that has it and a machine that has the
//! device; if one of them is missing, the network runs on the CPU and [`Placement`] says why.

use ort::ep::ExecutionProviderDispatch;
use ort::session::builder::SessionBuilder;

/// A device that ONNX Runtime may run on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnnxDevice {
    /// the first of the others that loads
    #[default]
    Auto,
    /// the processor
    Cpu,
    /// an NVIDIA device; cargo feature `cuda`
    Cuda,
    /// an Apple device; cargo feature `coreml`
    CoreMl,
}

impl OnnxDevice {
    /// Its name in lower case.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
            Self::CoreMl => "coreml",
        }
    }

    /// The devices this crate was built for, in the order they are tried; the CPU is last.
    #[must_use]
    pub fn built_in() -> Vec<Self> {
        let built = [(Self::Cuda, cfg!(feature = "cuda")), (Self::CoreMl, cfg!(feature = "coreml")), (Self::Cpu, true)];
        built.into_iter().filter(|(_, built)| *built).map(|(device, _)| device).collect()
    }

    /// Devices that are tried for this choice, in their order; the CPU comes last for every choice.
    fn candidates(self) -> Vec<Self> {
        match self {
            Self::Auto => Self::built_in(),
            Self::Cpu => vec![Self::Cpu],
            asked => vec![asked, Self::Cpu],
        }
    }

    fn provider(self, options: &[(String, String)]) -> Result<ExecutionProviderDispatch, String> {
        match self {
            #[cfg(feature = "cuda")]
            Self::Cuda => Ok(with_options(ort::ep::CUDA::default(), options).build().error_on_failure()),
            #[cfg(feature = "coreml")]
            Self::CoreMl => Ok(with_options(ort::ep::CoreML::default(), options).build().error_on_failure()),
            _ => {
                let _ = options;
                Err(format!("this program was built without the feature {}", self.name()))
            }
        }
    }
}

#[cfg(any(feature = "cuda", feature = "coreml"))]
fn with_options<P: ort::ep::ArbitrarilyConfigurableExecutionProvider>(provider: P, options: &[(String, String)]) -> P {
    options.iter().fold(provider, |provider, (key, value)| provider.with_arbitrary_config(key, value))
}

/// Device a network runs on, and why not on others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// the device
    pub device: OnnxDevice,
    /// devices that were tried before it, and why they did not load
    pub refused: Vec<(OnnxDevice, String)>,
}

/// Tries the devices of a choice, one after the other.
///
/// # Errors
/// Why the CPU cannot run it either.
pub(crate) fn place<T>(
    choice: OnnxDevice,
    mut open: impl FnMut(OnnxDevice) -> Result<T, String>,
) -> Result<(T, Placement), String> {
    let mut refused = Vec::new();
    for device in choice.candidates() {
        match open(device) {
            Ok(opened) => return Ok((opened, Placement { device, refused })),
            Err(reason) if device == OnnxDevice::Cpu => return Err(reason),
            Err(reason) => refused.push((device, reason)),
        }
    }
    Err("no device is left".to_owned())
}

/// Registers the provider of a device. The CPU needs none: its options are entries of the session's own configuration,
/// such as `session.intra_op.allow_spinning`.
///
/// # Errors
/// Why it does not load.
pub(crate) fn register(
    mut builder: SessionBuilder,
    device: OnnxDevice,
    options: &[(String, String)],
) -> Result<SessionBuilder, String> {
    if device == OnnxDevice::Cpu {
        for (key, value) in options {
            builder = builder.with_config_entry(key, value).map_err(|error| error.to_string())?;
        }
        return Ok(builder);
    }
    builder.with_execution_providers([device.provider(options)?]).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_load_is_kept_with_its_reason() {
        let open = |device| if device == OnnxDevice::Cpu { Ok(7) } else { Err("no such device".to_owned()) };
        let (opened, placement) = place(OnnxDevice::Cuda, open).unwrap();
        let refused = vec![(OnnxDevice::Cuda, "no such device".to_owned())];
        assert_eq!((opened, placement), (7, Placement { device: OnnxDevice::Cpu, refused }));

        let (_, placement) = place(OnnxDevice::CoreMl, |_| Ok(())).unwrap();
        assert_eq!(placement, Placement { device: OnnxDevice::CoreMl, refused: vec![] });
        assert_eq!(place(OnnxDevice::Cpu, |_| Err::<(), _>("broken".to_owned())).unwrap_err(), "broken");
    }

    #[test]
    fn the_cpu_is_always_the_last_that_is_tried() {
        for choice in [OnnxDevice::Auto, OnnxDevice::Cpu, OnnxDevice::Cuda, OnnxDevice::CoreMl] {
            assert_eq!(choice.candidates().last(), Some(&OnnxDevice::Cpu));
        }
        assert_eq!(OnnxDevice::built_in().contains(&OnnxDevice::Cuda), cfg!(feature = "cuda"));
    }
}
