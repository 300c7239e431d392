//! Runs in the file forms of others: mteb's predictions, and lines of JSON.

use std::path::Path;

use serde_json::{Map, Value};

use splade_core::{Hit, Ranking};
use splade_files::{InputRow, read_json, read_rows};

use crate::error::{Error, Result};
use crate::run::Run;

/// Subset and split of a prediction file to read; none where the file has one.
#[derive(Debug, Clone, Copy, Default)]
pub struct RunPart<'a> {
    /// subset of the task
    pub subset: Option<&'a str>,
    /// split of the task
    pub split: Option<&'a str>,
}

impl Run {
    /// Reads a run by the ending of its file name.
    ///
    /// * `.json`: a prediction file of mteb, `{subset: {split: {query: {document: score}}}}`; `part` selects one run of
    ///   several.
    /// * `.jsonl` (also `.gz`, `.zst`): one query a line, `{"query_id": …, "hits": [{"_id": …, "score": …}]}` of this
    ///   toolkit, or `{"query_id": …, "results": [{"corpus_id": …, "score": …}]}` of sentence-transformers.
    /// * other endings: the TREC form, see [`Run::read_trec`].
    ///
    /// Scores become 32-bit floats, as in trec_eval.
    ///
    /// # Errors
    /// A file that cannot be opened or is in none of these forms, a score that is not a finite number, a duplicate query
    /// or document; a prediction file of several runs of which `part` does not select one; a `part` for another form.
    pub fn read(path: &Path, part: RunPart) -> Result<Self> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        if name.ends_with(".json") {
            return read_predictions(path, part);
        }
        if part.subset.is_some() || part.split.is_some() {
            return Err(Error::file(path, "only prediction files of mteb (.json) have subsets and splits"));
        }
        if [".jsonl", ".jsonl.gz", ".jsonl.zst"].iter().any(|end| name.ends_with(end)) {
            return read_lines(path);
        }
        Self::read_trec(path)
    }
}

fn read_lines(path: &Path) -> Result<Run> {
    let mut run = Run::default();
    for row in read_rows(path)? {
        let row = row?;
        let (query, ranking) = ranking_of_row(&row).map_err(|message| row.position().error(message))?;
        if run.insert(&query, ranking).is_some() {
            return Err(row.position().error(format!("duplicate query id {query}")).into());
        }
    }
    Ok(run)
}

/// Query and hits of a line, or what is wrong with it.
fn ranking_of_row(row: &InputRow) -> std::result::Result<(String, Ranking), String> {
    let query = id(row.value().get("query_id")).ok_or("missing query_id")?;
    let (hits, name) = match (row.value().get("hits"), row.value().get("results")) {
        (Some(Value::Array(hits)), None) => (hits, "_id"),
        (None, Some(Value::Array(hits))) => (hits, "corpus_id"),
        _ => return Err("expected a list of hits, `hits` or `results`".to_owned()),
    };
    let hits = hits.iter().map(|entry| {
        let document = id(entry.get(name)).ok_or_else(|| format!("a hit of query {query} has no {name}"))?;
        hit(&query, document, entry.get("score").unwrap_or(&Value::Null))
    });
    let hits = hits.collect::<std::result::Result<Vec<Hit>, String>>()?;
    Ok((query.clone(), ranking(&query, hits)?))
}

fn read_predictions(path: &Path, part: RunPart) -> Result<Run> {
    let file: Map<String, Value> = read_json(path)?;
    let (_, splits) = choose(path, "subset", part.subset, &file, |name| name != "mteb_model_meta")?;
    let splits = splits.as_object().ok_or_else(|| no_predictions(path))?;
    let (_, queries) = choose(path, "split", part.split, splits, |_| true)?;
    let queries = queries.as_object().ok_or_else(|| no_predictions(path))?;
    let mut run = Run::default();
    for (query, hits) in queries {
        let hits = hits.as_object().ok_or_else(|| no_predictions(path))?;
        let hits = hits.iter().map(|(document, score)| hit(query, document.clone(), score));
        let ranking = hits.collect::<std::result::Result<Vec<_>, _>>().and_then(|hits| ranking(query, hits));
        run.insert(query, ranking.map_err(|message| Error::file(path, message))?);
    }
    Ok(run)
}

/// The entry called `name`, or the only entry.
fn choose<'a>(
    path: &Path,
    what: &str,
    name: Option<&str>,
    entries: &'a Map<String, Value>,
    is_entry: impl Fn(&str) -> bool,
) -> Result<(&'a String, &'a Value)> {
    let entries: Vec<_> = entries.iter().filter(|(entry, _)| is_entry(entry)).collect();
    let wanted: Vec<_> = entries.iter().filter(|(entry, _)| name.is_none_or(|name| name == *entry)).collect();
    match wanted[..] {
        [one] => Ok(*one),
        _ if entries.is_empty() => Err(no_predictions(path)),
        _ => {
            let names: Vec<&str> = entries.iter().map(|(entry, _)| entry.as_str()).collect();
            let message = match name {
                Some(name) => format!("no {what} {name}, it has {}", names.join(", ")),
                None => format!("it has several {what}s, name one: {}", names.join(", ")),
            };
            Err(Error::file(path, message))
        }
    }
}

