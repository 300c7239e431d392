//! [`Report`]: the chosen settings, their score on queries that they were not chosen on, and the curve over the weights.

use std::path::PathBuf;

use anyhow::Result;
use serde_json::{Value, json};
use splade_eval::Difference;
use splade_index::{Bm25Options, HybridSettings};

use super::hybrid::{Rule, Setting};
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
    /// hybrid search of an index that is not tuned
    pub(super) rrf: Vec<f64>,
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
    pub(super) chosen_at: (u8, Rule),
    pub(super) scores: Scores,
    /// weight of the sparse ranking in steps, rule, and mean score, at the chosen depth and BM25
    pub(super) curve: Vec<(u8, Rule, f64)>,
}

/// A side that adds nothing measurable.
struct Advice {
    /// mode that is enough
    mode: &'static str,
    left_out: &'static str,
    difference: Difference,
    /// true if the other side is not worth its search
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

    fn rows(&self) -> [(&'static str, &'static str, &[f64]); 5] {
        let scores = &self.scores;
        [
            ("sparse", "", &scores.sparse),
            ("BM25, not tuned", "", &scores.bm25),
            ("BM25, tuned", "held out", &scores.bm25_tuned),
            ("hybrid, not tuned (rrf)", "", &scores.rrf),
            ("hybrid, tuned", "held out", &scores.hybrid),
        ]
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
        let (chosen_step, chosen_rule) = self.chosen_at;
        // every second step, and the chosen one
        let steps = (0..=u8::MAX).take_while(|step| self.curve.iter().any(|row| row.0 == *step));
        for step in steps.filter(|step| step % 2 == 0 || *step == chosen_step) {
            let [sparse, bm25] = Setting::weights_of(step);
            let cell = |rule: &Rule| {
                let score = self.curve.iter().find(|row| row.0 == step && row.1 == *rule).map_or(f64::NAN, |row| row.2);
                let mark = if step == chosen_step && *rule == chosen_rule { "*" } else { "" };
                format!("{mark}{score:.4}")
            };
            table.row(std::iter::once(format!("{sparse:.2},{bm25:.2}")).chain(rules.iter().map(cell)));
        }
        table
    }

    fn chosen_line(&self) -> String {
        let HybridSettings { fusion, rrf_k, scaling, weights: [sparse, bm25_weight], depth, bm25, .. } = &self.chosen;
        let rule = if fusion == "rrf" { format!("--rrf-k {rrf_k}") } else { format!("--scaling {scaling}") };
        let compounds = if bm25.splits_compounds() { "on" } else { "off" };
        format!(
            "chosen: --fusion {fusion} {rule} --weights {sparse:.2},{bm25_weight:.2} --depth {depth} --bm25-k1 {} --bm25-b {} \
             --bm25-compounds {compounds}",
            bm25.k1(),
            bm25.b(),
        )
    }

    /// Mode and scores of the better of the two sides.
    fn best_side(&self) -> (&'static str, &[f64]) {
        let Scores { sparse, bm25_tuned, .. } = &self.scores;
        if mean(sparse) >= mean(bm25_tuned) { ("sparse", sparse) } else { ("bm25", bm25_tuned) }
    }

    fn advice(&self) -> Advice {
        let (mode, best) = self.best_side();
        let difference = Difference::of(&self.scores.hybrid, best);
        Advice {
            mode,
            left_out: if mode == "sparse" { "bm25" } else { "sparse" },
            difference,
            leave_out: difference.mean <= difference.standard_error,
        }
    }

    fn to_json(&self, args: &TuneArgs) -> Value {
        let advice = self.advice();
        let scores: serde_json::Map<String, Value> = [
            ("sparse", &self.scores.sparse),
            ("bm25", &self.scores.bm25),
            ("bm25_tuned_held_out", &self.scores.bm25_tuned),
            ("rrf", &self.scores.rrf),
            ("hybrid_held_out", &self.scores.hybrid),
            ("hybrid_fitted", &self.scores.fitted),
        ]
        .into_iter()
        .map(|(name, scores)| (name.to_owned(), json!(mean(scores))))
        .collect();
        let curve: Vec<Value> = self
            .curve
            .iter()
            .map(|(step, rule, score)| json!({"weights": weights_json(*step), "rule": rule.heading(), "score": score}))
            .collect();
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
            "leave_out": advice.leave_out.then_some(advice.left_out),
            "curve": curve,
            "written": !args.dry_run,
        })
    }
}

impl Advice {
    fn line(&self) -> String {
        let Self { mode, left_out, difference: Difference { mean, standard_error }, leave_out } = self;
        let measured = format!("{mean:+.4} ± {standard_error:.4}");
        if *leave_out {
            format!(
                "leave {left_out} out, use --mode {mode}: the hybrid is not measurably above {mode} alone ({measured})"
            )
        } else {
            format!("both sides help: the hybrid is above {mode} alone by {measured}")
        }
    }
}

fn weights_json(step: u8) -> Value {
    Value::Array(Setting::weights_of(step).map(decimal).to_vec())
}

fn chosen_json(chosen: &HybridSettings) -> Value {
    let bm25: Bm25Options = chosen.bm25;
    json!({
        "fusion": chosen.fusion,
        "rrf_k": decimal(chosen.rrf_k),
        "scaling": chosen.scaling,
        "weights": chosen.weights.map(decimal),
        "depth": chosen.depth,
        "bm25": {"k1": decimal(bm25.k1()), "b": decimal(bm25.b()), "compounds": bm25.splits_compounds()},
    })
}
