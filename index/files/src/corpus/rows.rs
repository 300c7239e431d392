//! [`InputRows`]: one JSON object per line or row of a file, with its position.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::lines::{Compression, Lines};
use super::parquet::ParquetRows;
use crate::{Error, Result};

/// File and line of an [`InputRow`]; `Display` gives `file:line`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowPosition {
    path: Arc<Path>,
    line: usize,
}

impl RowPosition {
    /// Path of the file, `<stdin>` for stdin.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Number of the line, or of the row of a parquet file, from 1.
    #[must_use]
    pub fn line(&self) -> usize {
        self.line
    }

    /// Makes an [`Error::Line`] with this position.
    pub fn error(&self, message: impl Into<String>) -> Error {
        Error::line(&*self.path, self.line, message)
    }
}

impl fmt::Display for RowPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.path.display(), self.line)
    }
}

/// Values by column name, and their position in a file.
#[derive(Debug, Clone, PartialEq)]
pub struct InputRow {
    position: RowPosition,
    value: Map<String, Value>,
}

impl InputRow {
    /// Position of the row.
    #[must_use]
    pub fn position(&self) -> &RowPosition {
        &self.position
    }

    /// Values by column name.
    #[must_use]
    pub fn value(&self) -> &Map<String, Value> {
        &self.value
    }

    /// Splits the row into position and values.
    #[must_use]
    pub fn into_parts(self) -> (RowPosition, Map<String, Value>) {
        (self.position, self.value)
    }

    /// String in the column `name`; none if the column is missing or null.
    ///
    /// # Errors
    /// A value that is not a string.
    pub fn string(&self, name: &str) -> Result<Option<&str>> {
        match self.value.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(self.position.error(format!("{name} is {}, not a string", json_type(other)))),
        }
    }
}

/// Name of the JSON type of a value, with its article.
pub(super) fn json_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// Iterator over the rows of a file, made by [`read_rows`]. Ends after the first error.
pub struct InputRows {
    format: RowFormat,
    ended: bool,
}

enum RowFormat {
    Json(Lines),
    Tsv { lines: Lines, columns: Vec<String> },
    Text(Lines),
    Parquet(ParquetRows),
}

/// Reads the rows of a file with any columns. Memory does not grow with the file.
///
/// The file name decides the form: `.jsonl` (one object per line, empty lines are skipped), `.tsv` (a header line, then
/// strings without quoting), `.txt` (each line is a row `{"_id": line number from 0, "text": line}`), each also with
/// `.gz` or `.zst`; `.parquet`; `-` is stdin, as `.jsonl`.
///
/// Parquet columns of bytes are text if they are UTF-8. Other bytes are an error, as are intervals, BSON, geometry and
/// variants.
///
/// ```
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("nli.tsv");
/// std::fs::write(&path, "anchor\tpositive\nEn katt\tEt dyr\n").unwrap();
/// for row in splade_files::read_rows(&path)? {
///     let row = row?;
///     assert_eq!(row.string("positive")?, Some("Et dyr"));
///     assert_eq!(row.position().line(), 2);
/// }
/// # Ok::<(), splade_files::Error>(())
/// ```
///
/// # Errors
/// A file that cannot be opened, is a git-lfs pointer, or has a name with another ending; from the iterator, a broken line.
pub fn read_rows(path: &Path) -> Result<InputRows> {
    if path == Path::new("-") {
        return Ok(InputRows::new(RowFormat::Json(Lines::stdin())));
    }
    Ok(InputRows::new(open(path, None)?))
}

/// Reads rows with an id and a text. A file with named columns must name both, even without rows. With `only`, only these
/// columns of a parquet file are read.
pub(super) fn read_item_rows(path: &Path, only: Option<&[&str]>) -> Result<InputRows> {
    if path == Path::new("-") {
        return read_rows(path);
    }
    let format = open(path, only)?;
    match &format {
        RowFormat::Tsv { lines, columns } => {
            let names: Vec<&str> = columns.iter().map(String::as_str).collect();
            let why = |why| format!("{why}; the first line of a .tsv file names its columns");
            expect_columns(&names).map_err(|message| position(lines).error(why(message)))?;
        }
        RowFormat::Parquet(rows) => {
            let names: Vec<&str> = rows.columns().collect();
            expect_columns(&names).map_err(|message| Error::file(path, message))?;
        }
        RowFormat::Json(_) | RowFormat::Text(_) => {}
    }
    Ok(InputRows::new(format))
}

