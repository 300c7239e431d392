//! [`RankingSettings`]: fusion and BM25 options, from the flags, else from the index, else by default.

use std::collections::BTreeMap;

use anyhow::Result;
use serde_json::{Value, json};
use splade_core::{Fusion, FusionParameters};
use splade_index::{Bm25Options, HybridSettings, Language};

use crate::cli::{Bm25Args, FusionArgs, Mode, RankingWeights, Switch};
use crate::failure::bad_input;

/// Hits taken from each ranking before fusion, unless settings say otherwise; that of evaluations, so that they measure what
/// searches do.
pub(crate) const DEPTH: usize = 1000;
/// The same for engines, where each hit of a ranking crosses the network of a cluster.
pub(crate) const DEPTH_OF_ENGINES: usize = 100;

/// Settings of a search in BM25 or hybrid mode.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RankingSettings {
    pub(crate) fusion: Fusion,
    /// hits taken from each ranking before fusion
    pub(crate) depth: usize,
    pub(crate) bm25: Bm25Options,
    /// number of rankings that are fused: two, or three with a dense one
    pub(crate) rankings: usize,
}

impl RankingSettings {
    /// Settings without flags and without tuning: the sum of z-scores, and BM25 with its usual constants.
    pub(crate) fn untuned(language: Language, depth: usize, rankings: usize) -> Self {
        Self { fusion: Untuned::Scores.fusion(rankings), depth, bm25: default_bm25(language), rankings }
    }

    /// Settings that a mode reads, named like their flags; none for the sparse and the dense ranking.
    pub(crate) fn record(&self, mode: Mode) -> BTreeMap<String, Value> {
        let mut record: Vec<(&str, Value)> = Vec::new();
        if mode == Mode::Hybrid {
            let parameters = self.fusion.parameters();
            record.push(("fusion", json!(self.fusion.name())));
            record.push(match self.fusion.name() {
                "rrf" => ("rrf_k", decimal(parameters.rrf_k)),
                _ => ("scaling", json!(parameters.scaling.name())),
            });
            record.push(("weights", json!(self.weights().join(","))));
            record.push(("depth", json!(self.depth)));
        }
        if matches!(mode, Mode::Bm25 | Mode::Hybrid) {
            record.push(("bm25_k1", decimal(self.bm25.k1())));
            record.push(("bm25_b", decimal(self.bm25.b())));
            record.push(("bm25_compounds", json!(self.bm25.splits_compounds())));
            record.push(("bm25_drop_stop_words", json!(self.bm25.drops_stop_words())));
        }
        record.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// Settings that a mode reads, as a phrase for people; empty for the sparse and the dense ranking.
    pub(crate) fn describe(&self, mode: Mode) -> String {
        let bm25 = describe_bm25(self.bm25);
        match mode {
            Mode::Sparse | Mode::Dense => String::new(),
            Mode::Bm25 => bm25,
            Mode::Hybrid => {
                let parameters = self.fusion.parameters();
                let rule = match self.fusion.name() {
                    "rrf" => format!("rrf with k {}", parameters.rrf_k),
                    _ => format!("sum of scores scaled by {}", parameters.scaling),
                };
                let weights = self.weights().join(" and ");
                format!("{rule}, weights {weights}, depth {}; BM25: {bm25}", self.depth)
            }
        }
    }

    /// Weights of the rankings, as text.
    fn weights(&self) -> Vec<String> {
        let weights = self.fusion.parameters().weights;
        let weight = |list: usize| weights.get(list).copied().unwrap_or(1.0).to_string();
        (0..self.rankings).map(weight).collect()
    }
}

/// The number with the digits of its shortest decimal form, as people write it: 0.3, not 0.30000001192092896.
pub(crate) fn decimal(number: f32) -> Value {
    json!(number.to_string().parse::<f64>().unwrap_or(number.into()))
}

/// Fusion without flags and tuned settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Untuned {
    /// Sum of z-scores. Over the ten collections of README's table the mean nDCG@10 is .651, of reciprocal ranks .631, which lose
    /// where one side is weak.
    Scores,
    /// reciprocal ranks, which every engine has
    Ranks,
}

impl Untuned {
    fn fusion(self, rankings: usize) -> Fusion {
        match self {
            Self::Scores => Fusion::sum_of_z_scores(rankings),
            Self::Ranks => Fusion::default(),
        }
    }
}

