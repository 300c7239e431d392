//! From a checkpoint to an ONNX file that agrees with it.
