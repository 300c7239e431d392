//! JSON files with their CRC-32 as the first field: the manifest and tantivy's `meta.json`.
//!
//! They remain valid JSON:
//!
//! ```json
//! {
//!   "crc32": "89abcdef",
//!   …
//! ```
//!
//! The checksum is that of all bytes after the comma of that line.

/// Text before the checksum.
const BEFORE: &str = "{\n  \"crc32\": \"";
/// Text after the checksum.
const AFTER: &str = "\",";

/// Adds the checksum to a JSON object, which begins with `{` and has at least one field.
pub(crate) fn seal(json: &str) -> String {
    let rest = json.strip_prefix('{').unwrap_or(json);
    format!("{BEFORE}{:08x}{AFTER}{rest}", crc32fast::hash(rest.as_bytes()))
}

/// Removes the checksum; `None` if there is none.
///
/// # Errors
/// A wrong checksum.
pub(crate) fn unseal(bytes: &[u8]) -> Result<Option<Vec<u8>>, &'static str> {
    const DAMAGED: &str = "damaged: its checksum is wrong";
    let Some(sealed) = bytes.strip_prefix(BEFORE.as_bytes()) else { return Ok(None) };
    let (checksum, rest) = sealed.split_at_checked(8).ok_or(DAMAGED)?;
    let rest = rest.strip_prefix(AFTER.as_bytes()).ok_or(DAMAGED)?;
    // compared as text, since a number has several spellings
    if checksum != format!("{:08x}", crc32fast::hash(rest)).as_bytes() {
        return Err(DAMAGED);
    }
    Ok(Some([b"{", rest].concat()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_is_found() {
        let json = "{\n  \"a\": 1,\n  \"b\": [\"x\"]\n}\n";
        let sealed = seal(json);
        assert_eq!(sealed, "{\n  \"crc32\": \"0375bdd7\",\n  \"a\": 1,\n  \"b\": [\"x\"]\n}\n");
        assert!(serde_json::from_str::<serde_json::Value>(&sealed).is_ok());
        assert_eq!(unseal(sealed.as_bytes()).unwrap().unwrap(), json.as_bytes());
        assert_eq!(unseal(json.as_bytes()), Ok(None));
        for at in 0..sealed.len() {
            for bit in 0..8 {
                let mut damaged = sealed.clone().into_bytes();
                damaged[at] ^= 1 << bit;
                assert!(!matches!(unseal(&damaged), Ok(Some(_))), "byte {at}, bit {bit}");
            }
        }
    }
}
