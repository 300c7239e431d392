//! A data folder as the Hub has it, in parquet, from files to scores.

use std::path::Path;
use std::sync::Arc;

use parquet::basic::{Compression, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use splade_core::{Encoder, SparseVector};
use splade_eval::{Error, ExactSearcher, Task, evaluate};

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
struct Letters;

impl Encoder for Letters {
    fn dimensions(&self) -> usize {
        256
    }

    fn encode(&self, texts: &[&str]) -> splade_core::Result<Vec<SparseVector>> {
        let letters =
            |text: &&str| text.bytes().map(|byte| (u32::from(byte), 1.0)).collect::<std::collections::BTreeMap<_, _>>();
        Ok(texts.iter().map(|text| SparseVector::from_pairs(letters(text)).unwrap()).collect())
    }
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

    let task = &Task::open(&task, None).unwrap()[0];
    assert_eq!((task.data.identity.name.as_str(), task.data.identity.split.as_str()), ("SweFaqRetrieval", "test"));
    let mut documents = Vec::new();
    let encoded = task.encode(&Letters, &Letters, |document, vector| -> Result<(), Error> {
        documents.push((document.id, vector));
        Ok(())
    });
    let encoded = encoded.unwrap();
    assert_eq!((encoded.queries().len(), documents.len(), encoded.missing_relevant()), (2, 3, 0));
    let evaluation = evaluate(&ExactSearcher::new(documents).unwrap(), &encoded).unwrap();
    assert_eq!(evaluation.mteb.get("ndcg_at_1"), Some(1.0));
}

/// Every form of a data folder's corpus is read once and by one reader, so JSON lines stand for all.
#[test]
fn a_corpus_that_cannot_be_used_is_an_error() {
    let cases = [
        (
            "{\"_id\": \"d1\", \"text\": \"a\"}\n{\"_id\": \"d2\", \"text\": \"b\"}\n{\"_id\": \"d1\", \"text\": \"c\"}\n",
            "corpus.jsonl:3: duplicate document id d1",
        ),
        ("", "toy: its corpus has no documents"),
    ];
    for (corpus, wanted) in cases {
        let folder = tempfile::tempdir().unwrap();
        let toy = folder.path().join("toy");
        std::fs::create_dir(&toy).unwrap();
        let files = [
            ("corpus.jsonl", corpus),
            ("queries.jsonl", "{\"_id\": \"q\", \"text\": \"a\"}\n"),
            ("qrels.tsv", "q\td1\t1\nq\td9\t1\n"),
        ];
        files.iter().for_each(|(name, text)| std::fs::write(toy.join(name), text).unwrap());
        let task = &Task::open(&toy, None).unwrap()[0];
        let error = task.encode(&Letters, &Letters, |_, _| -> Result<(), Error> { Ok(()) }).unwrap_err();
        assert!(error.to_string().ends_with(wanted), "{error}");
    }
}
