//! The log of a run: lines of JSON, scalars for TensorBoard, and the history that checkpoints keep.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use splade_files::AtomicFile;

use crate::doctor::LossShares;
use crate::events::EventWriter;
use crate::loss::{LossValues, RegularizerWeights};
use crate::{Error, Result};

/// A named number of a log line.
pub type Scalar = (String, f64);

/// A line of the log: scalars, epoch and step.
pub(crate) type Line = Map<String, Value>;

/// Keys that are in `log.jsonl` and the event file, not in the history: the reference adds them after it is stored.
const WEIGHT_KEYS: [&str; 2] = ["document_regularizer_weight", "query_regularizer_weight"];

/// The tag of a key: `eval_x` is `eval/x`, `test_x` is `test/x`, all others are `train/x`.
fn tag(key: &str) -> String {
    for group in ["eval", "test"] {
        if let Some(name) = key.strip_prefix(group).and_then(|rest| rest.strip_prefix('_')) {
            return format!("{group}/{name}");
        }
    }
    format!("train/{key}")
}

/// The log of a run: `log.jsonl`, an event file, and the history.
#[derive(Debug)]
pub(crate) struct RunLog {
    events: Option<EventWriter>,
    path: PathBuf,
    file: File,
    /// bytes of complete lines in the file
    written: u64,
    history: Vec<Line>,
}

impl RunLog {
    /// Opens the log of a run that begins after `first_step` steps with this history: an empty one, or that of the
    /// checkpoint it resumes from.
    ///
    /// Lines of the file that are not of the history are dropped, since the run is about to repeat their steps: those
    /// written between a checkpoint and the end of a process that was killed.
    ///
    /// # Errors
    /// A file cannot be read or written.
    pub(crate) fn open(path: PathBuf, events: Option<&Path>, history: Vec<Line>, first_step: usize) -> Result<Self> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
        }
        let old = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(Error::io(path)(error)),
        };
        let lines = lines_of_history(&history, &old);
        let text: String = lines.iter().map(text_of).collect();
        if text.as_bytes() != old {
            AtomicFile::write_whole(&path, text.as_bytes())?;
        }
        let events = events.map(|folder| open_events(folder, &lines, first_step)).transpose()?;
        let file = OpenOptions::new().create(true).append(true).open(&path).map_err(Error::io(&path))?;
        Ok(Self { events, path, file, written: text.len() as u64, history })
    }

    /// The lines that trainer_state.json keeps.
    pub(crate) fn history(&self) -> &[Line] {
        &self.history
    }

    /// Logs one line: `scalars`, then epoch and step. The regularizer weights go to the event file and to `log.jsonl`,
    /// not to the history.
    ///
    /// # Errors
    /// A file cannot be written; it then holds the complete lines before this one.
    pub(crate) fn log(
        &mut self,
        step: usize,
        epoch: f64,
        scalars: &[Scalar],
        weights: Option<RegularizerWeights>,
    ) -> Result<()> {
        let mut line: Line = scalars.iter().map(|(key, value)| (key.clone(), Value::from(*value))).collect();
        line.insert("epoch".to_owned(), Value::from(epoch));
        let mut with_weights = line.clone();
        line.insert("step".to_owned(), Value::from(step));
        for (key, weight) in weights.into_iter().flat_map(weight_scalars) {
            with_weights.insert(key.to_owned(), Value::from(weight));
        }
        with_weights.insert("step".to_owned(), Value::from(step));
        if let Some(events) = &mut self.events {
            add_scalars(events, &with_weights);
            events.flush()?;
        }
        let text = text_of(&with_weights);
        append_or_restore(&mut self.file, self.written, text.as_bytes()).map_err(Error::io(&self.path))?;
        self.written += text.len() as u64;
        self.history.push(line);
        Ok(())
    }
}

/// Starts the event file of a run that begins after `first_step` steps.
fn open_events(folder: &Path, lines: &[Line], first_step: usize) -> Result<EventWriter> {
    let mut events = EventWriter::create(folder, first_step)?;
    // lines of this step were logged before the checkpoint, and the session start drops them from the files before
    let again = lines.iter().filter(|line| step_of(line).is_some_and(|step| step >= first_step));
    again.for_each(|line| add_scalars(&mut events, line));
    events.flush()?;
    Ok(events)
}

/// The lines of `log.jsonl` that belong to a history: the text of the file where it agrees, else the history itself.
fn lines_of_history(history: &[Line], text: &[u8]) -> Vec<Line> {
    let mut old = text.split(|byte| *byte == b'\n').map_while(|line| serde_json::from_slice::<Line>(line).ok());
    let without_weights = |line: &Line| -> Line {
        let kept = line.iter().filter(|(key, _)| !WEIGHT_KEYS.contains(&key.as_str()));
        kept.map(|(key, value)| (key.clone(), value.clone())).collect()
    };
    let line = |entry: &Line| old.next().filter(|old| without_weights(old) == *entry).unwrap_or_else(|| entry.clone());
    history.iter().map(line).collect()
}

fn text_of(line: &Line) -> String {
    Value::Object(line.clone()).to_string() + "\n"
}

