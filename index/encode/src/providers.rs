//! [`OnnxDevice`] and [`Placement`]: the execution provider that runs a network.
//!
//! The CPU is always available. Another provider needs a cargo feature, a library with the provider and a machine with the
//! device. If one of them is missing, the network runs on the CPU, and [`Placement`] holds the reason.

use ort::ep::ExecutionProviderDispatch;
use ort::session::builder::SessionBuilder;

/// Device that ONNX Runtime runs on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnnxDevice {
    /// the first device that loads, in the order of [`built_in`](Self::built_in)
    #[default]
    Auto,
    /// the CPU
    Cpu,
    /// an NVIDIA device; cargo feature `cuda`
    Cuda,
    /// an Apple device; cargo feature `coreml`
    CoreMl,
}

impl OnnxDevice {
    /// Name in lower case.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
            Self::CoreMl => "coreml",
        }
    }

    /// Devices that this crate was built for, in the order in which they are tried. The CPU is last.
    #[must_use]
    pub fn built_in() -> Vec<Self> {
        let built = [(Self::Cuda, cfg!(feature = "cuda")), (Self::CoreMl, cfg!(feature = "coreml")), (Self::Cpu, true)];
        built.into_iter().filter(|(_, built)| *built).map(|(device, _)| device).collect()
    }

    /// Devices to try for this choice, in order. The CPU is always last.
    fn candidates(self) -> Vec<Self> {
        match self {
            Self::Auto => Self::built_in(),
            Self::Cpu => vec![Self::Cpu],
            chosen => vec![chosen, Self::Cpu],
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

/// Device that a network runs on, and the reasons against the devices tried before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// the device
    pub device: OnnxDevice,
    /// devices that did not load, each with the reason
    pub refused: Vec<(OnnxDevice, String)>,
}

/// Opens with the first device of a choice that loads.
///
/// # Errors
/// The reason for which the CPU does not load either.
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

/// Registers the provider of a device. The CPU needs no provider: its options become entries of the session configuration, such
/// as `session.intra_op.allow_spinning`.
///
/// # Errors
/// The reason for which the provider does not load.
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
    fn devices_that_do_not_load_are_listed_with_the_reason() {
        let open = |device| if device == OnnxDevice::Cpu { Ok(7) } else { Err("no such device".to_owned()) };
        let (opened, placement) = place(OnnxDevice::Cuda, open).unwrap();
        let refused = vec![(OnnxDevice::Cuda, "no such device".to_owned())];
        assert_eq!((opened, placement), (7, Placement { device: OnnxDevice::Cpu, refused }));

        let (_, placement) = place(OnnxDevice::CoreMl, |_| Ok(())).unwrap();
        assert_eq!(placement, Placement { device: OnnxDevice::CoreMl, refused: vec![] });
        assert_eq!(place(OnnxDevice::Cpu, |_| Err::<(), _>("broken".to_owned())).unwrap_err(), "broken");
    }

    #[test]
    fn the_cpu_is_always_tried_last() {
        for choice in [OnnxDevice::Auto, OnnxDevice::Cpu, OnnxDevice::Cuda, OnnxDevice::CoreMl] {
            assert_eq!(choice.candidates().last(), Some(&OnnxDevice::Cpu));
        }
        assert_eq!(OnnxDevice::built_in().contains(&OnnxDevice::Cuda), cfg!(feature = "cuda"));
    }
}
