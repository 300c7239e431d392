//! JSON files that carry a CRC-32 of themselves as their first field: the manifest and tantivy's `meta.json`.
//!
//! They stay JSON for any other reader:
//!
//! ```json
//! {
//!   "crc32": "89abcdef",
//!   …
//! ```
//!
//! The checksum is that of all bytes behind the comma of that line.

/// What stands before the checksum.
const BEFORE: &str = "{\n  \"crc32\": \"";
/// What stands behind it.
const BEHIND: &str = "\",";

/// Adds the checksum to an object of JSON, which begins with `{` and has at least one field.
pub(crate) fn seal(json: &str) -> String {
    let rest = json.strip_prefix('{').unwrap_or(json);
    format!("{BEFORE}{:08x}{BEHIND}{rest}", crc32fast::hash(rest.as_bytes()))
}

/// Takes the checksum out again; `None` if there is none.
///
/// # Errors
/// Another checksum than that of the text.
pub(crate) fn unseal(bytes: &[u8]) -> Result<Option<Vec<u8>>, &'static str> {
    const DAMAGED: &str = "damaged: its checksum is wrong";
    let Some(sealed) = bytes.strip_prefix(BEFORE.as_bytes()) else { return Ok(None) };
    let (checksum, rest) = sealed.split_at_checked(8).ok_or(DAMAGED)?;
    let rest = rest.strip_prefix(BEHIND.as_bytes()).ok_or(DAMAGED)?;
    // as text: a number has several spellings, of which only one was written
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
