//! Fingerprints as text.

/// Lower-case hexadecimal digits of `bytes`.
///
/// ```
/// assert_eq!(splade_core::hex(&[0, 171]), "00ab");
/// ```
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
