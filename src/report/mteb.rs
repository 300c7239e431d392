//! Comparison of the tasks of `eval-mteb` with a baseline, and its report.

use anyhow::Result;
use serde_json::{Value, json};
use splade_eval::{
    Baseline, BaselineModel, EncodedTask, Evaluation, JudgedRun, MAIN_SCORE, Metric, PairedTest, Resampling, Run,
    TaskData,
};

use super::evaluated::{ModeCost, described};
use super::{
    Block, ComparisonRow, QuerySource, Report, ReportedQuery, SHOWN, Scatter, Section, comparison_table, mark,
    metric_title, query_section,
};
use crate::comparison::{self, RunPair, corrected, gained_and_lost};
use crate::console::{Table, size};
use crate::sparsity::TaskSparsity;

/// Queries listed that are best and worst, or gained and lost most.
pub(crate) const TOP: usize = 3;

/// Findings about one subset of a task beside its scores.
#[derive(Default)]
pub(crate) struct TaskFindings {
    pub(crate) sparsity: Option<TaskSparsity>,
    /// one for each mode; empty without a report
    pub(crate) costs: Vec<ModeCost>,
    /// best and worst queries of the first mode; empty without a report
    pub(crate) extremes: [Vec<ReportedQuery>; 2],
    pub(crate) comparisons: Vec<TaskComparison>,
}

/// nDCG@10 of one mode on one task, and that of a baseline.
pub(crate) struct TaskComparison {
    baseline: String,
    task: [String; 3],
    system: String,
    ours: f64,
    theirs: f64,
    /// none without the baseline's run
    test: Option<PairedTest>,
    gained: Vec<ReportedQuery>,
    lost: Vec<ReportedQuery>,
}

/// Evaluation of a task in one mode.
pub(crate) struct Evaluated<'a> {
    pub(crate) data: &'a TaskData,
    pub(crate) task: &'a EncodedTask,
    /// name of the mode, with its stemmer where there are several
    pub(crate) system: &'a str,
    pub(crate) evaluation: &'a Evaluation,
}

/// Compares an evaluation with every model of a baseline that has the task. A model of another `dataset_revision` is
/// logged.
///
/// # Errors
/// A run of the baseline that cannot be read or shares no query; a document that cannot be read.
pub(crate) fn compare(
    evaluated: &Evaluated,
    baseline: &Baseline,
    name: &str,
    resampling: &Resampling,
    source: Option<&QuerySource>,
) -> Result<Vec<TaskComparison>> {
    let Evaluated { data, evaluation, .. } = evaluated;
    let ours = evaluation.mteb.get(MAIN_SCORE).unwrap_or(f64::NAN);
    match baseline {
        Baseline::Run(run) => {
            let theirs = JudgedRun::new(evaluated.task.qrels(), run)?.mean(Metric::MAIN);
            Ok(vec![comparison_of(evaluated, name, ours, theirs, Some(run), resampling, source)?])
        }
        Baseline::Models(models) => {
            let mut found = Vec::new();
            for model in models {
                let Some(theirs) = score(model, data) else { continue };
                let run = model.run(&data.identity.name, &data.identity.split, &data.identity.subset)?;
                found.push(comparison_of(evaluated, &model.name, ours, theirs, run.as_ref(), resampling, source)?);
            }
            Ok(found)
        }
    }
}

/// nDCG@10 of a model on a task.
fn score(model: &BaselineModel, data: &TaskData) -> Option<f64> {
    let entry = model.find(&data.identity.name, &data.identity.split, &data.identity.subset)?;
    if let Some(revision) =
        entry.dataset_revision.as_ref().filter(|revision| **revision != data.identity.dataset_revision)
    {
        tracing::warn!(
            "{}: the baseline {} was evaluated on revision {revision} of the data, this is {}",
            data.identity.name,
            model.name,
            data.identity.dataset_revision
        );
    }
    entry.get(MAIN_SCORE)
}

