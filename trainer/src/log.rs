//! What a run reports while it learns: scalars for TensorBoard, lines of JSON, and the history kept in checkpoints.
//!
//! No kept crate writes event files, so the few bytes of their format are here: records with masked CRC-32C sums around
//! protobuf messages of three fields.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};

use crate::loss::{LossValues, RegularizerWeights};
use crate::{Error, Result};

/// A named number of a log line.
pub type Scalar = (String, f64);

/// Writes an event file that TensorBoard reads.
#[derive(Debug)]
pub struct EventWriter {
    path: PathBuf,
    file: BufWriter<File>,
}

impl EventWriter {
    /// Makes a new event file in `folder`, which is made too. A resumed run writes a further file; TensorBoard joins them.
    ///
    /// # Errors
    /// The folder or file cannot be written.
    pub fn create(folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let (path, file) = new_file(folder, now.as_secs())?;
        let mut writer = Self { path, file: BufWriter::new(file) };
        writer.record(&event(now.as_secs_f64(), 0, &bytes_field(3, b"brain.Event:2")))?;
        writer.flush()?;
        Ok(writer)
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds a scalar under `tag` at an optimizer step.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn scalar(&mut self, tag: &str, step: usize, value: f64) -> Result<()> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut scalar = bytes_field(1, tag.as_bytes());
        scalar.push(2 << 3 | 5);
        scalar.extend((value as f32).to_le_bytes());
        let summary = bytes_field(1, &scalar);
        self.record(&event(now.as_secs_f64(), step as u64, &bytes_field(5, &summary)))
    }

    /// Hands everything to the system, so that TensorBoard sees it.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn flush(&mut self) -> Result<()> {
        self.file.flush().map_err(Error::io(&self.path))
    }

    fn record(&mut self, payload: &[u8]) -> Result<()> {
        let length = (payload.len() as u64).to_le_bytes();
        let sum_of_length = masked_crc32c(&length).to_le_bytes();
        let sum_of_payload = masked_crc32c(payload).to_le_bytes();
        let parts: [&[u8]; 4] = [&length, &sum_of_length, payload, &sum_of_payload];
        parts.iter().try_for_each(|part| self.file.write_all(part)).map_err(Error::io(&self.path))
    }
}

/// The first of the usual names that is free: `events.out.tfevents.<seconds>.splade.<process>.<n>`.
fn new_file(folder: &Path, seconds: u64) -> Result<(PathBuf, File)> {
    let process = std::process::id();
    let mut number = 0;
    loop {
        let path = folder.join(format!("events.out.tfevents.{seconds}.splade.{process}.{number}"));
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(file) => return Ok((path, file)),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => number += 1,
            Err(error) => return Err(Error::io(path)(error)),
        }
    }
}

/// Event { wall_time: 1, step: 2, … }
fn event(wall_time: f64, step: u64, rest: &[u8]) -> Vec<u8> {
    let mut message = vec![1 << 3 | 1];
    message.extend(wall_time.to_le_bytes());
    message.push(2 << 3);
    varint(step, &mut message);
    message.extend(rest);
    message
}

/// A protobuf field of bytes, text or a message.
fn bytes_field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut field = vec![number << 3 | 2];
    varint(bytes.len() as u64, &mut field);
    field.extend(bytes);
    field
}

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// TFRecord's sum: masked, since a sum of data that holds sums would be weak.
fn masked_crc32c(bytes: &[u8]) -> u32 {
    crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32 with the Castagnoli polynomial, bit-reversed.
fn crc32c(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut byte = 0;
        while byte < 256 {
            let mut sum = byte as u32;
            let mut bit = 0;
            while bit < 8 {
                sum = if sum & 1 == 1 { (sum >> 1) ^ 0x82f6_3b78 } else { sum >> 1 };
                bit += 1;
            }
            table[byte] = sum;
            byte += 1;
        }
        table
    };
    !bytes.iter().fold(!0, |sum, &byte| (sum >> 8) ^ TABLE[((sum ^ u32::from(byte)) & 0xff) as usize])
}

/// The tag of a key: `eval_x` is `eval/x`, `test_x` is `test/x`, all others are `train/x`.
fn tag(key: &str) -> String {
    for group in ["eval", "test"] {
        if let Some(name) = key.strip_prefix(group).and_then(|rest| rest.strip_prefix('_')) {
            return format!("{group}/{name}");
        }
    }
    format!("train/{key}")
}

