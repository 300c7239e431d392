//! [`Qrels`]: query → document → graded relevance.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use crate::{Error, Result};
use splade_files::{Position, Row, read_rows, read_text};

/// Document id → grade, for one query. A grade above 0 is relevant.
pub type Judgements = BTreeMap<String, i32>;

/// Judgements of many queries.
///
/// ```
/// use splade_eval::Qrels;
///
/// let qrels: Qrels = [("q1", "d7", 2), ("q1", "d9", 0)].into_iter().collect();
/// assert_eq!(qrels.judgements("q1").unwrap()["d7"], 2);
/// assert_eq!(qrels.relevant_count("q1"), 1);
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Qrels {
    by_query: BTreeMap<String, Judgements>,
}

impl Qrels {
    /// Judges a document; a later judgement of the same pair replaces the earlier one, as Python's readers do.
    pub fn insert(&mut self, query_id: impl Into<String>, document_id: impl Into<String>, grade: i32) {
        self.by_query.entry(query_id.into()).or_default().insert(document_id.into(), grade);
    }

    /// The judgements of a query, none when it was not judged.
    #[must_use]
    pub fn judgements(&self, query_id: &str) -> Option<&Judgements> {
        self.by_query.get(query_id)
    }

    /// The number of documents with a grade above 0.
    #[must_use]
    pub fn relevant_count(&self, query_id: &str) -> usize {
        self.judgements(query_id).map_or(0, |judged| judged.values().filter(|grade| **grade > 0).count())
    }

    /// Queries and their judgements, by query id.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Judgements)> {
        self.by_query.iter().map(|(id, judged)| (id.as_str(), judged))
    }

    /// The number of judged queries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_query.len()
    }

    /// True when nothing was judged.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_query.is_empty()
    }

    /// Reads a file of judgements.
    ///
    /// * `.tsv`, `.txt`, `.qrels`, `.trec` or no ending: the BEIR form `query-id<TAB>corpus-id<TAB>score`, with or
    ///   without a header line, or the TREC form `query 0 document grade`;
    /// * `.jsonl` (also `.gz`, `.zst`) and `.parquet`: columns `query-id`, `corpus-id` (a string or a list of strings)
    ///   and `score`, whose absence means 1. Underscores will do for hyphens.
    ///
    /// Grades are whole numbers. A pair judged twice keeps the later grade.
    ///
    /// # Errors
    /// A file that does not open, a line that is neither form, a file without any judgement.
    pub fn read(path: &Path) -> Result<Self> {
        let mut qrels = Self::default();
        qrels.extend_from(path)?;
        if qrels.is_empty() {
            return Err(Error::file(path, "no judgements"));
        }
        Ok(qrels)
    }

    /// Adds the judgements of one more file.
    pub(super) fn extend_from(&mut self, path: &Path) -> Result<()> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        if [".tsv", ".txt", ".qrels", ".trec"].iter().any(|end| name.ends_with(end)) || !name.contains('.') {
            return self.extend_from_lines(path);
        }
        for row in read_rows(path)? {
            self.insert_row(&row?)?;
        }
        Ok(())
    }

    fn extend_from_lines(&mut self, path: &Path) -> Result<()> {
        let text = read_text(path)?;
        for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let Some((query, document, grade)) = split(line) else {
                let message = "expected query-id<TAB>corpus-id<TAB>score, or four columns `query 0 document grade`";
                return Err(Error::line(path, at + 1, message));
            };
            match whole_number(grade) {
                Some(grade) => self.insert(query, document, grade),
                None if at == 0 && grade.parse::<f64>().is_err() => {} // the header line
                None => return Err(Error::line(path, at + 1, format!("the grade '{grade}' is not a whole number"))),
            }
        }
        Ok(())
    }

    fn insert_row(&mut self, row: &Row) -> Result<()> {
        let query = column(row, "query-id")?;
        let grade = grade(row)?;
        let documents = match column(row, "corpus-id")? {
            Value::Array(documents) => documents.as_slice(),
            one => std::slice::from_ref(one),
        };
        let query = id(row.position(), "query-id", query)?;
        for document in documents {
            self.insert(query.clone(), id(row.position(), "corpus-id", document)?, grade);
        }
        Ok(())
    }
}

impl<Q: Into<String>, D: Into<String>> FromIterator<(Q, D, i32)> for Qrels {
    fn from_iter<I: IntoIterator<Item = (Q, D, i32)>>(judgements: I) -> Self {
        let mut qrels = Self::default();
        judgements.into_iter().for_each(|(query, document, grade)| qrels.insert(query, document, grade));
        qrels
    }
}