fn no_predictions(path: &Path) -> Error {
    Error::file(path, "no predictions of mteb, expected {subset: {split: {query: {document: score}}}}")
}

fn hit(query: &str, id: String, score: &Value) -> std::result::Result<Hit, String> {
    let number = score.as_f64().map(|score| score as f32).filter(|score| score.is_finite());
    let score =
        number.ok_or_else(|| format!("the score {score} of query {query}, document {id} is not a finite f32"))?;
    Ok(Hit { id, score })
}

fn ranking(query: &str, hits: Vec<Hit>) -> std::result::Result<Ranking, String> {
    let count = hits.len();
    let ranking = Ranking::from_hits(hits);
    if ranking.len() < count { Err(format!("duplicate document id of query {query}")) } else { Ok(ranking) }
}

fn id(value: Option<&Value>) -> Option<String> {
    match value? {
        Value::String(id) if !id.is_empty() => Some(id.clone()),
        Value::Number(id) if id.is_i64() || id.is_u64() => Some(id.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, text: &str, part: RunPart) -> Result<Run> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        Run::read(&path, part)
    }

    #[test]
    fn all_forms_give_the_same() {
        let subset = RunPart { subset: Some("nb"), split: None };
        let forms = [
            ("run.trec", "q Q0 b 1 2.5 x\nq Q0 a 2 1 x\n", RunPart::default()),
            ("run.txt", "q Q0 b 1 2.5 x\nq Q0 a 2 1 x\n", RunPart::default()),
            ("p.json", r#"{"mteb_model_meta": {}, "nb": {"test": {"q": {"a": 1, "b": 2.5}}}}"#, RunPart::default()),
            ("p.json", r#"{"nb": {"test": {"q": {"a": 1, "b": 2.5}}}, "sv": {}}"#, subset),
            (
                "h.jsonl",
                r#"{"query_id": "q", "hits": [{"_id": "b", "score": 2.5}, {"_id": "a", "score": 1}]}"#,
                RunPart::default(),
            ),
            (
                "r.jsonl",
                r#"{"query_id": "q", "results": [{"corpus_id": "b", "score": 2.5}, {"corpus_id": "a", "score": 1}]}"#,
                RunPart::default(),
            ),
        ];
        for (name, text, part) in forms {
            let run = read(name, text, part).unwrap();
            let hits: Vec<_> =
                run.ranking("q").unwrap().hits().iter().map(|hit| (hit.id.as_str(), hit.score)).collect();
            assert_eq!(hits, [("b", 2.5), ("a", 1.0)], "{text}");
        }
    }

    #[test]
    fn defects_are_named() {
        let other = RunPart { subset: Some("da"), split: None };
        let cases = [
            ("p.json", r#"{"nb": {}, "sv": {}}"#, RunPart::default(), "several subsets, name one: nb, sv"),
            ("p.json", r#"{"nb": {"dev": {}, "test": {}}}"#, RunPart::default(), "several splits, name one: dev, test"),
            ("p.json", r#"{"nb": {}, "sv": {}}"#, other, "no subset da, it has nb, sv"),
            ("p.json", r#"{"mteb_model_meta": {}}"#, RunPart::default(), "no predictions of mteb"),
            ("p.json", r#"{"a": {"b": {"c": 1}}}"#, RunPart::default(), "no predictions of mteb"),
            (
                "p.json",
                r#"{"a": {"t": {"q": {"d": "1"}}}}"#,
                RunPart::default(),
                "the score \"1\" of query q, document d",
            ),
            ("p.json", r#"{"a": {"t": {"q": {"d": 1e99}}}}"#, RunPart::default(), "is not a finite f32"),
            ("r.jsonl", r#"{"query_id": "q"}"#, RunPart::default(), "r.jsonl:1: expected a list of hits"),
            ("r.jsonl", r#"{"hits": []}"#, RunPart::default(), "r.jsonl:1: missing query_id"),
            (
                "r.jsonl",
                "{\"query_id\": 1, \"hits\": []}\n{\"query_id\": \"1\", \"hits\": []}",
                RunPart::default(),
                "r.jsonl:2: duplicate query id 1",
            ),
            (
                "r.jsonl",
                r#"{"query_id": 1, "hits": [{"_id": "d", "score": 1}, {"_id": "d", "score": 2}]}"#,
                RunPart::default(),
                "r.jsonl:1: duplicate document id of query 1",
            ),
            (
                "r.jsonl",
                r#"{"query_id": 1, "hits": [{"id": "d", "score": 1}]}"#,
                RunPart::default(),
                "a hit of query 1 has no _id",
            ),
            ("run.trec", "", other, "only prediction files of mteb"),
        ];
        for (name, text, part, wanted) in cases {
            let message = read(name, text, part).unwrap_err().to_string();
            assert!(message.contains(wanted), "{message}");
        }
    }
}
