//! Matrices as SciPy and safetensors write them, and damaged ones.

use std::io::Write;
use std::path::Path;

use safetensors::tensor::{Dtype, TensorView};
use zip::CompressionMethod;

use super::*;
use crate::read_vector_rows;

fn bytes<T: Copy, const N: usize>(numbers: &[T], to_bytes: impl Fn(T) -> [u8; N]) -> Vec<u8> {
    numbers.iter().flat_map(|number| to_bytes(*number)).collect()
}

/// An array as NumPy saves it.
fn npy(descr: &str, count: usize, content: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({count},), }}\n");
    let mut file = b"\x93NUMPY\x01\x00".to_vec();
    file.extend((header.len() as u16).to_le_bytes());
    file.extend(header.as_bytes());
    file.extend(content);
    file
}

/// A matrix as `save_npz` saves it, without compression.
fn npz(members: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let stored = zip::write::SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    for (name, content) in members {
        zip.start_file(format!("{name}.npy"), stored).unwrap();
        zip.write_all(content).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

fn format(name: &[u8]) -> Vec<u8> {
    // an array without dimensions
    let header = format!("{{'descr': '|S{}', 'fortran_order': False, 'shape': (), }}\n", name.len());
    [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), name].concat()
}

/// Members of a matrix of three rows, the second of them empty, with an explicit zero and unsorted indices.
fn members() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("indices", npy("<i4", 4, &bytes(&[845_i32, 12, 3, 7], i32::to_le_bytes))),
        ("indptr", npy("<i8", 4, &bytes(&[0_i64, 2, 2, 4], i64::to_le_bytes))),
        ("format", format(b"csr")),
        ("shape", npy("<i8", 2, &bytes(&[3_i64, 900], i64::to_le_bytes))),
        ("data", npy("<f4", 4, &bytes(&[1.9_f32, 0.41, 0.0, 2.5], f32::to_le_bytes))),
    ]
}

fn expected() -> Vec<SparseVector> {
    [vec![(12, 0.41), (845, 1.9)], vec![], vec![(7, 2.5)]]
        .map(|pairs| SparseVector::from_pairs(pairs).unwrap())
        .to_vec()
}

fn read(name: &str, content: &[u8]) -> Result<Vec<SparseVector>> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, content).unwrap();
    read_vector_rows(&path, None, |_| None)?.map(|row| row.map(|(_, vector)| vector)).collect()
}

#[test]
fn rows_of_an_npz_file() {
    assert_eq!(read("m.npz", &npz(&members())).unwrap(), expected());
    let mut wide = members();
    wide[0].1 = npy("<i8", 4, &bytes(&[845_i64, 12, 3, 7], i64::to_le_bytes));
    wide[1].1 = npy("<i4", 4, &bytes(&[0_i32, 2, 2, 4], i32::to_le_bytes));
    wide[4].1 = npy("<f8", 4, &bytes(&[1.9_f64, 0.41, 0.0, 2.5], f64::to_le_bytes));
    assert_eq!(read("M.NPZ", &npz(&wide)).unwrap(), expected());
}

/// `scipy.sparse.save_npz("m.npz", m)` of SciPy 1.17, compressed, with the matrix of `members`.
#[test]
fn a_file_of_scipy_is_read() {
    let file = include_bytes!("../../tests/data/scipy.npz");
    assert_eq!(read("m.npz", file).unwrap(), expected());
}

