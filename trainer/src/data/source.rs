//! Reading of examples: rows of files, columns found by name or given, a filter, shares.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::sampler::{Permutations, SeededPermutations};
use super::{DataSet, Example};
use crate::config::{BuiltIn, Columns, DataSetConfig};
use crate::{Error, Result};

/// A row of an input file: column → cell.
type Row = Map<String, Value>;

/// Names of the anchor column, in this order.
const ANCHOR: &[&str] = &["anchor", "query", "question", "sentence1"];
/// Names of the positive column, in this order.
const POSITIVE: &[&str] = &["positive", "pos", "answer", "context", "document", "sentence2"];
/// Names of both columns in the sources of the built-in set `scandi_qa`: passages, not the short answers beside them.
const SCANDI_QA_ANCHOR: &[&str] = &["anchor", "query", "question", "question_stem", "sentence1"];
const SCANDI_QA_POSITIVE: &[&str] = &["positive", "pos", "context", "fact", "sentence2"];
/// Names of the column of negatives; a cell may hold one text or a list.
const NEGATIVE: &[&str] = &["negative", "neg", "negatives"];
/// Names of the column of teacher scores.
const LABEL: &[&str] = &["label", "labels", "score", "scores"];

/// The stream of the generator that shuffles a set before it is divided into shares; data sets in training use
/// small numbers.
const SHARES_STREAM: u64 = u64::MAX - 1;

/// The use of labels: teacher scores or margins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LabelUse {
    /// Label columns are not read.
    Ignored,
    /// A row without labels is dropped.
    Required,
}

/// The counts of the rows of a set; rows add up: `rows` = `filtered` + the three `without_*` + the three shares.
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
    /// Examples to train on.
    pub train: usize,
    /// Examples to evaluate on while training.
    pub dev: usize,
    /// Examples that are not used.
    pub test: usize,
    /// Examples with a negative, where there are also some without: the set became `name` and `name_pairs`.
    pub split_by_negatives: bool,
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

/// Reads a data set of the config. `seed` shuffles it before it is divided into shares.
///
/// # Errors
/// A file that cannot be read or parsed, no column that could hold anchors or positives, no usable row, or no `files`:
/// nothing is downloaded here.
pub fn load_data_set(config: &DataSetConfig, seed: u64, labels: LabelUse) -> Result<LoadedSet> {
    let mut reader = ExampleReader::new(config, labels);
    let mut train = reader.read(&config.files)?;
    let (mut dev, mut test) = (Vec::new(), Vec::new());
    if !config.dev_files.is_empty() {
        dev = reader.read(&config.dev_files)?;
    } else if let Some(ratio) = config.split_ratio {
        [train, dev, test] = divide(train, ratio, seed);
    }
    let mut report = reader.report;
    (report.train, report.dev, report.test) = (train.len(), dev.len(), test.len());
    if train.is_empty() {
        return Err(nothing_usable(&report));
    }
    let shapes = Shapes::of(&config.name, [&train, &dev, &test]);
    report.split_by_negatives = shapes.mixed;
    Ok(LoadedSet { train: shapes.apply(train), dev: shapes.apply(dev), test: shapes.apply(test), report })
}