fn comparison_of(
    evaluated: &Evaluated,
    name: &str,
    ours: f64,
    theirs: f64,
    run: Option<&Run>,
    resampling: &Resampling,
    source: Option<&QuerySource>,
) -> Result<TaskComparison> {
    let Evaluated { data, task, system, evaluation } = evaluated;
    let mut comparison = TaskComparison {
        baseline: name.to_owned(),
        task: [&data.identity.name, &data.identity.split, &data.identity.subset].map(Clone::clone),
        system: (*system).to_owned(),
        ours,
        theirs,
        test: None,
        gained: Vec::new(),
        lost: Vec::new(),
    };
    if let Some(run) = run {
        let (judged, baseline) = (JudgedRun::new(task.qrels(), &evaluation.run)?, JudgedRun::new(task.qrels(), run)?);
        let pairs = RunPair { ours: &judged, baseline: &baseline }.queries(Metric::MAIN);
        comparison.test = comparison::test(&pairs, resampling)?;
        let (gained, lost) = gained_and_lost(&pairs, TOP);
        let none = QuerySource::default();
        let source = source.unwrap_or(&none);
        comparison.gained = described(source, gained, evaluation, task)?;
        comparison.lost = described(source, lost, evaluation, task)?;
    }
    Ok(comparison)
}

/// Sections of the comparisons: a table for each baseline, and the queries that gained and lost most.
pub(crate) fn sections(comparisons: &[&TaskComparison], resampling: &Resampling) -> Vec<Section> {
    let mut sections = Vec::new();
    for (name, rows) in by_baseline(comparisons) {
        let table = comparison_table(&["task", "split", "subset", "mode"], "ours", &rows);
        let mut section =
            Section::new(format!("{} against {name}", metric_title(MAIN_SCORE))).with(Block::Table(table));
        if rows.iter().any(|row| row.test.is_some()) {
            section = section.with(Block::Text(comparison::note(&rows, resampling)));
        }
        sections.push(section);
    }
    let metric = metric_title(MAIN_SCORE);
    for comparison in comparisons {
        let TaskComparison { task: [task, ..], system, baseline, .. } = comparison;
        let heading = |what: &str| format!("{task} {system}: queries that {what} most against {baseline}");
        sections.extend(query_section(&heading("gained"), &comparison.gained, &metric));
        sections.extend(query_section(&heading("lost"), &comparison.lost, &metric));
    }
    sections
}

/// Rows of each baseline, with p values corrected over its rows.
fn by_baseline(comparisons: &[&TaskComparison]) -> Vec<(String, Vec<ComparisonRow>)> {
    let row = |comparison: &TaskComparison| {
        let labels = comparison.task.iter().cloned().chain([comparison.system.clone()]).collect();
        (labels, comparison.ours, comparison.theirs, comparison.test)
    };
    let mut groups: Vec<(&str, Vec<_>)> = Vec::new();
    for comparison in comparisons {
        match groups.iter_mut().find(|(name, _)| *name == comparison.baseline) {
            Some((_, rows)) => rows.push(row(comparison)),
            None => groups.push((&comparison.baseline, vec![row(comparison)])),
        }
    }
    groups.into_iter().map(|(name, rows)| (name.to_owned(), corrected(rows))).collect()
}

/// Comparisons as JSON, one object for each baseline.
pub(crate) fn to_json(comparisons: &[&TaskComparison]) -> Value {
    let list = |queries: &[ReportedQuery]| queries.iter().map(ReportedQuery::to_json).collect::<Value>();
    let changes = |name: &str| {
        let of_baseline =
            comparisons.iter().filter(|comparison| comparison.baseline == name && comparison.test.is_some());
        let change = |comparison: &&TaskComparison| {
            json!({
                "task": comparison.task[0], "split": comparison.task[1], "subset": comparison.task[2],
                "mode": comparison.system, "gained": list(&comparison.gained), "lost": list(&comparison.lost),
            })
        };
        of_baseline.map(change).collect::<Value>()
    };
    let keys = ["task", "split", "subset", "mode"];
    let group = |(name, rows): (String, Vec<ComparisonRow>)| {
        let changes = changes(&name);
        let rows: Value = rows.iter().map(|row| comparison::to_json(row, &keys)).collect();
        json!({"name": name, "comparisons": rows, "queries": changes})
    };
    by_baseline(comparisons).into_iter().map(group).collect()
}

/// Task and mode with their scores, for the report.
pub(crate) struct ReportedTask<'a> {
    /// task, and subset if it has several
    pub(crate) label: String,
    /// systems by name, then imported runs, with their scores
    pub(crate) systems: Vec<(&'a str, &'a splade_eval::Scores)>,
    pub(crate) findings: &'a TaskFindings,
}

