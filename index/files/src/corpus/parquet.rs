//! Rows of a parquet file, through the row reader of the parquet crate.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use parquet::basic::ConvertedType;
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::reader::RowIter;
use serde_json::{Map, Value};

use crate::{Error, Result};

/// One JSON object per row; strings, numbers, booleans, lists, groups and nulls as their JSON forms.
pub(super) struct ParquetRows {
    path: Arc<Path>,
    rows: RowIter<'static>,
    row: usize,
}

impl ParquetRows {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(Error::io(path))?;
        let broken = |why: String| Error::file(path, format!("not a readable parquet file: {why}"));
        let reader = guarded(|| SerializedFileReader::new(file)).map_err(broken)?;
        let schema = reader.metadata().file_metadata().schema_descr_ptr();
        let unread = schema.columns().iter().find(|column| column.converted_type() == ConvertedType::INTERVAL);
        if let Some(column) = unread {
            return Err(Error::file(path, format!("column {} is an interval, which is not read", column.name())));
        }
        Ok(Self { path: path.into(), rows: RowIter::from_file_into(Box::new(reader)), row: 0 })
    }

    pub(super) fn path(&self) -> &Arc<Path> {
        &self.path
    }

    /// The number of the row read last, from 1.
    pub(super) fn row(&self) -> usize {
        self.row
    }

    pub(super) fn read(&mut self) -> Result<Option<Map<String, Value>>> {
        self.row += 1;
        let rows = &mut self.rows;
        match guarded(|| rows.next().transpose()) {
            Ok(None) => Ok(None),
            Ok(Some(row)) => match row.to_json_value() {
                Value::Object(value) => Ok(Some(value)),
                other => Err(Error::line(&*self.path, self.row, format!("expected an object, found {other}"))),
            },
            Err(why) => Err(Error::line(&*self.path, self.row, format!("broken parquet data: {why}"))),
        }
    }
}

/// The row reader asserts what a sound file keeps to; a damaged one must be an error here, not a panic.
fn guarded<T>(read: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(read)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(one_line(&error.to_string())),
        Err(_) => Err("the file contradicts itself".into()),
    }
}

fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}