/// Settings of an index or a command, on which flags are laid.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Defaults<'a> {
    /// settings that `tune` wrote
    pub(crate) tuned: Option<&'a HybridSettings>,
    /// language of the index
    pub(crate) language: Language,
    /// depth without flag and tuned settings
    pub(crate) depth: usize,
    /// number of rankings that are fused
    pub(crate) rankings: usize,
    /// fusion without flag and tuned settings
    pub(crate) untuned: Untuned,
}

/// Settings of the flags, completed by those of the index and by defaults.
///
/// # Errors
/// A flag that no mode reads or that the fusion does not read; parameters out of range.
pub(crate) fn resolve(
    modes: &[Mode],
    fusion: &FusionArgs,
    bm25: &Bm25Args,
    defaults: Defaults,
) -> Result<RankingSettings> {
    refuse_unread(modes, fusion, bm25)?;
    // a fusion of two rankings says nothing about three; BM25 is the same in both
    let tuned = defaults.tuned.filter(|tuned| tuned.weights.len() == defaults.rankings);
    Ok(RankingSettings {
        fusion: resolve_fusion(fusion, tuned, defaults)?,
        depth: fusion.depth.or(tuned.map(|tuned| tuned.depth)).unwrap_or(defaults.depth),
        bm25: resolve_bm25(bm25, defaults)?,
        rankings: defaults.rankings,
    })
}

/// Warns of a tuned fusion that is not used because it is of another number of rankings.
pub(crate) fn warn_of_other_rankings(tuned: Option<&HybridSettings>, rankings: usize) {
    if let Some(tuned) = tuned.filter(|tuned| tuned.weights.len() != rankings) {
        let of_tuned = tuned.weights.len();
        tracing::warn!(
            "the tuned fusion is of {of_tuned} rankings, and {rankings} are fused: --fusion, --weights and --depth or their \
             defaults hold"
        );
    }
}

/// Options of BM25 without flags.
pub(crate) fn default_bm25(language: Language) -> Bm25Options {
    Bm25Options::default().with_compounds(language.joins_compounds())
}

fn describe_bm25(options: Bm25Options) -> String {
    let compounds = if options.splits_compounds() { ", compounds" } else { "" };
    let stop_words = if options.drops_stop_words() { ", without stop words" } else { "" };
    format!("k1 {}, b {}{compounds}{stop_words}", options.k1(), options.b())
}

/// The weights of a flag, one for each ranking.
fn weights_of(weights: RankingWeights, rankings: usize) -> Result<Vec<f32>> {
    let given: Vec<f32> = [weights.sparse, weights.bm25].into_iter().chain(weights.dense).collect();
    if given.len() == rankings {
        return Ok(given);
    }
    Err(bad_input(
        format!("--weights has {} numbers, and {rankings} rankings are fused", given.len()),
        match rankings {
            2 => "leave the third out, or add a dense ranking",
            _ => "give a third number, the weight of the dense ranking",
        },
    ))
}

/// Name of the fusion of flags: that of `--fusion`, else the one that reads a given flag.
fn named_by(flags: &FusionArgs) -> Option<&str> {
    let read_by = |is_given: bool, name| is_given.then_some(name);
    let by_parameter = read_by(flags.rrf_k.is_some(), "rrf").or(read_by(flags.scaling.is_some(), "weighted"));
    flags.fusion.as_deref().or(by_parameter)
}

fn resolve_fusion(flags: &FusionArgs, tuned: Option<&HybridSettings>, defaults: Defaults) -> Result<Fusion> {
    let (named, rankings) = (named_by(flags), defaults.rankings);
    // weights and scaling belong to the fusion that they were tuned for
    let tuned = tuned.filter(|tuned| named.is_none_or(|name| name == tuned.fusion));
    let untuned = defaults.untuned.fusion(rankings);
    let name = named.or(tuned.map(|tuned| tuned.fusion.as_str())).unwrap_or(untuned.name());
    let base = match tuned {
        Some(tuned) => tuned.parameters()?,
        None if name == "weighted" => Fusion::sum_of_z_scores(rankings).parameters(),
        None => FusionParameters::default(),
    };
    let unread = [("--scaling", flags.scaling.is_some(), "weighted"), ("--rrf-k", flags.rrf_k.is_some(), "rrf")];
    if let Some((flag, _, reader)) = unread.into_iter().find(|(_, is_given, reader)| *is_given && *reader != name) {
        return Err(bad_input(
            format!("{flag} is for --fusion {reader}, not {name}"),
            format!("add --fusion {reader}, or leave {flag} out"),
        ));
    }
    let parameters = FusionParameters {
        rrf_k: flags.rrf_k.unwrap_or(base.rrf_k),
        scaling: flags.scaling.unwrap_or(base.scaling),
        weights: match flags.weights {
            Some(weights) => weights_of(weights, rankings)?,
            None => base.weights,
        },
    };
    Ok(Fusion::named(name, &parameters)?)
}

