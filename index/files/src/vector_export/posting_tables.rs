//! [`PostingTables`]: postings and documents as Parquet tables, for engines of SQL.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parquet::basic::{Compression, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType, FloatType, Int32Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::{KeyValue, SortingColumn};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use splade_core::SparseVector;

use super::posting_lists::PostingLists;
use crate::{Error, Result};

const POSTINGS: &str = "message postings {
    required int32 term;
    optional binary token (STRING);
    required int32 document;
    required float weight;
}";
const DOCUMENTS: &str = "message documents {
    required int32 document;
    required binary id (STRING);
    optional binary title (STRING);
    optional binary text (STRING);
    optional binary fields (JSON);
}";
/// Rows of a row group of postings. A reader skips groups by the smallest and the largest term in them.
const POSTINGS_PER_GROUP: usize = 1 << 20;
/// Rows of a row group of documents.
const DOCUMENTS_PER_GROUP: usize = 1 << 14;
/// Bytes of texts after which a row group ends.
const BYTES_PER_GROUP: usize = 64 << 20;

/// Writer of a folder with `postings.parquet` and `documents.parquet`.
///
/// ```text
/// postings    term, token (null without a vocabulary), document, weight; ordered by term and document
/// documents   document (the number of its row), id, title, text, fields (JSON); ordered by document
/// ```
///
/// Postings are sorted in temporary files: memory is some 200 MB, and the longest list.
pub struct PostingTables {
    folder: PathBuf,
    notes: TableNotes,
    lists: PostingLists,
    documents: DocumentTable,
    stats: PostingTablesStats,
}

/// Keys and values that both files carry in their metadata.
pub type TableNotes = Vec<(String, String)>;

/// Document as a row of a table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DocumentRow<'a> {
    /// id
    pub id: &'a str,
    /// title, if there is one
    pub title: Option<&'a str>,
    /// text, if there is one
    pub text: Option<&'a str>,
    /// other fields as a JSON object, if there are any
    pub fields: Option<&'a str>,
}

/// Numbers of both tables.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PostingTablesStats {
    /// documents, those without postings included
    pub documents: u32,
    /// postings
    pub postings: u64,
}

impl PostingTables {
    /// Starts both tables in `folder`, which exists.
    ///
    /// # Errors
    /// A folder that cannot be written.
    pub fn new(folder: &Path, notes: TableNotes) -> Result<Self> {
        let table = Table::create(folder.join("documents.parquet"), DOCUMENTS, &[0], &notes)?;
        Ok(Self {
            folder: folder.to_owned(),
            notes,
            lists: PostingLists::in_folder(folder),
            documents: DocumentTable { table, rows: Columns::default() },
            stats: PostingTablesStats::default(),
        })
    }

    /// Adds a document with its vector.
    ///
    /// # Errors
    /// A disk that is full; a dimension or number of documents beyond 31 bits.
    pub fn add(&mut self, row: &DocumentRow<'_>, vector: &SparseVector) -> Result<()> {
        let document = self.stats.documents;
        let largest = vector.dims().last().copied().unwrap_or_default().max(document);
        if i32::try_from(largest).is_err() {
            return Err(Error::invalid(format!("{largest} does not fit in 31 bits"), ""));
        }
        self.lists.add(document, vector.iter().map(|(dim, weight)| (dim, weight.to_bits())))?;
        self.documents.add(document, row)?;
        self.stats.documents += 1;
        self.stats.postings += vector.active_dims() as u64;
        Ok(())
    }

    /// Writes the postings and ends both files. `token` names a dimension, if its name is known.
    ///
    /// # Errors
    /// A disk that is full.
    pub fn finish(self, token: impl Fn(u32) -> Option<String>) -> Result<PostingTablesStats> {
        self.documents.finish()?;
        let path = self.folder.join("postings.parquet");
        let mut table = Table::create(path.clone(), POSTINGS, &[0, 2], &self.notes)?;
        let mut lists = self.lists.finish()?;
        let (mut list, mut group) = (Vec::new(), Postings::default());
        while let Some(term) = lists.next_list(&mut list).map_err(Error::io(&path))? {
            let token = token(term).map(|token| ByteArray::from(token.into_bytes()));
            for part in list.chunks(POSTINGS_PER_GROUP) {
                group.extend(term, token.as_ref(), part);
                if group.terms.len() >= POSTINGS_PER_GROUP {
                    table.write_postings(&mut group)?;
                }
            }
        }
        table.write_postings(&mut group)?;
        table.finish()?;
        Ok(self.stats)
    }
}

/// A Parquet file that is being written.
struct Table {
    path: PathBuf,
    writer: SerializedFileWriter<File>,
}

impl Table {
    /// Creates a file whose rows ascend by the columns `sorted_by`.
    fn create(path: PathBuf, schema: &str, sorted_by: &[i32], notes: &TableNotes) -> Result<Self> {
        let file = File::create(&path).map_err(Error::io(&path))?;
        let sorting = |column: &i32| SortingColumn { column_idx: *column, descending: false, nulls_first: false };
        let notes = notes.iter().map(|(key, value)| KeyValue::new(key.clone(), value.clone()));
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_sorting_columns(Some(sorted_by.iter().map(sorting).collect()))
            .set_key_value_metadata(Some(notes.collect()))
            .build();
        let schema = parse_message_type(schema).map_err(failed(&path))?;
        let writer = SerializedFileWriter::new(file, Arc::new(schema), Arc::new(properties)).map_err(failed(&path))?;
        Ok(Self { path, writer })
    }

