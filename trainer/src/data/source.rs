//! Reading of examples: rows of files, columns found by name or given, a filter, shares.

use std::path::{Path, PathBuf};

use std::sync::Arc;

use serde_json::{Map, Value};

use super::columns::{
    ANCHOR, ColumnFinder, POSITIVE, SCANDI_QA_ANCHOR, SCANDI_QA_POSITIVE, first_text_of, labels_of, negatives_of,
    text_of,
};
use super::sampler::{Permutations, SeededPermutations};
use super::{DataSet, Example, Origin};
use crate::config::{BuiltIn, DataSetConfig};
use crate::{Error, Result};

/// A row of an input file: column → cell.
pub(super) type Row = Map<String, Value>;

/// The stream of the generator that shuffles a set before it is divided into shares; data sets in training use
/// small numbers.
const SHARES_STREAM: u64 = u64::MAX - 1;
/// The stream of the generator that mixes the sources of `scandi_qa`, and its seed in the Python project.
const SOURCES_STREAM: u64 = u64::MAX - 2;
const SCANDI_QA_SEED: u64 = 42;

/// The use of labels: teacher scores or margins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LabelUse {
    /// Label columns are not read.
    Ignored,
    /// Teacher scores or margins: a row without labels or without a negative is dropped.
    Required,
    /// Teacher scores, one for each document: a row without labels or without a negative is dropped.
    Scores,
}

/// The counts of the rows of a set; rows add up: `rows` = `filtered` + the `without_*` + the three shares + `cut`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SourceReport {
    /// The name of the set in the config.
    pub name: String,
    /// Rows read, development files included.
    pub rows: usize,
    /// Rows left out by a filter.
    pub filtered: usize,
    /// Rows whose anchor is missing or empty.
    pub without_anchor: usize,
    /// Rows with an anchor whose positive is missing or empty.
    pub without_positive: usize,
    /// Rows with both but no label, where the loss needs one.
    pub without_label: usize,
    /// Rows with all of these but no negative, where the loss needs one.
    pub without_negative: usize,
    /// Usable training rows beyond `max_samples`, of a set on the Hub that has several parts.
    pub cut: usize,
    /// Examples to train on.
    pub train: usize,
    /// Examples to evaluate on while training.
    pub dev: usize,
    /// Examples that are not used.
    pub test: usize,
    /// Examples with a negative, where there are also some without: the set became `name` and `name_pairs`.
    pub split_by_negatives: bool,
}

impl SourceReport {
    /// Rows that hold no usable example; those that a filter leaves out are not among them.
    #[must_use]
    pub fn unusable(&self) -> usize {
        self.without_anchor + self.without_positive + self.without_label + self.without_negative
    }

    /// The rows left out, in words; empty if there are none.
    #[must_use]
    pub fn left_out(&self) -> String {
        let counts = [
            (self.filtered, "filtered out"),
            (self.without_anchor, "without an anchor"),
            (self.without_positive, "without a positive"),
            (self.without_label, "without a label"),
            (self.without_negative, "without a negative"),
            (self.cut, "beyond max_samples"),
        ];
        let counts = counts.iter().filter(|(count, _)| *count > 0);
        counts.map(|(count, why)| format!("{count} {why}")).collect::<Vec<_>>().join(", ")
    }
}

/// A data set of the config, read.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LoadedSet {
    /// To train on: one data set, or two if some rows have negatives and some have none.
    pub train: Vec<DataSet>,
    /// To evaluate on while training, in the same shapes.
    pub dev: Vec<DataSet>,
    /// Not used in training, in the same shapes.
    pub test: Vec<DataSet>,
    /// The counts of rows.
    pub report: SourceReport,
}

/// Examples and, in the same order, the places they were read from.
#[derive(Debug, Clone, Default, PartialEq)]
struct Rows {
    examples: Vec<Example>,
    origins: Vec<Origin>,
}

impl Rows {
    fn len(&self) -> usize {
        self.examples.len()
    }

    fn is_empty(&self) -> bool {
        self.examples.is_empty()
    }

    fn push(&mut self, example: Example, origin: Origin) {
        self.examples.push(example);
        self.origins.push(origin);
    }

    fn append(&mut self, mut other: Self) {
        self.examples.append(&mut other.examples);
        self.origins.append(&mut other.origins);
    }

    /// Removes the rows from `at` on and returns them.
    fn split_off(&mut self, at: usize) -> Self {
        Self { examples: self.examples.split_off(at), origins: self.origins.split_off(at) }
    }

    fn truncate(&mut self, len: usize) {
        self.examples.truncate(len);
        self.origins.truncate(len);
    }

