//! `splade eval-mteb --list`: the known tasks.

use std::collections::BTreeSet;

use anyhow::Result;
use serde_json::json;
use splade_eval::{KnownTask, TASK_GROUPS, known_tasks, task_group};

use crate::cli::{EvalMtebArgs, ReportFormat};
use crate::console::Table;
use crate::failure::bad_input;
use crate::outputs::{print, say};
use crate::report::{Block, Report, Section};

/// Prints the known tasks, of one language if it is named.
pub(super) fn run(args: &EvalMtebArgs) -> Result<()> {
    let languages: Vec<&String> = args.language.iter().filter(|language| *language != "none").collect();
    let is_listed = |task: &&KnownTask| languages.is_empty() || languages.iter().any(|language| task.is_in(language));
    let listed: Vec<&KnownTask> = known_tasks().iter().filter(is_listed).collect();
    if listed.is_empty() {
        return Err(bad_input(
            format!("no known task is in the language {}", args.language.join(", ")),
            "give a code such as nb, nn, no, da, sv or en",
        ));
    }
    if args.format() == ReportFormat::Json {
        let tasks = listed.iter().map(|task| {
            json!({
                "task": task.name,
                "dataset": task.dataset,
                "revision": task.revision,
                "splits": task.splits,
                "languages": task.languages,
                "groups": groups(task),
            })
        });
        return say(format_args!("{:#}", json!({"tasks": tasks.collect::<Vec<_>>()})));
    }
    let mut table = Table::new(["task", "languages", "split", "groups", "data set"]).with_text(&[1, 2, 3, 4]);
    for task in listed {
        let codes = task.languages.values().flatten().map(|tag| tag.split('-').next().unwrap_or(tag));
        let codes = codes.collect::<BTreeSet<&str>>().into_iter().collect::<Vec<_>>().join(" ");
        let row = [&task.name, &codes, &task.splits.join(" "), &groups(task).join(", "), &task.dataset];
        table.row(row.map(String::as_str));
    }
    if args.format() == ReportFormat::Md {
        let sections = vec![Section::new("").with(Block::Table(table))];
        return print(Report { title: "Known tasks".to_owned(), sections }.to_markdown());
    }
    print(table)
}

/// Groups that have a task.
fn groups(task: &KnownTask) -> Vec<&'static str> {
    let has = |group: &&str| task_group(group).is_some_and(|tasks| tasks.iter().any(|known| known.name == task.name));
    TASK_GROUPS.into_iter().filter(has).collect()
}