/// Reads rows as [`read_item_rows`] does. If the first character of stdin is not `{`, its lines are plain texts.
pub(super) fn read_text_rows(path: &Path, only: Option<&[&str]>) -> Result<InputRows> {
    if path != Path::new("-") {
        return read_item_rows(path, only);
    }
    Ok(InputRows::new(text_or_json()?))
}

/// Reads rows of a file of ids. Returns true with them if each row is a line of text that is an id.
pub(super) fn read_id_rows(path: &Path) -> Result<(InputRows, bool)> {
    let format = if path == Path::new("-") { text_or_json()? } else { open(path, None)? };
    let is_text = matches!(format, RowFormat::Text(_));
    Ok((InputRows::new(format), is_text))
}

fn text_or_json() -> Result<RowFormat> {
    let mut lines = Lines::stdin();
    let json = lines.peek()? == Some(b'{');
    Ok(if json { RowFormat::Json(lines) } else { RowFormat::Text(lines) })
}

fn open(path: &Path, only: Option<&[&str]>) -> Result<RowFormat> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let (compression, stem) = Compression::split(&name);
    if name.ends_with(".parquet") {
        Ok(RowFormat::Parquet(ParquetRows::open(path, only)?))
    } else if [".jsonl", ".ndjson"].iter().any(|ending| stem.ends_with(ending)) {
        Ok(RowFormat::Json(Lines::open(path, compression)?))
    } else if stem.ends_with(".tsv") {
        let mut lines = Lines::open(path, compression)?;
        let columns = tsv_header(&mut lines)?;
        Ok(RowFormat::Tsv { lines, columns })
    } else if stem.ends_with(".txt") {
        Ok(RowFormat::Text(Lines::open(path, compression)?))
    } else {
        let message = "unknown kind of file, expected .jsonl, .tsv or .txt (also with .gz or .zst), or .parquet";
        Err(Error::file(path, message))
    }
}

fn expect_columns(names: &[&str]) -> Result<(), String> {
    if !names.contains(&"_id") && !names.contains(&"id") {
        return Err(missing("_id", names.iter().copied()));
    }
    if names.contains(&"text") { Ok(()) } else { Err(missing("text", names.iter().copied())) }
}

/// Message for a missing column.
pub(super) fn missing<'a>(name: &str, found: impl Iterator<Item = &'a str>) -> String {
    let found: Vec<&str> = found.take(8).collect();
    match found.as_slice() {
        [] => format!("missing {name}"),
        found => format!("missing {name}, found only {}", found.join(", ")),
    }
}

impl InputRows {
    fn new(format: RowFormat) -> Self {
        Self { format, ended: false }
    }

    fn read(&mut self) -> Result<Option<InputRow>> {
        match &mut self.format {
            RowFormat::Json(lines) => json_row(lines),
            RowFormat::Tsv { lines, columns } => tsv_row(lines, columns),
            RowFormat::Text(lines) => text_row(lines),
            RowFormat::Parquet(rows) => {
                let Some(value) = rows.read()? else { return Ok(None) };
                let position = RowPosition { path: rows.path().clone(), line: rows.row() };
                Ok(Some(InputRow { position, value }))
            }
        }
    }
}

impl fmt::Debug for InputRows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InputRows").field("ended", &self.ended).finish_non_exhaustive()
    }
}

impl Iterator for InputRows {
    type Item = Result<InputRow>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let row = self.read().transpose();
        self.ended = !matches!(row, Some(Ok(_)));
        row
    }
}

fn position(lines: &Lines) -> RowPosition {
    RowPosition { path: lines.path().clone(), line: lines.line() }
}

