//! [`splits_of`]: splits of a data set, with their files.
//!
//! The `configs` in the front matter of the data set's README name the files of a split, else the names of the files do, as
//! in the library datasets: `data/train-00000-of-00002.parquet`, `nb/test.jsonl`, `no/train/0000.parquet`.

use std::collections::BTreeSet;

use serde_json::Value;

/// Ends of the names of files that are read, the preferred ones first.
const ENDINGS: [&str; 9] =
    [".parquet", ".jsonl", ".jsonl.gz", ".jsonl.zst", ".ndjson", ".tsv", ".tsv.gz", ".tsv.zst", ".ndjson.gz"];
/// The configuration of a data set that has one.
pub(super) const DEFAULT: &str = "default";

/// Files of a split: its configuration, its name, and the paths in the repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Split {
    pub(super) config: String,
    pub(super) split: String,
    pub(super) files: Vec<String>,
}

/// All splits, as `readme` says, else by the names of the files. Splits that are found by name are in the order of the
/// library datasets: train, validation, test, then the others.
pub(super) fn splits_of(readme: Option<&str>, listing: &BTreeSet<String>) -> Vec<Split> {
    let named = readme.map(|readme| named_splits(readme, listing)).unwrap_or_default();
    if !named.is_empty() {
        return named;
    }
    let mut found = splits_by_name(listing);
    let place =
        |split: &Split| ["train", "validation", "test"].iter().position(|name| split.split == *name).unwrap_or(3);
    found.sort_by_key(place);
    found
}

/// The splits that the front matter of a README names: `configs`, each with `config_name` and `data_files`.
fn named_splits(readme: &str, listing: &BTreeSet<String>) -> Vec<Split> {
    let Some((front, _)) = readme.strip_prefix("---").and_then(|rest| rest.split_once("\n---")) else {
        return Vec::new();
    };
    let Ok(front) = serde_yaml::from_str::<Value>(front) else { return Vec::new() };
    let mut found = Vec::new();
    for config in front.get("configs").and_then(Value::as_array).into_iter().flatten() {
        let name = config.get("config_name").and_then(Value::as_str).unwrap_or(DEFAULT);
        let folder =
            config.get("data_dir").and_then(Value::as_str).map(|folder| format!("{}/", folder.trim_matches('/')));
        for (split, patterns) in data_files(config.get("data_files").unwrap_or(&Value::Null)) {
            let matches = |file: &&String| {
                is_read(file) && patterns.iter().any(|pattern| matches(pattern, file, folder.as_deref().unwrap_or("")))
            };
            let files: Vec<String> = listing.iter().filter(matches).cloned().collect();
            if !files.is_empty() {
                found.push(Split { config: name.to_owned(), split, files });
            }
        }
    }
    found
}

/// Splits and their patterns: `[{split, path}]`, `{split: path}`, or a path of the training split; a path may be a list.
fn data_files(value: &Value) -> Vec<(String, Vec<String>)> {
    let paths = |value: &Value| -> Vec<String> {
        match value {
            Value::String(path) => vec![path.clone()],
            Value::Array(paths) => paths.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            _ => Vec::new(),
        }
    };
    let train = |paths| vec![("train".to_owned(), paths)];
    match value {
        Value::String(_) => train(paths(value)),
        Value::Array(entries) if entries.iter().all(Value::is_string) => train(paths(value)),
        Value::Array(entries) => entries
            .iter()
            .filter_map(|entry| Some((entry.get("split")?.as_str()?.to_owned(), paths(entry.get("path")?))))
            .collect(),
        Value::Object(splits) => splits.iter().map(|(split, value)| (split.clone(), paths(value))).collect(),
        _ => Vec::new(),
    }
}

/// True if a path below `folder` matches a pattern with `*` and `**`.
fn matches(pattern: &str, file: &str, folder: &str) -> bool {
    fn matches(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern, text) {
            ([], []) => true,
            ([b'*', b'*', b'/', rest @ ..], _) if matches(rest, text) => true,
            ([b'*', b'*', rest @ ..], _) => (0..=text.len()).any(|at| matches(rest, &text[at..])),
            ([b'*', rest @ ..], _) => {
                let end = text.iter().position(|byte| *byte == b'/').unwrap_or(text.len());
                (0..=end).any(|at| matches(rest, &text[at..]))
            }
            ([b'?', rest @ ..], [byte, text @ ..]) if *byte != b'/' => matches(rest, text),
            ([a, rest @ ..], [b, text @ ..]) => a == b && matches(rest, text),
            _ => false,
        }
    }
    // `**` may be tried at every byte of a path, which a hostile README could make slow
    let stars = pattern.bytes().filter(|byte| *byte == b'*').count();
    let pattern = pattern.trim_start_matches("./");
    stars <= 8 && file.strip_prefix(folder).is_some_and(|file| matches(pattern.as_bytes(), file.as_bytes()))
}

/// True if a file is of a kind that is read.
fn is_read(file: &str) -> bool {
    ENDINGS.iter().any(|ending| file.ends_with(ending))
}

