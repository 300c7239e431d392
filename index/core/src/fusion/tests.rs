//! Fusions against their formulas, written out plainly.

use proptest::prelude::*;

use super::*;

fn ranking(hits: &[(&str, f32)]) -> Ranking {
    Ranking::from_hits(hits.iter().map(|&(id, score)| Hit { id: id.into(), score }).collect())
}

fn numbered(hits: &[(u8, f32)]) -> Ranking {
    Ranking::from_hits(hits.iter().map(|&(id, score)| Hit { id: id.to_string(), score }).collect())
}

/// Every fusion with these weights.
fn fusions(weights: &[f32]) -> Vec<Fusion> {
    let weighted = Scaling::ALL.map(|scaling| Fusion::weighted(scaling, weights.to_vec()).unwrap());
    let rrf = [0.0, 1.0, RRF_K].map(|k| Fusion::rrf(k, weights.to_vec()).unwrap());
    weighted.into_iter().chain(rrf).collect()
}

#[test]
fn no_rankings_and_empty_rankings_make_an_empty_one() {
    for fusion in fusions(&[]) {
        assert!(fusion.fuse(&[]).is_empty());
        assert!(fusion.fuse(&[Ranking::default(), Ranking::default()]).is_empty());
    }
}

#[test]
fn equal_scores_scale_to_one() {
    let fusion = Fusion::weighted(Scaling::MinMax, vec![0.25]).unwrap();
    let fused = fusion.fuse(&[ranking(&[("b", 2.0), ("a", 2.0)]), ranking(&[("a", -7.0)])]);
    assert_eq!(fused, ranking(&[("a", 1.25), ("b", 0.25)]));
}

#[test]
fn the_order_of_two_rankings_does_not_matter_to_rrf() {
    let (a, b) = (ranking(&[("x", 3.0), ("y", 2.0), ("z", 1.0)]), ranking(&[("z", 9.0), ("y", 8.0)]));
    let fusion = Fusion::default();
    assert_eq!(fusion.fuse(&[a.clone(), b.clone()]), fusion.fuse(&[b, a]));
}

#[test]
fn weights_of_rrf_multiply_its_parts() {
    let lists = [ranking(&[("a", 9.0), ("b", 8.0)]), ranking(&[("b", 2.0)])];
    let fused = Fusion::rrf(1.0, vec![2.0, 0.5]).unwrap().fuse(&lists);
    assert_eq!(fused, ranking(&[("a", 1.0), ("b", 2.0 / 3.0 + 0.25)]));
}

#[test]
fn a_fusion_is_its_name_and_parameters() {
    for weights in [&[][..], &[0.25, 3.0]] {
        for fusion in fusions(weights) {
            assert_eq!(Fusion::named(fusion.name(), &fusion.parameters()).unwrap(), fusion);
        }
    }
}

#[test]
fn parameters_out_of_range_are_refused() {
    for k in [-1.0, f32::NAN, f32::INFINITY] {
        assert!(Fusion::rrf(k, vec![]).unwrap_err().to_string().contains(&format!("is {k}, not a number")));
    }
    for result in [Fusion::weighted(Scaling::Max, vec![1.0, f32::NAN]), Fusion::rrf(1.0, vec![f32::NAN])] {
        assert!(result.unwrap_err().to_string().contains("is NaN, not a finite"));
    }
    let defaults = FusionParameters::default();
    for name in Fusion::NAMES {
        assert!(Fusion::named(name, &defaults).is_ok(), "{name}");
    }
    let error = Fusion::named("sum", &defaults).unwrap_err();
    assert_eq!(error.hint(), Some("known are rrf, weighted"));
}

