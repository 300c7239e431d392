//! Documents, queries and texts from files, one at a time.

mod lines;
mod parquet;
mod rows;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::path::Path;

use serde_json::{Map, Value};

pub(crate) use self::lines::{Compression, Lines};
pub(crate) use self::rows::json_message;
pub use self::rows::{InputRow, InputRows, RowPosition, read_rows};
use crate::Result;

/// An item of a corpus.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Document {
    /// external id, `_id` (or `id`) of its line
    pub id: String,
    /// title, often empty
    pub title: String,
    /// text without the title
    pub text: String,
    /// all other fields of its line
    pub fields: Map<String, Value>,
}

impl Document {
    /// Text for the encoder: title, a space, text; only the text if the title is empty.
    ///
    /// ```
    /// use splade_files::Document;
    ///
    /// let document = Document { title: "Oslo".into(), text: "En by.".into(), ..Document::default() };
    /// assert_eq!(document.full_text(), "Oslo En by.");
    /// ```
    #[must_use]
    pub fn full_text(&self) -> Cow<'_, str> {
        if self.title.is_empty() {
            Cow::Borrowed(&self.text)
        } else {
            Cow::Owned(format!("{} {}", self.title, self.text))
        }
    }
}

/// A search query.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Query {
    /// external id, `_id` (or `id`) of its line
    pub id: String,
    /// text of the query
    pub text: String,
}

/// A text to encode, document or query.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct InputText {
    /// external id, `_id` (or `id`) of its line
    pub id: String,
    /// text, for a line with a title [`Document::full_text`]
    pub text: String,
}

/// Reads documents of a file in any form of [`read_rows`], in its order. Memory does not grow with the file.
///
/// ```
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("corpus.jsonl");
/// std::fs::write(&path, r#"{"_id": "d1", "title": "Oslo", "text": "En by.", "year": 2024}"#).unwrap();
/// let documents = splade_files::read_documents(&path)?.collect::<splade_files::Result<Vec<_>>>()?;
/// assert_eq!(documents[0].id, "d1");
/// assert_eq!(documents[0].fields["year"], 2024);
/// # Ok::<(), splade_files::Error>(())
/// ```
///
/// # Errors
/// A file that cannot be opened; from the iterator, a line that is broken or lacks an id or a text. The first error ends it.
pub fn read_documents(path: &Path) -> Result<impl Iterator<Item = Result<Document>> + Send + use<>> {
    Ok(rows::read_item_rows(path, None)?.map(|row| document(row?)))
}

/// Reads queries of a file in any form of [`read_rows`], in its order.
///
/// # Errors
/// As [`read_documents`].
pub fn read_queries(path: &Path) -> Result<impl Iterator<Item = Result<Query>> + Send + use<>> {
    Ok(rows::read_item_rows(path, Some(&ITEM_COLUMNS))?.map(|row| {
        let Document { id, text, .. } = document(row?)?;
        Ok(Query { id, text })
    }))
}

/// Reads texts of a file in any form of [`read_rows`], in its order. If stdin does not begin with `{`, each of its
/// lines is a plain text.
///
/// # Errors
/// As [`read_documents`].
pub fn read_texts(path: &Path) -> Result<impl Iterator<Item = Result<InputText>> + Send + use<>> {
    Ok(rows::read_text_rows(path, Some(&ITEM_COLUMNS))?.map(|row| {
        let document = document(row?)?;
        let text = document.full_text().into_owned();
        Ok(InputText { id: document.id, text })
    }))
}

/// Reads ids of a file, in its order. An id is a line of a `.txt` file or of stdin that does not begin with `{`; in every
/// other form of [`read_rows`] it is the column `_id`, else `id`.
///
/// White space is part of an id; only the line end (`\n` or `\r\n`) is not. Empty lines are skipped.
///
/// ```
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("ids.txt");
/// std::fs::write(&path, "d1\r\n\n d 2 \n").unwrap();
/// let ids = splade_files::read_ids(&path)?.collect::<splade_files::Result<Vec<_>>>()?;
/// assert_eq!(ids, ["d1", " d 2 "]);
/// # Ok::<(), splade_files::Error>(())
/// ```
///
/// # Errors
/// A file that cannot be opened; from the iterator, a line that is broken or lacks an id. The first error ends it.
pub fn read_ids(path: &Path) -> Result<impl Iterator<Item = Result<String>> + Send + use<>> {
    let (rows, is_text) = rows::read_id_rows(path)?;
    Ok(rows.filter_map(move |row| {
        let id = row.and_then(|row| match is_text {
            true => row.string("text").map(|id| id.unwrap_or_default().to_owned()),
            false => {
                let (position, mut fields) = row.into_parts();
                take_id(&position, &mut fields)
            }
        });
        if is_text && id.as_ref().is_ok_and(String::is_empty) { None } else { Some(id) }
    }))
}

/// Columns of queries and texts; other columns of a parquet file are not read.
const ITEM_COLUMNS: [&str; 4] = ["_id", "id", "title", "text"];

fn document(row: InputRow) -> Result<Document> {
    let (position, mut fields) = row.into_parts();
    let id = take_id(&position, &mut fields)?;
    let title = take_string(&position, &mut fields, "title")?.unwrap_or_default();
    let text = take_string(&position, &mut fields, "text")?;
    let text = text.ok_or_else(|| position.error(rows::missing("text", fields.keys().map(String::as_str))))?;
    Ok(Document { id, title, text, fields })
}

/// Removes and returns `_id`, else `id`: a string or a whole number.
fn take_id(position: &RowPosition, fields: &mut Map<String, Value>) -> Result<String> {
    let name = if fields.contains_key("_id") { "_id" } else { "id" };
    // shift_remove: the other fields stay in the order of the file
    match fields.shift_remove(name) {
        Some(Value::String(id)) if id.is_empty() => Err(position.error(format!("empty {name}"))),
        Some(Value::String(id)) => Ok(id),
        Some(Value::Number(id)) if id.is_i64() || id.is_u64() => Ok(id.to_string()),
        Some(other) => {
            let message = format!("{name} is {}, not a string or a whole number", rows::json_type(&other));
            Err(position.error(message))
        }
        None => Err(position.error(rows::missing("_id", fields.keys().map(String::as_str)))),
    }
}

fn take_string(position: &RowPosition, fields: &mut Map<String, Value>, name: &str) -> Result<Option<String>> {
    match fields.shift_remove(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(position.error(format!("{name} is {}, not a string", rows::json_type(&other)))),
    }
}
