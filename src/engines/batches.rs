//! [`Batches`]: records in groups of limited size.

use anyhow::Result;

use super::Record;

/// Records in batches of up to `count` records and about `bytes` bytes; a larger record is a batch of its own. The first error
/// ends them, after the records before it.
pub(super) struct Batches<I> {
    records: I,
    count: usize,
    bytes: usize,
    /// record or error that begins the next batch
    held: Option<Result<Record>>,
}

impl<I: Iterator<Item = Result<Record>>> Batches<I> {
    /// Batches of `records`.
    pub(super) fn new(records: I, count: usize, bytes: usize) -> Self {
        Self { records, count, bytes, held: None }
    }
}

impl<I: Iterator<Item = Result<Record>>> Iterator for Batches<I> {
    type Item = Result<Vec<Record>>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        while batch.len() < self.count {
            match self.held.take().or_else(|| self.records.next()) {
                None => break,
                Some(Err(error)) if batch.is_empty() => return Some(Err(error)),
                Some(Err(error)) => {
                    self.held = Some(Err(error));
                    break;
                }
                Some(Ok(record)) => {
                    bytes += record.size();
                    if !batch.is_empty() && bytes > self.bytes {
                        self.held = Some(Ok(record));
                        break;
                    }
                    batch.push(record);
                }
            }
        }
        (!batch.is_empty()).then_some(Ok(batch))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: usize, length: usize) -> Result<Record> {
        Ok(Record {
            id: id.to_string(),
            title: None,
            text: "x".repeat(length),
            fields: serde_json::Map::new(),
            vector: splade_core::SparseVector::default(),
            words: None,
            digest: String::new(),
        })
    }

    fn sizes(records: Vec<Result<Record>>) -> Vec<Option<usize>> {
        Batches::new(records.into_iter(), 3, 1300).map(|batch| batch.ok().map(|batch| batch.len())).collect()
    }

    #[test]
    fn batches_are_limited_by_count_and_bytes() {
        assert_eq!(sizes(vec![]), []);
        assert_eq!(sizes((0..7).map(|id| record(id, 10)).collect()), [Some(3), Some(3), Some(1)]);
        let lengths = [400, 400, 400, 5000, 10, 10];
        assert_eq!(
            sizes((0..).zip(lengths).map(|(id, length)| record(id, length)).collect()),
            [Some(2), Some(1), Some(1), Some(2)]
        );
    }

    #[test]
    fn records_before_an_error_are_kept() {
        let records = vec![record(0, 1), Err(anyhow::anyhow!("broken")), record(2, 1)];
        assert_eq!(sizes(records), [Some(1), None, Some(1)]);
    }
}
