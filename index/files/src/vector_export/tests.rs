//! Files read back by readers of other origin: the row reader of the parquet crate, and parsers written here from the formats.

use std::collections::BTreeMap;

use ::parquet::file::reader::{FileReader, SerializedFileReader};
use ::parquet::record::RowAccessor;
use splade_core::SparseVector;

use super::posting_lists::PostingLists;
use super::*;
use crate::read_vector_rows;

fn vector(pairs: &[(u32, f32)]) -> SparseVector {
    SparseVector::from_pairs(pairs.iter().copied()).unwrap()
}

fn vectors() -> Vec<SparseVector> {
    vec![vector(&[(0, 1.5), (10, 0.25), (2, 0.004)]), vector(&[]), vector(&[(10, 3.0), (9, 0.1)]), vector(&[(2, 2.0)])]
}

#[test]
fn posting_lists_of_many_runs_are_those_of_one() {
    let folder = tempfile::tempdir().unwrap();
    let document = |doc: u32| (0..doc % 7).map(move |at| ((doc * 31 + at * 17) % 97, doc * 8 + at));
    let mut expected: BTreeMap<u32, Vec<(u32, u32)>> = BTreeMap::new();
    for doc in 0..500 {
        document(doc).for_each(|(term, value)| expected.entry(term).or_default().push((doc, value)));
    }
    for run_len in [1, 7, 300, 1_000_000] {
        let mut lists = PostingLists::with_runs_of(folder.path(), run_len);
        (0..500).for_each(|doc| lists.add(doc, document(doc)).unwrap());
        let (mut merged, mut list, mut read) = (lists.finish().unwrap(), Vec::new(), BTreeMap::new());
        while let Some(term) = merged.next_list(&mut list).unwrap() {
            assert!(read.insert(term, list.clone()).is_none(), "term {term} comes once");
        }
        assert_eq!(read, expected, "runs of {run_len}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "temporary files have no names");
    let none = PostingLists::in_folder(folder.path()).finish().unwrap().next_list(&mut Vec::new()).unwrap();
    assert_eq!(none, None);
}

#[test]
fn csr_has_the_layout_of_its_description() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = CsrWriter::new(folder.path(), 5).unwrap();
    vectors().iter().for_each(|vector| writer.add(vector).unwrap());
    let mut bytes = Vec::new();
    let stats = writer.finish(&mut bytes).unwrap();
    assert_eq!(stats, CsrStats { rows: 4, columns: 11, entries: 6 });
    let (long, rest) = bytes.split_at(8 * (3 + 5));
    let (columns, values) = rest.split_at(4 * 6);
    let long: Vec<i64> = long.as_chunks().0.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect();
    let columns: Vec<i32> = columns.as_chunks().0.iter().map(|bytes| i32::from_le_bytes(*bytes)).collect();
    let values: Vec<f32> = values.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    assert_eq!(long, [4, 11, 6, 0, 3, 3, 5, 6]);
    assert_eq!(columns, [0, 2, 10, 9, 10, 2]);
    assert_eq!(values, [1.5, 0.004, 0.25, 0.1, 3.0, 2.0]);
    let path = folder.path().join("m.csr");
    std::fs::write(&path, &bytes).unwrap();
    let read = || read_vector_rows(&path, None, |_| None)?.map(|row| Ok(row?.1)).collect::<crate::Result<Vec<_>>>();
    assert_eq!(read().unwrap(), vectors());
    for (length, message) in [(10, "it has no header"), (bytes.len() - 1, "4 rows and 6 entries do not make")] {
        std::fs::write(&path, &bytes[..length]).unwrap();
        assert!(read().unwrap_err().to_string().contains(message), "{length} bytes");
    }
    let huge = [&i64::MAX.to_le_bytes()[..], &bytes[8..]].concat();
    std::fs::write(&path, huge).unwrap();
    assert!(read().unwrap_err().to_string().contains("do not make a CSR matrix"));
    let error = CsrWriter::new(folder.path(), 0).unwrap().add(&vector(&[(u32::MAX, 1.0)])).unwrap_err();
    assert!(error.to_string().contains("dimension 4294967295 does not fit"), "{error}");
}

#[test]
fn impacts_are_rounded_and_none_is_negative_or_zero() {
    let hundred = Impacts::new(100.0).unwrap();
    assert_eq!(hundred.of(&vectors()[0]).unwrap(), [(0, 150), (10, 25)]);
    assert_eq!(hundred.of(&vector(&[(1, 0.005), (2, 0.0149)])).unwrap(), [(1, 1), (2, 1)]);
    assert_eq!(hundred.of(&vector(&[(1, 1e30)])).unwrap(), [(1, Impacts::MAX)]);
    let error = hundred.of(&vector(&[(1, 1.0), (3, -0.5)])).unwrap_err();
    assert_eq!(error.to_string(), "the weight of dimension 3 is -0.5, and impacts are positive");
    for scale in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        assert_eq!(Impacts::new(scale), None);
    }
}

/// Fields of a protobuf message by number: varints and fixed numbers as u64, others as bytes.
fn fields(mut bytes: &[u8]) -> Vec<(u64, u64, Vec<u8>)> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        fields.push(match key & 7 {
            0 => (key >> 3, varint(&mut bytes), Vec::new()),
            1 => (key >> 3, u64::from_le_bytes(take(&mut bytes, 8).try_into().unwrap()), Vec::new()),
            2 => (key >> 3, 0, message(&mut bytes).to_vec()),
            other => panic!("wire type {other}"),
        });
    }
    fields
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = take(bytes, 1)[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return value;
        }
    }
    panic!("a varint of more than ten bytes");
}

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> &'a [u8] {
    let (taken, rest) = bytes.split_at(count);
    *bytes = rest;
    taken
}

