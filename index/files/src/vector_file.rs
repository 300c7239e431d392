//! Vector files: one sparse vector per line of JSON, by dimension or by token, and files of vectors made elsewhere.

use std::fmt;
use std::io::{self, Write};
use std::path::Path;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use crate::corpus::{Compression, Lines, json_message, read_ids};
use crate::matrix::{is_matrix, read_matrix};
use crate::{Error, Result};
use splade_core::SparseVector;

/// Writes the line `{"_id": "d1", "indices": [12, 845], "values": [0.41, 1.9]}`, indices ascending.
///
/// Values are the shortest decimals that [`read_vectors`] reads back to the same f32.
///
/// # Errors
/// Errors of `out`.
pub fn write_vector(out: &mut impl Write, id: &str, vector: &SparseVector) -> io::Result<()> {
    #[derive(Serialize)]
    struct Line<'a> {
        _id: &'a str,
        indices: &'a [u32],
        values: &'a [f32],
    }
    serde_json::to_writer(&mut *out, &Line { _id: id, indices: vector.dims(), values: vector.weights() })?;
    out.write_all(b"\n")
}

/// Writes the line `{"_id": "d1", "tokens": {"oslo": 1.9}}`: weight descending, of equal weights the smaller
/// dimension first. `token` names a dimension.
///
/// # Errors
/// Errors of `out`.
pub fn write_tokens(
    out: &mut impl Write,
    id: &str,
    vector: &SparseVector,
    token: impl Fn(u32) -> String,
) -> io::Result<()> {
    #[derive(Serialize)]
    struct Line<'a> {
        _id: &'a str,
        tokens: InOrder,
    }
    let tokens = vector.by_decreasing_weight().into_iter().map(|(dim, weight)| (token(dim), weight)).collect();
    serde_json::to_writer(&mut *out, &Line { _id: id, tokens: InOrder(tokens) })?;
    out.write_all(b"\n")
}

/// A JSON object with keys in the given order.
struct InOrder(Vec<(String, f32)>);

impl Serialize for InOrder {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(token, weight)| (token, weight)))
    }
}

/// Reads ids and vectors of a file of [`write_vector`], in its order; also `.gz`, `.zst` and `-` for stdin.
///
/// ```
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("vectors.jsonl");
/// use splade_core::SparseVector;
/// use splade_files::{read_vectors, write_vector};
///
/// let vector = SparseVector::from_pairs([(845, 1.9), (12, 0.41)])?;
/// write_vector(&mut std::fs::File::create(&path)?, "d1", &vector)?;
/// let read = read_vectors(&path)?.collect::<splade_files::Result<Vec<_>>>()?;
/// assert_eq!(read, [("d1".to_owned(), vector)]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// A file that cannot be opened; from the iterator, a line that is broken or not a [`SparseVector`]. The first error ends
/// it.
pub fn read_vectors(path: &Path) -> Result<impl Iterator<Item = Result<(String, SparseVector)>> + Send + use<>> {
    iterate(path, read_vector)
}

/// Reads a file as [`read_vectors`] does, and lines of [`write_tokens`] too; `dim` gives the dimension of a token.
///
/// ```
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("vectors.jsonl");
/// use splade_files::read_vectors_named;
///
/// std::fs::write(&path, r#"{"_id": "d1", "tokens": {"oslo": 1.9}}"#)?;
/// let read = read_vectors_named(&path, |token| (token == "oslo").then_some(845))?;
/// let read = read.collect::<splade_files::Result<Vec<_>>>()?;
/// assert_eq!(read[0].1.iter().collect::<Vec<_>>(), [(845, 1.9)]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// Errors of [`read_vectors`], and a token without a dimension.
pub fn read_vectors_named<D: FnMut(&str) -> Option<u32>>(
    path: &Path,
    mut dim: D,
) -> Result<impl Iterator<Item = Result<(String, SparseVector)>> + use<D>> {
    iterate(path, move |lines| {
        read_any_vector(lines, &mut |keys, token| match keys {
            Keys::Tokens => dim(token),
            Keys::Either { .. } => None,
        })
    })
}

/// Keys of the weights of a line.
#[derive(Clone, Copy)]
enum Keys {
    /// of `tokens`
    Tokens,
    /// of `vector`: dimensions or tokens; true if all of them are whole numbers
    Either { all_whole: bool },
}

/// Vectors in the order of a file, each with its id; no id where the file has none.
pub type VectorRows = Box<dyn Iterator<Item = Result<(Option<String>, SparseVector)>> + Send>;

