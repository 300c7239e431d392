//! [`RawTask`]: the tasks that mteb builds from the columns of data sets of another kind.
//!
//! The rules are those of mteb 2.26.24, with their quirks, since ids and judgements depend on them: ids come from one
//! counter in row order, equal texts share the id of the first, and texts of one split are known in the splits after it.
//! A document whose text occurred in an earlier split is therefore judged, but not in the corpus.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use serde_json::Value;

use splade_files::{Document, InputRow, Query, read_rows};

use crate::error::{Error, Result};
use crate::qrels::Qrels;
use crate::shuffle::shuffled;

/// A task that mteb builds from the columns of its data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RawTask {
    /// question → its context, and its answer as a second document; 1024 rows after a shuffle
    NorQuad,
    /// headline → article; all rows after a shuffle
    Snl,
    /// summary → article; 2048 rows after a shuffle
    Tv2Nord,
    /// claim → evidence, relevant if the label is `Supported`; rows in their order
    DanFever,
}

/// Documents, queries and judgements of a split.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct BuiltSplit {
    /// corpus, in the order of its ids
    pub documents: Vec<Document>,
    /// queries, each with a judgement
    pub queries: Vec<Query>,
    /// judgements
    pub qrels: Qrels,
}

/// Names of `DanFever`'s labels, where no README states others.
const LABELS: [&str; 3] = ["Refuted", "Supported", "NotEnoughInfo"];

impl RawTask {
    /// The raw task that mteb builds under this name.
    ///
    /// ```
    /// use splade_eval::RawTask;
    ///
    /// assert_eq!(RawTask::of("SNLRetrieval"), Some(RawTask::Snl));
    /// assert_eq!(RawTask::of("SweFaqRetrieval"), None);
    /// ```
    #[must_use]
    pub fn of(task: &str) -> Option<Self> {
        match task {
            "NorQuadRetrieval" => Some(Self::NorQuad),
            "SNLRetrieval" => Some(Self::Snl),
            "TV2Nordretrieval" => Some(Self::Tv2Nord),
            "DanFeverRetrieval" => Some(Self::DanFever),
            _ => None,
        }
    }

    /// Builds the split `wanted`. `splits` are all splits of the data set in its order, each with its files.
    ///
    /// # Errors
    /// A file that cannot be read, a row without one of the columns, a split that is not there.
    pub fn build(self, splits: &[(String, Vec<PathBuf>)], wanted: &str) -> Result<BuiltSplit> {
        let mut known = HashMap::new();
        for (split, files) in splits {
            let built = self.build_split(files, &mut known)?;
            if split == wanted {
                return Ok(built);
            }
        }
        let names: Vec<&str> = splits.iter().map(|(name, _)| name.as_str()).collect();
        Err(Error::invalid(format!("the data set has no split {wanted}"), format!("it has {}", names.join(", "))))
    }

    fn build_split(self, files: &[PathBuf], known: &mut HashMap<String, usize>) -> Result<BuiltSplit> {
        let mut split = BuiltSplit::default();
        let mut counter = 0;
        let mut placed = HashSet::new();
        for row in self.rows(files)? {
            match row {
                Pair { query, texts, supported: None } => {
                    let id = take(&mut counter);
                    split.queries.push(Query { id: id.to_string(), text: query });
                    for text in texts {
                        let document = *known.entry(text).or_insert_with_key(|text| {
                            let document = take(&mut counter);
                            split.documents.push(Document {
                                id: document.to_string(),
                                text: text.clone(),
                                ..Document::default()
                            });
                            document
                        });
                        split.qrels.insert(id.to_string(), document.to_string(), 1);
                    }
                }
                Pair { query, texts, supported: Some(supported) } => {
                    let id = format!("Q{}", shared_id(known, &query));
                    if split.qrels.judgements(&id).is_none() {
                        split.queries.push(Query { id: id.clone(), text: query });
                    }
                    for text in texts {
                        let document = format!("C{}", shared_id(known, &text));
                        if placed.insert(document.clone()) {
                            split.documents.push(Document { id: document.clone(), text, ..Document::default() });
                        }
                        split.qrels.insert(id.clone(), document, i32::from(supported));
                    }
                }
            }
        }
        Ok(split)
    }

