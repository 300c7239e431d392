//! `--publish`: the scores of a model in its model card, as `model-index` in the front matter of README.md.

use anyhow::Result;
use serde_json::{Map, Value, json};
use splade_eval::{Scores, Task};
use splade_files::{AtomicFile, ModelDir, read_text};

use super::FinishedTask;
use crate::cli::Mode;
use crate::evaluation::{Facts, System};
use crate::failure::bad_input;
use crate::report::SHOWN;

const KEY: &str = "model-index";

/// Writes the sparse scores of tasks into the model card. All other text stays as it is; entries of other tasks stay too.
pub(super) fn publish(model: &ModelDir, name: &str, finished: &[FinishedTask], systems: &[System]) -> Result<()> {
    let path = model.root().join("README.md");
    let card = if path.is_file() { read_text(&path)? } else { String::new() };
    let rows = finished.iter().flat_map(|task| task.rows(systems));
    let rows = rows.filter(|(_, system, ..)| system.mode == Mode::Sparse);
    let entries = rows.map(|(task, _, scores, facts)| entry(task, scores, facts)).collect();
    let card = with_results(&card, name, entries).map_err(|message| {
        bad_input(format!("{}: {message}", path.display()), "correct the front matter of the model card")
    })?;
    AtomicFile::write_whole(&path, card.as_bytes())?;
    tracing::info!("{}: the scores stand in its {KEY}", path.display());
    Ok(())
}

fn entry(task: &Task, scores: &Scores, facts: &Facts) -> Value {
    let data = &task.data;
    // six decimals, as in result files
    let metric = |name: &str, value: f64| json!({"type": name, "name": name, "value": (value * 1e6).round() / 1e6});
    let mut metrics: Vec<Value> = SHOWN.iter().filter_map(|name| Some(metric(name, scores.get(name)?))).collect();
    metrics.push(metric("query_active_dims", facts.queries.active_dims));
    metrics.push(metric("corpus_active_dims", facts.documents.active_dims));
    json!({
        "task": {"type": "Retrieval"},
        "dataset": {
            "type": data.identity.dataset.as_ref().unwrap_or(&data.identity.name),
            "name": data.identity.name,
            "config": data.identity.subset,
            "split": data.identity.split,
            "revision": data.identity.dataset_revision,
        },
        "metrics": metrics,
    })
}

/// Adds results to the `model-index` of a card, in place of those on the same data.
fn with_results(card: &str, name: &str, entries: Vec<Value>) -> Result<String, String> {
    let (front, rest) = match card.strip_prefix("---\n").and_then(|text| text.split_once("\n---")) {
        Some((front, rest)) => (format!("{front}\n"), format!("---{rest}")),
        None if card.starts_with("---\n") => return Err("its front matter has no end".to_owned()),
        None => (String::new(), format!("---\n{}{card}", if card.is_empty() { "" } else { "\n" })),
    };
    let known: Value =
        serde_yaml::from_str(&front).map_err(|error| format!("its front matter is not YAML: {error}"))?;
    let mut index = known.get(KEY).and_then(Value::as_array).cloned().unwrap_or_default();
    if index.is_empty() {
        index.push(json!({"name": name, "results": []}));
    }
    let Some(model) = index[0].as_object_mut() else { return Err(format!("its {KEY} is not a list of models")) };
    let mut results = model.get("results").and_then(Value::as_array).cloned().unwrap_or_default();
    let data = |entry: &Value| ["name", "config", "split"].map(|key| entry["dataset"][key].clone());
    results.retain(|known| !entries.iter().any(|entry| data(entry) == data(known)));
    results.extend(entries);
    model.insert("results".to_owned(), results.into());
    let block = Map::from_iter([(KEY.to_owned(), Value::from(index))]);
    let block = serde_yaml::to_string(&block).map_err(|error| error.to_string())?;
    let (before, after) = around_block(&front);
    Ok(format!("---\n{before}{block}{after}{rest}"))
}

/// Front matter before and after its `model-index`; all of it before, if there is none.
fn around_block(front: &str) -> (String, String) {
    let lines: Vec<&str> = front.split_inclusive('\n').collect();
    let starts = |line: &str| line.strip_prefix(KEY).is_some_and(|rest| rest.trim_start().starts_with(':'));
    let Some(start) = lines.iter().position(|line| starts(line)) else { return (front.to_owned(), String::new()) };
    // the block ends where a line begins with another key or a comment
    let ends = |line: &&str| !line.trim().is_empty() && !line.starts_with([' ', '\t', '-']);
    let length = lines[start + 1..].iter().position(ends).unwrap_or(lines.len() - start - 1);
    (lines[..start].concat(), lines[start + 1 + length..].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(name: &str, value: f64) -> Value {
        json!({
            "task": {"type": "Retrieval"},
            "dataset": {"type": name, "name": name, "config": "default", "split": "test"},
            "metrics": [{"type": "ndcg_at_10", "value": value}],
        })
    }

    fn front(card: &str) -> Value {
        let (front, _) = card.strip_prefix("---\n").unwrap().split_once("\n---").unwrap();
        serde_yaml::from_str(front).unwrap()
    }

    #[test]
    fn only_the_block_changes() {
        let before = "---\nlicense: mit # as agreed\nmodel-index:\n- name: tiny\n  results:\n  - task: {type: Other}\n    dataset: \
                      {name: x}\n    metrics: []\ntags: [a,  b]\n---\n\n# Tiny\n\nmodel-index: in the text\n";
        let card = with_results(before, "tiny", vec![result("toy", 0.5)]).unwrap();
        assert!(card.starts_with("---\nlicense: mit # as agreed\nmodel-index:\n"), "{card}");
        assert!(card.ends_with("\ntags: [a,  b]\n---\n\n# Tiny\n\nmodel-index: in the text\n"), "{card}");
        let names = |card: &str| -> Vec<String> {
            let results = front(card)[KEY][0]["results"].clone();
            results
                .as_array()
                .unwrap()
                .iter()
                .map(|entry| entry["dataset"]["name"].as_str().unwrap().to_owned())
                .collect()
        };
        assert_eq!(names(&card), ["x", "toy"]);
        let again = with_results(&card, "tiny", vec![result("toy", 0.75)]).unwrap();
        assert_eq!(names(&again), ["x", "toy"]);
        assert_eq!(front(&again)[KEY][0]["results"][1]["metrics"][0]["value"], 0.75);
        assert_eq!(with_results(&again, "tiny", vec![result("toy", 0.75)]).unwrap(), again);
    }

    #[test]
    fn a_card_without_front_matter_gets_one() {
        let card = with_results("# Tiny\n", "tiny", vec![result("toy", 0.5)]).unwrap();
        assert!(card.starts_with("---\nmodel-index:\n- name: tiny\n") && card.ends_with("---\n\n# Tiny\n"), "{card}");
        let new = with_results("", "tiny", vec![result("toy", 0.5)]).unwrap();
        assert!(new.ends_with("\n---\n"), "{new}");
        assert!(with_results("---\nlicense: mit\n", "tiny", Vec::new()).unwrap_err().contains("no end"));
        assert!(with_results("---\na: [\n---\n", "tiny", Vec::new()).unwrap_err().contains("not YAML"));
        assert!(
            with_results("---\nmodel-index: [3]\n---\n", "tiny", Vec::new()).unwrap_err().contains("list of models")
        );
    }
}
