//! Comparison of two runs query by query, for `eval-run` and `eval-mteb`.

use std::collections::HashMap;

use anyhow::Result;
use serde_json::{Value, json};
use splade_eval::{JudgedRun, Metric, PairedTest, Resampling, holm, paired_test};

use crate::report::{ComparisonRow, CorrectedP};

/// Two runs over the same judgements.
pub(crate) struct RunPair<'a> {
    pub(crate) ours: &'a JudgedRun<'a>,
    pub(crate) baseline: &'a JudgedRun<'a>,
}

/// Values of a query in two runs.
#[derive(Debug, Clone)]
pub(crate) struct QueryPair {
    pub(crate) id: String,
    pub(crate) ours: f64,
    pub(crate) baseline: f64,
    /// rank of the first relevant hit, in our run and in the baseline
    pub(crate) ranks: [Option<u32>; 2],
}

impl RunPair<'_> {
    /// Queries in both runs, in the order of ours.
    pub(crate) fn queries(&self, metric: Metric) -> Vec<QueryPair> {
        let ranks = self.baseline.first_ranks().map(|(_, rank)| rank);
        let baseline: HashMap<&str, (f64, Option<u32>)> =
            self.baseline.values(metric).zip(ranks).map(|((id, value), rank)| (id, (value, rank))).collect();
        let ours = self.ours.values(metric).zip(self.ours.first_ranks());
        let pair = |((id, ours), (_, rank)): ((&str, f64), (&str, Option<u32>))| {
            let (baseline, baseline_rank) = *baseline.get(id)?;
            Some(QueryPair { id: id.to_owned(), ours, baseline, ranks: [rank, baseline_rank] })
        };
        ours.filter_map(pair).collect()
    }
}

/// Tests pairs of values; none if there are no pairs.
pub(crate) fn test(pairs: &[QueryPair], resampling: &Resampling) -> Result<Option<PairedTest>> {
    if pairs.is_empty() {
        return Ok(None);
    }
    let (ours, baseline): (Vec<f64>, Vec<f64>) = pairs.iter().map(|pair| (pair.ours, pair.baseline)).unzip();
    Ok(Some(paired_test(&ours, &baseline, resampling)?))
}

/// Means and test of each metric, with p values corrected over the rows.
pub(crate) fn rows(pair: &RunPair, metrics: &[Metric], resampling: &Resampling) -> Result<Vec<ComparisonRow>> {
    let row = |metric: &Metric| {
        let pairs = pair.queries(*metric);
        let mean = |value: fn(&QueryPair) -> f64| pairs.iter().map(value).sum::<f64>() / pairs.len() as f64;
        let test = test(&pairs, resampling)?;
        Ok((vec![metric.to_string()], mean(|pair| pair.ours), mean(|pair| pair.baseline), test))
    };
    Ok(corrected(metrics.iter().map(row).collect::<Result<Vec<_>>>()?))
}

/// Rows of labels, our value, the baseline's, and a test where both runs exist; p values are corrected over all of them.
pub(crate) fn corrected(rows: Vec<(Vec<String>, f64, f64, Option<PairedTest>)>) -> Vec<ComparisonRow> {
    let p = |of: fn(&PairedTest) -> f64| {
        holm(&rows.iter().map(|row| row.3.as_ref().map_or(f64::NAN, of)).collect::<Vec<_>>())
    };
    let (randomisation, t_test) = (p(|test| test.p_randomisation), p(|test| test.p_t_test));
    let ps = randomisation.into_iter().zip(t_test).map(|(randomisation, t_test)| CorrectedP { randomisation, t_test });
    rows.into_iter()
        .zip(ps)
        .map(|((labels, ours, baseline, test), p)| ComparisonRow {
            labels,
            ours,
            baseline,
            test: test.map(|test| (test, p)),
        })
        .collect()
}

/// Sentence about the tests of a table.
pub(crate) fn note(rows: &[ComparisonRow], resampling: &Resampling) -> String {
    let tests = rows.iter().filter(|row| row.test.is_some()).count();
    let Resampling { resamples, seed } = resampling;
    let over = if tests == 1 { "one test".to_owned() } else { format!("{tests} tests, corrected by Holm's method") };
    format!(
        "p values of paired tests by query: {over}. * below 0.05, ** below 0.01 in the randomisation test. The interval is \
         a bootstrap interval of percentiles. {resamples} resamples, seed {seed}."
    )
}

/// Row as JSON; the keys of `labels` name its labels.
pub(crate) fn to_json(row: &ComparisonRow, labels: &[&str]) -> Value {
    let mut value: Value = labels
        .iter()
        .zip(&row.labels)
        .map(|(key, label)| ((*key).to_owned(), json!(label)))
        .collect::<serde_json::Map<_, _>>()
        .into();
    value["ours"] = json!(row.ours);
    value["baseline"] = json!(row.baseline);
    value["difference"] = json!(row.ours - row.baseline);
    if let Some((test, p)) = &row.test {
        value["queries"] = json!(test.queries);
        value["interval"] = json!(test.interval);
        value["wins"] = json!(test.wins);
        value["ties"] = json!(test.ties);
        value["losses"] = json!(test.losses);
        value["p_randomisation"] = json!(test.p_randomisation);
        value["p_t_test"] = json!(test.p_t_test);
        value["p_randomisation_corrected"] = json!(p.randomisation);
        value["p_t_test_corrected"] = json!(p.t_test);
    }
    value
}

/// The `top` queries that gained and the `top` that lost most, largest change first; queries without a change are left
/// out.
pub(crate) fn gained_and_lost(pairs: &[QueryPair], top: usize) -> (Vec<QueryPair>, Vec<QueryPair>) {
    let change = |pair: &QueryPair| pair.ours - pair.baseline;
    let mut sorted: Vec<&QueryPair> = pairs.iter().filter(|pair| change(pair).abs() > 1e-12).collect();
    sorted.sort_by(|a, b| change(b).total_cmp(&change(a)).then_with(|| a.id.cmp(&b.id)));
    let gained = sorted.iter().take(top).take_while(|pair| change(pair) > 0.0);
    let lost = sorted.iter().rev().take(top).take_while(|pair| change(pair) < 0.0);
    (gained.map(|pair| (*pair).clone()).collect(), lost.map(|pair| (*pair).clone()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_sorted_by_size() {
        let pair = |id: &str, ours, baseline| QueryPair { id: id.into(), ours, baseline, ranks: [None, None] };
        let pairs =
            [pair("a", 0.5, 0.5), pair("b", 1.0, 0.0), pair("c", 0.0, 0.25), pair("d", 0.5, 0.0), pair("e", 0.0, 1.0)];
        let ids = |pairs: Vec<QueryPair>| pairs.into_iter().map(|pair| pair.id).collect::<Vec<_>>();
        let (gained, lost) = gained_and_lost(&pairs, 5);
        assert_eq!((ids(gained), ids(lost)), (vec!["b".into(), "d".into()], vec!["e".into(), "c".into()]));
        let (gained, lost) = gained_and_lost(&pairs, 1);
        assert_eq!((ids(gained), ids(lost)), (vec!["b".into()], vec!["e".into()]));
    }
}