    /// Rows in mteb's order, as many as it takes.
    fn rows(self, files: &[PathBuf]) -> Result<Vec<Pair>> {
        let most = match self {
            Self::DanFever => return self.all(files)?.collect(),
            Self::NorQuad => 1024,
            Self::Tv2Nord => 2048,
            Self::Snl => usize::MAX,
        };
        let mut count = 0u32;
        for row in self.all(files)? {
            row?;
            count += 1;
        }
        let places: HashMap<u32, usize> = shuffled(count).into_iter().take(most).zip(0..).collect();
        let mut rows = vec![None; places.len()];
        for (at, row) in (0..).zip(self.all(files)?) {
            // rows that are not taken are not kept in memory
            if let Some(place) = places.get(&at) {
                rows[*place] = Some(row?);
            }
        }
        Ok(rows.into_iter().flatten().collect())
    }

    fn all(self, files: &[PathBuf]) -> Result<impl Iterator<Item = Result<Pair>> + use<>> {
        let mut readers = Vec::new();
        for file in files {
            readers.push(read_rows(file)?);
        }
        Ok(readers.into_iter().flatten().map(move |row| self.pair(&row?)))
    }

    fn pair(self, row: &InputRow) -> Result<Pair> {
        let (query, texts) = match self {
            // mteb takes the answer first into the judgements, and the context first into the corpus
            Self::NorQuad => (text(row, "question")?, vec![text(row, "context")?, answer(row)?]),
            Self::Snl => (text(row, "headline")?, vec![text(row, "article")?]),
            Self::Tv2Nord => (text(row, "summary")?, vec![text(row, "text")?]),
            Self::DanFever => (text(row, "claim")?, vec![text(row, "evidence_extract")?]),
        };
        let supported = (self == Self::DanFever).then(|| is_supported(row)).transpose()?;
        Ok(Pair { query, texts, supported })
    }
}

/// A query and its texts.
#[derive(Debug, Clone)]
struct Pair {
    query: String,
    texts: Vec<String>,
    /// the label of `DanFever`; none in the other sets
    supported: Option<bool>,
}

fn take(counter: &mut usize) -> usize {
    *counter += 1;
    *counter - 1
}

/// Number of a text in the order of first occurrence.
fn shared_id(known: &mut HashMap<String, usize>, text: &str) -> usize {
    let next = known.len();
    *known.entry(text.to_owned()).or_insert(next)
}

fn text(row: &InputRow, column: &str) -> Result<String> {
    match row.string(column)? {
        Some(text) => Ok(text.to_owned()),
        None => Err(row.position().error(format!("missing {column}")).into()),
    }
}

/// First text of the column `answers`: a record with the list `text`, or a list of such records.
fn answer(row: &InputRow) -> Result<String> {
    let first = row.value().get("answers").and_then(|answers| match answers.get("text") {
        Some(Value::Array(texts)) => texts.first(),
        _ => answers.get(0)?.get("text"),
    });
    match first.and_then(Value::as_str) {
        Some(answer) => Ok(answer.to_owned()),
        None => Err(row.position().error("answers has no text").into()),
    }
}