/// The splits that the names of files say; parquet files alone where there are any.
fn splits_by_name(listing: &BTreeSet<String>) -> Vec<Split> {
    let ending = |file: &str| ENDINGS.iter().find(|ending| file.ends_with(**ending)).copied();
    let has_parquet = listing.iter().any(|file| ending(file) == Some(".parquet"));
    let mut found: Vec<Split> = Vec::new();
    for file in listing {
        let Some(ending) = ending(file).filter(|ending| !has_parquet || *ending == ".parquet") else { continue };
        let Some((config, split)) = place_of(file.strip_suffix(ending).unwrap_or(file)) else { continue };
        match found.iter_mut().find(|known| known.config == config && known.split == split) {
            Some(known) => known.files.push(file.clone()),
            None => found.push(Split { config, split, files: vec![file.clone()] }),
        }
    }
    found
}

/// Configuration and split of a file by its path without ending: folders but `data` are the configuration, the last part
/// without its shard is the split, or the last folder where files are numbered.
fn place_of(stem: &str) -> Option<(String, String)> {
    const KNOWN: [&str; 6] = ["train", "validation", "test", "dev", "valid", "val"];
    let mut folders: Vec<&str> = stem.split('/').filter(|part| *part != "data").collect();
    let name = folders.pop()?;
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let mut split = match name.split_once("-of-").and_then(|(front, _)| front.rsplit_once('-')) {
        Some((label, shard)) if is_number(shard) => label.to_owned(),
        _ if is_number(name) => folders.pop()?.to_owned(),
        _ => name.to_owned(),
    };
    // `all_nli_train.parquet`: a known split between the words of a name
    let words = || split.split(['_', '-', '.', ' ']);
    if let Some(known) = KNOWN.iter().find(|known| words().any(|word| word == **known)) {
        split = (*known).to_owned();
    }
    let config = if folders.is_empty() { DEFAULT.to_owned() } else { folders.join("/") };
    Some((config, split))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(files: &[&str]) -> BTreeSet<String> {
        files.iter().map(|file| (*file).to_owned()).collect()
    }

    fn shown(splits: &[Split]) -> Vec<String> {
        splits.iter().map(|split| format!("{} {}: {}", split.config, split.split, split.files.join(" "))).collect()
    }

    #[test]
    fn splits_are_found_by_the_names_of_files() {
        let cases: [(&[&str], &[&str]); 6] = [
            (
                &["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet", "README.md"],
                &["default train: data/train-00000-of-00002.parquet data/train-00001-of-00002.parquet"],
            ),
            (
                &["data/test-00000-of-00001-0a1b2c.parquet", "data/test.jsonl"],
                &["default test: data/test-00000-of-00001-0a1b2c.parquet"],
            ),
            (
                &["no/train/0000.parquet", "no/train/0001.parquet", "da/test/0000.parquet"],
                &["da test: da/test/0000.parquet", "no train: no/train/0000.parquet no/train/0001.parquet"],
            ),
            (&["nb/train.jsonl", "nn/train.jsonl.gz"], &["nb train: nb/train.jsonl", "nn train: nn/train.jsonl.gz"]),
            (
                &["all_nli_train.parquet", "all_nli_dev.parquet"],
                &["default dev: all_nli_dev.parquet", "default train: all_nli_train.parquet"],
            ),
            (&["README.md", "script.py", "train.csv"], &[]),
        ];
        for (files, expected) in cases {
            assert_eq!(shown(&splits_by_name(&listing(files))), expected, "{files:?}");
        }
    }

    #[test]
    fn splits_are_found_by_the_front_matter_of_a_readme() {
        let files = listing(&["a/one.jsonl", "a/two.jsonl", "b/x.parquet", "notes.txt"]);
        let readme = |configs: &str| format!("---\nlicense: mit\nconfigs:\n{configs}\n---\n# Text\n");
        let list = "- config_name: nb\n  data_files:\n  - split: train\n    path: a/*.jsonl\n  - split: test\n    path: [b/*]\n";
        assert_eq!(
            shown(&named_splits(&readme(list), &files)),
            ["nb train: a/one.jsonl a/two.jsonl", "nb test: b/x.parquet"]
        );
        let map = "- config_name: nb\n  data_dir: a\n  data_files: {train: one.jsonl, dev: '**/two*'}\n";
        assert_eq!(shown(&named_splits(&readme(map), &files)), ["nb train: a/one.jsonl", "nb dev: a/two.jsonl"]);
        assert_eq!(shown(&named_splits(&readme("- data_files: b/x.parquet"), &files)), ["default train: b/x.parquet"]);
        for broken in ["", "---\nconfigs: [\n---\n", "---\nconfigs: 7\n---\n", "---", "# no front matter"] {
            assert_eq!(named_splits(broken, &files), [], "{broken}");
        }
    }

    #[test]
    fn patterns_stop_at_folders() {
        for (pattern, file, expected) in [
            ("*", "a/b", false),
            ("**", "a/b", true),
            ("a/**/c", "a/c", true),
            ("a/**/c", "a/b/b/c", true),
            ("data/train-*", "data/train-00000-of-00001.parquet", true),
            ("t?st", "test", true),
            ("t?st", "t/st", false),
            ("./a", "a", true),
            ("*a*a*a*a*a*a*a*a*a*b", "aaaaaaaaaaaaaaaaaaaaaaaa", false),
        ] {
            assert_eq!(matches(pattern, file, ""), expected, "{pattern} {file}");
        }
    }
}