/// Bytes after their length.
fn message<'a>(bytes: &mut &'a [u8]) -> &'a [u8] {
    let length = varint(bytes) as usize;
    take(bytes, length)
}

#[test]
fn ciff_has_the_messages_of_its_description() {
    let folder = tempfile::tempdir().unwrap();
    // by bytes, 10 is before 2, and 9 after both
    let mut writer = CiffWriter::new(folder.path(), (0..11).map(|dim| dim.to_string()).collect()).unwrap();
    let impacts = Impacts::new(100.0).unwrap();
    for (doc, vector) in vectors().iter().enumerate() {
        writer.add(&format!("d{doc}"), &impacts.of(vector).unwrap()).unwrap();
    }
    let error = writer.add("long", &[(11, 1)]).unwrap_err();
    assert_eq!(error.to_string(), "document long has dimension 11, and there are 11");
    let mut file = Vec::new();
    let stats = writer.finish("a test", &mut file).unwrap();
    assert_eq!(stats, CiffStats { documents: 4, lists: 4, postings: 5, impacts: 685 });
    let mut bytes = &file[..];
    let header = fields(message(&mut bytes));
    let numbers: Vec<(u64, u64)> = header[..6].iter().map(|(tag, number, _)| (*tag, *number)).collect();
    assert_eq!(numbers, [(1, 1), (2, 4), (3, 4), (4, 4), (5, 4), (6, 685)]);
    assert_eq!((header[6].0, f64::from_bits(header[6].1)), (7, 171.25));
    assert_eq!((header[7].0, &header[7].2[..]), (8, &b"a test"[..]));
    let mut lists = Vec::new();
    for _ in 0..4 {
        let list = fields(message(&mut bytes));
        let postings = list[3..].iter().map(|(tag, _, posting)| {
            assert_eq!(*tag, 4);
            // a field that is 0 is left out
            let posting: BTreeMap<u64, u64> =
                fields(posting).into_iter().map(|(tag, number, _)| (tag, number)).collect();
            (posting.get(&1).copied().unwrap_or(0), posting[&2])
        });
        let term = String::from_utf8(list[0].2.clone()).unwrap();
        lists.push((term, list[1].1, list[2].1, postings.collect::<Vec<_>>()));
    }
    let expected = [
        ("0", 1, 150, vec![(0, 150)]),
        ("10", 2, 325, vec![(0, 25), (2, 300)]),
        ("2", 1, 200, vec![(3, 200)]),
        ("9", 1, 10, vec![(2, 10)]),
    ];
    assert_eq!(lists, expected.map(|(term, df, cf, postings)| (term.to_owned(), df, cf, postings)));
    for (doc, length) in [175, 0, 310, 200].into_iter().enumerate() {
        let record = fields(message(&mut bytes));
        let id = record.iter().find(|(tag, ..)| *tag == 2).unwrap();
        assert_eq!(id.2, format!("d{doc}").into_bytes());
        let number = |tag| record.iter().find(|(found, ..)| *found == tag).map_or(0, |(_, number, _)| *number);
        assert_eq!((number(1), number(3)), (doc as u64, length));
    }
    assert!(bytes.is_empty(), "nothing follows");
}

#[test]
fn tables_are_ordered_by_term_and_document() {
    let folder = tempfile::tempdir().unwrap();
    let notes = vec![("splade.model".to_owned(), "abc".to_owned())];
    let mut tables = PostingTables::new(folder.path(), notes).unwrap();
    let row = DocumentRow { id: "æ\n\"", title: Some("Oslo"), text: Some("By"), fields: Some(r#"{"year":1814}"#) };
    for (doc, vector) in vectors().iter().enumerate() {
        let id = format!("d{doc}");
        tables.add(&if doc == 0 { row } else { DocumentRow { id: &id, ..DocumentRow::default() } }, vector).unwrap();
    }
    let stats = tables.finish(|dim| (dim < 10).then(|| format!("token {dim}"))).unwrap();
    assert_eq!(stats, PostingTablesStats { documents: 4, postings: 6 });
    let open = |name: &str| SerializedFileReader::new(std::fs::File::open(folder.path().join(name)).unwrap()).unwrap();
    let postings = open("postings.parquet");
    let notes = postings.metadata().file_metadata().key_value_metadata().unwrap().clone();
    assert!(notes.iter().any(|note| note.key == "splade.model" && note.value.as_deref() == Some("abc")));
    let read: Vec<_> = postings
        .get_row_iter(None)
        .unwrap()
        .map(|row| {
            let row = row.unwrap();
            let token = row.get_string(1).ok().cloned();
            (row.get_int(0).unwrap(), token, row.get_int(2).unwrap(), row.get_float(3).unwrap())
        })
        .collect();
    let token = |dim| Some(format!("token {dim}"));
    assert_eq!(
        read,
        [
            (0, token(0), 0, 1.5),
            (2, token(2), 0, 0.004),
            (2, token(2), 3, 2.0),
            (9, token(9), 2, 0.1),
            (10, None, 0, 0.25),
            (10, None, 2, 3.0)
        ]
    );
    let rows: Vec<_> = open("documents.parquet").get_row_iter(None).unwrap().map(|row| row.unwrap()).collect();
    let first: Vec<&String> = (1..5).map(|at| rows[0].get_string(at).unwrap()).collect();
    assert_eq!(first, ["æ\n\"", "Oslo", "By", r#"{"year":1814}"#]);
    assert_eq!((rows.len(), rows[3].get_int(0).unwrap()), (4, 3));
    assert!(rows[3].get_string(3).is_err(), "no text is null");
}