fn is_supported(row: &InputRow) -> Result<bool> {
    let name = match row.value().get("label") {
        Some(Value::String(name)) => Some(name.as_str()),
        Some(Value::Number(label)) => label.as_u64().and_then(|label| LABELS.get(label as usize)).copied(),
        _ => None,
    };
    match name {
        Some(name) => Ok(name == "Supported"),
        None => Err(row.position().error(format!("label is none of {}", LABELS.join(", "))).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(task: RawTask, splits: &[(&str, &[&str])], wanted: &str) -> Result<BuiltSplit> {
        let folder = tempfile::tempdir().unwrap();
        let file = |(name, rows): &(&str, &[&str])| {
            let path = folder.path().join(format!("{name}.jsonl"));
            std::fs::write(&path, rows.join("\n")).unwrap();
            ((*name).to_owned(), vec![path])
        };
        task.build(&splits.iter().map(file).collect::<Vec<_>>(), wanted)
    }

    /// Queries, documents and judgements, one a line.
    fn shown(split: &BuiltSplit) -> Vec<String> {
        let queries = split.queries.iter().map(|query| format!("{}: {}", query.id, query.text));
        let documents = split.documents.iter().map(|document| format!("{}= {}", document.id, document.text));
        let judged = split.qrels.iter().flat_map(|(query, judged)| {
            judged.iter().map(move |(document, grade)| format!("{query} {document} {grade}"))
        });
        queries.chain(documents).chain(judged).collect()
    }

    /// The order of five rows is 4, 2, 3, 1, 0. The expected ids are those of mteb's `dataset_transform` on these rows.
    #[test]
    fn rows_are_shuffled_and_equal_articles_share_a_document() {
        let row = |headline: &str, article: &str| format!(r#"{{"headline": "{headline}", "article": "{article}"}}"#);
        let rows = [row("a", "x"), row("b", "y"), row("c", "x"), row("d", "z"), row("e", "x")];
        let rows: Vec<&str> = rows.iter().map(String::as_str).collect();
        let split = build(RawTask::Snl, &[("test", &rows)], "test").unwrap();
        assert_eq!(
            shown(&split),
            [
                "0: e", "2: c", "3: d", "5: b", "7: a", "1= x", "4= z", "6= y", "0 1 1", "2 1 1", "3 4 1", "5 6 1",
                "7 1 1"
            ]
        );
        // an article of an earlier split is judged and not in the corpus, as in mteb
        let earlier = row("t", "z");
        let split = build(RawTask::Snl, &[("train", &[&earlier]), ("test", &rows)], "test").unwrap();
        let documents: Vec<&str> = split.documents.iter().map(|document| document.text.as_str()).collect();
        assert_eq!(documents, ["x", "y"]);
        assert_eq!(split.qrels.judgements("3").unwrap()["1"], 1, "the id that the article had in the split train");
        let error = build(RawTask::Snl, &[("train", &rows)], "test").unwrap_err();
        assert_eq!(error.hint(), Some("it has train"));
    }

    #[test]
    fn a_question_has_two_relevant_documents() {
        let row =
            r#"{"question": "hvor", "context": "Oslo er stor", "answers": {"text": ["Oslo"], "answer_start": [0]}}"#;
        let list = r#"{"question": "hva", "context": "Oslo er stor", "answers": [{"text": "Oslo er stor"}]}"#;
        let split = build(RawTask::NorQuad, &[("test", &[row, list])], "test").unwrap();
        assert_eq!(
            shown(&split),
            ["0: hva", "2: hvor", "1= Oslo er stor", "3= Oslo", "0 1 1", "2 1 1", "2 3 1"],
            "two rows are in the order 1, 0"
        );
        let none = r#"{"question": "hvor", "context": "Oslo", "answers": {"text": []}}"#;
        let error = build(RawTask::NorQuad, &[("test", &[none])], "test").unwrap_err().to_string();
        assert!(error.ends_with("test.jsonl:1: answers has no text"), "{error}");
    }

    #[test]
    fn only_supported_claims_are_relevant() {
        let row = |claim: &str, evidence: &str, label: &str| {
            format!(r#"{{"claim": "{claim}", "evidence_extract": "{evidence}", "label": {label}}}"#)
        };
        let rows = [row("a", "x", "1"), row("b", "x", "0"), row("a", "b", "2"), row("c", "y", "\"Supported\"")];
        let rows: Vec<&str> = rows.iter().map(String::as_str).collect();
        let split = build(RawTask::DanFever, &[("train", &rows)], "train").unwrap();
        // claims and evidence share one counter: the claim b is text 2 as evidence too
        assert_eq!(
            shown(&split),
            ["Q0: a", "Q2: b", "Q3: c", "C1= x", "C2= b", "C4= y", "Q0 C1 1", "Q0 C2 0", "Q2 C1 0", "Q3 C4 1"]
        );
        let error = build(RawTask::DanFever, &[("train", &[&row("a", "x", "7")])], "train").unwrap_err().to_string();
        assert!(error.ends_with("train.jsonl:1: label is none of Refuted, Supported, NotEnoughInfo"), "{error}");
    }

    #[test]
    fn long_sets_are_truncated_after_the_shuffle() {
        let rows: Vec<String> = (0..3000).map(|n| format!(r#"{{"summary": "s{n}", "text": "t{n}"}}"#)).collect();
        let rows: Vec<&str> = rows.iter().map(String::as_str).collect();
        let split = build(RawTask::Tv2Nord, &[("test", &rows)], "test").unwrap();
        assert_eq!((split.queries.len(), split.documents.len()), (2048, 2048));
        assert_eq!((split.queries[0].text.as_str(), split.queries[1].text.as_str()), ("s2342", "s554"));
    }
}