/// A document that a list of depth 2 lacks ranks by its completed score.
#[test]
fn completed_scores_change_the_order() {
    let (sparse, bm25) = (ranking(&[("a", 10.0), ("b", 9.0)]), ranking(&[("c", 10.0), ("b", 2.0)]));
    let fusion = Fusion::weighted(Scaling::Max, vec![0.5, 0.5]).unwrap();
    let order = |candidates: &Candidates| {
        fusion.fuse_candidates(candidates).hits().iter().map(|hit| hit.id.clone()).collect::<Vec<_>>()
    };
    let mut candidates = Candidates::of(&[sparse, bm25]);
    assert_eq!(order(&candidates), ["b", "a", "c"]);
    candidates.complete(0, 2, 8.0);
    candidates.complete(1, 0, 0.0);
    assert_eq!(order(&candidates), ["c", "b", "a"]);
}

/// The formulas, document by document.
fn plain(fusion: &Fusion, lists: &[Ranking], id: &str) -> f64 {
    let part = |list: &Ranking| {
        let at = list.hits().iter().position(|hit| hit.id == id);
        let scores: Vec<f64> = list.hits().iter().map(|hit| f64::from(hit.score)).collect();
        match fusion.rule {
            Rule::Rrf { k } => at.map_or(0.0, |at| 1.0 / (f64::from(k) + at as f64 + 1.0)),
            Rule::Weighted(scaling) => {
                let scale = scaling.of(&scores);
                at.map_or(scale.missing, |at| scale.apply(scores[at]))
            }
        }
    };
    lists.iter().enumerate().map(|(n, list)| f64::from(*fusion.weights.get(n).unwrap_or(&1.0)) * part(list)).sum()
}

/// Rankings of a few documents, so that they overlap and scores tie.
fn rankings() -> impl Strategy<Value = Vec<Ranking>> {
    let hits = prop::collection::vec((0u8..9, -2i8..9), 0..8);
    let ranking =
        hits.prop_map(|hits| numbered(&hits.iter().map(|(id, score)| (*id, f32::from(*score))).collect::<Vec<_>>()));
    prop::collection::vec(ranking, 0..4)
}