fn resolve_bm25(flags: &Bm25Args, defaults: Defaults) -> Result<Bm25Options> {
    let base = defaults.tuned.map_or_else(|| default_bm25(defaults.language), |tuned| tuned.bm25);
    let is_on = |switch: Option<Switch>, base: bool| switch.map_or(base, |switch| switch == Switch::On);
    let drops = is_on(flags.bm25_drop_stop_words, base.drops_stop_words()) && has_stop_words(defaults.language);
    let options = Bm25Options::new(flags.bm25_k1.unwrap_or(base.k1()), flags.bm25_b.unwrap_or(base.b()))?;
    Ok(options.with_compounds(is_on(flags.bm25_compounds, base.splits_compounds())).without_stop_words(drops))
}

fn has_stop_words(language: Language) -> bool {
    language != Language::None
}

/// Refuses to drop stop words if none of the languages has a list of them.
pub(crate) fn expect_stop_words(flags: &Bm25Args, mut languages: impl Iterator<Item = Language>) -> Result<()> {
    if flags.bm25_drop_stop_words != Some(Switch::On) || languages.any(has_stop_words) {
        return Ok(());
    }
    Err(bad_input(
        "--bm25-drop-stop-words has no effect without a language",
        "leave it out, or name the language: `index --language`, `eval-mteb --language`",
    ))
}

