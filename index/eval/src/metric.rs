//! [`Metric`]: a measure of rankings with its cut-off, by name.

use std::fmt;
use std::str::FromStr;

use crate::error::Error;
use crate::metrics::Graded;

/// Measure of one ranking, at any cut-off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// normalized discounted cumulative gain
    Ndcg,
    /// average precision, whose mean is MAP
    Map,
    /// share of the relevant documents that are found
    Recall,
    /// share of the first hits that are relevant
    Precision,
    /// reciprocal rank of the first relevant hit, whose mean is MRR
    Mrr,
    /// 1 if there is a relevant hit
    HitRate,
}

impl Measure {
    /// All measures, in the order of mteb's files.
    pub const ALL: [Self; 6] = [Self::Ndcg, Self::Map, Self::Recall, Self::Precision, Self::Mrr, Self::HitRate];

    /// Name in mteb's files, before `_at_`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ndcg => "ndcg",
            Self::Map => "map",
            Self::Recall => "recall",
            Self::Precision => "precision",
            Self::Mrr => "mrr",
            Self::HitRate => "hit_rate",
        }
    }

    /// True if mteb rounds the mean to 5 decimals.
    pub(crate) fn is_rounded(self) -> bool {
        self != Self::Mrr
    }

    /// True if mteb computes nAUC of it.
    pub(crate) fn has_nauc(self) -> bool {
        self != Self::HitRate
    }
}

/// Measure with its cut-off, written as in `ndcg_at_10`.
///
/// ```
/// use splade_eval::{Measure, Metric};
///
/// let metric: Metric = "ndcg@10".parse()?;
/// assert_eq!(metric, Metric::new(Measure::Ndcg, 10));
/// assert_eq!(metric.to_string(), "ndcg_at_10");
/// assert!("ndcg".parse::<Metric>().is_err());
/// # Ok::<(), splade_eval::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    measure: Measure,
    cutoff: usize,
}

impl Metric {
    /// nDCG@10, the main score of mteb's retrieval tasks.
    pub const MAIN: Self = Self::new(Measure::Ndcg, 10);

    /// A measure at a cut-off.
    #[must_use]
    pub const fn new(measure: Measure, cutoff: usize) -> Self {
        Self { measure, cutoff }
    }

    /// Measure without its cut-off.
    #[must_use]
    pub fn measure(self) -> Measure {
        self.measure
    }

    /// Value of one ranking.
    pub(crate) fn value(self, graded: &Graded) -> f64 {
        let k = self.cutoff;
        match self.measure {
            Measure::Ndcg => graded.ndcg(k),
            Measure::Map => graded.average_precision(k, graded.relevant_count()),
            Measure::Recall => graded.recall(k),
            Measure::Precision => graded.precision(k),
            Measure::Mrr => graded.reciprocal_rank(k),
            Measure::HitRate => graded.hit(k),
        }
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_at_{}", self.measure.name(), self.cutoff)
    }
}

impl FromStr for Metric {
    type Err = Error;

    /// Reads `ndcg_at_10` or `ndcg@10`; `accuracy` is mteb's name of `recall_at_1`.
    fn from_str(text: &str) -> Result<Self, Error> {
        if text == "accuracy" {
            return Ok(Self::new(Measure::Recall, 1));
        }
        let parts = text.split_once("_at_").or_else(|| text.split_once('@'));
        let metric = parts.and_then(|(name, cutoff)| {
            let measure = Measure::ALL.into_iter().find(|measure| measure.name() == name)?;
            Some(Self::new(measure, cutoff.parse().ok().filter(|cutoff| *cutoff > 0)?))
        });
        metric.ok_or_else(|| {
            let names = Measure::ALL.map(Measure::name).join(", ");
            Error::invalid(format!("unknown metric '{text}'"), format!("{names}, each with a cut-off: ndcg_at_10"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back() {
        for measure in Measure::ALL {
            for cutoff in [1, 10, 1000] {
                let metric = Metric::new(measure, cutoff);
                assert_eq!(metric.to_string().parse::<Metric>().unwrap(), metric);
            }
        }
        assert_eq!("accuracy".parse::<Metric>().unwrap().to_string(), "recall_at_1");
        for wrong in ["", "ndcg", "ndcg_at_", "ndcg_at_0", "ndcg_at_-1", "ndcg_at_10_max", "NDCG@10", "@10", "ndcg@1.5"]
        {
            let error = wrong.parse::<Metric>().unwrap_err();
            assert!(error.kind().is_bad_input() && error.hint().is_some(), "{wrong}");
        }
    }
}