proptest! {
    /// Scores of any kind go in; numbers come out, none of them a negative zero, in the one order.
    #[test]
    fn fused_scores_are_finite(
        rankings in prop::collection::vec(prop::collection::vec((0u8..9, any::<f32>()), 0..8), 0..4),
        weights in prop::collection::vec(prop::num::f32::NORMAL | prop::num::f32::ZERO, 0..4),
    ) {
        let rankings: Vec<Ranking> = rankings.iter().map(|hits| numbered(hits)).collect();
        for fusion in fusions(&weights) {
            let fused = fusion.fuse(&rankings);
            prop_assert!(fused.hits().is_sorted_by(|a, b| a.rank_order(b).is_lt()));
            for hit in fused.hits() {
                prop_assert!(hit.score.is_finite() && (hit.score != 0.0 || hit.score.is_sign_positive()));
            }
        }
    }

    #[test]
    fn fusions_equal_their_formulas(lists in rankings(), weights in prop::collection::vec(0f32..2.0, 0..4)) {
        for fusion in fusions(&weights) {
            let fused = fusion.fuse(&lists);
            let all: std::collections::HashSet<&str> =
                lists.iter().flat_map(Ranking::hits).map(|hit| hit.id.as_str()).collect();
            prop_assert_eq!(fused.len(), all.len());
            for hit in fused.hits() {
                let expected = plain(&fusion, &lists, &hit.id);
                prop_assert!((f64::from(hit.score) - expected).abs() < 1e-5, "{:?} {} {}", fusion, hit.score, expected);
            }
        }
    }

    /// A weight of 0 leaves a ranking out: the other one alone decides, if its scores are complete.
    #[test]
    fn a_weight_of_zero_leaves_a_ranking_out(lists in rankings(), scores in prop::collection::vec(-9i8..9, 9)) {
        let mut candidates = Candidates::of(&lists);
        for list in 0..lists.len() {
            for at in candidates.missing(list).collect::<Vec<_>>() {
                candidates.complete(list, at, f32::from(scores[at]));
            }
        }
        let Some(first) = lists.first() else { return Ok(()) };
        let weights: Vec<f32> = (0..lists.len()).map(|list| if list == 0 { 1.0 } else { 0.0 }).collect();
        let score = |id: &str| {
            let own = first.hits().iter().find(|hit| hit.id == id).map(|hit| hit.score);
            own.unwrap_or_else(|| f32::from(scores[candidates.ids().iter().position(|other| other == id).unwrap()]))
        };
        for scaling in [Scaling::MinMax, Scaling::ZScore, Scaling::Distribution] {
            // all scores of a flat ranking become 0 or 1
            if first.hits().first().map(|hit| hit.score) == first.hits().last().map(|hit| hit.score) { continue }
            let fused = Fusion::weighted(scaling, weights.clone()).unwrap().fuse_candidates(&candidates);
            let hits = candidates.ids().iter().map(|id| Hit { id: id.clone(), score: score(id) });
            let alone = Ranking::from_hits(hits.collect());
            let ids = |ranking: &Ranking| ranking.hits().iter().map(|hit| hit.id.clone()).collect::<Vec<_>>();
            prop_assert_eq!(ids(&fused), ids(&alone));
        }
    }

    /// The candidates of truncated rankings fuse alike if the deeper rankings gave the missing scores.
    #[test]
    fn truncated_candidates_fuse_as_truncated_rankings(lists in rankings(), depth in 0usize..6) {
        let mut short = lists.clone();
        short.iter_mut().for_each(|ranking| ranking.truncate(depth));
        let mut expected = Candidates::of(&short);
        for (list, ranking) in lists.iter().enumerate() {
            for at in expected.missing(list).collect::<Vec<_>>() {
                if let Some(hit) = ranking.hits().iter().find(|hit| hit.id == expected.ids()[at]) {
                    expected.complete(list, at, hit.score);
                }
            }
        }
        let truncated = Candidates::of(&lists).truncated(depth);
        for fusion in fusions(&[0.3, 0.7]) {
            prop_assert_eq!(fusion.fuse_candidates(&truncated), fusion.fuse_candidates(&expected));
        }
    }

    /// A document that every ranking puts at or above another one is not below it in the fusion.
    #[test]
    fn a_fusion_agrees_where_all_rankings_agree(
        scores in prop::collection::vec(prop::collection::vec(-9i8..9, 6), 1..4),
        weights in prop::collection::vec(0f32..2.0, 0..4),
    ) {
        let list = |scores: &Vec<i8>| numbered(&(0..6).zip(scores.iter().map(|score| f32::from(*score))).collect::<Vec<_>>());
        let lists: Vec<Ranking> = scores.iter().map(list).collect();
        let place = |list: &Ranking, id: &str| list.hits().iter().position(|hit| hit.id == id).unwrap();
        for fusion in fusions(&weights) {
            let fused = fusion.fuse(&lists);
            for a in fused.hits() {
                for b in fused.hits() {
                    let is_above = lists.iter().all(|list| place(list, &a.id) <= place(list, &b.id));
                    prop_assert!(!is_above || a.score >= b.score, "{:?}: {:?} {:?}", fusion, a, b);
                }
            }
        }
    }

    /// The unit of a ranking's scores does not matter: a power of two changes no digit, so the fusion is equal.
    #[test]
    fn units_do_not_matter(lists in rankings(), exponent in 0i32..9) {
        let factor = 2f32.powi(exponent);
        let scaled: Vec<Ranking> = lists
            .iter()
            .enumerate()
            .map(|(n, list)| {
                let factor = if n == 0 { factor } else { 1.0 };
                let hits = list.hits().iter().map(|hit| Hit { id: hit.id.clone(), score: hit.score * factor });
                Ranking::from_hits(hits.collect())
            })
            .collect();
        for fusion in fusions(&[0.3, 0.7]) {
            prop_assert_eq!(fusion.fuse(&scaled), fusion.fuse(&lists), "{:?}", fusion);
        }
    }

    #[test]
    fn the_best_are_the_first_of_all(lists in rankings(), k in 0usize..12) {
        let candidates = Candidates::of(&lists);
        for fusion in fusions(&[0.5, 1.0]) {
            let mut all = fusion.fuse_candidates(&candidates);
            all.truncate(k);
            prop_assert_eq!(fusion.best(&candidates, k), all);
        }
    }
}
