//! `splade eval-run`: a run file and judgements → scores, and a comparison with a baseline.

use std::collections::HashMap;
use std::path::Path;

use anyhow::Result;
use serde_json::{Map, Value, json};
use splade_core::Ranking;
use splade_eval::{Baseline, JudgedRun, Metric, Qrels, Resampling, Run, RunPart, Scores};
use splade_files::read_queries;
use splade_index::ImpactIndex;

use super::search::query_side;
use crate::answer::{Answerer, Detail, SearchSettings};
use crate::cli::{EvalRunArgs, Mode, ReportFormat};
use crate::comparison::{self, QueryPair, RunPair};
use crate::console::Table;
use crate::encoders::use_threads;
use crate::failure::bad_input;
use crate::outputs::{print, refuse_existing, say};
use crate::report::{
    Block, ComparisonRow, Histogram, QuerySource, Report, ReportedQuery, SHOWN, Scale, Section, comparison_table,
    extremes, metric_title, query_section,
};

pub(crate) fn run(args: &EvalRunArgs) -> Result<()> {
    if let Some(path) = &args.report {
        refuse_existing(path, args.overwrite)?;
    }
    use_threads(args.network.threads);
    let qrels = Qrels::read(&args.qrels)?;
    let run = prepared(Run::read(&args.run, part(args, &args.run))?, &qrels, args);
    let judged = JudgedRun::new(&qrels, &run)?;
    remark(&judged, &run, &qrels, &args.run);
    let names = if args.metrics.is_empty() { SHOWN.map(str::to_owned).to_vec() } else { args.metrics.clone() };
    let scores = Chosen::of(&judged, &names)?;
    let source = query_source(args)?;
    let mut found = Findings { args, qrels: &qrels, run: &run, judged: &judged, source, scores, baseline: None };
    let read = |path: &Path| Baseline::read(path, part(args, path));
    match args.baseline.as_deref().map(|path| Ok::<_, anyhow::Error>((path, read(path)?))).transpose()? {
        None => {}
        Some((path, Baseline::Models(models))) => {
            found.baseline = Some(BaselineFindings::of_scores(path, &models, &found.scores)?);
        }
        Some((path, Baseline::Run(baseline))) => {
            let baseline = prepared(baseline, &qrels, args);
            let baseline = JudgedRun::new(&qrels, &baseline)?;
            found.baseline = Some(found.compare(path, &baseline)?);
        }
    }
    found.print()
}

/// Subset and split for a file: those of the flags for a prediction file, and where neither file is one, so that the flags
/// are refused.
fn part<'a>(args: &'a EvalRunArgs, path: &Path) -> RunPart<'a> {
    let is_json = |path: &Path| path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("json"));
    if is_json(path) || !args.baseline.iter().chain([&args.run]).any(|path| is_json(path)) {
        RunPart { subset: args.subset.as_deref(), split: args.split.as_deref() }
    } else {
        RunPart::default()
    }
}

/// The run with the documents of `--ignore-identical-ids` left out and the queries of `--all-judged` added.
fn prepared(run: Run, qrels: &Qrels, args: &EvalRunArgs) -> Run {
    let mut run = if args.ignore_identical_ids { without_own_documents(&run) } else { run };
    if args.all_judged {
        let missing: Vec<&str> = qrels.iter().map(|(id, _)| id).filter(|id| run.ranking(id).is_none()).collect();
        missing.into_iter().for_each(|id| drop(run.insert(id, Ranking::default())));
    }
    run
}

fn without_own_documents(run: &Run) -> Run {
    let kept = |id: &str, ranking: &Ranking| {
        Ranking::from_hits(ranking.hits().iter().filter(|hit| hit.id != id).cloned().collect())
    };
    run.iter().map(|(id, ranking)| (id.to_owned(), kept(id, ranking))).collect()
}

/// Logs queries that the means leave out, and those that cannot score.
fn remark(judged: &JudgedRun, run: &Run, qrels: &Qrels, path: &Path) {
    let path = path.display();
    let unjudged = run.len() - judged.len();
    if unjudged > 0 {
        tracing::warn!("{path}: {unjudged} of {} queries have no judgement and are left out", run.len());
    }
    let missing = qrels.len() - judged.len();
    if missing > 0 {
        tracing::warn!(
            "{path}: {missing} of {} judged queries are missing and left out of the means; --all-judged counts them as 0",
            qrels.len()
        );
    }
    let hopeless = run.iter().filter(|(id, _)| qrels.judgements(id).is_some() && qrels.relevant_count(id) == 0).count();
    if hopeless > 0 {
        tracing::warn!("{path}: {hopeless} queries have no relevant document and score 0");
    }
}