/// Reads vectors that another program made, in the order of the file.
///
/// * Lines of JSON, also `.gz`, `.zst` and `-` for stdin: those of [`read_vectors_named`], and
///   `{"id": "d1", "vector": {"oslo": 1.9}}`. The keys of `vector` are dimensions if all keys of the first vector that is not
///   empty are whole numbers, else tokens.
/// * `.npz` of `scipy.sparse.save_npz` in the format csr, and `.safetensors` with the tensors `indptr`, `indices` and `data` of
///   such a matrix, or `.csr` of the Big ANN Benchmarks, as [`CsrWriter`](crate::CsrWriter) writes it; one row a vector. Their ids are the lines of `ids`, as many as rows; without `ids` they have none.
///
/// ```
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("vectors.jsonl");
/// use splade_files::read_vector_rows;
///
/// std::fs::write(&path, r#"{"id": "d1", "vector": {"845": 1.9}}"#)?;
/// let rows = read_vector_rows(&path, None, |_| None)?.collect::<splade_files::Result<Vec<_>>>()?;
/// assert_eq!((rows[0].0.as_deref(), rows[0].1.dims()), (Some("d1"), &[845][..]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// A file that cannot be opened; `ids` with lines of JSON, which have ids of their own; from the iterator, a line or row that
/// is broken, a token without a dimension, and fewer or more ids than rows. The first error ends it.
pub fn read_vector_rows(
    path: &Path,
    ids: Option<&Path>,
    mut dim: impl FnMut(&str) -> Option<u32> + Send + 'static,
) -> Result<VectorRows> {
    if is_matrix(path) {
        return matrix_rows(path, ids);
    }
    if let Some(ids) = ids {
        let message = format!("ids for {}, whose lines have ids of their own", path.display());
        return Err(Error::file(ids, message));
    }
    let mut keys_are_dims = None;
    let rows = iterate(path, move |lines| {
        read_any_vector(lines, &mut |keys, token| match keys {
            Keys::Tokens => dim(token),
            Keys::Either { all_whole } => {
                let by_dim = *keys_are_dims.get_or_insert(all_whole);
                if by_dim { token.parse().ok() } else { dim(token) }
            }
        })
    })?;
    Ok(Box::new(rows.map(|row| row.map(|(id, vector)| (Some(id), vector)))))
}

fn matrix_rows(path: &Path, ids: Option<&Path>) -> Result<VectorRows> {
    let mut rows = read_matrix(path)?;
    let Some(ids_path) = ids else { return Ok(Box::new(rows.map(|row| row.map(|vector| (None, vector))))) };
    let mut ids = read_ids(ids_path)?;
    let (path, ids_path) = (path.to_owned(), ids_path.to_owned());
    let (mut n_rows, mut ended) = (0, false);
    Ok(Box::new(std::iter::from_fn(move || {
        let row = if ended { return None } else { rows.next().transpose() };
        let pair = match (row, ids.next().transpose()) {
            (Ok(None), Ok(None)) => return None,
            (Err(error), _) | (_, Err(error)) => Err(error),
            (Ok(Some(vector)), Ok(Some(id))) => Ok((Some(id), vector)),
            (Ok(Some(_)), Ok(None)) => {
                Err(Error::file(&ids_path, format!("{n_rows} ids, and {} has more rows", path.display())))
            }
            (Ok(None), Ok(Some(_))) => {
                Err(Error::file(&ids_path, format!("more ids than the {n_rows} rows of {}", path.display())))
            }
        };
        n_rows += 1;
        ended = pair.is_err();
        Some(pair)
    })))
}

/// Iterator over the values of `read`, up to the end of the file or the first error.
fn iterate<T, R: FnMut(&mut Lines) -> Result<Option<T>>>(
    path: &Path,
    mut read: R,
) -> Result<impl Iterator<Item = Result<T>> + use<T, R>> {
    let mut lines = if path == Path::new("-") {
        Lines::stdin()
    } else {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        Lines::open(path, Compression::split(&name).0)?
    };
    let mut ended = false;
    Ok(std::iter::from_fn(move || {
        let vector = if ended { None } else { read(&mut lines).transpose() };
        ended = !matches!(vector, Some(Ok(_)));
        vector
    }))
}

#[derive(Deserialize)]
struct VectorLine {
    #[serde(alias = "id")]
    _id: Id,
    indices: Vec<u32>,
    values: Vec<f32>,
}

/// A line in either form.
#[derive(Deserialize)]
struct AnyLine {
    #[serde(alias = "id")]
    _id: Id,
    indices: Option<Vec<u32>>,
    values: Option<Vec<f32>>,
    tokens: Option<Tokens>,
    vector: Option<Tokens>,
}

fn read_vector(lines: &mut Lines) -> Result<Option<(String, SparseVector)>> {
    let Some(VectorLine { _id: Id(id), indices, values }) = parse_line(lines)? else { return Ok(None) };
    vector(lines, indices, values).map(|vector| Some((id, vector)))
}

