//! Tests of every form of file and every defect.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use ::parquet::basic::Compression as Codec;
use ::parquet::data_type::{
    BoolType, ByteArray, ByteArrayType, DoubleType, FixedLenByteArray, FixedLenByteArrayType, FloatType, Int64Type,
};
use ::parquet::file::properties::WriterProperties;
use ::parquet::file::writer::SerializedFileWriter;
use ::parquet::schema::parser::parse_message_type;
use serde_json::json;
use tempfile::TempDir;

use super::*;

const CORPUS: &str = concat!(
    "{\"_id\": \"d1\", \"title\": \"Oslo\", \"text\": \"En by.\", \"year\": 2024}\n",
    "\n",
    "{\"id\": 7, \"title\": null, \"text\": \"Blåbær\"}\r\n",
    "{\"_id\": \"d3\", \"id\": 9, \"title\": \"\", \"text\": \"\"}",
);

fn file(name: &str, bytes: &[u8]) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    (folder, path)
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn documents(name: &str, bytes: &[u8]) -> Result<Vec<Document>> {
    let (_folder, path) = file(name, bytes);
    read_documents(&path)?.collect()
}

fn message(name: &str, bytes: &[u8]) -> String {
    let error = documents(name, bytes).unwrap_err();
    assert!(error.kind().is_bad_input(), "{error:?}");
    let message = error.to_string();
    assert!(!message.contains('\n'), "{message}");
    message
}

#[test]
fn documents_are_the_same_in_every_packing() {
    let plain = documents("corpus.jsonl", CORPUS.as_bytes()).unwrap();
    let ids: Vec<&str> = plain.iter().map(|document| document.id.as_str()).collect();
    assert_eq!(ids, ["d1", "7", "d3"]);
    assert_eq!(plain[0].full_text(), "Oslo En by.");
    assert_eq!(plain[1].full_text(), "Blåbær");
    assert_eq!((plain[0].fields["year"].clone(), plain[2].fields["id"].clone()), (json!(2024), json!(9)));
    assert!(plain[1].fields.is_empty());
    let marked = [b"\xef\xbb\xbf", CORPUS.as_bytes()].concat();
    assert_eq!(documents("corpus.ndjson", &marked).unwrap(), plain);
    assert_eq!(documents("Corpus.JSONL.GZ", &gzip(CORPUS.as_bytes())).unwrap(), plain);
    let two_members = [gzip(&CORPUS.as_bytes()[..40]), gzip(&CORPUS.as_bytes()[40..])].concat();
    assert_eq!(documents("corpus.jsonl.gz", &two_members).unwrap(), plain);
    let zstd = zstd::encode_all(CORPUS.as_bytes(), 1).unwrap();
    assert_eq!(documents("corpus.jsonl.zst", &zstd).unwrap(), plain);
}

#[test]
fn tsv_has_a_header_and_no_quotes() {
    let text = "_id\ttext\tsource\n1\tsier \"hei\"\tradio\n\n2\t\tavis\r\n";
    let read = documents("corpus.tsv", text.as_bytes()).unwrap();
    assert_eq!(read[0].text, "sier \"hei\"");
    assert_eq!((read[1].text.as_str(), &read[1].fields["source"]), ("", &json!("avis")));
    assert!(message("c.tsv", b"_id\ttext\n1\n").ends_with("c.tsv:2: 1 columns, but the header names 2"));
    assert!(message("c.tsv", b"_id\ttext\t_id\n").ends_with("c.tsv:1: the header names column '_id' twice"));
    assert!(
        message("c.tsv", b"1\tEn by.\n2\tTo\n")
            .ends_with("c.tsv:1: missing _id, found only 1, En by.; the first line of a .tsv file names its columns")
    );
    assert!(message("c.tsv", b"").ends_with("c.tsv: empty: expected a header line with the column names"));
}