    /// The rows in another order.
    fn permuted(mut self, order: Vec<usize>) -> Self {
        let mut take = |at: usize| std::mem::take(&mut self.examples[at]);
        let examples = order.iter().map(|at| take(*at)).collect();
        Self { examples, origins: order.into_iter().map(|at| self.origins[at]).collect() }
    }

    /// The rows with negatives, and those without.
    fn parted(self) -> [Self; 2] {
        let [mut with, mut without] = [Self::default(), Self::default()];
        for (example, origin) in self.examples.into_iter().zip(self.origins) {
            let part = if example.negatives.is_empty() { &mut without } else { &mut with };
            part.push(example, origin);
        }
        [with, without]
    }
}

/// Training, development and test rows.
type Shares = [Rows; 3];

/// Reads a data set of the config. `seed` shuffles it before it is divided into shares.
///
/// # Errors
/// A file that cannot be read or parsed, no column that could hold anchors or positives, no usable row, or neither
/// `files` nor downloaded parts: nothing is downloaded here.
pub fn load_data_set(config: &DataSetConfig, seed: u64, labels: LabelUse) -> Result<LoadedSet> {
    let mut reader = ExampleReader::new(config, labels);
    let [train, dev, test] = if config.parts.is_empty() {
        local_shares(&mut reader, config, seed)?
    } else {
        hub_shares(&mut reader, config, seed)?
    };
    let ExampleReader { mut report, files, labels: labels_seen, .. } = reader;
    (report.train, report.dev, report.test) = (train.len(), dev.len(), test.len());
    if train.is_empty() {
        return Err(nothing_usable(&report));
    }
    let shapes = Shapes::of(&config.name, [&train, &dev, &test], labels_seen.form);
    report.split_by_negatives = shapes.mixed;
    let files = Arc::from(files);
    let apply = |rows| shapes.apply(rows, &files);
    Ok(LoadedSet { train: apply(train), dev: apply(dev), test: apply(test), report })
}

/// The rows of local files.
fn local_shares(reader: &mut ExampleReader<'_>, config: &DataSetConfig, seed: u64) -> Result<Shares> {
    let train = reader.read(&paths_of(config, &config.files)?)?;
    if !config.dev_files.is_empty() {
        return Ok([train, reader.read(&paths_of(config, &config.dev_files)?)?, Rows::default()]);
    }
    Ok(match config.split_ratio {
        Some(ratio) => divide(shuffled(train, seed, SHARES_STREAM), ratio),
        None => [train, Rows::default(), Rows::default()],
    })
}

/// The rows of the parts that were downloaded: each divided in the order of its files, then joined.
fn hub_shares(reader: &mut ExampleReader<'_>, config: &DataSetConfig, seed: u64) -> Result<Shares> {
    let mut joined: Shares = Default::default();
    for part in &config.parts {
        if part.files.is_empty() && part.is_required {
            let message = format!("{} is not downloaded", part.label());
            return Err(Error::data_set(&config.name, message, "fill in the files of its parts, or give `files`"));
        }
        let shares = divide(reader.read(&part.files)?, part.shares);
        joined.iter_mut().zip(shares).for_each(|(joined, share)| joined.append(share));
    }
    if !config.dev_files.is_empty() {
        joined[1] = reader.read(&paths_of(config, &config.dev_files)?)?;
    } else if let (Some(ratio), true) = (config.split_ratio, joined[1].is_empty()) {
        let [train, ..] = joined;
        return Ok(divide(shuffled(train, seed, SHARES_STREAM), ratio));
    }
    if config.parts.len() > 1 && config.built_in == Some(BuiltIn::ScandiQa) {
        let train = std::mem::take(&mut joined[0]);
        joined[0] = shuffled(train, SCANDI_QA_SEED, SOURCES_STREAM);
    }
    if let Some(limit) = config.max_samples {
        reader.report.cut = joined[0].len().saturating_sub(limit);
        joined[0].truncate(limit);
    }
    Ok(joined)
}

/// Reads running text for masked-language modelling: the text column, or without one every anchor, positive and
/// negative as a text of its own. Empty texts are left out.
///
/// # Errors
/// A file that cannot be read or parsed, no text at all, or neither `files` nor downloaded parts.
pub fn load_texts(config: &DataSetConfig) -> Result<Vec<String>> {
    let text_column = config.columns.text.as_deref().unwrap_or("text");
    let mut reader = ExampleReader::new(config, LabelUse::Ignored);
    let mut texts = Vec::new();
    for path in training_paths(config)? {
        for row in read_rows(&path)? {
            let (_, row) = row?;
            if !reader.passes(&row) {
                continue;
            }
            match row.get(text_column) {
                Some(cell) => texts.extend(text_of(cell)),
                None => {
                    let anchor = reader.anchor.find(&row).and_then(first_text_of);
                    let positive = reader.positive.find(&row).and_then(first_text_of);
                    texts.extend(anchor.into_iter().chain(positive).chain(negatives_of(&row, &config.columns)));
                }
            }
            if config.max_samples.is_some_and(|limit| texts.len() >= limit) {
                texts.truncate(config.max_samples.unwrap_or_default());
                return Ok(texts);
            }
        }
    }
    if texts.is_empty() {
        let hint = format!("name the column: `columns: {{text: …}}` (looked for `{text_column}`)");
        return Err(Error::data_set(&config.name, "its files hold no text", hint));
    }
    Ok(texts)
}