fn read_any_vector(
    lines: &mut Lines,
    dim: &mut impl FnMut(Keys, &str) -> Option<u32>,
) -> Result<Option<(String, SparseVector)>> {
    let Some(AnyLine { _id: Id(id), indices, values, tokens, vector: named }) = parse_line(lines)? else {
        return Ok(None);
    };
    let wrong = |message: String| Error::line(&**lines.path(), lines.line(), message);
    let (keys, weights) = match (indices, values, tokens, named) {
        (Some(indices), Some(values), None, None) => {
            return vector(lines, indices, values).map(|vector| Some((id, vector)));
        }
        (None, None, Some(Tokens(tokens)), None) => (Keys::Tokens, tokens),
        (None, None, None, Some(Tokens(weights))) => {
            let all_whole = weights.iter().all(|(key, _)| key.parse::<u32>().is_ok());
            (Keys::Either { all_whole }, weights)
        }
        _ => return Err(wrong("neither indices and values nor tokens".to_owned())),
    };
    let find = |(token, weight): (String, f32)| match dim(keys, &token) {
        Some(dim) => Ok((dim, weight)),
        None => Err(wrong(format!("token {token:?} is not in the vocabulary"))),
    };
    let (indices, values) = weights.into_iter().map(find).collect::<Result<Vec<_>>>()?.into_iter().unzip();
    vector(lines, indices, values).map(|vector| Some((id, vector)))
}

/// Reads the next line that is not empty.
fn parse_line<T: serde::de::DeserializeOwned>(lines: &mut Lines) -> Result<Option<T>> {
    loop {
        let parsed = match lines.next_line()? {
            None => return Ok(None),
            Some(line) if line.trim().is_empty() => continue,
            // parsed as f32: a value that passes through f64 is rounded twice
            Some(line) => serde_json::from_str(line),
        };
        return parsed.map(Some).map_err(|error| Error::line(&**lines.path(), lines.line(), json_message(&error)));
    }
}

fn vector(lines: &Lines, indices: Vec<u32>, values: Vec<f32>) -> Result<SparseVector> {
    SparseVector::new(indices, values).map_err(|error| Error::line(&**lines.path(), lines.line(), error.to_string()))
}

/// A JSON object of weights in the order of the file.
pub(crate) struct Tokens(pub(crate) Vec<(String, f32)>);

impl<'de> Deserialize<'de> for Tokens {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TokensVisitor;
        impl<'de> Visitor<'de> for TokensVisitor {
            type Value = Tokens;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("weights by token")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tokens, A::Error> {
                let mut tokens = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    tokens.push(entry);
                }
                Ok(Tokens(tokens))
            }
        }
        deserializer.deserialize_map(TokensVisitor)
    }
}

