//! Rows of a parquet file, through the row reader of the parquet crate.

use std::path::Path;
use std::sync::Arc;

use parquet::basic::{ConvertedType, LogicalType, Type as PhysicalType};
use parquet::data_type::ByteArray;
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::reader::RowIter;
use parquet::record::{Field, Row};
use parquet::schema::types::{BasicTypeInfo, Type};
use serde_json::{Map, Number, Value};

use crate::read::open_file;
use crate::{Error, Result};

/// One JSON object per row: strings, numbers, booleans, lists, groups and nulls as their JSON forms.
///
/// Columns of bytes are text if they are UTF-8, with or without an annotation. Other bytes are an error that names file, row
/// and column.
pub(super) struct ParquetRows {
    path: Arc<Path>,
    rows: RowIter<'static>,
    row: usize,
    /// by position in the row
    columns: Vec<Column>,
}

/// Top-level column that is read.
#[derive(Debug, Clone, PartialEq)]
struct Column {
    name: String,
    form: Form,
}

/// Meaning of the bytes in a column.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Form {
    /// annotated as text (string, enum or JSON), or without any bytes
    Text,
    /// without annotation; text if it is valid
    Bytes,
    Uuid,
}

impl ParquetRows {
    /// Opens a file. Reads only the columns `only`, if the file has the last of them.
    pub(super) fn open(path: &Path, only: Option<&[&str]>) -> Result<Self> {
        let file = open_file(path)?;
        let broken = |why: String| Error::file(path, format!("not a readable parquet file: {why}"));
        let reader = guarded(|| SerializedFileReader::new(file)).map_err(broken)?;
        let schema = reader.metadata().file_metadata().schema_descr_ptr();
        let fields = schema.root_schema().get_fields();
        // without the last column an error follows, which lists all columns
        let only = only.filter(|only| fields.iter().any(|field| only.last() == Some(&field.name())));
        let mut columns = Vec::new();
        let mut projected = Vec::new();
        for field in fields.iter().filter(|field| only.is_none_or(|only| only.contains(&field.name()))) {
            if let Some(what) = unread(field, true) {
                return Err(Error::file(path, format!("column {} holds {what}, which is not read", field.name())));
            }
            columns.push(Column { name: field.name().to_owned(), form: form(field) });
            projected.push(field.clone());
        }
        let projected = Type::group_type_builder(schema.root_schema().name()).with_fields(projected).build();
        let projected = projected.map_err(|error| broken(error.to_string()))?;
        let rows = guarded(|| RowIter::from_file_into(Box::new(reader)).project(Some(projected))).map_err(broken)?;
        Ok(Self { path: path.into(), rows, row: 0, columns })
    }

    pub(super) fn path(&self) -> &Arc<Path> {
        &self.path
    }

    /// Names of the columns that are read.
    pub(super) fn columns(&self) -> impl Iterator<Item = &str> {
        self.columns.iter().map(|column| column.name.as_str())
    }

    /// Number of the last row read, from 1.
    pub(super) fn row(&self) -> usize {
        self.row
    }

    pub(super) fn read(&mut self) -> Result<Option<Map<String, Value>>> {
        self.row += 1;
        let (rows, columns) = (&mut self.rows, &self.columns);
        let wrong = |message: String| Error::line(&*self.path, self.row, message);
        match guarded(|| Ok(rows.next().transpose()?.map(|row| values(row, columns)))) {
            Ok(None) => Ok(None),
            Ok(Some(Ok(values))) => Ok(Some(values)),
            Ok(Some(Err(why))) => Err(wrong(why)),
            Err(why) => Err(wrong(match broken_column(&self.path, columns, self.row) {
                Some(column) => format!("column {column} holds text that is not UTF-8, or damaged data"),
                None => format!("broken parquet data: {why}"),
            })),
        }
    }
}

/// Values of a row by column, or an error about the first that JSON cannot express.
fn values(row: Row, columns: &[Column]) -> Result<Map<String, Value>, String> {
    let values = row.into_columns().into_iter().zip(columns).map(|((name, field), column)| {
        match json_value(&field, column.form) {
            Ok(value) => Ok((name, value)),
            Err(why) => Err(format!("column {} holds {why}", column.name)),
        }
    });
    values.collect()
}

/// Description of a column that cannot be text, a number, a list or a group of them.
fn unread(field: &Type, is_top: bool) -> Option<&'static str> {
    if field.is_group() {
        return field.get_fields().iter().find_map(|field| unread(field, false));
    }
    let info = field.get_basic_info();
    match (info.converted_type(), info.logical_type_ref()) {
        (ConvertedType::INTERVAL, _) => Some("an interval"),
        (ConvertedType::BSON, _) | (_, Some(LogicalType::Bson)) => Some("BSON"),
        (_, Some(LogicalType::Uuid)) if !is_top => Some("UUIDs inside lists or groups"),
        (_, Some(LogicalType::Geometry { .. } | LogicalType::Geography { .. })) => Some("geometry"),
        (_, Some(LogicalType::Variant { .. })) => Some("variants"),
        _ => None,
    }
}