/// Texts of `--queries`, and explanations by `--index`.
fn query_source(args: &EvalRunArgs) -> Result<QuerySource> {
    let mut source = QuerySource::default();
    if let Some(path) = &args.queries {
        let queries = read_queries(path)?.map(|query| query.map(|query| (query.id, query.text)));
        source.texts = queries.collect::<Result<HashMap<_, _>, _>>()?;
    }
    if let Some(path) = &args.index {
        let index = ImpactIndex::open(path)?;
        source.answerer = Some(Answerer {
            side: query_side(&index, path, Mode::Sparse, true, args.model.as_deref(), &args.network)?,
            dense: None,
            searcher: index.searcher()?,
            settings: SearchSettings::sparse(1, Detail::Words),
        });
    }
    Ok(source)
}

/// Chosen metrics and all scores of mteb.
struct Chosen {
    /// names and values, in the order of `--metrics`
    shown: Vec<(String, f64)>,
    /// those of them that have a value per query
    metrics: Vec<Metric>,
    all: Scores,
}

impl Chosen {
    fn of(judged: &JudgedRun, names: &[String]) -> Result<Self> {
        let all = judged.scores();
        let (mut shown, mut metrics) = (Vec::new(), Vec::new());
        for name in names {
            match name.parse::<Metric>() {
                Ok(metric) => {
                    shown.push((metric.to_string(), judged.mean(metric)));
                    metrics.push(metric);
                }
                Err(error) => {
                    let value = all.get(name).ok_or(error)?;
                    shown.push((name.clone(), value));
                }
            }
        }
        Ok(Self { shown, metrics, all })
    }

    /// Metric by which queries are listed.
    fn main(&self) -> Metric {
        self.metrics.first().copied().unwrap_or(Metric::MAIN)
    }
}

/// Scores, and the comparison with a baseline.
struct Findings<'a> {
    args: &'a EvalRunArgs,
    qrels: &'a Qrels,
    run: &'a Run,
    judged: &'a JudgedRun<'a>,
    source: QuerySource,
    scores: Chosen,
    baseline: Option<BaselineFindings>,
}

struct BaselineFindings {
    name: String,
    rows: Vec<ComparisonRow>,
    /// sentence about the tests; empty without one
    note: String,
    gained: Vec<ReportedQuery>,
    lost: Vec<ReportedQuery>,
}

impl BaselineFindings {
    /// Differences from the scores of a result file, which must have one entry.
    fn of_scores(path: &Path, models: &[splade_eval::BaselineModel], scores: &Chosen) -> Result<Self> {
        let entries: Vec<_> =
            models.iter().flat_map(|model| model.scores.iter().map(move |entry| (model, entry))).collect();
        let [(model, entry)] = entries[..] else {
            return Err(bad_input(
                format!("{}: {} results, which of them belongs to the run is not known", path.display(), entries.len()),
                "name the result file of one task with one subset and split",
            ));
        };
        let row = |(metric, ours): &(String, f64)| Some((vec![metric.clone()], *ours, entry.get(metric)?, None));
        let rows = comparison::corrected(scores.shown.iter().filter_map(row).collect());
        if rows.is_empty() {
            return Err(bad_input(
                format!("{}: it has none of the metrics shown", path.display()),
                "choose others with --metrics",
            ));
        }
        Ok(Self { name: model.name.clone(), rows, note: String::new(), gained: Vec::new(), lost: Vec::new() })
    }
}

