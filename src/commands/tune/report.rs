//! [`Report`]: the chosen settings, their score on queries that they were not chosen on, and the curve over the weights.

use std::path::PathBuf;

use anyhow::Result;
use serde_json::{Value, json};
use splade_eval::Difference;
use splade_index::{Bm25Options, HybridSettings};

use super::hybrid::{Rule, Weights};
use crate::cli::TuneArgs;
use crate::console::Table;
use crate::outputs::{print, say};
use crate::ranking::decimal;

/// Scores of each query.
pub(super) struct Scores {
    pub(super) sparse: Vec<f64>,
    /// BM25 with the options of an index that is not tuned
    pub(super) bm25: Vec<f64>,
    /// held out
    pub(super) bm25_tuned: Vec<f64>,
    /// none for two rankings
    pub(super) dense: Option<Vec<f64>>,
    /// by reciprocal ranks
    pub(super) rrf: Vec<f64>,
    /// hybrid search of an index that is not tuned
    pub(super) untuned: Vec<f64>,
    /// held out
    pub(super) hybrid: Vec<f64>,
    /// of the chosen settings on the queries that chose them
    pub(super) fitted: Vec<f64>,
}

/// Chosen settings of hybrid search and the evidence for them.
pub(super) struct Report {
    pub(super) index: PathBuf,
    pub(super) folds: usize,
    pub(super) chosen: HybridSettings,
    /// place of the chosen settings in the curve
    pub(super) chosen_at: (Weights, Rule),
    pub(super) scores: Scores,
    /// at the chosen depth and BM25
    pub(super) curve: Vec<CurvePoint>,
}

/// Mean score of weights under a rule.
pub(super) struct CurvePoint {
    pub(super) weights: Weights,
    pub(super) rule: Rule,
    pub(super) score: f64,
}

/// The better side alone, and the difference of the hybrid to it.
struct Advice {
    /// mode of the best side
    mode: &'static str,
    /// modes of the other sides
    others: Vec<&'static str>,
    difference: Difference,
    /// true if the other sides are not worth their search
    leave_out: bool,
}

pub(super) fn mean(scores: &[f64]) -> f64 {
    if scores.is_empty() { 0.0 } else { scores.iter().sum::<f64>() / scores.len() as f64 }
}

impl Report {
    pub(super) fn print(&self, args: &TuneArgs) -> Result<()> {
        if args.json {
            return say(format_args!("{:#}", self.to_json(args)));
        }
        say(format_args!(
            "{}: nDCG@10 of {} queries, held out by {}-fold cross-validation",
            self.index.display(),
            self.chosen.tuned_on.queries,
            self.folds
        ))?;
        print(format_args!("\n{}\n{}\n", self.score_table(), self.curve_table()))?;
        say(self.chosen_line())?;
        say(self.advice().line())?;
        match args.dry_run {
            true => say("nothing was written, because of --dry-run"),
            false => say(format_args!("{}: `search --mode hybrid` uses these settings", self.index.display())),
        }
    }

    fn rows(&self) -> Vec<(&'static str, &'static str, &[f64])> {
        let scores = &self.scores;
        let mut rows: Vec<(&str, &str, &[f64])> = vec![
            ("sparse", "", &scores.sparse),
            ("BM25, not tuned", "", &scores.bm25),
            ("BM25, tuned", "held out", &scores.bm25_tuned),
        ];
        rows.extend(scores.dense.as_ref().map(|dense| ("dense", "", dense.as_slice())));
        rows.push(("hybrid, reciprocal ranks", "", &scores.rrf));
        rows.push(("hybrid, not tuned", "", &scores.untuned));
        rows.push(("hybrid, tuned", "held out", &scores.hybrid));
        rows
    }

    fn score_table(&self) -> Table {
        let mut table = Table::new(["ranking", "nDCG@10", "", "above the best side"]).with_text(&[0, 2]);
        let (_, best) = self.best_side();
        for (name, held_out, scores) in self.rows() {
            let difference = Difference::of(scores, best);
            table.row([
                name.to_owned(),
                format!("{:.4}", mean(scores)),
                held_out.to_owned(),
                format!("{:+.4} ± {:.4}", difference.mean, difference.standard_error),
            ]);
        }
        table
    }

    /// Mean scores over the weights. They are fitted: every query chose with.
    fn curve_table(&self) -> Table {
        let rules: Vec<Rule> = Rule::all().collect();
        let heading = std::iter::once("weights".to_owned()).chain(rules.iter().map(|rule| rule.heading()));
        let mut table = Table::new(heading);
        let (chosen_weights, chosen_rule) = &self.chosen_at;
        // every second step, and the chosen one
        let is_shown = |weights: &&Weights| weights.are_even() || *weights == chosen_weights;
        let of_rule = self.curve.iter().filter(|point| point.rule == rules[0]).map(|point| &point.weights);
        for weights in of_rule.filter(is_shown) {
            let cell = |rule: &Rule| {
                let point = self.curve.iter().find(|point| point.weights == *weights && point.rule == *rule);
                let score = point.map_or(f64::NAN, |point| point.score);
                let mark = if weights == chosen_weights && rule == chosen_rule { "*" } else { "" };
                format!("{mark}{score:.4}")
            };
            table.row(std::iter::once(weights_text(&weights.values())).chain(rules.iter().map(cell)));
        }
        table
    }