/// The report of all tasks. `facts` describe the model and the evaluation.
pub(crate) fn report(title: String, facts: Vec<Block>, tasks: &[ReportedTask], resampling: &Resampling) -> Report {
    let comparisons: Vec<&TaskComparison> = tasks.iter().flat_map(|task| &task.findings.comparisons).collect();
    let mut sections = vec![Section { heading: String::new(), blocks: facts }, scores(tasks, &comparisons)];
    sections.extend(cost_section(tasks));
    sections.extend(self::sections(&comparisons, resampling));
    for task in tasks {
        let metric = metric_title(MAIN_SCORE);
        let [best, worst] = &task.findings.extremes;
        let mode = task.systems.first().map_or("", |(system, _)| *system);
        sections.extend(query_section(&format!("{} {mode}: best queries", task.label), best, &metric));
        sections.extend(query_section(&format!("{} {mode}: worst queries", task.label), worst, &metric));
        if let Some(sparsity) = &task.findings.sparsity {
            sections.push(Section { heading: format!("{}: sparsity", task.label), blocks: sparsity.blocks() });
        }
    }
    Report { title, sections }
}

/// Table of tasks and modes, with marks of significance against the first baseline.
fn scores(tasks: &[ReportedTask], comparisons: &[&TaskComparison]) -> Section {
    let mut table =
        Table::new(["task", "mode"].into_iter().map(str::to_owned).chain(SHOWN.map(metric_title))).with_text(&[1]);
    let first = by_baseline(comparisons).into_iter().next();
    for task in tasks {
        for (mode, scores) in &task.systems {
            let values = SHOWN.iter().map(|name| {
                let value = scores.get(name).unwrap_or(f64::NAN);
                let mark = if *name == MAIN_SCORE { mark_of(first.as_ref(), task, mode) } else { String::new() };
                format!("{value:.4}{mark}")
            });
            table.row([task.label.clone(), (*mode).to_owned()].into_iter().chain(values));
        }
    }
    let section = Section::new("Scores").with(Block::Table(table));
    match first.filter(|(_, rows)| rows.iter().any(|row| row.test.is_some())) {
        Some((name, _)) => section
            .with(Block::Text(format!("▲ and ▼: above and below {name}, * p below 0.05, ** below 0.01, corrected"))),
        None => section,
    }
}

/// `▲*` for a mode that is significantly above the baseline, `▼*` for one below it.
fn mark_of(first: Option<&(String, Vec<ComparisonRow>)>, task: &ReportedTask, mode: &str) -> String {
    let names = task.findings.comparisons.first().map(|comparison| &comparison.task);
    let row = first.and_then(|(_, rows)| {
        rows.iter().find(|row| names.is_some_and(|names| row.labels[..3] == names[..]) && row.labels[3] == mode)
    });
    let Some((row, (_, p))) = row.and_then(|row| Some((row, row.test.as_ref()?))) else { return String::new() };
    match mark(p.randomisation) {
        "" => String::new(),
        mark => format!(" {}{mark}", if row.ours > row.baseline { "▲" } else { "▼" }),
    }
}

/// nDCG@10 against latency and index size; none without costs.
fn cost_section(tasks: &[ReportedTask]) -> Option<Section> {
    let mut table = Table::new(["task", "mode", "nDCG@10", "ms a query", "index"]).with_text(&[1]);
    let mut charts = Vec::new();
    for task in tasks.iter().filter(|task| !task.findings.costs.is_empty()) {
        let (mut latency, mut bytes) = (Vec::new(), Vec::new());
        for ((mode, scores), cost) in task.systems.iter().zip(&task.findings.costs) {
            let ndcg = scores.get(MAIN_SCORE).unwrap_or(f64::NAN);
            table.row([
                task.label.clone(),
                (*mode).to_owned(),
                format!("{ndcg:.4}"),
                format!("{:.3}", cost.latency_ms),
                size(cost.index_bytes),
            ]);
            latency.push(((*mode).to_owned(), cost.latency_ms, ndcg));
            bytes.push(((*mode).to_owned(), cost.index_bytes as f64 / 1e6, ndcg));
        }
        // a chart for each task: scores of tasks differ more than those of modes
        let label = &task.label;
        charts.push(scatter(format!("{label}: nDCG@10 against latency"), "ms a query", latency));
        charts.push(scatter(format!("{label}: nDCG@10 against index size"), "MB", bytes));
    }
    if charts.is_empty() {
        return None;
    }
    let note = "Time of a search for 10 hits on one thread, without encoding the query. The index of BM25 has the stored \
                texts, that of the hybrid mode has both.";
    let section = Section::new("Quality and cost").with(Block::Table(table)).with(Block::Text(note.to_owned()));
    Some(charts.into_iter().fold(section, Section::with))
}

fn scatter(title: String, x_label: &str, points: Vec<(String, f64, f64)>) -> Block {
    Block::Scatter(Scatter { title, x_label: x_label.into(), y_label: "nDCG@10".into(), points })
}
