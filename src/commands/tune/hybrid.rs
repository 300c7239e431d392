//! Settings of hybrid search: first k1, b and compounds by BM25's own rankings, then the fusion over the sparse ranking and
//! that BM25's.

use std::collections::BTreeMap;

use anyhow::Result;
use splade_core::{Fusion, FusionParameters, RRF_K, Scaling};
use splade_eval::best_row;
use splade_index::{Bm25Options, HybridSettings, ImpactIndex, SearchOptions, TunedOn, to_ranking};

use super::development::{CUTOFF, Development, METRIC};
use super::report::{Report, Scores};
use crate::cli::TuneArgs;
use crate::console;
use crate::ranking::{DEPTH, default_bm25};

/// Values of k1 to choose from.
const K1: [f32; 5] = [1.2, 0.6, 0.9, 1.6, 2.0];
/// Values of b to choose from.
const B: [f32; 4] = [0.75, 0.3, 0.5, 0.9];
/// Steps of the weights from 0 to 1.
const STEPS: u8 = 20;
/// Scalings to choose from. `distribution` orders documents as `z-score` does where all scores are known.
const SCALINGS: [Scaling; 3] = [Scaling::Max, Scaling::MinMax, Scaling::ZScore];
/// Constants of reciprocal rank fusion to choose from.
const RRF_KS: [f32; 2] = [RRF_K, 10.0];

/// One fusion of the grid.
#[derive(Debug, Clone)]
pub(super) struct Setting {
    fusion: Fusion,
    pub(super) rule: Rule,
    /// weight of the sparse ranking, in steps
    pub(super) step: u8,
    pub(super) depth: usize,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Rule {
    Weighted(Scaling),
    Rrf(f32),
}

impl Rule {
    /// Rules of the grid.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        SCALINGS.into_iter().map(Self::Weighted).chain(RRF_KS.into_iter().map(Self::Rrf))
    }

    /// Heading of the rule's column.
    pub(super) fn heading(self) -> String {
        match self {
            Self::Weighted(scaling) => scaling.to_string(),
            Self::Rrf(k) => format!("rrf k {k}"),
        }
    }
}

impl Setting {
    fn new(rule: Rule, step: u8, depth: usize) -> Result<Self> {
        let weights = Self::weights_of(step).to_vec();
        let fusion = match rule {
            Rule::Weighted(scaling) => Fusion::weighted(scaling, weights)?,
            Rule::Rrf(k) => Fusion::rrf(k, weights)?,
        };
        Ok(Self { fusion, rule, step, depth })
    }

    /// Weights of the sparse and the BM25 ranking.
    pub(super) fn weights_of(step: u8) -> [f32; 2] {
        [f32::from(step) / f32::from(STEPS), f32::from(STEPS - step) / f32::from(STEPS)]
    }

    fn settings(&self, bm25: Bm25Options, tuned_on: TunedOn) -> HybridSettings {
        let FusionParameters { rrf_k, scaling, .. } = self.fusion.parameters();
        HybridSettings {
            fusion: self.fusion.name().into(),
            rrf_k,
            scaling: scaling.to_string(),
            weights: Self::weights_of(self.step),
            depth: self.depth,
            bm25,
            tuned_on,
        }
    }
}

/// Scores of all queries, by row of a grid.
type Table = Vec<Vec<f64>>;

/// Grids and their scores.
struct Tuning<'a> {
    development: &'a Development,
    bm25: Vec<Bm25Options>,
    bm25_scores: Table,
    settings: Vec<Setting>,
    /// scores of the settings for every row of `bm25` that a choice needs
    fused: BTreeMap<usize, Table>,
}

pub(super) fn run(args: &TuneArgs) -> Result<()> {
    let index = ImpactIndex::open(&args.index)?;
    let development = Development::read(&index, args)?;
    let tuning = Tuning::compute(&development, args)?;
    let report = tuning.report(&index, args)?;
    if !args.dry_run {
        index.write_hybrid_settings(&report.chosen)?;
    }
    report.print(args)
}

impl<'a> Tuning<'a> {
    fn compute(development: &'a Development, args: &TuneArgs) -> Result<Self> {
        let bm25 = bm25_grid(development)?;
        let bar = console::progress("BM25", Some(bm25.len() as u64));
        let mut bm25_scores = Vec::new();
        for &options in &bm25 {
            bm25_scores.push(score_bm25(development, options)?);
            bar.inc(1);
        }
        bar.finish_and_clear();
        let mut tuning =
            Self { development, bm25, bm25_scores, settings: settings_grid(args)?, fused: BTreeMap::new() };
        let mut needed = tuning.bm25_rows();
        needed.sort_unstable();
        needed.dedup();
        for row in needed {
            tuning.fused.insert(row, tuning.score_settings(tuning.bm25[row], args)?);
        }
        Ok(tuning)
    }

    /// Row of BM25 that the queries choose which `may_see` admits.
    fn choose_bm25(&self, may_see: &dyn Fn(usize) -> bool) -> usize {
        best_row(&self.bm25_scores, may_see)
    }

