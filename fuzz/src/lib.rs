//! The [targets](targets) for libFuzzer.

pub mod targets;

use std::path::Path;
use std::sync::OnceLock;

/// Seeds of a target, whose parts mutations use.
pub fn donors(name: &str) -> &'static [Vec<u8>] {
    static DONORS: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    DONORS.get_or_init(|| (targets::target(name).seeds)(&Path::new(env!("CARGO_MANIFEST_DIR")).join("..")))
}

/// Defines the two functions of a fuzz target: one runs it, the other makes the next input. Half of the inputs are made by
/// libFuzzer itself.
#[macro_export]
macro_rules! target {
    ($name:literal) => {
        libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ($crate::targets::target($name).run)(bytes));

        libfuzzer_sys::fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
            if seed % 2 == 0 {
                return libfuzzer_sys::fuzzer_mutate(data, size, max_size);
            }
            let mut bytes = data[..size].to_vec();
            let mut generator = $crate::targets::generator(seed);
            $crate::targets::mutate(&mut bytes, $crate::donors($name), &mut generator);
            let size = bytes.len().min(max_size);
            data[..size].copy_from_slice(&bytes[..size]);
            size
        });
    };
}