/// Where a run's lines go: event file, `log.jsonl`, and the history.
#[derive(Debug)]
pub struct RunLog {
    events: Option<EventWriter>,
    lines: PathBuf,
    history: Vec<Map<String, Value>>,
}

impl RunLog {
    /// Appends lines to the file `lines`; `history` is that of the checkpoint a run goes on from.
    ///
    /// # Errors
    /// The folder of `lines` cannot be made.
    pub fn new(events: Option<EventWriter>, lines: PathBuf, history: Vec<Map<String, Value>>) -> Result<Self> {
        if let Some(folder) = lines.parent() {
            std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
        }
        Ok(Self { events, lines, history })
    }

    /// What trainer_state.json keeps.
    #[must_use]
    pub fn history(&self) -> &[Map<String, Value>] {
        &self.history
    }

    /// Logs one line: `scalars`, then epoch and step. The regularizer weights go to the event file and the line, not to
    /// the history, where the reference adds them too late.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn log(
        &mut self,
        step: usize,
        epoch: f64,
        scalars: &[Scalar],
        weights: Option<RegularizerWeights>,
    ) -> Result<()> {
        let mut line: Map<String, Value> = Map::new();
        for (key, value) in scalars {
            line.insert(key.clone(), Value::from(*value));
        }
        line.insert("epoch".to_owned(), Value::from(epoch));
        let mut with_weights = line.clone();
        line.insert("step".to_owned(), Value::from(step));
        self.history.push(line);
        for (key, weight) in weights.into_iter().flat_map(weight_scalars) {
            with_weights.insert(key.to_owned(), Value::from(weight));
        }
        self.write_events(step, &with_weights)?;
        with_weights.insert("step".to_owned(), Value::from(step));
        self.append(&with_weights)
    }

    fn write_events(&mut self, step: usize, line: &Map<String, Value>) -> Result<()> {
        let Some(events) = &mut self.events else { return Ok(()) };
        for (key, value) in line {
            // A number that JSON cannot hold has become null.
            events.scalar(&tag(key), step, value.as_f64().unwrap_or(f64::NAN))?;
        }
        events.flush()
    }

    fn append(&self, line: &Map<String, Value>) -> Result<()> {
        let mut text = Value::Object(line.clone()).to_string();
        text.push('\n');
        let file = OpenOptions::new().create(true).append(true).open(&self.lines);
        file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(Error::io(&self.lines))
    }
}

/// The weights of the regularizers as they are logged.
fn weight_scalars(weights: RegularizerWeights) -> impl Iterator<Item = (&'static str, f64)> {
    let document = Some(("document_regularizer_weight", weights.document));
    document.into_iter().chain(weights.query.map(|weight| ("query_regularizer_weight", weight)))
}

/// The losses since the last log line.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LossWindow {
    total: f64,
    steps: usize,
    sums: LossValues,
    micro_batches: usize,
}

impl LossWindow {
    /// Adds a micro-batch of a step that has `of` of them.
    pub fn add_micro_batch(&mut self, values: &LossValues, of: usize) {
        self.total += values.total() / of.max(1) as f64;
        self.micro_batches += 1;
        self.sums.base += values.base;
        self.sums.document_regularizer += values.document_regularizer;
        self.sums.query_regularizer = match (self.sums.query_regularizer, values.query_regularizer) {
            (Some(sum), Some(value)) => Some(sum + value),
            (sum, value) => sum.or(value),
        };
    }

    /// Ends an optimizer step.
    pub fn end_step(&mut self) {
        self.steps += 1;
    }

    /// The mean of the total over the steps so far.
    #[must_use]
    pub fn mean_loss(&self) -> f64 {
        self.total / self.steps.max(1) as f64
    }

    /// The line of this window, which starts anew: the total averaged over steps, its terms over micro-batches and
    /// rounded to four decimals, as the reference does; `grad_norm` and `learning_rate` are those of the last step.
    pub fn take(&mut self, grad_norm: f64, learning_rate: f64) -> Vec<Scalar> {
        let window = std::mem::take(self);
        let mean = |sum: f64| rounded(sum / window.micro_batches.max(1) as f64, 4);
        let mut line = vec![
            ("loss".to_owned(), window.mean_loss()),
            ("grad_norm".to_owned(), grad_norm),
            ("learning_rate".to_owned(), learning_rate),
            ("base_loss".to_owned(), mean(window.sums.base)),
            ("document_regularizer_loss".to_owned(), mean(window.sums.document_regularizer)),
        ];
        line.extend(window.sums.query_regularizer.map(|sum| ("query_regularizer_loss".to_owned(), mean(sum))));
        line
    }
}