    /// Writes rows as a row group, if there are any, and removes them.
    fn write_postings(&mut self, rows: &mut Postings) -> Result<()> {
        if rows.terms.is_empty() {
            return Ok(());
        }
        let written = (|| {
            let mut group = self.writer.next_row_group()?;
            write_numbers(&mut group, &rows.terms)?;
            write_texts(&mut group, &rows.tokens)?;
            write_numbers(&mut group, &rows.documents)?;
            if let Some(mut column) = group.next_column()? {
                column.typed::<FloatType>().write_batch(&rows.weights, None, None)?;
                column.close()?;
            }
            group.close().map(drop)
        })();
        *rows = Postings::default();
        written.map_err(failed(&self.path))
    }

    fn write_documents(&mut self, rows: &mut Columns) -> Result<()> {
        if rows.documents.is_empty() {
            return Ok(());
        }
        let written = (|| {
            let mut group = self.writer.next_row_group()?;
            write_numbers(&mut group, &rows.documents)?;
            if let Some(mut column) = group.next_column()? {
                column.typed::<ByteArrayType>().write_batch(&rows.ids, None, None)?;
                column.close()?;
            }
            for texts in [&rows.titles, &rows.texts, &rows.fields] {
                write_texts(&mut group, texts)?;
            }
            group.close().map(drop)
        })();
        *rows = Columns::default();
        written.map_err(failed(&self.path))
    }

    fn finish(self) -> Result<()> {
        self.writer.close().map(drop).map_err(failed(&self.path))
    }
}

type Group<'a> = parquet::file::writer::SerializedRowGroupWriter<'a, File>;

fn write_numbers(group: &mut Group<'_>, numbers: &[i32]) -> Result<(), ParquetError> {
    let Some(mut column) = group.next_column()? else { return Ok(()) };
    column.typed::<Int32Type>().write_batch(numbers, None, None)?;
    column.close()
}

/// Writes an optional column of texts.
fn write_texts(group: &mut Group<'_>, texts: &[Option<ByteArray>]) -> Result<(), ParquetError> {
    let Some(mut column) = group.next_column()? else { return Ok(()) };
    let levels: Vec<i16> = texts.iter().map(|text| i16::from(text.is_some())).collect();
    let present: Vec<ByteArray> = texts.iter().flatten().cloned().collect();
    column.typed::<ByteArrayType>().write_batch(&present, Some(&levels), None)?;
    column.close()
}

/// Rows of `postings.parquet`, by column.
#[derive(Default)]
struct Postings {
    terms: Vec<i32>,
    tokens: Vec<Option<ByteArray>>,
    documents: Vec<i32>,
    weights: Vec<f32>,
}

impl Postings {
    fn extend(&mut self, term: u32, token: Option<&ByteArray>, list: &[(u32, u32)]) {
        self.terms.extend(list.iter().map(|_| term.cast_signed()));
        self.tokens.extend(list.iter().map(|_| token.cloned()));
        self.documents.extend(list.iter().map(|(document, _)| document.cast_signed()));
        self.weights.extend(list.iter().map(|(_, bits)| f32::from_bits(*bits)));
    }
}

/// `documents.parquet` and the rows that are not in it yet.
struct DocumentTable {
    table: Table,
    rows: Columns,
}

/// Rows of `documents.parquet`, by column.
#[derive(Default)]
struct Columns {
    documents: Vec<i32>,
    ids: Vec<ByteArray>,
    titles: Vec<Option<ByteArray>>,
    texts: Vec<Option<ByteArray>>,
    fields: Vec<Option<ByteArray>>,
    bytes: usize,
}

impl DocumentTable {
    fn add(&mut self, document: u32, row: &DocumentRow<'_>) -> Result<()> {
        let rows = &mut self.rows;
        rows.documents.push(document.cast_signed());
        rows.ids.push(row.id.into());
        for (column, text) in
            [(&mut rows.titles, row.title), (&mut rows.texts, row.text), (&mut rows.fields, row.fields)]
        {
            column.push(text.map(ByteArray::from));
            rows.bytes += text.map_or(0, str::len);
        }
        if rows.documents.len() >= DOCUMENTS_PER_GROUP || rows.bytes >= BYTES_PER_GROUP {
            self.table.write_documents(rows)?;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<()> {
        self.table.write_documents(&mut self.rows)?;
        self.table.finish()
    }
}

/// Returns a closure for `map_err`: only a write can fail here, for the values fit the schema.
fn failed(path: &Path) -> impl FnOnce(ParquetError) -> Error {
    let path = path.to_owned();
    move |error| {
        let error = match error {
            ParquetError::External(source) => match source.downcast::<std::io::Error>() {
                Ok(source) => *source,
                Err(source) => std::io::Error::other(source),
            },
            error => std::io::Error::other(error),
        };
        Error::io(path)(error)
    }
}