/// The rows of a file with their positions, counted from 1.
fn read_rows(path: &Path) -> Result<impl Iterator<Item = Result<(usize, Row)>> + use<>> {
    let split = |row: splade_files::InputRow| {
        let (position, row) = row.into_parts();
        (position.line(), row)
    };
    Ok(splade_files::read_rows(path)?.map(move |row| Ok(row.map(split)?)))
}

/// The files of all rows that are for training, local or downloaded.
fn training_paths(config: &DataSetConfig) -> Result<Vec<PathBuf>> {
    if config.parts.is_empty() {
        return paths_of(config, &config.files);
    }
    let parts = config.parts.iter().filter(|part| part.shares[0] > 0.0);
    Ok(parts.flat_map(|part| part.files.iter().cloned()).collect())
}

/// The files that paths and globs name, in this order, those of a glob by name.
fn paths_of(config: &DataSetConfig, patterns: &[String]) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for pattern in patterns {
        if Path::new(pattern).exists() || !pattern.contains(['*', '?', '[']) {
            paths.push(PathBuf::from(pattern));
            continue;
        }
        let matches = glob::glob(pattern)
            .map_err(|error| Error::data_set(&config.name, format!("`{pattern}` is not a glob: {error}"), ""))?;
        let before = paths.len();
        for path in matches {
            paths.push(path.map_err(|error| Error::io(error.path().to_owned())(error.into()))?);
        }
        if paths.len() == before {
            return Err(Error::data_set(&config.name, format!("no file matches `{pattern}`"), ""));
        }
    }
    Ok(paths)
}

/// Turns rows into examples and counts what it leaves out.
struct ExampleReader<'a> {
    config: &'a DataSetConfig,
    labels: LabelReader,
    filter: Vec<(&'a str, &'a [String])>,
    anchor: ColumnFinder,
    positive: ColumnFinder,
    report: SourceReport,
    /// the files that were read; an [`Origin`] is an index of one
    files: Vec<PathBuf>,
}

impl<'a> ExampleReader<'a> {
    fn new(config: &'a DataSetConfig, labels: LabelUse) -> Self {
        let (anchor, positive) = match config.built_in {
            Some(BuiltIn::ScandiQa) => (SCANDI_QA_ANCHOR, SCANDI_QA_POSITIVE),
            _ => (ANCHOR, POSITIVE),
        };
        Self {
            config,
            labels: LabelReader { wanted: labels, form: None },
            filter: filter_of(config),
            anchor: ColumnFinder::new("anchor", config.columns.anchor.as_deref(), anchor),
            positive: ColumnFinder::new("positive", config.columns.positive.as_deref(), positive),
            report: SourceReport { name: config.name.clone(), ..SourceReport::default() },
            files: Vec::new(),
        }
    }

    /// The usable rows of all files, up to `max_samples`.
    fn read(&mut self, paths: &[PathBuf]) -> Result<Rows> {
        let limit = self.config.max_samples.unwrap_or(usize::MAX);
        let mut examples = Rows::default();
        for path in paths {
            self.read_file(path, read_rows(path)?, limit, &mut examples)?;
            if examples.len() >= limit {
                break;
            }
        }
        Ok(examples)
    }

    fn read_file(
        &mut self,
        path: &Path,
        rows: impl Iterator<Item = Result<(usize, Row)>>,
        limit: usize,
        examples: &mut Rows,
    ) -> Result<()> {
        self.anchor.reset();
        self.positive.reset();
        let file = u32::try_from(self.files.len()).unwrap_or(u32::MAX);
        self.files.push(path.to_owned());
        let mut first_row = None;
        for row in rows {
            if examples.len() >= limit {
                return Ok(());
            }
            let (position, row) = row?;
            self.report.rows += 1;
            let origin = Origin { file, row: u32::try_from(position).unwrap_or(u32::MAX) };
            if let Some(example) = self.example(path, position, &row)? {
                examples.push(example, origin);
            }
            first_row.get_or_insert(row);
        }
        match first_row {
            Some(row) => self.anchor.check_found(path, &row).and(self.positive.check_found(path, &row)),
            None => Ok(()),
        }
    }

