//! `splade push`: model folder → repository on the Hub.

use anyhow::Result;
use serde_json::{Value, json};

use crate::cli::PushArgs;
use crate::console::{Table, size};
use crate::hub::push::{Destination, Files, Pushed, check_repo};
use crate::outputs::{print, say};

pub(crate) fn run(args: &PushArgs) -> Result<()> {
    check_repo(&args.repo, args.revision.as_deref())?;
    let files = Files::of_model(&args.model)?;
    for left_out in &files.left_out {
        tracing::info!("{}: left out: {}", left_out.name, left_out.reason);
    }
    if args.dry_run {
        return show_plan(args, &files);
    }
    let destination = Destination::open(&args.repo, args.revision.as_deref(), args.private)?;
    let pushed = destination.push(&files, &message(args))?;
    if args.json {
        return say(format_args!("{:#}", report(args, &files, &destination, &pushed)));
    }
    let mut table = Table::new(["file", "size", "status"]).with_text(&[2]);
    for (file, status) in files.files.iter().zip(&pushed.statuses) {
        table.row([file.name.clone(), size(file.size), status.name().to_owned()]);
    }
    print(table)?;
    let state = if pushed.is_new { "committed" } else { "up to date" };
    say(format_args!("{state}: {}", commit_url(&destination, &pushed)))
}

/// Message of the commit.
fn message(args: &PushArgs) -> String {
    let default = || format!("Upload model with splade {}", env!("CARGO_PKG_VERSION"));
    args.message.clone().unwrap_or_else(default)
}

fn commit_url(destination: &Destination, pushed: &Pushed) -> String {
    format!("{}/commit/{}", destination.url(), pushed.commit)
}

/// Prints the files that would be uploaded.
fn show_plan(args: &PushArgs, files: &Files) -> Result<()> {
    if args.json {
        let list: Vec<Value> =
            files.files.iter().map(|file| json!({"path": file.name, "size_bytes": file.size})).collect();
        let plan = json!({"repo": args.repo, "dry_run": true, "files": list, "left_out": left_out(files)});
        return say(format_args!("{plan:#}"));
    }
    let mut table = Table::new(["file", "size"]);
    for file in &files.files {
        table.row([file.name.clone(), size(file.size)]);
    }
    print(table)?;
    say(format_args!("{} files, {}, to {}", files.files.len(), size(files.size()), args.repo))
}

fn left_out(files: &Files) -> Vec<Value> {
    files.left_out.iter().map(|file| json!({"path": file.name, "reason": file.reason})).collect()
}

fn report(args: &PushArgs, files: &Files, destination: &Destination, pushed: &Pushed) -> Value {
    let list: Vec<Value> = files
        .files
        .iter()
        .zip(&pushed.statuses)
        .map(|(file, status)| json!({"path": file.name, "size_bytes": file.size, "status": status.name().replace(' ', "_")}))
        .collect();
    json!({
        "model": args.model,
        "repo": destination.name(),
        "revision": destination.branch(),
        "url": destination.url(),
        "commit": pushed.commit,
        "commit_url": commit_url(destination, pushed),
        "up_to_date": !pushed.is_new,
        "files": list,
        "left_out": left_out(files),
    })
}
