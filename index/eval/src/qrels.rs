//! [`Qrels`]: query → document → graded relevance.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use splade_files::{InputRow, RowPosition, read_rows, read_text};

use crate::error::{Error, Result};

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
    /// Sets the grade of a document for a query, and returns the one it replaces.
    pub fn insert(&mut self, query_id: impl Into<String>, document_id: impl Into<String>, grade: i32) -> Option<i32> {
        self.by_query.entry(query_id.into()).or_default().insert(document_id.into(), grade)
    }

    /// Judgements of a query; none for a query without them.
    #[must_use]
    pub fn judgements(&self, query_id: &str) -> Option<&Judgements> {
        self.by_query.get(query_id)
    }

    /// Number of documents with a grade above 0 for a query.
    #[must_use]
    pub fn relevant_count(&self, query_id: &str) -> usize {
        self.judgements(query_id).map_or(0, |judged| judged.values().filter(|grade| **grade > 0).count())
    }

    /// Queries and their judgements, by query id.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Judgements)> {
        self.by_query.iter().map(|(id, judged)| (id.as_str(), judged))
    }

    /// Number of judged queries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_query.len()
    }

    /// True if there are no judgements.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_query.is_empty()
    }

    /// Reads a file of judgements.
    ///
    /// * `.tsv`, `.txt`, `.qrels`, `.trec` or no ending: the BEIR form `query-id<TAB>corpus-id<TAB>score`, or the TREC
    ///   form `query iteration document grade`, with columns separated by tabs or by spaces. A first line of column names
    ///   is skipped: `query-id` (or `qid`, …), `corpus-id` (or `docid`, …), and a third name.
    /// * `.jsonl` (also `.gz`, `.zst`), `.tsv.gz`, `.tsv.zst` and `.parquet`: columns `query-id`, `corpus-id` (a string or
    ///   a list of strings) and `score` or `relevance`. Names may have underscores instead of hyphens. Without a third
    ///   column every grade is 1.
    ///
    /// Grades are whole numbers. A pair that is judged twice has the later grade, as in Python's readers.
    ///
    /// # Errors
    /// A file that cannot be opened, a line in neither form, an empty id, a file without judgements.
    pub fn read(path: &Path) -> Result<Self> {
        let mut qrels = Self::default();
        qrels.extend_from(path)?;
        if qrels.is_empty() {
            return Err(Error::file(path, "no judgements"));
        }
        Ok(qrels)
    }

    /// Adds the judgements of a file. Returns the number of pairs that get another grade.
    pub(crate) fn extend_from(&mut self, path: &Path) -> Result<usize> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        if [".tsv", ".txt", ".qrels", ".trec"].iter().any(|end| name.ends_with(end)) || !name.contains('.') {
            return self.extend_from_lines(path);
        }
        let mut regraded = 0;
        for row in read_rows(path)? {
            regraded += self.insert_row(&row?)?;
        }
        Ok(regraded)
    }

    fn extend_from_lines(&mut self, path: &Path) -> Result<usize> {
        let text = read_text(path)?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        let mut regraded = 0;
        for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.trim_ascii().is_empty()) {
            let wrong = |message: String| Error::line(path, at + 1, message);
            let Some((query, document, grade)) = split(line) else {
                let message = "expected query-id<TAB>corpus-id<TAB>score, or four columns `query 0 document grade`";
                return Err(wrong(message.into()));
            };
            if at == 0 && is_header(query, document, grade) {
                continue;
            }
            if query.is_empty() || document.is_empty() {
                return Err(wrong(format!("empty {}", if query.is_empty() { "query-id" } else { "corpus-id" })));
            }
            let grade =
                whole_number(grade).ok_or_else(|| wrong(format!("the grade '{grade}' is not a whole number")))?;
            regraded += usize::from(self.insert(query, document, grade).is_some_and(|earlier| earlier != grade));
        }
        Ok(regraded)
    }

    fn insert_row(&mut self, row: &InputRow) -> Result<usize> {
        let query = column(row, "query-id")?;
        let grade = grade(row)?;
        let documents = match column(row, "corpus-id")? {
            Value::Array(documents) => documents.as_slice(),
            one => std::slice::from_ref(one),
        };
        let query = id(row.position(), "query-id", query)?;
        let mut regraded = 0;
        for document in documents {
            let earlier = self.insert(query.clone(), id(row.position(), "corpus-id", document)?, grade);
            regraded += usize::from(earlier.is_some_and(|earlier| earlier != grade));
        }
        Ok(regraded)
    }
}

impl<Q: Into<String>, D: Into<String>> FromIterator<(Q, D, i32)> for Qrels {
    fn from_iter<I: IntoIterator<Item = (Q, D, i32)>>(judgements: I) -> Self {
        let mut qrels = Self::default();
        for (query, document, grade) in judgements {
            qrels.insert(query, document, grade);
        }
        qrels
    }
}

/// Query, document and grade of a line in one of the two forms.
///
/// Only ASCII white space separates columns, as in trec_eval: a non-breaking space is part of an id.
fn split(line: &str) -> Option<(&str, &str, &str)> {
    let tabs: Vec<&str> = line.split('\t').map(str::trim_ascii).collect();
    match tabs[..] {
        [query, document, grade] | [query, _, document, grade] => Some((query, document, grade)),
        _ => {
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            let [query, _, document, grade] = words[..] else { return None };
            Some((query, document, grade))
        }
    }
}