    /// Rows of BM25 that some fold or all queries choose.
    fn bm25_rows(&self) -> Vec<usize> {
        let rows = std::cell::RefCell::new(vec![self.choose_bm25(&|_| true)]);
        let choose = |may_see: &dyn Fn(usize) -> bool| rows.borrow_mut().push(self.choose_bm25(may_see));
        self.development.folds.held_out(choose, |(), _| 0.0);
        rows.into_inner()
    }

    /// Row of BM25, and row of the settings with that BM25.
    fn choose(&self, may_see: &dyn Fn(usize) -> bool) -> (usize, usize) {
        let bm25 = self.choose_bm25(may_see);
        (bm25, best_row(&self.fused[&bm25], may_see))
    }

    /// Scores of every setting, fused with BM25 of these options.
    fn score_settings(&self, bm25: Bm25Options, args: &TuneArgs) -> Result<Table> {
        let deepest = args.depths.iter().copied().max().unwrap_or(DEPTH);
        let options = SearchOptions { bm25, ..SearchOptions::default() };
        let of_query = self.development.for_each(|query| {
            let searcher = &self.development.searcher;
            let all =
                searcher.hybrid_candidates((&query.vector, query.text.as_str()), deepest, true, &options)?.candidates;
            let by_depth: BTreeMap<usize, _> = args.depths.iter().map(|&depth| (depth, all.truncated(depth))).collect();
            let score = |setting: &Setting| query.ndcg(&setting.fusion.best(&by_depth[&setting.depth], CUTOFF));
            Ok(self.settings.iter().map(score).collect::<Vec<f64>>())
        })?;
        Ok((0..self.settings.len()).map(|row| of_query.iter().map(|scores| scores[row]).collect()).collect())
    }

    fn report(&self, index: &ImpactIndex, args: &TuneArgs) -> Result<Report> {
        let folds = &self.development.folds;
        let (bm25_row, row) = self.choose(&|_| true);
        let fused = &self.fused[&bm25_row];
        let chosen = &self.settings[row];
        let hybrid = folds.held_out(|may_see| self.choose(may_see), |(bm25, row), query| self.fused[&bm25][row][query]);
        let bm25_tuned =
            folds.held_out(|may_see| self.choose_bm25(may_see), |row: usize, query| self.bm25_scores[row][query]);
        let plain = default_bm25(index.settings().language);
        let scores = Scores {
            sparse: score_sparse(self.development)?,
            bm25: score_bm25(self.development, plain)?,
            bm25_tuned,
            rrf: score_rrf(self.development, plain)?,
            hybrid,
            fitted: fused[row].clone(),
        };
        let tuned_on = TunedOn {
            queries: self.development.queries.len(),
            metric: METRIC.into(),
            held_out: super::report::mean(&scores.hybrid),
        };
        let rows = self.settings.iter().zip(fused).filter(|(setting, _)| setting.depth == chosen.depth);
        let curve = rows.map(|(setting, scores)| (setting.step, setting.rule, super::report::mean(scores))).collect();
        Ok(Report {
            index: args.index.clone(),
            folds: folds.count(),
            chosen: chosen.settings(self.bm25[bm25_row], tuned_on),
            chosen_at: (chosen.step, chosen.rule),
            scores,
            curve,
        })
    }
}

/// Options of BM25 to choose from, the default first.
fn bm25_grid(development: &Development) -> Result<Vec<Bm25Options>> {
    let joins = development.searcher.language().joins_compounds();
    let mut grid = Vec::new();
    for compounds in if joins { vec![true, false] } else { vec![false] } {
        for k1 in K1 {
            for b in B {
                grid.push(Bm25Options::new(k1, b)?.with_compounds(compounds));
            }
        }
    }
    Ok(grid)
}

fn settings_grid(args: &TuneArgs) -> Result<Vec<Setting>> {
    let mut grid = Vec::new();
    for &depth in &args.depths {
        for rule in Rule::all() {
            for step in 0..=STEPS {
                grid.push(Setting::new(rule, step, depth)?);
            }
        }
    }
    Ok(grid)
}

fn score_bm25(development: &Development, bm25: Bm25Options) -> Result<Vec<f64>> {
    let options = SearchOptions { bm25, ..SearchOptions::default() };
    development.for_each(|query| {
        let found = development.searcher.search_bm25_with(&query.text, CUTOFF, &options)?;
        Ok(query.ndcg(&to_ranking(&found)))
    })
}

fn score_sparse(development: &Development) -> Result<Vec<f64>> {
    development.for_each(|query| {
        let found = development.searcher.search(&query.vector, CUTOFF, &SearchOptions::default())?;
        Ok(query.ndcg(&to_ranking(&found)))
    })
}

/// Scores of hybrid search without tuning.
fn score_rrf(development: &Development, bm25: Bm25Options) -> Result<Vec<f64>> {
    let (options, fusion) = (SearchOptions { bm25, ..SearchOptions::default() }, Fusion::default());
    development.for_each(|query| {
        let searcher = &development.searcher;
        let found = searcher.search_hybrid((&query.vector, query.text.as_str()), CUTOFF, DEPTH, &fusion, &options)?;
        Ok(query.ndcg(&to_ranking(&found)))
    })
}