#[test]
fn a_text_file_has_line_numbers_as_ids() {
    let (_folder, path) = file("texts.txt", "første\n\ntredje".as_bytes());
    let texts: Vec<InputText> = read_texts(&path).unwrap().collect::<Result<_>>().unwrap();
    let texts: Vec<_> = texts.iter().map(|text| (text.id.as_str(), text.text.as_str())).collect();
    assert_eq!(texts, [("0", "første"), ("1", ""), ("2", "tredje")]);
}

#[test]
fn queries_and_texts_read_the_same_lines() {
    let (_folder, path) = file("queries.jsonl", CORPUS.as_bytes());
    let query = read_queries(&path).unwrap().next().unwrap().unwrap();
    assert_eq!(query, Query { id: "d1".into(), text: "En by.".into() });
    let text = read_texts(&path).unwrap().next().unwrap().unwrap();
    assert_eq!(text, InputText { id: "d1".into(), text: "Oslo En by.".into() });
}

#[test]
fn defects_are_named_with_their_line() {
    let cases: [(&[u8], &str); 12] = [
        (b"{\"_id\": \"a\"", ":3: broken JSON: EOF while parsing an object (column 11)"),
        (b"{\"text\": \"a\", \"docid\": 1}", ":3: missing _id, found only text, docid"),
        (b"{}", ":3: missing _id"),
        (b"{\"_id\": \"a\"}", ":3: missing text"),
        (b"{\"_id\": \"a\", \"text\": null}", ":3: missing text"),
        (b"{\"_id\": \"a\", \"text\": 5}", ":3: text is a number, not a string"),
        (b"{\"_id\": \"a\", \"title\": [], \"text\": \"\"}", ":3: title is an array, not a string"),
        (b"{\"_id\": 1.5, \"text\": \"a\"}", ":3: _id is a number, not a string or a whole number"),
        (b"{\"_id\": \"\", \"text\": \"a\"}", ":3: empty _id"),
        (
            b"{\"_id\": \"12345678901234567890123\", \"text\": \"\\\"\", \"n\": [1.0e20, -9223372036854775809]}",
            ":3: the integer -9223372036854775809 has more than 64 bits: write it as a string",
        ),
        (b"[1]", ":3: expected a JSON object, found an array"),
        (b"{\"_id\": \"\xff\", \"text\": \"a\"}", ":3: not UTF-8, from byte 10 of the line"),
    ];
    for (line, wanted) in cases {
        let bytes = [b"{\"_id\": 1, \"text\": \"a\"}\n\n", line, b"\n{\"_id\": 2, \"text\": \"b\"}\n"].concat();
        let found = message("corpus.jsonl", &bytes);
        assert!(found.ends_with(&format!("corpus.jsonl{wanted}")), "{found}");
    }
    assert!(message("corpus.csv", b"").contains("unknown kind of file, expected .jsonl"));
    assert!(message("corpus.parquet.gz", b"").contains("unknown kind of file"));
}

#[test]
fn rows_end_after_the_first_error() {
    let (_folder, path) = file("rows.jsonl", b"{\"a\": 1}\n{\n{\"a\": 2}\n");
    let rows: Vec<Result<InputRow>> = read_rows(&path).unwrap().collect();
    assert_eq!(rows.len(), 2);
    let row = rows[0].as_ref().unwrap();
    assert_eq!((row.value()["a"].clone(), row.position().line()), (json!(1), 1));
    assert_eq!(row.position().path(), path);
    assert_eq!(row.position().to_string(), format!("{}:1", path.display()));
    assert!(row.string("a").is_err() && row.string("b").unwrap().is_none());
}