    /// The example of a row, or nothing, counted.
    fn example(&mut self, path: &Path, position: usize, row: &Row) -> Result<Option<Example>> {
        let (anchor, positive) = (self.anchor.find(row), self.positive.find(row));
        if !self.passes(row) {
            self.report.filtered += 1;
            return Ok(None);
        }
        let Some(anchor) = anchor.and_then(first_text_of) else {
            self.report.without_anchor += 1;
            return Ok(None);
        };
        let Some(positive) = positive.and_then(first_text_of) else {
            self.report.without_positive += 1;
            return Ok(None);
        };
        let negatives = negatives_of(row, &self.config.columns);
        let labels = match self.labels.wanted {
            LabelUse::Ignored => Vec::new(),
            LabelUse::Required | LabelUse::Scores => {
                let labels = labels_of(row, &self.config.columns).and_then(|labels| {
                    let is_used = !labels.is_empty() && !negatives.is_empty();
                    if is_used { self.labels.check(labels.len(), negatives.len()).map(|()| labels) } else { Ok(labels) }
                });
                labels.map_err(|message| splade_files::Error::line(path, position, message))?
            }
        };
        if self.labels.wanted != LabelUse::Ignored {
            if labels.is_empty() {
                self.report.without_label += 1;
                return Ok(None);
            }
            if negatives.is_empty() {
                self.report.without_negative += 1;
                return Ok(None);
            }
        }
        Ok(Some(Example { anchor, positive, negatives, labels }))
    }

    /// True if a row has one of the values of the filter in every column of it.
    fn passes(&self, row: &Row) -> bool {
        let has = |(column, values): &(&str, &[String])| {
            row.get(*column).and_then(text_of).is_some_and(|cell| values.contains(&cell))
        };
        self.filter.iter().all(has) && !self.is_negative_paraphrase(row)
    }

    /// True for a row of PAWS-X, a source of `scandi_qa`, whose sentences look alike (0) but do not mean the same (1).
    fn is_negative_paraphrase(&self, row: &Row) -> bool {
        self.config.built_in == Some(BuiltIn::ScandiQa)
            && row.contains_key("sentence1")
            && row.get("label").and_then(text_of).is_some_and(|label| label != "1")
    }
}

/// The filter of the config, and that of the keys of a built-in set.
fn filter_of(config: &DataSetConfig) -> Vec<(&str, &[String])> {
    let mut filter: Vec<(&str, &[String])> =
        config.filter.iter().map(|(column, values)| (column.as_str(), values.as_slice())).collect();
    if config.built_in == Some(BuiltIn::Ddsc) {
        // All three languages are all there are, and the Python project does not filter then.
        let languages = config.languages.iter().filter(|languages| languages.len() < 3);
        filter.extend(languages.map(|languages| ("language", languages.as_slice())));
        filter.extend(config.tasks.iter().map(|tasks| ("task", tasks.as_slice())));
    }
    filter
}

/// The meaning of the labels of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LabelForm {
    /// one for each negative: score of the positive − score of the negative
    Margins,
    /// one for each document, the positive first
    Scores,
}

/// Checks that the labels of all rows have one meaning.
#[derive(Debug, Clone, Copy)]
struct LabelReader {
    wanted: LabelUse,
    /// that of the rows so far
    form: Option<LabelForm>,
}

impl LabelReader {
    /// An error in words if a row cannot have so many labels.
    fn check(&mut self, n_labels: usize, n_negatives: usize) -> std::result::Result<(), String> {
        let margins =
            if self.wanted == LabelUse::Scores { String::new() } else { format!("{n_negatives} margins or ") };
        let form = match n_labels {
            n if n == n_negatives + 1 => LabelForm::Scores,
            n if n == n_negatives && self.wanted != LabelUse::Scores => LabelForm::Margins,
            n => {
                let scores = n_negatives + 1;
                return Err(format!(
                    "{n} teacher labels for {n_negatives} negatives: the loss needs {margins}{scores} scores, the positive's first"
                ));
            }
        };
        match self.form.replace(form) {
            Some(before) if before != form => {
                Err("teacher margins here and scores in rows before: a data set has one of them".to_owned())
            }
            _ => Ok(()),
        }
    }
}

/// The rows in a random order.
fn shuffled(rows: Rows, seed: u64, stream: u64) -> Rows {
    let order = SeededPermutations::new(seed, 0, stream, true).next(rows.len());
    rows.permuted(order)
}