/// Reads running text for masked-language modelling: the text column, or without one every anchor, positive and
/// negative as a text of its own. Empty texts are left out.
///
/// # Errors
/// A file that cannot be read or parsed, no text at all, or no `files`.
pub fn load_texts(config: &DataSetConfig) -> Result<Vec<String>> {
    let text_column = config.columns.text.as_deref().unwrap_or("text");
    let mut reader = ExampleReader::new(config, LabelUse::Ignored);
    let mut texts = Vec::new();
    for path in paths_of(config, &config.files)? {
        for row in read_rows(&path)? {
            let (_, row) = row?;
            if !reader.passes(&row) {
                continue;
            }
            match row.get(text_column) {
                Some(cell) => texts.extend(text_of(cell)),
                None => {
                    let anchor = reader.anchor.find(&row).and_then(text_of);
                    let positive = reader.positive.find(&row).and_then(text_of);
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

/// The files that paths and globs name, in this order, those of a glob by name.
fn paths_of(config: &DataSetConfig, patterns: &[String]) -> Result<Vec<PathBuf>> {
    if patterns.is_empty() {
        let sources = match (&config.source, config.built_in) {
            (Some(source), _) => source.clone(),
            (None, Some(built_in)) => built_in.hub_sources().join(", "),
            (None, None) => "nowhere".to_owned(),
        };
        let message = format!("has no files, and downloading from the Hub ({sources}) is not in this version");
        let hint = format!("download it, then `datasets: {{{}: {{files: [paths or globs]}}}}`", config.name);
        return Err(Error::data_set(&config.name, message, hint));
    }
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
    labels: LabelUse,
    filter: Vec<(&'a str, &'a [String])>,
    anchor: ColumnFinder,
    positive: ColumnFinder,
    report: SourceReport,
}

impl<'a> ExampleReader<'a> {
    fn new(config: &'a DataSetConfig, labels: LabelUse) -> Self {
        let (anchor, positive) = match config.built_in {
            Some(BuiltIn::ScandiQa) => (SCANDI_QA_ANCHOR, SCANDI_QA_POSITIVE),
            _ => (ANCHOR, POSITIVE),
        };
        Self {
            config,
            labels,
            filter: filter_of(config),
            anchor: ColumnFinder::new("anchor", config.columns.anchor.as_deref(), anchor),
            positive: ColumnFinder::new("positive", config.columns.positive.as_deref(), positive),
            report: SourceReport { name: config.name.clone(), ..SourceReport::default() },
        }
    }

    /// The usable rows of all files, up to `max_samples`.
    fn read(&mut self, patterns: &[String]) -> Result<Vec<Example>> {
        let limit = self.config.max_samples.unwrap_or(usize::MAX);
        let mut examples = Vec::new();
        for path in paths_of(self.config, patterns)? {
            self.read_file(&path, read_rows(&path)?, limit, &mut examples)?;
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
        examples: &mut Vec<Example>,
    ) -> Result<()> {
        self.anchor.reset();
        self.positive.reset();
        let mut first_row = None;
        for row in rows {
            if examples.len() >= limit {
                return Ok(());
            }
            let (position, row) = row?;
            self.report.rows += 1;
            examples.extend(self.example(path, position, &row)?);
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
        let Some(anchor) = anchor.and_then(text_of) else {
            self.report.without_anchor += 1;
            return Ok(None);
        };
        let Some(positive) = positive.and_then(text_of) else {
            self.report.without_positive += 1;
            return Ok(None);
        };
        let labels = match self.labels {
            LabelUse::Ignored => Vec::new(),
            LabelUse::Required => match labels_of(row, &self.config.columns) {
                Ok(labels) if labels.is_empty() => {
                    self.report.without_label += 1;
                    return Ok(None);
                }
                Ok(labels) => labels,
                Err(message) => return Err(splade_files::Error::line(path, position, message).into()),
            },
        };
        Ok(Some(Example { anchor, positive, negatives: negatives_of(row, &self.config.columns), labels }))
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

/// Finds the column of a role: the one given, or the first known name that a file has.
struct ColumnFinder {
    role: &'static str,
    given: Option<String>,
    candidates: &'static [&'static str],
    found: Option<String>,
}

impl ColumnFinder {
    fn new(role: &'static str, given: Option<&str>, candidates: &'static [&'static str]) -> Self {
        Self { role, given: given.map(str::to_owned), candidates, found: None }
    }

    /// Prepares for another file, which may have other columns.
    fn reset(&mut self) {
        self.found = None;
    }

    fn find<'r>(&mut self, row: &'r Row) -> Option<&'r Value> {
        if self.found.is_none() {
            let is_there = |name: &&str| row.contains_key(*name);
            self.found = match &self.given {
                Some(name) => Some(name.as_str()).filter(is_there).map(str::to_owned),
                None => self.candidates.iter().copied().find(is_there).map(str::to_owned),
            };
        }
        row.get(self.found.as_deref()?)
    }

    fn check_found(&self, path: &Path, row: &Row) -> Result<()> {
        if self.found.is_some() {
            return Ok(());
        }
        let looked_for = self.given.clone().unwrap_or_else(|| self.candidates.join(", "));
        let columns = row.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        let message = format!(
            "no {role} column: looked for {looked_for}, found {columns} (name it under `columns: {{{role}: …}}`)",
            role = self.role
        );
        Err(Error::file(path, message))
    }
}

/// The text of a cell; nothing if it is null, empty or not a text.
fn text_of(cell: &Value) -> Option<String> {
    let text = match cell {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Bool(flag) => flag.to_string(),
        Value::Null | Value::Array(_) | Value::Object(_) => return None,
    };
    (!text.trim().is_empty()).then_some(text)
}

/// The texts of a cell that may hold a list.
fn texts_of(cell: &Value) -> Vec<String> {
    match cell {
        Value::Array(cells) => cells.iter().filter_map(text_of).collect(),
        other => text_of(other).into_iter().collect(),
    }
}

/// The negatives of a row: the columns given, or the known names, then `negative_1`, `negative_2`, ….
fn negatives_of(row: &Row, columns: &Columns) -> Vec<String> {
    if !columns.negative.is_empty() {
        return columns.negative.iter().filter_map(|name| row.get(name)).flat_map(texts_of).collect();
    }
    let named = NEGATIVE.iter().filter_map(|name| row.get(*name)).take(1);
    let numbered = (1..).map_while(|number| row.get(&format!("negative_{number}")));
    named.chain(numbered).flat_map(texts_of).collect()
}

/// The labels of a row; none if they are missing.
fn labels_of(row: &Row, columns: &Columns) -> std::result::Result<Vec<f32>, String> {
    let given = columns.label.as_deref();
    let Some((name, cell)) = given
        .or_else(|| LABEL.iter().copied().find(|name| row.contains_key(*name)))
        .and_then(|name| Some((name, row.get(name)?)))
    else {
        return Ok(Vec::new());
    };
    let cells = match cell {
        Value::Null => return Ok(Vec::new()),
        Value::Array(cells) => cells.as_slice(),
        other => std::slice::from_ref(other),
    };
    let number = |cell: &Value| match cell {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse::<f64>().ok(),
        _ => None,
    };
    let labels: Option<Vec<f32>> = cells.iter().map(|cell| number(cell).map(|label| label as f32)).collect();
    labels
        .filter(|labels| labels.iter().all(|label| label.is_finite()))
        .ok_or_else(|| format!("column `{name}` holds no teacher scores: expected a number or a list of numbers"))
}

/// Shuffles, then divides into training, development and test examples, as the Python project does.
fn divide(examples: Vec<Example>, ratio: [f64; 3], seed: u64) -> [Vec<Example>; 3] {
    let order = SeededPermutations::new(seed, 0, SHARES_STREAM, true).next(examples.len());
    let n = examples.len();
    // 0.07 * 100 is slightly less than 7 in binary
    let share = |ratio: f64| ((n as f64 * ratio + 1e-9) as usize).min(n);
    let mut slots: Vec<Option<Example>> = examples.into_iter().map(Some).collect();
    let mut shuffled: Vec<Example> = order.into_iter().filter_map(|at| slots[at].take()).collect();
    let n_train = share(ratio[0]);
    let mut rest = shuffled.split_off(n_train);
    let test = rest.split_off(share(ratio[1]).min(rest.len()));
    [shuffled, rest, test]
}

/// The division of a set by the number of negatives, so that every batch has one shape.
struct Shapes {
    name: String,
    /// Some examples have negatives and some have none.
    mixed: bool,
    /// The least number of negatives of an example that has some; all are truncated to it.
    n_negatives: usize,
}

impl Shapes {
    fn of(name: &str, shares: [&[Example]; 3]) -> Self {
        let counts = || shares.into_iter().flatten().map(|example| example.negatives.len());
        let n_negatives = counts().filter(|&n| n > 0).min().unwrap_or(0);
        Self { name: name.to_owned(), mixed: n_negatives > 0 && counts().any(|n| n == 0), n_negatives }
    }

    /// The data sets of a share; none for an empty one.
    fn apply(&self, mut examples: Vec<Example>) -> Vec<DataSet> {
        for example in &mut examples {
            example.negatives.truncate(self.n_negatives);
        }
        let set = |name: String, examples| DataSet { name, examples };
        let sets = if self.mixed {
            let (pairs, triplets) = examples.into_iter().partition(|example| example.negatives.is_empty());
            vec![set(self.name.clone(), triplets), set(format!("{}_pairs", self.name), pairs)]
        } else {
            vec![set(self.name.clone(), examples)]
        };
        sets.into_iter().filter(|set| !set.examples.is_empty()).collect()
    }
}

fn nothing_usable(report: &SourceReport) -> Error {
    let message = format!(
        "no usable row to train on: of {} rows {} are filtered out, {} have no anchor, {} no positive, {} no label",
        report.rows, report.filtered, report.without_anchor, report.without_positive, report.without_label
    );
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
            vec![json!({"question": "q", "context": "c", "neg": ["n", "m"]})],
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
        assert_eq!(load("mine", &[rows], keys, LabelUse::Ignored).unwrap(), loaded);
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
        let message = "data set nli: has no files, and downloading from the Hub (Fremtind/all-nli-norwegian) is not in this version";
        assert_eq!(hub.to_string(), message);
        assert_eq!(hub.hint(), Some("download it, then `datasets: {nli: {files: [paths or globs]}}`"));

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
        assert_eq!(
            error,
            "data set mine: no usable row to train on: of 1 rows 0 are filtered out, 1 have no anchor, 0 no positive, 0 no label"
        );
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
