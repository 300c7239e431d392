//! Settings of hybrid search: first k1, b and compounds by BM25's own rankings, then the fusion over the sparse ranking, that
//! BM25's and, where there is one, the dense ranking.

use std::collections::BTreeMap;

use anyhow::Result;
use splade_core::{Fusion, FusionParameters, RRF_K, Scaling};
use splade_eval::best_row;
use splade_index::{Bm25Options, HybridSettings, ImpactIndex, SearchOptions, TunedOn, to_ranking};

use super::development::{CUTOFF, Development, METRIC};
use super::report::{CurvePoint, Report, Scores};
use crate::cli::TuneArgs;
use crate::console;
use crate::ranking::{DEPTH, default_bm25};

/// Values of k1 to choose from.
const K1: [f32; 5] = [1.2, 0.6, 0.9, 1.6, 2.0];
/// Values of b to choose from.
const B: [f32; 4] = [0.75, 0.3, 0.5, 0.9];
/// Steps of the weights of two rankings from 0 to 1.
const STEPS_OF_TWO: u8 = 20;
/// Steps of the weights of three rankings from 0 to 1, in a grid of two dimensions.
const STEPS_OF_THREE: u8 = 10;
/// Scalings to choose from. `distribution` orders documents as `z-score` does where all scores are known.
const SCALINGS: [Scaling; 3] = [Scaling::Max, Scaling::MinMax, Scaling::ZScore];
/// Constants of reciprocal rank fusion to choose from.
const RRF_KS: [f32; 2] = [RRF_K, 10.0];

/// One fusion of the grid.
#[derive(Debug, Clone)]
pub(super) struct Setting {
    fusion: Fusion,
    pub(super) rule: Rule,
    pub(super) weights: Weights,
    pub(super) depth: usize,
}

/// Weights of the sparse, the BM25 and, of three rankings, the dense one, in equal steps. They add up to 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Weights(Vec<u8>);

impl Weights {
    /// All weights of two or three rankings.
    fn all(rankings: usize) -> Vec<Self> {
        let of_two = |steps: u8| (0..=steps).map(move |first| vec![first, steps - first]);
        match rankings {
            2 => of_two(STEPS_OF_TWO).map(Self).collect(),
            _ => of_two(STEPS_OF_THREE)
                .flat_map(|two| of_two(two[1]).map(move |rest| Self(vec![two[0], rest[0], rest[1]])))
                .collect(),
        }
    }

    /// The weights as numbers from 0 to 1.
    pub(super) fn values(&self) -> Vec<f32> {
        let steps: u8 = self.0.iter().sum();
        self.0.iter().map(|step| f32::from(*step) / f32::from(steps)).collect()
    }

    /// True for weights at every second step.
    pub(super) fn are_even(&self) -> bool {
        self.0.iter().all(|step| step % 2 == 0)
    }
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
    fn new(rule: Rule, weights: &Weights, depth: usize) -> Result<Self> {
        let fusion = match rule {
            Rule::Weighted(scaling) => Fusion::weighted(scaling, weights.values())?,
            Rule::Rrf(k) => Fusion::rrf(k, weights.values())?,
        };
        Ok(Self { fusion, rule, weights: weights.clone(), depth })
    }

    fn settings(&self, bm25: Bm25Options, tuned_on: TunedOn) -> HybridSettings {
        let FusionParameters { rrf_k, scaling, .. } = self.fusion.parameters();
        HybridSettings {
            fusion: self.fusion.name().into(),
            rrf_k,
            scaling: scaling.to_string(),
            weights: self.weights.values(),
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
        let mut tuning = Self {
            development,
            bm25,
            bm25_scores,
            settings: settings_grid(development, args)?,
            fused: BTreeMap::new(),
        };
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
            let all = searcher.hybrid_candidates(self.development.parts(query), deepest, true, &options)?.candidates;
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
            dense: score_dense(self.development)?,
            bm25: score_bm25(self.development, plain)?,
            bm25_tuned,
            rrf: score_fused(self.development, plain, &Fusion::default())?,
            untuned: score_fused(self.development, plain, &Fusion::sum_of_z_scores(self.development.rankings()))?,
            hybrid,
            fitted: fused[row].clone(),
        };
        let tuned_on = TunedOn {
            queries: self.development.queries.len(),
            fingerprint: Some(self.development.fingerprint.clone()),
            metric: METRIC.into(),
            held_out: super::report::mean(&scores.hybrid),
        };
        let rows = self.settings.iter().zip(fused).filter(|(setting, _)| setting.depth == chosen.depth);
        let point = |(setting, scores): (&Setting, &Vec<f64>)| CurvePoint {
            weights: setting.weights.clone(),
            rule: setting.rule,
            score: super::report::mean(scores),
        };
        let curve = rows.map(point).collect();
        Ok(Report {
            index: args.index.clone(),
            folds: folds.count(),
            chosen: chosen.settings(self.bm25[bm25_row], tuned_on),
            chosen_at: (chosen.weights.clone(), chosen.rule),
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

fn settings_grid(development: &Development, args: &TuneArgs) -> Result<Vec<Setting>> {
    let weights = Weights::all(development.rankings());
    let mut grid = Vec::new();
    for &depth in &args.depths {
        for rule in Rule::all() {
            for weights in &weights {
                grid.push(Setting::new(rule, weights, depth)?);
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

/// Scores of the dense ranking; none without one.
fn score_dense(development: &Development) -> Result<Option<Vec<f64>>> {
    if development.rankings() == 2 {
        return Ok(None);
    }
    let scores = development.for_each(|query| {
        let Some(part) = development.dense_part(query) else { return Ok(0.0) };
        let found = development.searcher.search_dense_part(part, CUTOFF, &SearchOptions::default())?;
        Ok(query.ndcg(&to_ranking(&found)))
    })?;
    Ok(Some(scores))
}

/// Scores of hybrid search by a fusion that is not tuned.
fn score_fused(development: &Development, bm25: Bm25Options, fusion: &Fusion) -> Result<Vec<f64>> {
    let options = SearchOptions { bm25, ..SearchOptions::default() };
    development.for_each(|query| {
        let found = development.searcher.search_hybrid(development.parts(query), CUTOFF, DEPTH, fusion, &options)?;
        Ok(query.ndcg(&to_ranking(&found)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_add_up_to_1_and_cover_the_grid() {
        for (rankings, count) in [(2, 21), (3, 66)] {
            let all = Weights::all(rankings);
            assert_eq!(all.len(), count);
            for (at, weights) in all.iter().enumerate() {
                let values = weights.values();
                assert_eq!(values.len(), rankings);
                assert!((values.iter().sum::<f32>() - 1.0).abs() < 1e-6, "{values:?}");
                assert!(!all[..at].contains(weights), "{values:?} stand there twice");
            }
        }
    }
}
