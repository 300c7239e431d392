//! Rows of a shard's vector file: lines of vectors with the position of their text in the whole input, as their last key.
//!
//! Readers of vectors skip the key, so that the file of a shard is a vector file too. Without it, the line is the one that a
//! run over the whole input writes.

/// Text before the position.
const KEY: &[u8] = b",\"row\":";

/// Adds the key `row` to a line that ends with `}` and a line break.
pub fn add_row(line: &mut Vec<u8>, row: u64) {
    line.truncate(line.len().saturating_sub(b"}\n".len()));
    line.extend_from_slice(KEY);
    line.extend_from_slice(row.to_string().as_bytes());
    line.extend_from_slice(b"}\n");
}

/// Splits a line without its line break into its text before the key `row`, and the position; none if the line has no such key
/// at its end.
pub(super) fn split_row(line: &str) -> Option<(&str, u64)> {
    let inside = line.strip_suffix('}')?;
    let head = inside.trim_end_matches(|digit: char| digit.is_ascii_digit());
    let row = inside[head.len()..].parse().ok()?;
    Some((head.strip_suffix(",\"row\":")?, row))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_added_and_split_off() {
        let mut line = b"{\"_id\":\"a,\\\"row\\\":7}\",\"indices\":[],\"values\":[]}\n".to_vec();
        let before = String::from_utf8(line.clone()).unwrap();
        add_row(&mut line, 12);
        let line = String::from_utf8(line).unwrap();
        let (head, row) = split_row(line.trim_end()).unwrap();
        assert_eq!((format!("{head}}}\n"), row), (before.clone(), 12));
        for other in [before.trim_end(), "", "}", "7}", "{\"row\":7}", "{\"a\":1,\"row\":}", "{\"a\":1,\"row\":1.5}"] {
            assert_eq!(split_row(other), None, "{other}");
        }
    }
}