fn tensors(edit: impl Fn(&mut Vec<(&'static str, Dtype, Vec<usize>, Vec<u8>)>)) -> Vec<u8> {
    let mut tensors = vec![
        ("indptr", Dtype::I64, vec![4], bytes(&[0_i64, 2, 2, 4], i64::to_le_bytes)),
        ("indices", Dtype::I32, vec![4], bytes(&[845_i32, 12, 3, 7], i32::to_le_bytes)),
        ("data", Dtype::F32, vec![4], bytes(&[1.9_f32, 0.41, 0.0, 2.5], f32::to_le_bytes)),
    ];
    edit(&mut tensors);
    let views = tensors
        .iter()
        .map(|(name, dtype, shape, content)| (*name, TensorView::new(*dtype, shape.clone(), content).unwrap()));
    safetensors::serialize(views, None).unwrap()
}

#[test]
fn rows_of_a_safetensors_file() {
    assert_eq!(read("m.safetensors", &tensors(|_| {})).unwrap(), expected());
}

#[test]
fn wrong_matrices_are_named() {
    let message = |content: &[u8], name: &str| read(name, content).unwrap_err().to_string();
    let replaced = |at: usize, content: Vec<u8>| {
        let mut members = members();
        members[at].1 = content;
        npz(&members)
    };
    let mut without = members();
    without.remove(1);
    let indptr = |ends: &[i64]| replaced(1, npy("<i8", ends.len(), &bytes(ends, i64::to_le_bytes)));
    let cases = [
        (b"nothing".to_vec(), "no .npz file"),
        (npz(&without), "no indptr.npy in it"),
        (replaced(2, format(b"csc")), "not a matrix in the format csr"),
        (replaced(0, b"\x93NUMPY".to_vec()), "indices is damaged or truncated"),
        (replaced(0, npy("<f4", 4, &[0; 16])), "indices has numbers of the type F32, not whole numbers"),
        (replaced(4, npy("<i4", 4, &[0; 16])), "data has numbers of the type I32, not floats"),
        (replaced(4, npy(">f4", 4, &[0; 16])), "data has the header"),
        (replaced(4, npy("<f4", 4, &[0; 15])), "data is damaged or truncated"),
        (replaced(4, npy("<f4", 3, &[0; 12])), "4 indices but 3 values"),
        (replaced(4, npy("<f4", 4, &bytes(&[f32::NAN; 4], f32::to_le_bytes))), "row 0: "),
        (replaced(0, npy("<i4", 4, &bytes(&[-1_i32, 1, 2, 3], i32::to_le_bytes))), "indices has the number -1"),
        (
            replaced(0, npy("<i4", 4, &bytes(&[5_i32, 5, 2, 3], i32::to_le_bytes))),
            "row 0: index 5 occurs more than once",
        ),
        (indptr(&[]), "indptr is empty"),
        (indptr(&[1, 4]), "indptr begins with 1"),
        (indptr(&[0, 3, 2, 4]), "row 1: indptr goes from 3 to 2"),
        (indptr(&[0, 2, i64::MAX]), "row 1: indptr goes from 2"),
        (indptr(&[0, 2]), "2 entries belong to no row"),
    ];
    for (content, expected) in cases {
        let message = message(&content, "m.npz");
        assert!(message.contains("m.npz: ") && message.contains(expected), "{expected}: {message}");
    }
    let cases = [
        (tensors(|tensors| tensors[0].0 = "crow_indices"), "no tensor \"indptr\": indptr, indices and data are needed"),
        (tensors(|tensors| tensors[2].2 = vec![2, 2]), "data has the shape [2, 2]"),
        (tensors(|tensors| tensors[2].1 = Dtype::I32), "data has numbers of the type I32, not floats"),
    ];
    for (content, expected) in cases {
        let message = message(&content, "m.safetensors");
        assert!(message.contains("m.safetensors: ") && message.contains(expected), "{expected}: {message}");
    }
}

#[test]
fn ids_are_lines_of_another_file() {
    let folder = tempfile::tempdir().unwrap();
    let (path, ids) = (folder.path().join("m.npz"), folder.path().join("ids.txt"));
    std::fs::write(&path, npz(&members())).unwrap();
    let read = |text: &str, path: &Path| {
        std::fs::write(&ids, text).unwrap();
        let rows = read_vector_rows(path, Some(&ids), |_| None)?;
        rows.map(|row| row.map(|(id, _)| id.unwrap())).collect::<Result<Vec<_>>>()
    };
    assert_eq!(read("a\nb b\nc\n", &path).unwrap(), ["a", "b b", "c"]);
    assert!(read("a\nb\n", &path).unwrap_err().to_string().contains("ids.txt: 2 ids, and "));
    assert!(read("a\nb\nc\nd\n", &path).unwrap_err().to_string().contains("ids.txt: more ids than the 3 rows of "));
    let lines = folder.path().join("v.jsonl");
    std::fs::write(&lines, "{\"id\": 1, \"vector\": {}}\n").unwrap();
    assert!(read("a\n", &lines).unwrap_err().to_string().contains("whose lines have ids of their own"));
}
