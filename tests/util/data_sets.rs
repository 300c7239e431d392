//! The data sets that the shipped configs name, small: the columns, shards, splits and layouts of the Hub.

use std::sync::Arc;

use parquet::basic::{LogicalType, Repetition, Type as PhysicalType};
use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::Type;

use super::hub::{COMMIT, Files, Hub, files_of};
use super::ours;

/// A column of a parquet file.
pub(crate) enum Column {
    Text(&'static str, Vec<Option<String>>),
    Number(&'static str, Vec<i64>),
    /// lists of texts
    List(&'static str, Vec<Vec<String>>),
    /// records with one field, a list of texts
    Record(&'static str, &'static str, Vec<Vec<String>>),
}

/// A field of texts, with the annotation of the library datasets.
fn text_field(name: &str) -> Type {
    let builder = Type::primitive_type_builder(name, PhysicalType::BYTE_ARRAY);
    let text = builder.with_logical_type(Some(LogicalType::String)).with_repetition(Repetition::OPTIONAL);
    text.build().unwrap()
}

fn group(name: &str, repetition: Repetition, logical: Option<LogicalType>, field: Type) -> Type {
    let builder = Type::group_type_builder(name).with_repetition(repetition).with_logical_type(logical);
    builder.with_fields(vec![Arc::new(field)]).build().unwrap()
}

fn list_field(name: &str) -> Type {
    let element = group("list", Repetition::REPEATED, None, text_field("element"));
    group(name, Repetition::OPTIONAL, Some(LogicalType::List), element)
}

fn field(column: &Column) -> Type {
    match column {
        Column::Text(name, _) => text_field(name),
        Column::Number(name, _) => {
            let builder = Type::primitive_type_builder(name, PhysicalType::INT64);
            builder.with_repetition(Repetition::REQUIRED).build().unwrap()
        }
        Column::List(name, _) => list_field(name),
        Column::Record(name, inner, _) => group(name, Repetition::REQUIRED, None, list_field(inner)),
    }
}

/// A parquet file of these columns.
pub(crate) fn parquet(columns: &[Column]) -> Vec<u8> {
    let fields = columns.iter().map(|column| Arc::new(field(column))).collect();
    let schema = Arc::new(Type::group_type_builder("schema").with_fields(fields).build().unwrap());
    let mut bytes = Vec::new();
    let mut writer = SerializedFileWriter::new(&mut bytes, schema, Arc::new(WriterProperties::default())).unwrap();
    let mut group = writer.next_row_group().unwrap();
    for column in columns {
        let mut chunk = group.next_column().unwrap().unwrap();
        match column {
            Column::Text(_, cells) => {
                let levels: Vec<i16> = cells.iter().map(|cell| i16::from(cell.is_some())).collect();
                let values: Vec<ByteArray> = cells.iter().flatten().map(|cell| cell.as_str().into()).collect();
                chunk.typed::<ByteArrayType>().write_batch(&values, Some(&levels), None).unwrap();
            }
            Column::Number(_, cells) => {
                chunk.typed::<Int64Type>().write_batch(cells, None, None).unwrap();
            }
            Column::List(_, lists) | Column::Record(_, _, lists) => {
                assert!(lists.iter().all(|list| !list.is_empty()), "an empty list has other levels");
                let values: Vec<ByteArray> = lists.iter().flatten().map(|cell| cell.as_str().into()).collect();
                let repetitions: Vec<i16> =
                    lists.iter().flat_map(|list| (0..list.len()).map(|at| i16::from(at > 0))).collect();
                let levels = vec![3; values.len()];
                chunk.typed::<ByteArrayType>().write_batch(&values, Some(&levels), Some(&repetitions)).unwrap();
            }
        }
        chunk.close().unwrap();
    }
    group.close().unwrap();
    writer.close().unwrap();
    bytes
}

/// A column of texts, `name 0`, `name 1`, … of a source.
fn texts(name: &'static str, source: &str, rows: std::ops::Range<usize>) -> Column {
    let words = ["fjord", "fisk", "fjell", "by", "skog", "hav", "dal", "snø"];
    let text = |row: usize| Some(format!("{} {} {source} {name} {row}", words[row % 8], words[(row / 8) % 8]));
    Column::Text(name, rows.map(text).collect())
}

fn same(name: &'static str, value: &str, n: usize) -> Column {
    Column::Text(name, vec![Some(value.to_owned()); n])
}

fn files<const N: usize>(files: [(&str, Vec<u8>); N]) -> Files {
    files.into_iter().map(|(name, bytes)| (name.to_owned(), bytes)).collect()
}

/// Adds every data set that a built-in set is made of, and two sets of NanoBEIR.
pub(crate) fn add_all(hub: &Hub) {
    let triplets = |rows: std::ops::Range<usize>| {
        let columns = ["anchor", "positive", "negative"].map(|name| texts(name, "nli", rows.clone()));
        parquet(&columns)
    };
    hub.add(
        "datasets/Fremtind/all-nli-norwegian",
        files([
            ("README.md", b"---\nlicense: mit\n---\n# NLI\n".to_vec()),
            ("data/train-00000-of-00002.parquet", triplets(0..30)),
            ("data/train-00001-of-00002.parquet", triplets(30..60)),
            ("data/dev-00000-of-00001.parquet", triplets(60..68)),
            ("data/test-00000-of-00001.parquet", triplets(68..70)),
        ]),
    );
    let questions = |source: &str, rows: std::ops::Range<usize>| {
        parquet(&[
            texts("id", source, rows.clone()),
            texts("question", source, rows.clone()),
            texts("context", source, rows.clone()),
            same("answer", "kort svar", rows.len()),
        ])
    };
    hub.add(
        "datasets/ltg/norquad",
        files([
            ("data/train-00000-of-00001.parquet", questions("norquad", 0..10)),
            ("data/validation-00000-of-00001.parquet", questions("norquad", 10..12)),
            ("data/test-00000-of-00001.parquet", questions("norquad", 12..14)),
        ]),
    );
    let facts = |rows: std::ops::Range<usize>| {
        parquet(&[texts("question_stem", "openbook", rows.clone()), texts("fact", "openbook", rows)])
    };
    let front = "---\nconfigs:\n- config_name: nb\n  data_files:\n  - split: train\n    path: nb/train*\n  - split: test\n    path: nb/test*\n\
                 - config_name: nn\n  data_files:\n  - split: test\n    path: nn/test*\n---\n";
    hub.add(
        "datasets/ltg/noropenbookqa",
        files([
            ("README.md", front.as_bytes().to_vec()),
            ("nb/train-00000-of-00001.parquet", facts(0..10)),
            ("nb/test-00000-of-00001.parquet", facts(10..14)),
            ("nn/test-00000-of-00001.parquet", facts(14..16)),
        ]),
    );
    // a script, whose rows the Hub has converted on a branch of its own
    hub.add("datasets/alexandrainst/scandi-qa", files([("scandi-qa.py", b"# a script".to_vec())]));
    let converted = files([
        ("no/train/0000.parquet", questions("no", 0..10)),
        ("da/train/0000.parquet", questions("da", 0..5)),
        ("da/train/0001.parquet", questions("da", 5..10)),
        ("sv/train/0000.parquet", questions("sv", 0..10)),
        ("sv/test/0000.parquet", questions("sv", 10..20)),
    ]);
    let commit = "b".repeat(40);
    hub.commit("datasets/alexandrainst/scandi-qa", &commit, converted, &["refs/convert/parquet"]);
    hub.add(
        "datasets/jealk/supervised-da",
        files([(
            "data/train-00000-of-00001.parquet",
            parquet(&[texts("query", "supervised", 0..10), texts("pos", "supervised", 0..10)]),
        )]),
    );
    let pairs = |rows: std::ops::Range<usize>| {
        let labels = rows.clone().map(|row| (row % 2) as i64).collect();
        parquet(&[
            texts("sentence1", "paws", rows.clone()),
            texts("sentence2", "paws", rows),
            Column::Number("label", labels),
        ])
    };
    hub.add(
        "datasets/NbAiLab/norwegian-paws-x",
        files([
            ("nb/train-00000-of-00001.parquet", pairs(0..10)),
            ("nb/validation-00000-of-00001.parquet", pairs(10..14)),
            ("nn/train-00000-of-00001.parquet", pairs(14..16)),
        ]),
    );
    hub.add(
        "datasets/DDSC/nordic-embedding-training-data",
        files([
            ("data/train-00000-of-00002.parquet", ddsc("norwegian", 0..40)),
            ("data/train-00001-of-00002.parquet", ddsc("swedish", 40..80)),
        ]),
    );
    hub.add("datasets/sentence-transformers/NanoBEIR-en", nano_beir());
    for (name, folder) in [("ltg/norbert3-xs", "norbert3-tiny"), ("ltg/norbert4-base", "norbert4-tiny")] {
        hub.add(name, files_of(&ours("fixtures/models").join(folder)));
    }
    assert_eq!(COMMIT.len(), 40);
}

/// Rows of ddsc: two of five have a negative.
fn ddsc(language: &str, rows: std::ops::Range<usize>) -> Vec<u8> {
    let negative = |row: usize| (row % 5 < 2).then(|| format!("ddsc negative {row}"));
    let task = |row: usize| Some(if row.is_multiple_of(2) { "retrieval" } else { "classification" }.to_owned());
    parquet(&[
        texts("query", "ddsc", rows.clone()),
        texts("positive", "ddsc", rows.clone()),
        Column::Text("negative", rows.clone().map(negative).collect()),
        same("instruction", "Finn svaret", rows.len()),
        Column::Text("task", rows.clone().map(task).collect()),
        same("language", language, rows.len()),
    ])
}

/// Two sets of the joined data set, and one that no config names.
fn nano_beir() -> Files {
    let mut all = Files::new();
    for name in ["NanoMSMARCO", "NanoNFCorpus", "NanoNQ"] {
        let path = |part: &str| format!("{part}/{name}-00000-of-00001.parquet");
        let ids = |prefix: &str, n: usize| (0..n).map(|row| Some(format!("{prefix}{row}"))).collect::<Vec<_>>();
        all.insert(path("corpus"), parquet(&[Column::Text("_id", ids("d", 12)), texts("text", name, 0..12)]));
        all.insert(path("queries"), parquet(&[Column::Text("_id", ids("q", 3)), texts("text", name, 0..3)]));
        all.insert(
            path("qrels"),
            parquet(&[Column::Text("query-id", ids("q", 3)), Column::Text("corpus-id", ids("d", 3))]),
        );
    }
    all
}