fn json_row(lines: &mut Lines) -> Result<Option<InputRow>> {
    loop {
        let parsed = match lines.next_line()? {
            None => return Ok(None),
            Some(line) if line.trim().is_empty() => continue,
            Some(line) => (serde_json::from_str::<Value>(line), long_integer(line).map(str::to_owned)),
        };
        let position = position(lines);
        return match parsed {
            (Ok(_), Some(number)) => {
                Err(position.error(format!("the integer {number} has more than 64 bits: write it as a string")))
            }
            (parsed, _) => match parsed {
                Ok(Value::Object(value)) => Ok(Some(InputRow { position, value })),
                Ok(other) => Err(position.error(format!("expected a JSON object, found {}", json_type(&other)))),
                Err(error) => Err(position.error(json_message(&error))),
            },
        };
    }
}

/// First integer in a line of JSON that fits neither i64 nor u64; the parser would lose its digits.
fn long_integer(line: &str) -> Option<&str> {
    const SHORTEST: usize = 19;
    let bytes = line.as_bytes();
    // long runs of digits are rare in texts: only a line with one is searched
    if bytes.chunk_by(|a, b| a.is_ascii_digit() && b.is_ascii_digit()).all(|run| run.len() < SHORTEST) {
        return None;
    }
    let (mut at, mut in_string) = (0, false);
    while at < bytes.len() {
        match bytes[at] {
            b'\\' if in_string => at += 1,
            b'"' => in_string = !in_string,
            b'-' | b'0'..=b'9' if !in_string => {
                let is_part = |byte: &u8| byte.is_ascii_digit() || b"+-.eE".contains(byte);
                let length = bytes[at..].iter().take_while(|byte| is_part(byte)).count();
                let number = &line[at..at + length];
                let is_integer = number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
                if is_integer && number.parse::<i64>().is_err() && number.parse::<u64>().is_err() {
                    return Some(number);
                }
                at += length;
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    None
}

/// Message of serde_json for one line of a file, without its "at line 1".
pub(crate) fn json_message(error: &serde_json::Error) -> String {
    let full = error.to_string();
    let what = full.rsplit_once(" at line ").map_or(full.as_str(), |(what, _)| what);
    let broken = if error.is_data() { "" } else { "broken JSON: " };
    match error.column() {
        0 => format!("{broken}{what}"),
        column => format!("{broken}{what} (column {column})"),
    }
}

fn tsv_header(lines: &mut Lines) -> Result<Vec<String>> {
    let columns: Vec<String> = match lines.next_line()? {
        Some(line) => line.split('\t').map(|name| name.trim().to_owned()).collect(),
        None => return Err(Error::file(&**lines.path(), "empty: expected a header line with the column names")),
    };
    let repeated = columns.iter().enumerate().find(|(at, name)| columns[..*at].contains(name));
    match repeated {
        Some((_, name)) => Err(position(lines).error(format!("the header names column '{name}' twice"))),
        None => Ok(columns),
    }
}

fn tsv_row(lines: &mut Lines, columns: &[String]) -> Result<Option<InputRow>> {
    loop {
        let values: Vec<String> = match lines.next_line()? {
            None => return Ok(None),
            Some("") => continue,
            Some(line) => line.split('\t').map(str::to_owned).collect(),
        };
        let position = position(lines);
        if values.len() != columns.len() {
            let message = format!("{} columns, but the header names {}", values.len(), columns.len());
            return Err(position.error(message));
        }
        let value = columns.iter().cloned().zip(values.into_iter().map(Value::String)).collect();
        return Ok(Some(InputRow { position, value }));
    }
}

fn text_row(lines: &mut Lines) -> Result<Option<InputRow>> {
    let Some(line) = lines.next_line()? else { return Ok(None) };
    let text = Value::String(line.to_owned());
    let position = position(lines);
    let mut value = Map::new();
    value.insert("_id".into(), Value::from(position.line - 1));
    value.insert("text".into(), text);
    Ok(Some(InputRow { position, value }))
}