/// Refuses flags that none of the modes reads.
fn refuse_unread(modes: &[Mode], fusion: &FusionArgs, bm25: &Bm25Args) -> Result<()> {
    let hybrid = [
        ("--fusion", fusion.fusion.is_some()),
        ("--scaling", fusion.scaling.is_some()),
        ("--rrf-k", fusion.rrf_k.is_some()),
        ("--weights", fusion.weights.is_some()),
        ("--depth", fusion.depth.is_some()),
    ];
    let lexical = [
        ("--bm25-k1", bm25.bm25_k1.is_some()),
        ("--bm25-b", bm25.bm25_b.is_some()),
        ("--bm25-compounds", bm25.bm25_compounds.is_some()),
        ("--bm25-drop-stop-words", bm25.bm25_drop_stop_words.is_some()),
    ];
    let given = |flags: &[(&'static str, bool)]| flags.iter().find(|(_, is_given)| *is_given).map(|(flag, _)| *flag);
    let has = |readers: &[Mode]| modes.iter().any(|mode| readers.contains(mode));
    match (given(&hybrid), given(&lexical)) {
        (Some(flag), _) if !has(&[Mode::Hybrid]) => Err(bad_input(
            format!("{flag} has no effect without the hybrid mode"),
            "add the mode hybrid, or leave it out",
        )),
        (_, Some(flag)) if !has(&[Mode::Bm25, Mode::Hybrid]) => Err(bad_input(
            format!("{flag} has no effect without the modes bm25 and hybrid"),
            "add one of these modes, or leave it out",
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use splade_core::Scaling;
    use splade_index::TunedOn;

    use super::*;

    fn tuned() -> HybridSettings {
        HybridSettings {
            fusion: "weighted".into(),
            rrf_k: 20.0,
            scaling: "z-score".into(),
            weights: vec![0.25, 0.75],
            depth: 50,
            bm25: Bm25Options::new(0.9, 0.3).unwrap(),
            tuned_on: TunedOn { queries: 9, fingerprint: None, metric: "ndcg_at_10".into(), held_out: 0.5 },
        }
    }

    fn settings(fusion: &FusionArgs, bm25: &Bm25Args, tuned: Option<&HybridSettings>) -> Result<RankingSettings> {
        resolve(
            &[Mode::Hybrid],
            fusion,
            bm25,
            Defaults { tuned, language: Language::Norwegian, depth: DEPTH, rankings: 2, untuned: Untuned::Scores },
        )
    }

    #[test]
    fn flags_come_before_tuned_settings_and_these_before_defaults() {
        let (none, no_bm25) = (FusionArgs::default(), Bm25Args::default());
        let plain = settings(&none, &no_bm25, None).unwrap();
        assert_eq!(plain, RankingSettings::untuned(Language::Norwegian, DEPTH, 2));
        let z_scores = Fusion::weighted(Scaling::ZScore, vec![0.5, 0.5]).unwrap();
        assert_eq!((&plain.fusion, plain.bm25.splits_compounds()), (&z_scores, true));
        let from_index = settings(&none, &no_bm25, Some(&tuned())).unwrap();
        assert_eq!(from_index.fusion, Fusion::weighted(Scaling::ZScore, vec![0.25, 0.75]).unwrap());
        assert_eq!((from_index.depth, from_index.bm25), (50, tuned().bm25));

        let flags = FusionArgs {
            weights: Some(RankingWeights { sparse: 1.0, bm25: 2.0, dense: None }),
            depth: Some(7),
            ..FusionArgs::default()
        };
        let k1 = Bm25Args { bm25_k1: Some(2.0), bm25_compounds: Some(Switch::On), ..Bm25Args::default() };
        let both = settings(&flags, &k1, Some(&tuned())).unwrap();
        assert_eq!(both.fusion, Fusion::weighted(Scaling::ZScore, vec![1.0, 2.0]).unwrap());
        assert_eq!((both.depth, both.bm25), (7, Bm25Options::new(2.0, 0.3).unwrap().with_compounds(true)));

        // another fusion than the tuned one starts from its own defaults
        let rrf = FusionArgs { fusion: Some("rrf".into()), ..FusionArgs::default() };
        assert_eq!(settings(&rrf, &no_bm25, Some(&tuned())).unwrap().fusion, Fusion::default());
        let weighted = FusionArgs { fusion: Some("weighted".into()), ..FusionArgs::default() };
        assert_eq!(settings(&weighted, &no_bm25, None).unwrap().fusion, z_scores);

        // a parameter names the fusion that reads it
        let by_ranks = FusionArgs { rrf_k: Some(5.0), ..FusionArgs::default() };
        let by_scores = FusionArgs { scaling: Some(Scaling::Max), ..FusionArgs::default() };
        for tuned in [None, Some(&tuned())] {
            let found = settings(&by_ranks, &no_bm25, tuned).unwrap().fusion;
            assert_eq!(found, Fusion::rrf(5.0, vec![]).unwrap());
        }
        let max = Fusion::weighted(Scaling::Max, vec![0.5, 0.5]).unwrap();
        assert_eq!(settings(&by_scores, &no_bm25, None).unwrap().fusion, max);
    }

    #[test]
    fn records_have_the_settings_that_a_mode_reads() {
        let untuned = RankingSettings::untuned(Language::None, 1000, 2);
        assert_eq!((untuned.record(Mode::Sparse).len(), untuned.describe(Mode::Sparse)), (0, String::new()));
        assert_eq!(
            json!(untuned.record(Mode::Bm25)),
            json!({"bm25_k1": 1.2, "bm25_b": 0.75, "bm25_compounds": false, "bm25_drop_stop_words": false})
        );
        assert_eq!(
            untuned.describe(Mode::Hybrid),
            "sum of scores scaled by z-score, weights 0.5 and 0.5, depth 1000; BM25: k1 1.2, b 0.75"
        );
        let tuned = settings(&FusionArgs::default(), &Bm25Args::default(), Some(&tuned())).unwrap();
        let record = json!(tuned.record(Mode::Hybrid));
        assert_eq!(record["fusion"], "weighted");
        assert_eq!((&record["scaling"], &record["weights"]), (&json!("z-score"), &json!("0.25,0.75")));
        assert_eq!((&record["depth"], &record["bm25_b"], &record["rrf_k"]), (&json!(50), &json!(0.3), &Value::Null));
        let text = tuned.describe(Mode::Hybrid);
        assert!(
            text.starts_with("sum of scores scaled by z-score, weights 0.25 and 0.75, depth 50; BM25: k1 0.9"),
            "{text}"
        );
        let all = Bm25Options::default().with_compounds(true).without_stop_words(true);
        let text = RankingSettings { bm25: all, ..untuned }.describe(Mode::Bm25);
        assert_eq!(text, "k1 1.2, b 0.75, compounds, without stop words");
    }

    #[test]
    fn every_ranking_has_a_weight() {
        let defaults =
            Defaults { tuned: None, language: Language::None, depth: DEPTH, rankings: 3, untuned: Untuned::Scores };
        let fusion = |dense| FusionArgs {
            fusion: Some("weighted".into()),
            weights: Some(RankingWeights { sparse: 1.0, bm25: 2.0, dense }),
            ..FusionArgs::default()
        };
        let resolved = |fusion: &FusionArgs, rankings| {
            resolve(&[Mode::Hybrid], fusion, &Bm25Args::default(), Defaults { rankings, ..defaults })
        };
        let expected = Fusion::weighted(Scaling::ZScore, vec![1.0, 2.0, 3.0]).unwrap();
        assert_eq!(resolved(&fusion(Some(3.0)), 3).unwrap().fusion, expected);
        let equal = FusionArgs { fusion: Some("weighted".into()), ..FusionArgs::default() };
        let expected = Fusion::sum_of_z_scores(3);
        assert_eq!(resolved(&equal, 3).unwrap().fusion, expected);
        for (dense, rankings) in [(None, 3), (Some(3.0), 2)] {
            let error = resolved(&fusion(dense), rankings).unwrap_err().to_string();
            assert!(error.contains(&format!("and {rankings} rankings are fused")), "{error}");
        }
    }

    #[test]
    fn a_tuned_fusion_is_for_its_number_of_rankings() {
        let tuned = tuned();
        let defaults = Defaults {
            tuned: Some(&tuned),
            language: Language::Norwegian,
            depth: DEPTH,
            rankings: 3,
            untuned: Untuned::Scores,
        };
        let found = resolve(&[Mode::Hybrid], &FusionArgs::default(), &Bm25Args::default(), defaults).unwrap();
        assert_eq!((found.fusion, found.depth, found.bm25), (Fusion::sum_of_z_scores(3), DEPTH, tuned.bm25));

        let tuned = HybridSettings { weights: vec![0.2, 0.3, 0.5], ..tuned.clone() };
        let resolved = |rankings| {
            let defaults = Defaults { tuned: Some(&tuned), rankings, ..defaults };
            resolve(&[Mode::Hybrid], &FusionArgs::default(), &Bm25Args::default(), defaults).unwrap()
        };
        let three = resolved(3);
        assert_eq!(three.fusion, Fusion::weighted(Scaling::ZScore, vec![0.2, 0.3, 0.5]).unwrap());
        assert_eq!((three.depth, resolved(2).fusion), (50, Fusion::sum_of_z_scores(2)));
    }

    #[test]
    fn a_flag_without_effect_is_refused() {
        let fusion = |name: &str| Some(name.to_owned());
        let scaling = FusionArgs { fusion: fusion("rrf"), scaling: Some(Scaling::Max), ..FusionArgs::default() };
        let error = settings(&scaling, &Bm25Args::default(), None).unwrap_err().to_string();
        assert_eq!(error, "--scaling is for --fusion weighted, not rrf");
        let k = FusionArgs { fusion: fusion("weighted"), rrf_k: Some(1.0), ..FusionArgs::default() };
        let error = settings(&k, &Bm25Args::default(), Some(&tuned())).unwrap_err().to_string();
        assert_eq!(error, "--rrf-k is for --fusion rrf, not weighted");
        let defaults =
            Defaults { tuned: None, language: Language::None, depth: DEPTH, rankings: 2, untuned: Untuned::Scores };
        let depth = FusionArgs { depth: Some(5), ..FusionArgs::default() };
        let b = Bm25Args { bm25_b: Some(0.5), ..Bm25Args::default() };
        let none = (FusionArgs::default(), Bm25Args::default());
        for (mode, fusion, bm25, flag) in [
            (Mode::Bm25, &depth, &none.1, "--depth"),
            (Mode::Sparse, &depth, &none.1, "--depth"),
            (Mode::Sparse, &none.0, &b, "--bm25-b"),
        ] {
            let error = resolve(&[mode], fusion, bm25, defaults).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{flag} has no effect without")), "{error}");
        }
        assert!(resolve(&[Mode::Bm25], &none.0, &b, defaults).is_ok());
        assert!(resolve(&[Mode::Sparse, Mode::Hybrid], &depth, &b, defaults).is_ok());
    }
}