/// A string, or the digits of a whole number.
struct Id(String);

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct IdVisitor;
        impl Visitor<'_> for IdVisitor {
            type Value = Id;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a whole number as _id")
            }

            fn visit_str<E>(self, id: &str) -> Result<Id, E> {
                Ok(Id(id.to_owned()))
            }

            fn visit_u64<E>(self, id: u64) -> Result<Id, E> {
                Ok(Id(id.to_string()))
            }

            fn visit_i64<E>(self, id: i64) -> Result<Id, E> {
                Ok(Id(id.to_string()))
            }
        }
        deserializer.deserialize_any(IdVisitor)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<Vec<(String, SparseVector)>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vectors.jsonl");
        std::fs::write(&path, text).unwrap();
        read_vectors(&path)?.collect()
    }

    #[test]
    fn lines_are_what_the_contract_says() {
        let vector = SparseVector::from_pairs([(845, 1.9), (12, 0.41), (3, 1.9)]).unwrap();
        let mut out = Vec::new();
        write_vector(&mut out, "d\"1", &vector).unwrap();
        write_tokens(&mut out, "d1", &vector, |dim| format!("t{dim}")).unwrap();
        write_tokens(&mut out, "d2", &SparseVector::default(), |dim| format!("t{dim}")).unwrap();
        let text = String::from_utf8(out).unwrap();
        let expected = concat!(
            r#"{"_id":"d\"1","indices":[3,12,845],"values":[1.9,0.41,1.9]}"#,
            "\n",
            r#"{"_id":"d1","tokens":{"t3":1.9,"t845":1.9,"t12":0.41}}"#,
            "\n",
            r#"{"_id":"d2","tokens":{}}"#,
            "\n",
        );
        assert_eq!(text, expected);
    }

    #[test]
    fn bad_lines_are_named() {
        let good = r#"{"_id": 7, "indices": [2, 1], "values": [1, 0.5]}"#;
        assert_eq!(read(good).unwrap()[0].0, "7");
        let cases = [
            (r#"{"indices": [1], "values": [1]}"#, "missing field `_id`"),
            (r#"{"_id": "a", "indices": [1], "values": []}"#, "1 indices but 0 values"),
            (r#"{"_id": "a", "indices": [1, 1], "values": [1, 2]}"#, "index 1 occurs more than once"),
            (r#"{"_id": "a", "indices": [1], "values": [1e39]}"#, "number out of range"),
            (r#"{"_id": "a", "indices": [-1], "values": [1]}"#, "expected u32"),
            (r#"{"_id": 1.5, "indices": [], "values": []}"#, "a string or a whole number"),
            (r#"{"_id": "a", "indices": [1], "val"#, "broken JSON: EOF"),
        ];
        for (line, wanted) in cases {
            let message = read(&format!("{good}\n\n{line}")).unwrap_err().to_string();
            assert!(message.contains("vectors.jsonl:3: ") && message.contains(wanted), "{line}: {message}");
        }
    }

    fn read_named(text: &str) -> Result<Vec<(String, SparseVector)>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vectors.jsonl");
        std::fs::write(&path, text).unwrap();
        read_vectors_named(&path, |token| token.strip_prefix('t')?.parse().ok())?.collect()
    }

    #[test]
    fn entries_by_name_are_those_by_number() {
        let vector = SparseVector::from_pairs([(845, 1.9), (12, 0.41), (3, 1.9)]).unwrap();
        let mut out = Vec::new();
        write_vector(&mut out, "a", &vector).unwrap();
        write_tokens(&mut out, "a", &vector, |dim| format!("t{dim}")).unwrap();
        let read = read_named(&String::from_utf8(out).unwrap()).unwrap();
        assert_eq!(read, [("a".to_owned(), vector.clone()), ("a".to_owned(), vector)]);
    }

    #[test]
    fn bad_named_lines_are_named() {
        let cases = [
            (r#"{"_id": "a", "tokens": {"x": 1.0}}"#, "token \"x\" is not in the vocabulary"),
            (r#"{"_id": "a", "tokens": [1.0]}"#, "expected weights by token"),
            (r#"{"_id": "a", "tokens": {"t1": 1.0, "t1": 2.0}}"#, "index 1 occurs more than once"),
            (r#"{"_id": "a"}"#, "neither indices and values nor tokens"),
            (r#"{"_id": "a", "indices": [1], "tokens": {}}"#, "neither indices and values nor tokens"),
        ];
        for (line, wanted) in cases {
            let message = read_named(line).unwrap_err().to_string();
            assert!(message.contains("vectors.jsonl:1: ") && message.contains(wanted), "{line}: {message}");
        }
    }

    fn read_rows(text: &str) -> Result<Vec<(Option<String>, SparseVector)>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vectors.jsonl");
        std::fs::write(&path, text).unwrap();
        read_vector_rows(&path, None, |token| token.strip_prefix('t')?.parse().ok())?.collect()
    }

    #[test]
    fn vectors_of_other_programs_have_keys_that_are_dimensions_or_tokens() {
        let vector = SparseVector::from_pairs([(845, 1.9), (12, 0.41)]).unwrap();
        let expected = vec![(Some("a".to_owned()), vector.clone()), (Some("7".to_owned()), vector)];
        let by_dim = "{\"id\": \"a\", \"content\": \"x\", \"vector\": {\"845\": 1.9, \"12\": 0.41}}\n\
                      {\"id\": 7, \"indices\": [12, 845], \"values\": [0.41, 1.9]}";
        assert_eq!(read_rows(by_dim).unwrap(), expected);
        assert_eq!(read_rows(&by_dim.replace("\"845\"", "\"t845\"").replace("\"12\"", "\"t12\"")).unwrap(), expected);
        // the first vector decides
        let mixed =
            "{\"id\": 1, \"vector\": {}}\n{\"id\": 2, \"vector\": {\"t1\": 1}}\n{\"id\": 3, \"vector\": {\"5\": 1}}";
        assert!(read_rows(mixed).unwrap_err().to_string().contains(":3: token \"5\" is not in the vocabulary"));
        let error = read_rows("{\"id\": 1, \"vector\": {}, \"tokens\": {}}").unwrap_err().to_string();
        assert!(error.contains("vectors.jsonl:1: neither indices"), "{error}");
    }

    proptest! {
        /// Every finite f32, subnormal ones too, comes back bit for bit.
        #[test]
        fn vectors_come_back_equal(
            id in "\\PC{1,12}",
            bits in prop::collection::btree_map(any::<u32>(), any::<u32>(), 0..40),
        ) {
            let pairs = bits.into_iter().map(|(dim, bits)| (dim, f32::from_bits(bits)));
            let vector = SparseVector::from_pairs(pairs.filter(|(_, weight)| weight.is_finite())).unwrap();
            let mut out = Vec::new();
            write_vector(&mut out, &id, &vector).unwrap();
            let read = read(&String::from_utf8(out).unwrap()).unwrap();
            prop_assert_eq!(read, vec![(id, vector)]);
        }
    }
}