#[test]
fn damaged_archives_are_the_inputs_fault() {
    let text = CORPUS.repeat(50).replace("\r\n{\"_id\": \"d3\"", "\n{\"_id\": \"d3\"").replace("}{", "}\n{");
    let packed = gzip(text.as_bytes());
    let found = message("c.jsonl.gz", &packed[..packed.len() / 2]);
    assert!(found.contains("c.jsonl.gz:") && found.contains("the gzip data is damaged or truncated"), "{found}");
    let packed = zstd::encode_all(text.as_bytes(), 1).unwrap();
    let found = message("c.jsonl.zst", &packed[..packed.len() / 2]);
    assert!(found.contains("c.jsonl.zst:1: the zstd data is damaged or truncated"), "{found}");
    let found = message("c.jsonl.gz", text.as_bytes());
    assert!(found.contains("c.jsonl.gz:1: the gzip data is damaged or truncated"), "{found}");
}

#[test]
fn missing_files_and_folders_are_named() {
    let error = read_rows(Path::new("/nowhere/corpus.jsonl")).unwrap_err();
    assert!(error.kind().is_bad_input() && error.to_string().starts_with("/nowhere/corpus.jsonl: "), "{error}");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("folder.jsonl");
    std::fs::create_dir(&path).unwrap();
    let error = read_rows(&path).and_then(|mut rows| rows.next().unwrap()).unwrap_err();
    assert!(error.to_string().contains("folder.jsonl: "), "{error}");
}

/// Two rows: strings (one null), an integer, a float, a boolean and a list of strings (one empty).
fn parquet_bytes() -> Vec<u8> {
    parquet_bytes_in(Codec::SNAPPY)
}

fn parquet_bytes_in(codec: Codec) -> Vec<u8> {
    let schema = "message schema {
        required binary _id (UTF8); optional binary text (UTF8); required int64 year; required double score;
        required boolean open; required group tags (LIST) { repeated group list { optional binary element (UTF8); } }
    }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let properties = Arc::new(WriterProperties::builder().set_compression(codec).build());
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, properties).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let strings = |texts: &[&str]| texts.iter().map(|text| ByteArray::from(*text)).collect::<Vec<_>>();
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<ByteArrayType>().write_batch(&strings(&["d1", "d2"]), None, None).unwrap();
    column.close().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<ByteArrayType>().write_batch(&strings(&["Blåbær"]), Some(&[1, 0]), None).unwrap();
    column.close().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<Int64Type>().write_batch(&[2024, -1], None, None).unwrap();
    column.close().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<DoubleType>().write_batch(&[0.5, f64::NAN], None, None).unwrap();
    column.close().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<BoolType>().write_batch(&[true, false], None, None).unwrap();
    column.close().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<ByteArrayType>().write_batch(&strings(&["a", "b"]), Some(&[2, 2, 0]), Some(&[0, 1, 0])).unwrap();
    column.close().unwrap();
    group.close().unwrap();
    writer.into_inner().unwrap()
}

#[test]
fn parquet_rows_have_json_values() {
    let expected = [
        json!({"_id": "d1", "text": "Blåbær", "year": 2024, "score": 0.5, "open": true, "tags": ["a", "b"]}),
        json!({"_id": "d2", "text": null, "year": -1, "score": null, "open": false, "tags": []}),
    ];
    let codecs = [
        Codec::UNCOMPRESSED,
        Codec::SNAPPY,
        Codec::GZIP(Default::default()),
        Codec::ZSTD(Default::default()),
        Codec::BROTLI(Default::default()),
        Codec::LZ4,
        Codec::LZ4_RAW,
    ];
    for codec in codecs {
        let (_folder, path) = file("rows.parquet", &parquet_bytes_in(codec));
        let rows: Vec<InputRow> = read_rows(&path).unwrap().collect::<Result<_>>().unwrap();
        let values: Vec<Value> = rows.iter().map(|row| Value::Object(row.value().clone())).collect();
        assert_eq!(values, expected, "{codec:?}");
    }
    let (_folder, path) = file("rows.parquet", &parquet_bytes());
    let error = read_documents(&path).unwrap().nth(1).unwrap().unwrap_err();
    assert!(error.to_string().contains("rows.parquet:2: missing text"), "{error}");
}