/// Query, document and grade of a line in one of the two forms.
fn split(line: &str) -> Option<(&str, &str, &str)> {
    let tabs: Vec<&str> = line.split('\t').map(str::trim).collect();
    if let [query, document, grade] = tabs[..] {
        return Some((query, document, grade));
    }
    let mut words = line.split_whitespace();
    let (query, _, document, grade) = (words.next()?, words.next()?, words.next()?, words.next()?);
    words.next().is_none().then_some((query, document, grade))
}

/// `2`, also written `2.0`.
fn whole_number(text: &str) -> Option<i32> {
    text.parse().ok().or_else(|| text.parse().ok().and_then(whole))
}

fn whole(number: f64) -> Option<i32> {
    // `as` saturates; what it changed was not a whole number in range.
    (f64::from(number as i32) == number).then_some(number as i32)
}

/// A column under its name with hyphens or underscores.
fn column<'a>(row: &'a Row, name: &str) -> Result<&'a Value> {
    let value = row.value().get(name).or_else(|| row.value().get(&name.replace('-', "_")));
    Ok(value.ok_or_else(|| row.position().error(format!("missing {name}")))?)
}

fn grade(row: &Row) -> Result<i32> {
    match row.value().get("score") {
        None | Some(Value::Null) => Ok(1),
        Some(Value::String(text)) if whole_number(text).is_some() => Ok(whole_number(text).unwrap_or(0)),
        Some(score) => {
            let message = || row.position().error(format!("the grade {score} is not a whole number"));
            Ok(score.as_f64().and_then(whole).ok_or_else(message)?)
        }
    }
}

fn id(position: &Position, name: &str, value: &Value) -> Result<String> {
    match value {
        Value::String(id) => Ok(id.clone()),
        Value::Number(id) if id.is_i64() || id.is_u64() => Ok(id.to_string()),
        other => Err(position.error(format!("{name} is {other}, not a string or a whole number")).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, text: &str) -> Result<Qrels> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        Qrels::read(&path)
    }

    #[test]
    fn all_forms_give_the_same() {
        let expected: Qrels = [("q1", "d1", 2), ("q1", "d2", 0), ("q 2", "d 1", -1)].into_iter().collect();
        let forms = [
            ("test.tsv", "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t0\nq 2\td 1\t-1\n"),
            ("test.tsv", "q1\td1\t1\nq1\td1\t2.0\r\n\nq1\td2\t0\nq 2\td 1\t-1"),
            (
                "test.jsonl",
                "{\"query-id\": \"q1\", \"corpus-id\": \"d1\", \"score\": 2.0}\n{\"query_id\": \"q1\", \"corpus_id\": \
                 [\"d2\"], \"score\": \"0\"}\n{\"query-id\": \"q 2\", \"corpus-id\": \"d 1\", \"score\": -1}",
            ),
        ];
        for (name, text) in forms {
            assert_eq!(read(name, text).unwrap(), expected, "{text}");
        }
        let trec: Qrels = [("q1", "d1", 2), ("q1", "d2", 0)].into_iter().collect();
        assert_eq!(read("qrels", "q1 0 d1 2\nq1\t0\td2\t0\n").unwrap(), trec);
        let without_scores = read("t.jsonl", r#"{"query-id": 1, "corpus-id": ["a", "b"]}"#).unwrap();
        assert_eq!(without_scores.relevant_count("1"), 2);
    }

    #[test]
    fn defects_are_named() {
        let cases = [
            ("t.tsv", "q1\td1\t1\nq1\td2\thigh\n", "t.tsv:2: the grade 'high' is not a whole number"),
            ("t.tsv", "q1\td1\t0.5\nq1\td1\t0.5", "t.tsv:1: the grade '0.5' is not a whole number"),
            ("t.tsv", "q1 d1\n", "t.tsv:1: expected query-id<TAB>corpus-id<TAB>score"),
            ("t.tsv", "query-id\tcorpus-id\tscore\n", "t.tsv: no judgements"),
            ("t.jsonl", r#"{"query-id": "q"}"#, "t.jsonl:1: missing corpus-id"),
            ("t.jsonl", r#"{"query-id": "q", "corpus-id": null}"#, "t.jsonl:1: corpus-id is null"),
            ("t.jsonl", r#"{"query-id": "q", "corpus-id": 1, "score": 1e99}"#, "t.jsonl:1: the grade 1e+99"),
        ];
        for (name, text, wanted) in cases {
            let message = read(name, text).unwrap_err().to_string();
            assert!(message.contains(wanted), "{message}");
        }
    }
}