    fn chosen_line(&self) -> String {
        let HybridSettings { fusion, rrf_k, scaling, weights, depth, bm25, .. } = &self.chosen;
        let rule = if fusion == "rrf" { format!("--rrf-k {rrf_k}") } else { format!("--scaling {scaling}") };
        let compounds = if bm25.splits_compounds() { "on" } else { "off" };
        format!(
            "chosen: --fusion {fusion} {rule} --weights {} --depth {depth} --bm25-k1 {} --bm25-b {} --bm25-compounds {compounds}",
            weights_text(weights),
            bm25.k1(),
            bm25.b(),
        )
    }

    /// Mode and scores of each side.
    fn sides(&self) -> Vec<(&'static str, &[f64])> {
        let Scores { sparse, bm25_tuned, dense, .. } = &self.scores;
        let two = [("sparse", sparse.as_slice()), ("bm25", bm25_tuned.as_slice())];
        two.into_iter().chain(dense.as_ref().map(|dense| ("dense", dense.as_slice()))).collect()
    }

    /// Mode and scores of the best side, the first of equal ones.
    fn best_side(&self) -> (&'static str, &[f64]) {
        let sides = self.sides().into_iter();
        sides.reduce(|best, side| if mean(side.1) > mean(best.1) { side } else { best }).unwrap_or_default()
    }

    fn advice(&self) -> Advice {
        let (mode, best) = self.best_side();
        let difference = Difference::of(&self.scores.hybrid, best);
        Advice {
            mode,
            others: self.sides().into_iter().map(|(other, _)| other).filter(|other| *other != mode).collect(),
            difference,
            leave_out: difference.mean <= difference.standard_error,
        }
    }

    fn to_json(&self, args: &TuneArgs) -> Value {
        let advice = self.advice();
        let Scores { sparse, bm25, bm25_tuned, dense, rrf, untuned, hybrid, fitted } = &self.scores;
        let scores: serde_json::Map<String, Value> = [
            ("sparse", Some(sparse)),
            ("bm25", Some(bm25)),
            ("bm25_tuned_held_out", Some(bm25_tuned)),
            ("dense", dense.as_ref()),
            ("rrf", Some(rrf)),
            ("hybrid_untuned", Some(untuned)),
            ("hybrid_held_out", Some(hybrid)),
            ("hybrid_fitted", Some(fitted)),
        ]
        .into_iter()
        .filter_map(|(name, scores)| Some((name.to_owned(), json!(mean(scores?)))))
        .collect();
        let point = |CurvePoint { weights, rule, score }: &CurvePoint| json!({"weights": weights_json(&weights.values()), "rule": rule.heading(), "score": score});
        let curve: Vec<Value> = self.curve.iter().map(point).collect();
        json!({
            "metric": self.chosen.tuned_on.metric,
            "queries": self.chosen.tuned_on.queries,
            "folds": self.folds,
            "scores": scores,
            "chosen": chosen_json(&self.chosen),
            "above_best_side": {
                "side": advice.mode,
                "mean": advice.difference.mean,
                "standard_error": advice.difference.standard_error,
            },
            "leave_out": advice.leave_out.then(|| advice.others.join(",")),
            "curve": curve,
            "written": !args.dry_run,
        })
    }
}

impl Advice {
    fn line(&self) -> String {
        let Self { mode, others, difference: Difference { mean, standard_error }, leave_out } = self;
        let measured = format!("{mean:+.4} ± {standard_error:.4}");
        if *leave_out {
            let others = others.join(" and ");
            return format!(
                "leave {others} out, use --mode {mode}: the hybrid is not measurably above {mode} alone ({measured})"
            );
        }
        format!("the hybrid helps: it is above {mode} alone by {measured}")
    }
}

fn weights_text(weights: &[f32]) -> String {
    weights.iter().map(|weight| format!("{weight:.2}")).collect::<Vec<_>>().join(",")
}

fn weights_json(weights: &[f32]) -> Value {
    weights.iter().map(|weight| decimal(*weight)).collect()
}

fn chosen_json(chosen: &HybridSettings) -> Value {
    let bm25: Bm25Options = chosen.bm25;
    json!({
        "fusion": chosen.fusion,
        "rrf_k": decimal(chosen.rrf_k),
        "scaling": chosen.scaling,
        "weights": weights_json(&chosen.weights),
        "depth": chosen.depth,
        "bm25": {"k1": decimal(bm25.k1()), "b": decimal(bm25.b()), "compounds": bm25.splits_compounds()},
    })
}