#[test]
fn damaged_parquet_is_an_error_and_never_a_panic() {
    // every byte of one, and a sample of those of the others
    let codecs = [Codec::SNAPPY, Codec::ZSTD(Default::default()), Codec::BROTLI(Default::default()), Codec::LZ4_RAW];
    for (codec, step) in codecs.into_iter().zip([1, 5, 5, 5]) {
        let sound = parquet_bytes_in(codec);
        for at in (0..sound.len()).step_by(step) {
            let mut bytes = sound.clone();
            bytes[at] ^= 0x55;
            let (_folder, path) = file("rows.parquet", &bytes);
            if let Ok(rows) = read_rows(&path) {
                assert!(rows.take(1000).count() <= 1000);
            }
        }
    }
    let sound = parquet_bytes();
    assert!(message("rows.parquet", b"PAR1").contains("not a readable parquet file"));
    assert!(message("rows.parquet", &sound[..sound.len() / 2]).contains("not a readable parquet file"));
}

const BERRY: &[u8] = "Blåbær".as_bytes();

/// Values of a parquet column without nulls.
enum Cells<'a> {
    Bytes(&'a [&'a [u8]]),
    Fixed(&'a [&'a [u8]]),
    Int(&'a [i64]),
    Float(&'a [f32]),
}

/// A parquet file of required columns.
fn parquet_of(columns: &[(&str, Cells<'_>)]) -> Vec<u8> {
    let fields: Vec<&str> = columns.iter().map(|(field, _)| *field).collect();
    let schema = format!("message schema {{ required {}; }}", fields.join("; required "));
    let schema = Arc::new(parse_message_type(&schema).unwrap());
    let properties = Arc::new(WriterProperties::builder().build());
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, properties).unwrap();
    let mut group = writer.next_row_group().unwrap();
    for (_, cells) in columns {
        let mut column = group.next_column().unwrap().unwrap();
        match cells {
            Cells::Bytes(values) => {
                let values: Vec<ByteArray> = values.iter().map(|value| value.to_vec().into()).collect();
                column.typed::<ByteArrayType>().write_batch(&values, None, None).unwrap();
            }
            Cells::Fixed(values) => {
                let values = values.iter().map(|value| FixedLenByteArray::from(value.to_vec()));
                column.typed::<FixedLenByteArrayType>().write_batch(&values.collect::<Vec<_>>(), None, None).unwrap();
            }
            Cells::Int(values) => {
                column.typed::<Int64Type>().write_batch(values, None, None).unwrap();
            }
            Cells::Float(values) => {
                column.typed::<FloatType>().write_batch(values, None, None).unwrap();
            }
        }
        column.close().unwrap();
    }
    group.close().unwrap();
    writer.into_inner().unwrap()
}

fn texts(bytes: &[u8]) -> Result<Vec<(String, String)>> {
    let (_folder, path) = file("rows.parquet", bytes);
    read_texts(&path)?.map(|text| text.map(|text| (text.id, text.text))).collect()
}

#[test]
fn parquet_text_is_the_same_in_every_column_type() {
    let text = Cells::Bytes(&[BERRY, b"is"]);
    let id = || Cells::Bytes(&[b"d1", b"d2"]);
    let expected = texts(&parquet_of(&[("binary _id (UTF8)", id()), ("binary text (UTF8)", text)])).unwrap();
    assert_eq!(expected, [("d1".to_owned(), "Blåbær".to_owned()), ("d2".to_owned(), "is".to_owned())]);
    let mut n_types = 0;
    for kind in ["(STRING)", "(ENUM)", "(JSON)", ""] {
        let text = || Cells::Bytes(&[BERRY, b"is"]);
        let (text_field, id_field) = (format!("binary text {kind}"), format!("binary _id {kind}"));
        let found = parquet_of(&[("binary _id (UTF8)", id()), (&text_field, text())]);
        assert_eq!(texts(&found).unwrap(), expected, "{kind}");
        let found = parquet_of(&[(&id_field, id()), ("binary text (UTF8)", text())]);
        assert_eq!(texts(&found).unwrap(), expected, "{kind}");
        n_types += 1;
    }
    assert_eq!(n_types, 4);
    let fixed = Cells::Fixed(&[b"d1", b"d2"]);
    let found = parquet_of(&[("fixed_len_byte_array(2) _id", fixed), ("binary text", Cells::Bytes(&[BERRY, b"is"]))]);
    assert_eq!(texts(&found).unwrap(), expected);
}

#[test]
fn parquet_ids_are_texts_whole_numbers_or_uuids() {
    let text = || ("binary text (UTF8)", Cells::Bytes(&[b"a"]));
    let uuid: &[u8] = b"\x00\x11\x22\x33\x44\x55\x66\x77\x88\x99\xaa\xbb\xcc\xdd\xee\xff";
    let good = [
        ("int64 id", Cells::Int(&[-7]), "-7"),
        ("int64 id (INTEGER(64,false))", Cells::Int(&[-1]), "18446744073709551615"),
        ("fixed_len_byte_array(16) id (UUID)", Cells::Fixed(&[uuid]), "00112233-4455-6677-8899-aabbccddeeff"),
    ];
    for (field, cells, id) in good {
        let found = texts(&parquet_of(&[(field, cells), text()])).unwrap();
        assert_eq!(found[0].0, id, "{field}");
    }
    let error = texts(&parquet_of(&[("float id", Cells::Float(&[1.0])), text()])).unwrap_err();
    assert!(error.to_string().ends_with("rows.parquet:1: id is a number, not a string or a whole number"), "{error}");
}

#[test]
fn parquet_bytes_that_are_no_text_are_named_by_file_row_and_column() {
    let id = || Cells::Bytes(&[b"a", b"b"]);
    let cases: [(&str, Cells<'_>, &str); 6] = [
        (
            "binary text",
            Cells::Bytes(&[b"ok", b"\xff\xfe\x00"]),
            ":2: column text holds bytes that are not UTF-8 text, from byte 1",
        ),
        (
            "binary text (UTF8)",
            Cells::Bytes(&[b"ok", b"o\xff"]),
            ":2: column text holds text that is not UTF-8, or damaged data",
        ),
        (
            "binary text",
            Cells::Bytes(&[b"\x01\0\0\0", b""]),
            ":1: column text holds bytes that are not text: byte 2 of the value is 0",
        ),
        (
            "fixed_len_byte_array(3) text",
            Cells::Fixed(&[b"abc", b"ab\0"]),
            ":2: column text holds bytes that are not text: byte 3",
        ),
        ("binary text (BSON)", Cells::Bytes(&[b"a", b"b"]), ": column text holds BSON, which is not read"),
        (
            "fixed_len_byte_array(12) text (INTERVAL)",
            Cells::Fixed(&[&[0; 12], &[0; 12]]),
            ": column text holds an interval, which",
        ),
    ];
    for (field, cells, wanted) in cases {
        let (_folder, path) = file("rows.parquet", &parquet_of(&[("binary _id (UTF8)", id()), (field, cells)]));
        let read: [Result<usize>; 3] = [
            read_documents(&path).and_then(|items| items.map(|item| item.map(|_| 1)).sum()),
            read_queries(&path).and_then(|items| items.map(|item| item.map(|_| 1)).sum()),
            read_texts(&path).and_then(|items| items.map(|item| item.map(|_| 1)).sum()),
        ];
        for error in read.map(Result::unwrap_err) {
            assert!(error.to_string().contains(&format!("rows.parquet{wanted}")), "{field}: {error}");
        }
    }
}

#[test]
fn other_parquet_columns_matter_only_where_they_are_kept() {
    let bytes = parquet_of(&[
        ("binary _id (UTF8)", Cells::Bytes(&[b"a"])),
        ("binary text (UTF8)", Cells::Bytes(&[b"x"])),
        ("binary image", Cells::Bytes(&[b"\x89PNG"])),
    ]);
    assert_eq!(texts(&bytes).unwrap(), [("a".to_owned(), "x".to_owned())]);
    assert!(message("rows.parquet", &bytes).contains(":1: column image holds bytes that are not UTF-8 text"));
    let shares = parquet_of(&[
        ("binary _id (UTF8)", Cells::Bytes(&[b"a"])),
        ("binary text (UTF8)", Cells::Bytes(&[b"x"])),
        ("float share", Cells::Float(&[0.1])),
    ]);
    assert_eq!(documents("rows.parquet", &shares).unwrap()[0].fields["share"], json!(0.1));
}

#[test]
fn a_file_without_the_columns_is_refused_even_without_rows() {
    let header = ":1: missing _id, found only hva er oslo; the first line of a .tsv file names its columns";
    assert!(message("queries.tsv", b"hva er oslo\n").ends_with(&format!("queries.tsv{header}")));
    let cases: [(&str, Vec<u8>, &str); 5] = [
        ("queries.tsv", b"1\thva er oslo".to_vec(), "missing _id, found only 1, hva er oslo; the first line"),
        ("queries.tsv", b"_id\ttitle\n".to_vec(), "missing text, found only _id, title; the first line"),
        ("queries.tsv", Vec::new(), "empty: expected a header line"),
        ("q.parquet", parquet_of(&[("int64 _id", Cells::Int(&[]))]), "q.parquet: missing text, found only _id"),
        (
            "q.parquet",
            parquet_of(&[("binary text (UTF8)", Cells::Bytes(&[]))]),
            "q.parquet: missing _id, found only text",
        ),
    ];
    for (name, bytes, wanted) in cases {
        let (_folder, path) = file(name, &bytes);
        for error in [read_documents(&path).err(), read_queries(&path).err(), read_texts(&path).err()] {
            let error = error.unwrap().to_string();
            assert!(error.contains(wanted), "{name}: {error}");
        }
    }
    assert_eq!(documents("queries.tsv", b"id\ttext\n").unwrap(), []);
}

#[test]
fn git_lfs_pointers_are_named_in_every_form() {
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 438007253\n";
    let names = ["c.jsonl", "c.jsonl.gz", "c.jsonl.zst", "c.tsv", "c.txt", "c.parquet"];
    for name in names {
        assert!(
            message(name, pointer).ends_with("it is a git-lfs pointer; fetch the file itself (git lfs pull)"),
            "{name}"
        );
    }
}

#[test]
fn ids_are_taken_exactly() {
    let read = |name: &str, bytes: &[u8]| -> Result<Vec<String>> {
        let (_folder, path) = file(name, bytes);
        read_ids(&path)?.collect()
    };
    let expected = ["a", " b\u{a0}", "c\td", "e\r"];
    assert_eq!(read("ids.txt", "a\n b\u{a0}\r\nc\td\n\n\r\ne\r\r\n".as_bytes()).unwrap(), expected);
    let json = r#"{"_id": "a"}
        {"id": " b\u00a0", "text": 1}
        {"_id": "c\td"}
        {"_id": "e\r"}"#;
    assert_eq!(read("ids.jsonl", json.as_bytes()).unwrap(), expected);
    assert_eq!(read("ids.tsv", b"title\tid\nx\t7\ny\t 8\n").unwrap(), ["7", " 8"]);
    assert_eq!(read("ids.parquet", &parquet_of(&[("int64 _id", Cells::Int(&[3]))])).unwrap(), ["3"]);
    let error = read("ids.jsonl", b"{\"docid\": 1}").unwrap_err().to_string();
    assert!(error.ends_with("ids.jsonl:1: missing _id, found only docid"), "{error}");
}