/// Divides rows into training, development and test rows, in their order, as the Python project does.
fn divide(mut rows: Rows, ratio: [f64; 3]) -> Shares {
    let n = rows.len();
    // 0.07 * 100 is slightly less than 7 in binary
    let share = |ratio: f64| ((n as f64 * ratio + 1e-9) as usize).min(n);
    let n_train = share(ratio[0]);
    let mut rest = rows.split_off(n_train);
    let n_dev = if ratio[2] == 0.0 { rest.len() } else { share(ratio[1]).min(rest.len()) };
    let test = rest.split_off(n_dev);
    [rows, rest, test]
}

/// The division of a set by the number of negatives, so that every batch has one shape.
struct Shapes {
    name: String,
    /// Some examples have negatives and some have none.
    mixed: bool,
    /// The least number of negatives of an example that has some; all are truncated to it.
    n_negatives: usize,
    labels: Option<LabelForm>,
}

impl Shapes {
    fn of(name: &str, shares: [&Rows; 3], labels: Option<LabelForm>) -> Self {
        let examples = || shares.into_iter().flat_map(|rows| &rows.examples);
        let counts = || examples().map(|example| example.negatives.len());
        let n_negatives = counts().filter(|&n| n > 0).min().unwrap_or(0);
        Self { name: name.to_owned(), mixed: n_negatives > 0 && counts().any(|n| n == 0), n_negatives, labels }
    }

    /// The data sets of a share; none for an empty one.
    fn apply(&self, mut rows: Rows, files: &Arc<[PathBuf]>) -> Vec<DataSet> {
        let n_labels = self.n_negatives + usize::from(self.labels == Some(LabelForm::Scores));
        for example in &mut rows.examples {
            example.negatives.truncate(self.n_negatives);
            example.labels.truncate(n_labels);
        }
        let sets = if self.mixed {
            let [triplets, pairs] = rows.parted();
            vec![(self.name.clone(), triplets), (format!("{}_pairs", self.name), pairs)]
        } else {
            vec![(self.name.clone(), rows)]
        };
        let set = |(name, Rows { examples, origins })| DataSet {
            name,
            set: self.name.clone(),
            examples,
            origins,
            files: files.clone(),
        };
        sets.into_iter().filter(|(_, rows)| !rows.is_empty()).map(set).collect()
    }
}