fn form(field: &Type) -> Form {
    if field.is_group() {
        let forms: Vec<Form> = field.get_fields().iter().map(|field| form(field)).collect();
        return if forms.contains(&Form::Bytes) { Form::Bytes } else { Form::Text };
    }
    let info = field.get_basic_info();
    match field.get_physical_type() {
        _ if info.logical_type_ref() == Some(&LogicalType::Uuid) => Form::Uuid,
        PhysicalType::BYTE_ARRAY | PhysicalType::FIXED_LEN_BYTE_ARRAY if !is_text(info) => Form::Bytes,
        _ => Form::Text,
    }
}

fn is_text(info: &BasicTypeInfo) -> bool {
    matches!(info.converted_type(), ConvertedType::UTF8 | ConvertedType::ENUM | ConvertedType::JSON)
        || matches!(info.logical_type_ref(), Some(LogicalType::String | LogicalType::Enum | LogicalType::Json))
}

/// Name of the first column that cannot be read up to the row `row`. Errors of the row reader do not have it.
fn broken_column(path: &Path, columns: &[Column], row: usize) -> Option<String> {
    let fails = |column: &&Column| {
        let Ok(mut rows) = ParquetRows::open(path, Some(&[column.name.as_str()])) else { return true };
        (1..row).any(|_| !matches!(guarded(|| rows.rows.next().transpose()), Ok(Some(_))))
            || guarded(|| rows.rows.next().transpose()).is_err()
    };
    columns.iter().find(fails).map(|column| column.name.clone())
}

/// A value as JSON, or a description of a value that JSON cannot express.
fn json_value(field: &Field, form: Form) -> Result<Value, String> {
    Ok(match field {
        Field::Bytes(bytes) => Value::String(match form {
            Form::Uuid => uuid(bytes.data())?,
            Form::Text | Form::Bytes => text(bytes, form)?,
        }),
        Field::Group(row) => {
            let values = row.get_column_iter().map(|(name, field)| Ok((name.clone(), json_value(field, form)?)));
            Value::Object(values.collect::<Result<_, String>>()?)
        }
        Field::ListInternal(list) => {
            Value::Array(list.elements().iter().map(|field| json_value(field, form)).collect::<Result<_, _>>()?)
        }
        Field::MapInternal(map) => {
            let entries = map.entries().iter().map(|(key, value)| {
                let key = match json_value(key, form)? {
                    Value::String(key) => key,
                    other => other.to_string(),
                };
                Ok((key, json_value(value, form)?))
            });
            Value::Object(entries.collect::<Result<_, String>>()?)
        }
        // the shortest decimal of the f32, not the digits of the nearest f64
        Field::Float(value) => number(value.to_string().parse().unwrap_or(f64::from(*value))),
        Field::Float16(value) => number(value.to_string().parse().unwrap_or(f64::from(*value))),
        Field::Date(days) if days.unsigned_abs() > LAST_DAY => return Err("a date out of range".to_owned()),
        Field::TimestampMillis(value) if value.unsigned_abs() / 86_400_000 > u64::from(LAST_DAY) => {
            return Err("a time out of range".to_owned());
        }
        Field::TimestampMicros(value) if value.unsigned_abs() / 86_400_000_000 > u64::from(LAST_DAY) => {
            return Err("a time out of range".to_owned());
        }
        other => other.to_json_value(),
    })
}

/// Largest distance from 1970 in days that the calendar of the parquet crate supports.
const LAST_DAY: u32 = 365 * 250_000;

fn number(value: f64) -> Value {
    Number::from_f64(value).map_or(Value::Null, Value::Number)
}

fn text(bytes: &ByteArray, form: Form) -> Result<String, String> {
    let bytes = bytes.data();
    let text = std::str::from_utf8(bytes).map_err(|error| {
        format!("bytes that are not UTF-8 text, from byte {} of the value", error.valid_up_to() + 1)
    })?;
    // numbers and padding are also valid UTF-8
    match text.find('\0') {
        Some(at) if form == Form::Bytes => Err(format!("bytes that are not text: byte {} of the value is 0", at + 1)),
        _ => Ok(text.to_owned()),
    }
}

/// UUID with hyphens.
fn uuid(bytes: &[u8]) -> Result<String, String> {
    if bytes.len() != 16 {
        return Err(format!("a UUID of {} bytes", bytes.len()));
    }
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]))
}

/// Calls the row reader, which panics on some damaged files: the panic becomes an error, and
/// [`in_guarded_call`](splade_core::in_guarded_call) is true meanwhile.
fn guarded<T>(read: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, String> {
    match splade_core::guarded(read) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(one_line(&error.to_string())),
        Err(_) => Err("the file contradicts itself".into()),
    }
}

fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}