fn step_of(line: &Line) -> Option<usize> {
    line.get("step").and_then(Value::as_u64).and_then(|step| usize::try_from(step).ok())
}

/// Adds the numbers of a line to an event file, each under its tag.
fn add_scalars(events: &mut EventWriter, line: &Line) {
    let step = step_of(line).unwrap_or_default();
    for (key, value) in line.iter().filter(|(key, _)| *key != "step") {
        // JSON has no NaN and no infinity: such a number has become null
        events.scalar(&tag(key), step, value.as_f64().unwrap_or(f64::NAN));
    }
}

/// Appends to a file of `length` bytes, and on failure truncates it to that length again.
pub(crate) fn append_or_restore(file: &mut File, length: u64, bytes: &[u8]) -> io::Result<()> {
    file.write_all(bytes).inspect_err(|_| {
        // nothing better can be done if this fails too, and the first error is the one to report
        let _ = file.set_len(length);
    })
}

/// Drops the rows of later steps from the CSV files of evaluations in `folder`: a run that begins after `first_step`
/// steps writes them again.
///
/// # Errors
/// A file cannot be read or written.
pub(crate) fn drop_later_rows(folder: &Path, first_step: usize) -> Result<()> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::io(folder)(error)),
    };
    for entry in entries {
        let path = entry.map_err(Error::io(folder))?.path();
        if !path.file_name().is_some_and(|name| name.to_string_lossy().ends_with("_results.csv")) {
            continue;
        }
        let text = std::fs::read_to_string(&path).map_err(Error::io(&path))?;
        let kept = rows_until(&text, first_step);
        if kept != text {
            AtomicFile::write_whole(&path, kept.as_bytes())?;
        }
    }
    Ok(())
}

/// The heading of a CSV text and its complete rows of steps up to `last`; all of it if it has no column `steps`.
fn rows_until(text: &str, last: usize) -> String {
    let mut lines = text.split_inclusive('\n');
    let heading = lines.next().unwrap_or_default();
    let Some(column) = heading.trim_end().split(',').position(|name| name == "steps") else { return text.to_owned() };
    let n_columns = heading.split(',').count();
    let is_kept = |row: &&str| {
        let is_complete = row.ends_with('\n') && row.split(',').count() == n_columns;
        let step = row.split(',').nth(column).and_then(|cell| cell.trim().parse::<i64>().ok());
        is_complete && step.is_some_and(|step| usize::try_from(step).map_or(true, |step| step <= last))
    };
    std::iter::once(heading).chain(lines.filter(is_kept)).collect()
}

/// The weights of the regularizers as they are logged.
fn weight_scalars(weights: RegularizerWeights) -> impl Iterator<Item = (&'static str, f64)> {
    let [document, query] = WEIGHT_KEYS;
    [(document, weights.document)].into_iter().chain(weights.query.map(|weight| (query, weight)))
}

/// The losses since the last log line.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct LossWindow {
    total: f64,
    steps: usize,
    sums: LossValues,
    micro_batches: usize,
}