/// True for a line of column names in the order query, document.
fn is_header(query: &str, document: &str, grade: &str) -> bool {
    let is_one_of = |name: &str, names: &[&str]| {
        let plain: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
        names.contains(&plain.to_ascii_lowercase().as_str())
    };
    is_one_of(query, &["queryid", "qid", "query", "topic", "topicid"])
        && is_one_of(document, &["corpusid", "docid", "documentid", "did", "pid", "doc", "document", "docno"])
        && whole_number(grade).is_none()
}

/// `2`, also written `2.0`.
fn whole_number(text: &str) -> Option<i32> {
    text.parse().ok().or_else(|| text.parse().ok().and_then(whole))
}

fn whole(number: f64) -> Option<i32> {
    // `as` saturates: a value that changes is not a whole number in range
    (f64::from(number as i32) == number).then_some(number as i32)
}

/// Value of a column whose name has hyphens or underscores.
fn column<'a>(row: &'a InputRow, name: &str) -> Result<&'a Value> {
    let value = row.value().get(name).or_else(|| row.value().get(&name.replace('-', "_")));
    Ok(value.ok_or_else(|| row.position().error(format!("missing {name}")))?)
}

/// Grade in the column `score` or `relevance`; 1 in a file of pairs without a third column.
fn grade(row: &InputRow) -> Result<i32> {
    let values = row.value();
    let Some(grade) = ["score", "relevance"].iter().find_map(|name| values.get(*name)) else {
        let is_id = |name: &&String| ["query-id", "query_id", "corpus-id", "corpus_id"].contains(&name.as_str());
        return match values.keys().find(|name| !is_id(name)) {
            None => Ok(1),
            Some(other) => {
                let message = format!("neither score nor relevance is there, but a column {other}");
                Err(row.position().error(message).into())
            }
        };
    };
    let number = match grade {
        Value::String(text) => whole_number(text.trim_ascii()),
        grade => grade.as_f64().and_then(whole),
    };
    Ok(number.ok_or_else(|| row.position().error(format!("the grade {grade} is not a whole number")))?)
}

fn id(position: &RowPosition, name: &str, value: &Value) -> Result<String> {
    match value {
        Value::String(id) if id.is_empty() => Err(position.error(format!("empty {name}")).into()),
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
            ("test.tsv", "\u{feff}q1\td1\t2\nq1\td2\t0\nq 2\td 1\t-1"),
            ("test.qrels", "q1\t0\td1\t2\nq1\t0\td2\t0\nq 2\t0\td 1\t-1"),
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
        let relevance = read("t.jsonl", r#"{"query-id": 1, "corpus-id": "a", "relevance": 0}"#).unwrap();
        assert_eq!(relevance.judgements("1").unwrap()["a"], 0);
        let separated = read("t.txt", "qid docid x rel\nq\u{a0}1 0 d 1").unwrap_err().to_string();
        assert!(separated.contains("t.txt:1: the grade 'rel'"), "{separated}");
        assert_eq!(read("t.txt", "topic iteration docno rel\nq\u{a0}1 0 d 1").unwrap().relevant_count("q\u{a0}1"), 1);
    }

    #[test]
    fn defects_are_named() {
        let cases = [
            ("t.tsv", "q1\td1\t1\nq1\td2\thigh\n", "t.tsv:2: the grade 'high' is not a whole number"),
            ("t.tsv", "q1\td1\t0.5\nq1\td1\t0.5", "t.tsv:1: the grade '0.5' is not a whole number"),
            ("t.tsv", "q1\td1\t1\nquery-id\tcorpus-id\tscore\n", "t.tsv:2: the grade 'score' is not a whole number"),
            ("t.tsv", "q1 d1\n", "t.tsv:1: expected query-id<TAB>corpus-id<TAB>score"),
            ("t.tsv", "query-id\tcorpus-id\tscore\n", "t.tsv: no judgements"),
            ("t.tsv", "q1\td1\thigh\nq1\td2\t1", "t.tsv:1: the grade 'high' is not a whole number"),
            ("t.tsv", "corpus-id\tquery-id\tscore\nd1\tq1\t1", "t.tsv:1: the grade 'score' is not a whole number"),
            ("t.tsv", "q1,d1,1\n", "t.tsv:1: expected query-id<TAB>corpus-id<TAB>score"),
            ("t.tsv", "q1 d1 1\n", "t.tsv:1: expected query-id<TAB>corpus-id<TAB>score"),
            ("t.tsv", "q1\td1\t1\t0\t0\n", "t.tsv:1: expected query-id<TAB>corpus-id<TAB>score"),
            ("t.tsv", "\td1\t1\n", "t.tsv:1: empty query-id"),
            ("t.tsv", "q1\t \t1\n", "t.tsv:1: empty corpus-id"),
            ("t.jsonl", r#"{"query-id": "q", "corpus-id": ""}"#, "t.jsonl:1: empty corpus-id"),
            ("t.jsonl", r#"{"query-id": "q", "corpus-id": "d", "score": null}"#, "t.jsonl:1: the grade null"),
            ("t.jsonl", r#"{"query-id": "q", "corpus-id": "d", "label": 0}"#, "t.jsonl:1: neither score nor relevance"),
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