fn nothing_usable(report: &SourceReport) -> Error {
    let left_out = report.left_out();
    let message = match left_out.is_empty() {
        true => format!("no row to train on among {} rows", report.rows),
        false => format!("no usable row to train on: of {} rows {left_out}", report.rows),
    };
    Error::data_set(&report.name, message, "look at its columns, filter and split_ratio")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::TrainConfig;

    /// A data set `name` whose files hold `rows`, with further keys.
    fn load(name: &str, files: &[Vec<Value>], keys: Value, labels: LabelUse) -> Result<LoadedSet> {
        let folder = tempfile::tempdir().unwrap();
        for (number, rows) in files.iter().enumerate() {
            let lines: String = rows.iter().map(|row| format!("{row}\n")).collect();
            std::fs::write(folder.path().join(format!("{number}.jsonl")), lines).unwrap();
        }
        let mut keys = keys.as_object().unwrap().clone();
        keys.entry("files").or_insert_with(|| json!([folder.path().join("*.jsonl")]));
        let config = json!({
            "model": {"base_model": "x"}, "training": {"output_dir": "x"}, "datasets": {name: keys},
        });
        let (config, _) = TrainConfig::from_value(&config).unwrap();
        load_data_set(&config.datasets.sets[0], 42, labels)
    }

    fn example(anchor: &str, positive: &str, negatives: &[&str]) -> Example {
        let negatives = negatives.iter().map(|text| (*text).to_owned()).collect();
        Example { anchor: anchor.into(), positive: positive.into(), negatives, labels: Vec::new() }
    }

    #[test]
    fn columns_are_found_by_name_in_every_file() {
        let files = [
            vec![json!({"query": "q", "positive": "p", "negative": "n", "task": "retrieval"})],
            vec![json!({"question": "q", "context": ["c", "other"], "neg": ["n", "m"]})],
            vec![json!({"sentence1": "a", "sentence2": "b", "negative_1": "c", "negative_2": "d"})],
        ];
        let loaded = load("mine", &files, json!({}), LabelUse::Ignored).unwrap();
        let expected = [example("q", "p", &["n"]), example("q", "c", &["n"]), example("a", "b", &["c"])];
        assert_eq!(loaded.train[0].examples, expected, "truncated to the negatives that every row has");
    }

    #[test]
    fn columns_can_be_given() {
        let files = [vec![json!({"heading": "h", "body": "b", "other": "o", "worse": "w", "text": "t"})]];
        let keys = json!({"columns": {"anchor": "heading", "positive": "body", "negative": ["other", "worse"]}});
        let loaded = load("mine", &files, keys, LabelUse::Ignored).unwrap();
        assert_eq!(loaded.train[0].examples, [example("h", "b", &["o", "w"])]);
    }

    #[test]
    fn rows_that_cannot_be_used_are_counted() {
        let rows = vec![
            json!({"anchor": "a", "positive": "p", "language": "norwegian"}),
            json!({"anchor": " ", "positive": "p", "language": "norwegian"}),
            json!({"positive": "p", "language": "norwegian"}),
            json!({"anchor": "a", "positive": null, "language": "norwegian"}),
            json!({"anchor": "a", "positive": "p", "language": "danish"}),
            json!({"anchor": "a", "positive": "p"}),
        ];
        let loaded = load("mine", &[rows], json!({"filter": {"language": ["norwegian"]}}), LabelUse::Ignored).unwrap();
        let report = SourceReport {
            name: "mine".into(),
            rows: 6,
            filtered: 2,
            without_anchor: 2,
            without_positive: 1,
            train: 1,
            ..SourceReport::default()
        };
        assert_eq!(loaded.report, report);
    }

    #[test]
    fn a_set_with_and_without_negatives_becomes_two() {
        let rows = vec![
            json!({"anchor": "a", "positive": "p", "negative": "n"}),
            json!({"anchor": "b", "positive": "p", "negative": null}),
            json!({"anchor": "c", "positive": "p", "negative": ""}),
        ];
        let loaded = load("mine", &[rows], json!({}), LabelUse::Ignored).unwrap();
        let shape: Vec<_> = loaded.train.iter().map(|set| (set.name.as_str(), set.examples.len())).collect();
        assert_eq!((shape, loaded.report.split_by_negatives), (vec![("mine", 1), ("mine_pairs", 2)], true));
    }

    #[test]
    fn shares_are_taken_after_a_shuffle_with_the_seed() {
        let rows: Vec<Value> = (0..100).map(|n| json!({"anchor": format!("a{n}"), "positive": "p"})).collect();
        let keys = json!({"split_ratio": [0.7, 0.07, 0.23]});
        let loaded = load("mine", std::slice::from_ref(&rows), keys.clone(), LabelUse::Ignored).unwrap();
        assert_eq!((loaded.report.train, loaded.report.dev, loaded.report.test), (70, 7, 23));
        let mut anchors: Vec<&str> = [&loaded.train, &loaded.dev, &loaded.test]
            .into_iter()
            .flat_map(|sets| &sets[0].examples)
            .map(|example| example.anchor.as_str())
            .collect();
        assert!(!anchors.is_sorted());
        anchors.sort_unstable();
        anchors.dedup();
        assert_eq!(anchors.len(), 100);
        let again = load("mine", &[rows], keys, LabelUse::Ignored).unwrap();
        assert_eq!(
            (&again.train[0].examples, &again.dev[0].examples),
            (&loaded.train[0].examples, &loaded.dev[0].examples)
        );
    }

    #[test]
    fn max_samples_counts_usable_rows() {
        let rows = vec![
            json!({"anchor": "", "positive": "p"}),
            json!({"anchor": "a", "positive": "p"}),
            json!({"anchor": "b", "positive": "p"}),
            json!({"anchor": "c", "positive": "p"}),
        ];
        let loaded = load("mine", &[rows], json!({"max_samples": 2}), LabelUse::Ignored).unwrap();
        assert_eq!(loaded.train[0].examples, [example("a", "p", &[]), example("b", "p", &[])]);
    }

    #[test]
    fn labels_are_read_where_the_loss_needs_them() {
        let rows = vec![
            json!({"anchor": "a", "positive": "p", "negative": "n", "label": [0.5, 2]}),
            json!({"anchor": "b", "positive": "p", "negative": "n", "label": null}),
        ];
        let loaded = load("mine", std::slice::from_ref(&rows), json!({}), LabelUse::Required).unwrap();
        assert_eq!((loaded.train[0].examples[0].labels.as_slice(), loaded.report.without_label), (&[0.5, 2.0][..], 1));
        assert_eq!(load("mine", &[rows], json!({}), LabelUse::Ignored).unwrap().report.train, 2);
        let wrong = vec![json!({"anchor": "a", "positive": "p", "label": "entailment"})];
        let error = load("mine", &[wrong], json!({}), LabelUse::Required).unwrap_err().to_string();
        assert!(
            error
                .ends_with("0.jsonl:1: column `label` holds no teacher scores: expected a number or a list of numbers")
        );
    }

    #[test]
    fn labels_that_do_not_fit_are_errors_with_their_place() {
        let row = |n_negatives: usize, labels: Value| {
            let negatives: Vec<String> = (0..n_negatives).map(|n| format!("n{n}")).collect();
            json!({"anchor": "a", "positive": "p", "negative": negatives, "label": labels})
        };
        let cases = [
            (
                vec![row(2, json!([1, 2])), row(2, json!([1]))],
                LabelUse::Required,
                "2: 1 teacher labels for 2 negatives",
            ),
            (
                vec![row(2, json!([1, 2])), row(2, json!([3, 1, 2]))],
                LabelUse::Required,
                "2: teacher margins here and scores",
            ),
            (
                vec![row(2, json!([1, 2]))],
                LabelUse::Scores,
                "1: 2 teacher labels for 2 negatives: the loss needs 3 scores",
            ),
        ];
        for (rows, labels, message) in cases {
            let error = load("mine", &[rows], json!({}), labels).unwrap_err().to_string();
            assert!(error.contains(&format!("0.jsonl:{message}")), "{message}: {error}");
        }
        // negatives are truncated to those that every row has, and labels with them
        let rows = vec![row(3, json!([9, 1, 2, 3])), row(2, json!([8, 4, 5])), row(0, json!([7]))];
        let loaded = load("mine", &[rows], json!({}), LabelUse::Scores).unwrap();
        let labels: Vec<&[f32]> = loaded.train[0].examples.iter().map(|example| &example.labels[..]).collect();
        assert_eq!(labels, [&[9.0, 1.0, 2.0][..], &[8.0, 4.0, 5.0]]);
        assert_eq!(loaded.report.without_negative, 1);
    }

    /// The columns of the first line once were those of all.
    #[test]
    fn lines_may_have_different_keys() {
        let mut rows = vec![json!({"anchor": "a", "answer": "b"})];
        rows.extend((0..40).map(|n| json!({"query": format!("q{n}"), "positive": "p"})));
        let loaded = load("mine", &[rows], json!({}), LabelUse::Ignored).unwrap();
        assert_eq!((loaded.report.train, loaded.report.unusable()), (41, 0));
    }

    #[test]
    fn an_example_knows_its_place() {
        let files = [
            vec![json!({"anchor": "", "positive": "p"}), json!({"anchor": "a", "positive": "p", "negative": "n"})],
            vec![json!({"anchor": "b", "positive": "p"})],
        ];
        let loaded = load("mine", &files, json!({}), LabelUse::Ignored).unwrap();
        let [triplets, pairs] = &loaded.train[..] else { panic!("{loaded:?}") };
        assert!(triplets.place(0).ends_with("0.jsonl:2") && pairs.place(0).ends_with("1.jsonl:1"));
        assert_eq!(pairs.place(1), "row 1 of mine_pairs");
        assert_eq!((triplets.set.as_str(), pairs.set.as_str()), ("mine", "mine"));
    }

    /// Parts of the Hub: divided in the order of their files, joined, the training rows of `scandi_qa` mixed.
    #[test]
    fn downloaded_parts_are_divided_and_joined() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, n: usize| {
            let path = folder.path().join(name);
            let row = |row: usize| format!("{}\n", json!({"question": format!("{name}{row}"), "context": "c"}));
            std::fs::write(&path, (0..n).map(row).collect::<String>()).unwrap();
            path
        };
        let value = json!({
            "model": {"base_model": "x"}, "training": {"output_dir": "x"},
            "datasets": {"scandi_qa": {"use_openbookqa": false, "use_paws": false, "scandiqa_languages": ["no"]}},
        });
        let (config, _) = TrainConfig::from_value(&value).unwrap();
        let mut set = config.datasets.sets[0].clone();
        let error = load_data_set(&set, 42, LabelUse::Ignored).unwrap_err().to_string();
        assert!(error.contains("data set scandi_qa: ltg/norquad train is not downloaded"), "{error}");
        // norquad train and dev, scandi-qa, supervised-da
        for (part, path) in set.parts.iter_mut().zip([
            file("a.jsonl", 10),
            file("b.jsonl", 3),
            file("c.jsonl", 20),
            file("d.jsonl", 10),
        ]) {
            part.files = vec![path];
        }
        let loaded = load_data_set(&set, 42, LabelUse::Ignored).unwrap();
        let anchors = |sets: &[DataSet]| -> Vec<String> {
            sets[0].examples.iter().map(|example| example.anchor.clone()).collect()
        };
        let dev: Vec<String> = anchors(&loaded.dev);
        assert_eq!(
            dev,
            ["b.jsonl0", "b.jsonl1", "b.jsonl2", "c.jsonl18", "c.jsonl19", "d.jsonl8"].map(str::to_owned).to_vec()
        );
        let mut train = anchors(&loaded.train);
        assert_eq!(train.len(), 10 + 18 + 8);
        assert!(!train.is_sorted(), "mixed");
        train.sort();
        train.dedup();
        assert_eq!(train.len(), 36);
        assert_eq!(
            load_data_set(&set, 7, LabelUse::Ignored).unwrap().train,
            loaded.train,
            "not by the seed of the run"
        );
        set.max_samples = Some(12);
        let few = load_data_set(&set, 42, LabelUse::Ignored).unwrap();
        assert_eq!((few.report.train, few.report.cut), (12, 10 + 10 + 8 - 12));
    }

    #[test]
    fn built_in_sets_read_files_of_their_columns() {
        let files = [
            vec![json!({"question": "q", "context": "c", "answer": "short"})],
            vec![json!({"question_stem": "s", "fact": "f"})],
            vec![
                json!({"sentence1": "x", "sentence2": "y", "label": 0}),
                json!({"sentence1": "x", "sentence2": "z", "label": 1}),
            ],
        ];
        let loaded = load("scandi_qa", &files, json!({}), LabelUse::Ignored).unwrap();
        let expected = [example("q", "c", &[]), example("s", "f", &[]), example("x", "z", &[])];
        assert_eq!((loaded.train[0].examples.as_slice(), loaded.report.filtered), (&expected[..], 1));

        let row = |language, task| json!({"query": "q", "positive": "p", "negative": "n", "language": language, "task": task});
        let rows = vec![row("norwegian", "retrieval"), row("danish", "retrieval"), row("norwegian", "classification")];
        let keys = json!({"languages": ["norwegian"], "tasks": ["retrieval"]});
        assert_eq!(load("ddsc", std::slice::from_ref(&rows), keys, LabelUse::Ignored).unwrap().report.filtered, 2);
        let keys = json!({"languages": ["norwegian", "danish", "swedish"], "tasks": null});
        assert_eq!(load("ddsc", &[rows], keys, LabelUse::Ignored).unwrap().report.filtered, 0);
    }

    #[test]
    fn data_that_cannot_be_loaded_is_an_error() {
        let hub = load("nli", &[], json!({"files": []}), LabelUse::Ignored).unwrap_err();
        assert_eq!(hub.to_string(), "data set nli: Fremtind/all-nli-norwegian train is not downloaded");
        assert!(hub.hint().unwrap().contains("or give `files`"));

        let missing = load("mine", &[], json!({"files": ["no/such/file.jsonl"]}), LabelUse::Ignored).unwrap_err();
        assert!(missing.to_string().starts_with("no/such/file.jsonl: ") && missing.kind().is_bad_input());
        let glob = load("mine", &[], json!({"files": ["no/such/*.jsonl"]}), LabelUse::Ignored).unwrap_err();
        assert_eq!(glob.to_string(), "data set mine: no file matches `no/such/*.jsonl`");

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("broken.jsonl");
        std::fs::write(&path, "{\"anchor\": \"a\", \"positive\": \"p\"}\n{\"anchor\": \"b\n").unwrap();
        let broken = load("mine", &[], json!({"files": [path]}), LabelUse::Ignored).unwrap_err();
        assert!(broken.to_string().starts_with(&format!("{}:2: ", path.display())), "{broken}");

        let rows = vec![json!({"anchor": "a", "text": "t"})];
        let error = load("mine", &[rows], json!({}), LabelUse::Ignored).unwrap_err().to_string();
        assert!(error.contains(
            "no positive column: looked for positive, pos, answer, context, document, sentence2, found anchor, text"
        ));
        let rows = vec![json!({"anchor": "", "positive": "p"})];
        let error = load("mine", &[rows], json!({}), LabelUse::Ignored).unwrap_err().to_string();
        assert_eq!(error, "data set mine: no usable row to train on: of 1 rows 1 without an anchor");
    }

    #[test]
    fn running_text_comes_from_its_column_or_from_examples() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("texts.jsonl");
        std::fs::write(&path, "{\"text\": \"ett\"}\n{\"text\": \" \"}\n{\"anchor\": \"to\", \"positive\": \"tre\", \"negative\": \"fire\"}\n").unwrap();
        let value = json!({
            "model": {"base_model": "x"}, "training": {"output_dir": "x"}, "datasets": {"t": {"files": [path]}},
        });
        let (config, _) = TrainConfig::from_value(&value).unwrap();
        assert_eq!(load_texts(&config.datasets.sets[0]).unwrap(), ["ett", "to", "tre", "fire"]);
    }
}