impl LossWindow {
    /// Adds a micro-batch of a step that has `of` of them.
    pub(crate) fn add_micro_batch(&mut self, values: &LossValues, of: usize) {
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
    pub(crate) fn end_step(&mut self) {
        self.steps += 1;
    }

    /// The mean of the total over the steps so far.
    pub(crate) fn mean_loss(&self) -> f64 {
        self.total / self.steps.max(1) as f64
    }

    /// The means of the terms over the micro-batches so far.
    pub(crate) fn shares(&self) -> LossShares {
        let mean = |sum: f64| sum / self.micro_batches.max(1) as f64;
        LossShares {
            base: mean(self.sums.base),
            document_regularizer: mean(self.sums.document_regularizer),
            query_regularizer: mean(self.sums.query_regularizer.unwrap_or(0.0)),
        }
    }

    /// Returns the line of this window and empties it: the total averaged over steps, its terms over micro-batches and
    /// rounded to four decimals, as the reference does; `grad_norm` and `learning_rate` are those of the last step.
    pub(crate) fn take(&mut self, grad_norm: f64, learning_rate: f64) -> Vec<Scalar> {
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
pub(crate) fn speed_scalars(prefix: &str, seconds: f64, samples: usize, steps: usize) -> Vec<Scalar> {
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
    use serde_json::json;

    use super::*;
    use crate::events::tests::{Scalars, read_scalars};

    const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/sparse-encoder/trainer-run");

    fn fixture(name: &str) -> Value {
        serde_json::from_str(&std::fs::read_to_string(format!("{FIXTURES}/{name}")).unwrap()).unwrap()
    }

    fn expected_scalars() -> Scalars {
        serde_json::from_value(fixture("tensorboard_expected.json")["scalars"].clone()).unwrap()
    }

    /// Logs the history of the reference's run: the event file must hold the reference's scalars.
    #[test]
    fn our_event_file_of_the_reference_run_is_the_reference_s() {
        let folder = tempfile::tempdir().unwrap();
        let (path, runs) = (folder.path().join("log.jsonl"), folder.path().join("runs"));
        let mut log = RunLog::open(path.clone(), Some(&runs), Vec::new(), 0).unwrap();
        let document = crate::schedule::RegularizerSchedule::new(
            crate::config::RegularizerRamp::Quadratic,
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
        assert_eq!(read_scalars(&runs), expected_scalars());
        let ours: Value = log.history().iter().cloned().map(Value::Object).collect();
        assert_eq!(ours, history, "the history of checkpoints has no weights");
        let lines = std::fs::read_to_string(&path).unwrap();
        assert_eq!(lines.lines().count(), history.as_array().unwrap().len());
        let first: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
        assert!((first["document_regularizer_weight"].as_f64().unwrap() - 0.000_421_875).abs() < 1e-12);
    }

    fn loss_at(step: usize) -> Vec<Scalar> {
        vec![("loss".to_owned(), 1.0 / step as f64)]
    }

    fn steps_of(path: &Path) -> Vec<usize> {
        let text = std::fs::read_to_string(path).unwrap();
        text.lines().map(|line| step_of(&serde_json::from_str(line).unwrap()).unwrap()).collect()
    }

    /// B12: steps after the checkpoint were logged by a process that was killed; the run that resumes logs them again.
    #[test]
    fn after_a_kill_and_a_resume_each_step_is_logged_once() {
        let folder = tempfile::tempdir().unwrap();
        let (path, runs) = (folder.path().join("log.jsonl"), folder.path().join("runs"));
        let weights = Some(RegularizerWeights { document: 0.5, query: None });
        let mut log = RunLog::open(path.clone(), Some(&runs), Vec::new(), 0).unwrap();
        (1..=3).for_each(|step| log.log(step, 0.0, &loss_at(step), weights).unwrap());
        // the evaluation of the step that is saved is in the checkpoint's history
        log.log(3, 0.0, &[("eval_loss".to_owned(), 2.0)], weights).unwrap();
        let saved = log.history().to_vec();
        let at_checkpoint = std::fs::read_to_string(&path).unwrap();
        (4..=6).for_each(|step| log.log(step, 0.0, &loss_at(step), weights).unwrap());
        // a summary at the step of the checkpoint, and half a line
        log.log(3, 0.0, &[("train_runtime".to_owned(), 9.0)], None).unwrap();
        drop(log);
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"loss\": 0.1, \"st").unwrap();

        let mut log = RunLog::open(path.clone(), Some(&runs), saved, 3).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), at_checkpoint, "with the regularizer weights");
        (4..=5).for_each(|step| log.log(step, 0.0, &loss_at(step), weights).unwrap());
        assert_eq!(steps_of(&path), [1, 2, 3, 3, 4, 5]);
        let scalars = read_scalars(&runs);
        let steps = |tag: &str| scalars[tag].iter().map(|(step, _)| *step).collect::<Vec<_>>();
        assert_eq!(steps("train/loss"), [1, 2, 3, 4, 5]);
        assert_eq!(steps("eval/loss"), [3]);
        assert!(!scalars.contains_key("train/train_runtime"));
        assert_eq!(std::fs::read_dir(&runs).unwrap().count(), 2, "a resumed run writes a further event file");

        // a new run in the same place has nothing to do with the old one
        RunLog::open(path.clone(), Some(&runs), Vec::new(), 0).unwrap();
        assert_eq!((steps_of(&path), read_scalars(&runs)), (Vec::new(), Scalars::new()));
    }

    #[test]
    fn a_log_that_is_not_there_is_made_from_the_history() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = RunLog::open(folder.path().join("a.jsonl"), None, Vec::new(), 0).unwrap();
        (1..=2).for_each(|step| log.log(step, 0.0, &loss_at(step), None).unwrap());
        let path = folder.path().join("elsewhere/log.jsonl");
        RunLog::open(path.clone(), None, log.history().to_vec(), 2).unwrap();
        assert_eq!(steps_of(&path), [1, 2]);
        // lines of another run are not taken for lines of this one
        std::fs::write(&path, "{\"loss\": 7.0, \"epoch\": 0.0, \"step\": 1}\n").unwrap();
        RunLog::open(path.clone(), None, log.history().to_vec(), 2).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), std::fs::read(folder.path().join("a.jsonl")).unwrap());
    }

    #[test]
    fn rows_of_later_evaluations_are_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let csv = folder.path().join("Information-Retrieval_evaluation_dev_results.csv");
        let other = folder.path().join("notes.csv");
        for path in [&csv, &other] {
            std::fs::write(path, "epoch,steps,x\n-1,-1,0.1\n0.5,10,0.2\n1.0,20,0.3\n1.5,30,0.4\n2.0,4").unwrap();
        }
        drop_later_rows(folder.path(), 20).unwrap();
        assert_eq!(std::fs::read_to_string(&csv).unwrap(), "epoch,steps,x\n-1,-1,0.1\n0.5,10,0.2\n1.0,20,0.3\n");
        assert_eq!(std::fs::read_to_string(&other).unwrap().lines().count(), 6);
        drop_later_rows(&folder.path().join("none"), 20).unwrap();
        assert_eq!(rows_until("a,b\n1,2", 0), "a,b\n1,2", "no such column");
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
