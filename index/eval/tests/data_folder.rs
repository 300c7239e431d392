//! A data folder as the Hub has it, in parquet, from files to scores.

use std::path::Path;
use std::sync::Arc;

use parquet::basic::{Compression, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use splade_core::SparseVector;
use splade_eval::Result;
use splade_eval::{TaskData, evaluate};

enum Column<'a> {
    Text(&'a str, &'a [&'a str]),
    Number(&'a str, &'a [i64]),
}

fn write_parquet(path: &Path, columns: &[Column<'_>]) {
    let declare = |column: &Column<'_>| match column {
        Column::Text(name, _) => format!("required binary {name} (UTF8);"),
        Column::Number(name, _) => format!("required int64 {name};"),
    };
    let schema = format!("message schema {{ {} }}", columns.iter().map(declare).collect::<String>());
    let compression = Compression::ZSTD(ZstdLevel::default());
    let properties = Arc::new(WriterProperties::builder().set_compression(compression).build());
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let file = std::fs::File::create(path).unwrap();
    let schema = Arc::new(parse_message_type(&schema).unwrap());
    let mut writer = SerializedFileWriter::new(file, schema, properties).unwrap();
    let mut group = writer.next_row_group().unwrap();
    for column in columns {
        let mut out = group.next_column().unwrap().unwrap();
        match column {
            Column::Text(_, texts) => {
                let texts: Vec<ByteArray> = texts.iter().map(|text| ByteArray::from(*text)).collect();
                out.typed::<ByteArrayType>().write_batch(&texts, None, None).unwrap();
            }
            Column::Number(_, numbers) => {
                out.typed::<Int64Type>().write_batch(numbers, None, None).unwrap();
            }
        }
        out.close().unwrap();
    }
    group.close().unwrap();
    writer.close().unwrap();
}

/// Letters as dimensions: enough of an encoder to rank.
fn encode(text: &str) -> SparseVector {
    let mut dims: Vec<u32> = text.bytes().map(u32::from).collect();
    dims.sort_unstable();
    dims.dedup();
    SparseVector::from_pairs(dims.into_iter().map(|dim| (dim, 1.0))).unwrap()
}

#[test]
fn a_parquet_set_of_the_hub_is_evaluated() {
    use Column::{Number, Text};
    let folder = tempfile::tempdir().unwrap();
    let task = folder.path().join("SweFaqRetrieval");
    write_parquet(
        &task.join("corpus/test-00000-of-00002.parquet"),
        &[Text("_id", &["d1", "d2"]), Text("title", &["", "x"]), Text("text", &["ab", "yz"])],
    );
    write_parquet(
        &task.join("corpus/test-00001-of-00002.parquet"),
        &[Text("_id", &["d3"]), Text("title", &[""]), Text("text", &["mn"])],
    );
    write_parquet(
        &task.join("queries/test-00000-of-00001.parquet"),
        &[Text("_id", &["q1", "q2", "q3"]), Text("text", &["a", "x", "m"])],
    );
    write_parquet(
        &task.join("data/test-00000-of-00001.parquet"),
        &[Text("query-id", &["q1", "q2", "q2"]), Text("corpus-id", &["d1", "d2", "d3"]), Number("score", &[1, 1, 0])],
    );

    let task = &TaskData::open(&task, None).unwrap()[0];
    assert_eq!((task.name.as_str(), task.split.as_str()), ("SweFaqRetrieval", "test"));
    let qrels = task.qrels().unwrap();
    let queries = task.queries(&qrels).unwrap().into_iter().map(|query| (query.id, encode(&query.text)));
    let queries: Vec<(String, SparseVector)> = queries.collect();
    let documents = task.documents().map(|document| {
        let document = document?;
        Ok((document.id.clone(), encode(&document.full_text())))
    });
    let documents = documents.collect::<Result<Vec<_>>>().unwrap();
    assert_eq!((queries.len(), documents.len()), (2, 3));
    let evaluation = evaluate(&queries, documents, &qrels, 256).unwrap();
    assert_eq!(evaluation.mteb.get("ndcg_at_1"), Some(1.0));
}