/// `<prefix>_runtime`, `<prefix>_samples_per_second`, `<prefix>_steps_per_second`, rounded as the reference does.
#[must_use]
pub fn speed_scalars(prefix: &str, seconds: f64, samples: usize, steps: usize) -> Vec<Scalar> {
    let rate = |count: usize| rounded(count as f64 / seconds.max(f64::MIN_POSITIVE), 3);
    vec![
        (format!("{prefix}_runtime"), rounded(seconds, 4)),
        (format!("{prefix}_samples_per_second"), rate(samples)),
        (format!("{prefix}_steps_per_second"), rate(steps)),
    ]
}

fn rounded(value: f64, decimals: i32) -> f64 {
    let unit = 10f64.powi(decimals);
    let rounded = (value * unit).round() / unit;
    if rounded.is_finite() { rounded } else { value }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;

    const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/sparse-encoder/trainer-run");

    /// Scalars by tag: (step, value), in the order of the file.
    type Scalars = BTreeMap<String, Vec<(u64, f32)>>;

    /// The fields of a protobuf message: number, and bytes or a number.
    fn fields(mut bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
        fn read_varint(bytes: &mut &[u8]) -> u64 {
            let (mut value, mut shift) = (0, 0);
            loop {
                let byte = bytes[0];
                *bytes = &bytes[1..];
                value |= u64::from(byte & 0x7f) << shift;
                shift += 7;
                if byte < 0x80 {
                    return value;
                }
            }
        }
        let mut fields = Vec::new();
        while !bytes.is_empty() {
            let key = read_varint(&mut bytes);
            let value = match key & 7 {
                0 => read_varint(&mut bytes).to_le_bytes().to_vec(),
                wire @ (1 | 2 | 5) => {
                    let length = match wire {
                        1 => 8,
                        5 => 4,
                        _ => read_varint(&mut bytes) as usize,
                    };
                    let (value, rest) = bytes.split_at(length);
                    bytes = rest;
                    value.to_vec()
                }
                wire => panic!("wire type {wire}"),
            };
            fields.push((key >> 3, value));
        }
        fields
    }

    fn field(fields: &[(u64, Vec<u8>)], number: u64) -> Option<&[u8]> {
        fields.iter().find(|(n, _)| *n == number).map(|(_, value)| value.as_slice())
    }

    /// Reads an event file and checks all its sums.
    fn read_events(path: &Path) -> Scalars {
        let bytes = std::fs::read(path).unwrap();
        let mut rest = bytes.as_slice();
        let mut scalars = Scalars::new();
        let mut first = true;
        while !rest.is_empty() {
            let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
            assert_eq!(u32::from_le_bytes(rest[8..12].try_into().unwrap()), masked_crc32c(&rest[..8]));
            let payload = &rest[12..12 + length];
            assert_eq!(u32::from_le_bytes(rest[12 + length..16 + length].try_into().unwrap()), masked_crc32c(payload));
            rest = &rest[16 + length..];
            let event = fields(payload);
            if std::mem::take(&mut first) {
                assert_eq!(field(&event, 3), Some(b"brain.Event:2".as_slice()));
            }
            let step = field(&event, 2).map_or(0, |step| u64::from_le_bytes(step.try_into().unwrap()));
            for value in field(&event, 5).map(fields).unwrap_or_default() {
                let value = fields(&value.1);
                if let Some(number) = field(&value, 2) {
                    let tag = String::from_utf8(field(&value, 1).unwrap().to_vec()).unwrap();
                    let number = f32::from_le_bytes(number.try_into().unwrap());
                    scalars.entry(tag).or_default().push((step, number));
                }
            }
        }
        scalars
    }

    fn fixture(name: &str) -> Value {
        serde_json::from_str(&std::fs::read_to_string(format!("{FIXTURES}/{name}")).unwrap()).unwrap()
    }

    fn expected_scalars() -> Scalars {
        serde_json::from_value(fixture("tensorboard_expected.json")["scalars"].clone()).unwrap()
    }

    #[test]
    fn sums_are_castagnoli() {
        // The check value of the CRC catalogue.
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn the_reader_of_these_tests_reads_the_reference() {
        let path = format!("{FIXTURES}/runs/events.out.tfevents.reference");
        assert_eq!(read_events(Path::new(&path)), expected_scalars());
    }

    /// Logs the history of the reference's run: the event file must hold the reference's scalars.
    #[test]
    fn our_event_file_of_the_reference_run_is_the_reference_s() {
        let folder = tempfile::tempdir().unwrap();
        let events = EventWriter::create(&folder.path().join("runs")).unwrap();
        let path = events.path().to_owned();
        assert!(path.file_name().unwrap().to_str().unwrap().contains("tfevents"));
        let mut log = RunLog::new(Some(events), folder.path().join("log.jsonl"), Vec::new()).unwrap();
        let document = crate::RegularizerSchedule::new(
            crate::RegularizerRamp::Quadratic,
            1.0 / 3.0,
            24,
            RegularizerWeights { document: 3e-3, query: Some(0.0) },
        );
        let history = fixture("log_history.json");
        for line in history.as_array().unwrap() {
            let line = line.as_object().unwrap();
            let step = line["step"].as_u64().unwrap() as usize;
            let scalars: Vec<Scalar> = line
                .iter()
                .filter(|(key, _)| !["step", "epoch"].contains(&key.as_str()))
                .map(|(key, value)| (key.clone(), value.as_f64().unwrap()))
                .collect();
            // The weights in force are those of the step that has just been taken.
            log.log(step, line["epoch"].as_f64().unwrap(), &scalars, Some(document.weights(step - 1))).unwrap();
        }
        assert_eq!(read_events(&path), expected_scalars());
        let ours: Value = log.history().iter().cloned().map(Value::Object).collect();
        assert_eq!(ours, history, "the history of checkpoints has no weights");
        let lines = std::fs::read_to_string(folder.path().join("log.jsonl")).unwrap();
        assert_eq!(lines.lines().count(), history.as_array().unwrap().len());
        let first: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
        assert!((first["document_regularizer_weight"].as_f64().unwrap() - 0.000_421_875).abs() < 1e-12);
    }

    #[test]
    fn a_second_event_file_of_the_same_second_has_another_name() {
        let folder = tempfile::tempdir().unwrap();
        let (first, second) =
            (EventWriter::create(folder.path()).unwrap(), EventWriter::create(folder.path()).unwrap());
        assert_ne!(first.path(), second.path());
    }

    #[test]
    fn tags_are_grouped_by_prefix() {
        let cases = [
            ("loss", "train/loss"),
            ("eval_nli_loss", "eval/nli_loss"),
            ("test_x", "test/x"),
            ("evaluate", "train/evaluate"),
        ];
        for (key, expected) in cases {
            assert_eq!(tag(key), expected);
        }
    }

    #[test]
    fn a_window_averages_totals_over_steps_and_terms_over_micro_batches() {
        let mut window = LossWindow::default();
        let values = |base| LossValues { base, document_regularizer: 0.5, query_regularizer: Some(0.0) };
        // A step of two micro-batches, then a step of one.
        window.add_micro_batch(&values(1.0), 2);
        window.add_micro_batch(&values(2.0), 2);
        window.end_step();
        window.add_micro_batch(&values(4.0), 1);
        window.end_step();
        let line: Map<String, Value> =
            window.take(9.5, 1e-3).into_iter().map(|(key, value)| (key, value.into())).collect();
        let expected = json!({
            "loss": 3.25, "grad_norm": 9.5, "learning_rate": 1e-3, "base_loss": 2.3333,
            "document_regularizer_loss": 0.5, "query_regularizer_loss": 0.0,
        });
        assert_eq!(Value::Object(line), expected);
        assert_eq!(window, LossWindow::default());
    }

    #[test]
    fn speeds_are_rounded() {
        let scalars = speed_scalars("eval_nli", 0.088_187, 12, 2);
        let expected = [
            ("eval_nli_runtime", 0.0882),
            ("eval_nli_samples_per_second", 136.074),
            ("eval_nli_steps_per_second", 22.679),
        ];
        assert_eq!(scalars, expected.map(|(key, value)| (key.to_owned(), value)));
    }
}