impl Findings<'_> {
    fn compare(&self, path: &Path, baseline: &JudgedRun) -> Result<BaselineFindings> {
        let resampling = Resampling::from(self.args.comparison);
        let pair = RunPair { ours: self.judged, baseline };
        let pairs = pair.queries(self.scores.main());
        if pairs.is_empty() {
            return Err(bad_input(format!("{}: it shares no judged query with the run", path.display()), ""));
        }
        let apart = self.judged.len() + baseline.len() - 2 * pairs.len();
        if apart > 0 {
            tracing::warn!("{apart} queries are in one of the two runs only and are left out of the comparison");
        }
        if self.scores.metrics.is_empty() {
            return Err(bad_input(
                "the metrics shown have no value per query to compare",
                "add one to --metrics: ndcg_at_10",
            ));
        }
        let rows = comparison::rows(&pair, &self.scores.metrics, &resampling)?;
        let (gained, lost) = comparison::gained_and_lost(&pairs, self.args.top);
        let note = comparison::note(&rows, &resampling);
        let name = path.display().to_string();
        Ok(BaselineFindings { name, rows, note, gained: self.reported(gained)?, lost: self.reported(lost)? })
    }

    fn reported(&self, pairs: Vec<QueryPair>) -> Result<Vec<ReportedQuery>> {
        self.described(pairs.into_iter().map(ReportedQuery::of_two_runs).collect())
    }

    fn described(&self, mut queries: Vec<ReportedQuery>) -> Result<Vec<ReportedQuery>> {
        queries.iter_mut().try_for_each(|query| self.source.describe(query, self.run, self.qrels))?;
        Ok(queries)
    }

    /// True if texts are given and there is no baseline whose queries are listed.
    fn lists_extremes(&self) -> bool {
        self.args.queries.is_some() && self.baseline.is_none()
    }

    /// The best and the worst queries.
    fn extremes(&self) -> Result<[Vec<ReportedQuery>; 2]> {
        let [best, worst] = extremes(self.judged, self.scores.main(), self.args.top);
        Ok([self.described(best)?, self.described(worst)?])
    }

    fn print(&self) -> Result<()> {
        let format = if self.args.json { ReportFormat::Json } else { self.args.format };
        match format {
            ReportFormat::Table => print(self.report(false)?.to_text())?,
            ReportFormat::Md => print(self.report(false)?.to_markdown())?,
            ReportFormat::Json => say(format_args!("{:#}", self.to_json()?))?,
        }
        if let Some(path) = &self.args.report {
            self.report(true)?.write_html(path, self.args.overwrite)?;
            tracing::info!("the report is in {}", path.display());
        }
        Ok(())
    }

    /// Report for a terminal, or the longer one of a page.
    fn report(&self, is_page: bool) -> Result<Report> {
        let title = format!("{} against {}", self.args.run.display(), self.args.qrels.display());
        let mut sections = vec![Section::new("").with(Block::Table(self.score_table()))];
        let metric = metric_title(&self.scores.main().to_string());
        if let Some(baseline) = &self.baseline {
            let table = comparison_table(&["metric"], "run", &baseline.rows);
            let mut section = Section::new(format!("against {}", baseline.name)).with(Block::Table(table));
            if !baseline.note.is_empty() {
                section = section.with(Block::Text(baseline.note.clone()));
            }
            sections.push(section);
            sections.extend(query_section("queries that gained most", &baseline.gained, &metric));
            sections.extend(query_section("queries that lost most", &baseline.lost, &metric));
        }
        if is_page {
            let values = self.judged.values(self.scores.main()).map(|(_, value)| (value, 1));
            let histogram = Histogram::of(values.collect::<Vec<_>>().into_iter(), Scale::Real);
            let title = format!("Queries by {metric}");
            sections.push(Section::new("Distribution").with(Block::Histogram { title, histogram }));
        }
        if is_page || self.lists_extremes() {
            let [best, worst] = self.extremes()?;
            sections.extend(query_section("best queries", &best, &metric));
            sections.extend(query_section("worst queries", &worst, &metric));
        }
        if self.args.per_query {
            sections.push(Section::new("queries").with(Block::Table(self.query_table())));
        }
        Ok(Report { title, sections })
    }

    fn score_table(&self) -> Table {
        let mut table =
            Table::new(["run", "queries"].into_iter().chain(self.scores.shown.iter().map(|(name, _)| name.as_str())));
        let values = self.scores.shown.iter().map(|(_, value)| format!("{value:.4}"));
        table.row([self.args.run.display().to_string(), self.judged.len().to_string()].into_iter().chain(values));
        table
    }

    fn query_table(&self) -> Table {
        let metrics = &self.scores.metrics;
        let mut table = Table::new(std::iter::once("query".to_owned()).chain(metrics.iter().map(Metric::to_string)));
        let columns: Vec<Vec<f64>> = self.columns();
        for (at, (id, _)) in self.judged.first_ranks().enumerate() {
            table.row(std::iter::once(id.to_owned()).chain(columns.iter().map(|column| format!("{:.4}", column[at]))));
        }
        table
    }

    /// Values of each metric, one per query.
    fn columns(&self) -> Vec<Vec<f64>> {
        self.scores.metrics.iter().map(|metric| self.judged.values(*metric).map(|(_, value)| value).collect()).collect()
    }

    fn to_json(&self) -> Result<Value> {
        let mut scores: Map<String, Value> =
            self.scores.all.iter().map(|(name, value)| (name.to_owned(), json!(value))).collect();
        scores.extend(self.scores.shown.iter().map(|(name, value)| (name.clone(), json!(value))));
        let mut value = json!({
            "run": self.args.run,
            "qrels": self.args.qrels,
            "queries": self.judged.len(),
            "judged_queries": self.qrels.len(),
            "scores": scores,
        });
        if self.args.per_query {
            let columns = self.columns();
            let of_query = |(at, (id, _)): (usize, (&str, Option<u32>))| {
                let values = self
                    .scores
                    .metrics
                    .iter()
                    .zip(&columns)
                    .map(|(metric, column)| (metric.to_string(), json!(column[at])));
                json!({"query_id": id, "scores": values.collect::<Map<_, _>>()})
            };
            value["per_query"] = self.judged.first_ranks().enumerate().map(of_query).collect();
        }
        let list = |queries: &[ReportedQuery]| queries.iter().map(ReportedQuery::to_json).collect::<Value>();
        if self.lists_extremes() {
            let [best, worst] = self.extremes()?;
            value["best"] = list(&best);
            value["worst"] = list(&worst);
        }
        if let Some(baseline) = &self.baseline {
            value["baseline"] = json!({
                "name": baseline.name,
                "comparisons": baseline.rows.iter().map(|row| comparison::to_json(row, &["metric"])).collect::<Value>(),
                "gained": list(&baseline.gained),
                "lost": list(&baseline.lost),
            });
        }
        Ok(value)
    }
}
