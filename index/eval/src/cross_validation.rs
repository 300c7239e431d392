//! Choice of settings by the scores of queries, with cross-validation.
//!
//! A setting that is best on some queries is too good on those: it was chosen by them. [`Folds`] divides the queries into
//! parts. For each part the best setting of the *other* queries scores its queries, so that no query is scored by a setting
//! that it helped to choose.

/// Parts of the queries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folds {
    /// part of each query
    of_query: Vec<usize>,
    count: usize,
}

impl Folds {
    /// Divides `n_queries` into `count` parts whose sizes differ by at most 1: query `order[i]` goes to part `i` modulo
    /// `count`. `order` holds every number below `n_queries` once.
    #[must_use]
    pub fn new(order: &[usize], count: usize) -> Self {
        let count = count.max(1);
        let mut of_query = vec![0; order.len()];
        for (at, &query) in order.iter().enumerate() {
            if let Some(fold) = of_query.get_mut(query) {
                *fold = at % count;
            }
        }
        Self { of_query, count }
    }

    /// Number of parts.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// Held-out score of each query: that of the row which `choose` returns when it may look only at queries for which its
    /// argument is true. `score` gives the score of a query in a row.
    ///
    /// ```
    /// use splade_eval::{Folds, best_row};
    ///
    /// // two settings, each the best on one part: queries 0 and 2, and queries 1 and 3
    /// let rows = [vec![1.0, 0.0, 1.0, 0.0], vec![0.5, 1.0, 0.0, 1.0]];
    /// let folds = Folds::new(&[0, 1, 2, 3], 2);
    /// let held_out = folds.held_out(|may_see| best_row(&rows, may_see), |row, query| rows[row][query]);
    /// // the setting that one part chooses scores the other
    /// assert_eq!(held_out, [0.5, 0.0, 0.0, 0.0]);
    /// ```
    pub fn held_out<Row: Copy>(
        &self,
        choose: impl Fn(&dyn Fn(usize) -> bool) -> Row,
        score: impl Fn(Row, usize) -> f64,
    ) -> Vec<f64> {
        let rows: Vec<Row> = (0..self.count).map(|fold| choose(&|query| self.of_query[query] != fold)).collect();
        self.of_query.iter().enumerate().map(|(query, &fold)| score(rows[fold], query)).collect()
    }
}

/// Row with the largest mean over the queries for which `may_see` is true; the first of equal ones, 0 without rows.
#[must_use]
pub fn best_row(rows: &[Vec<f64>], may_see: &dyn Fn(usize) -> bool) -> usize {
    let sum = |row: &Vec<f64>| -> f64 {
        row.iter().enumerate().filter(|(query, _)| may_see(*query)).map(|(_, score)| score).sum()
    };
    let mut best = (0, f64::NEG_INFINITY);
    for (at, row) in rows.iter().enumerate() {
        let sum = sum(row);
        if sum > best.1 {
            best = (at, sum);
        }
    }
    best.0
}

/// Mean of the differences of two systems over the same queries, and its standard error.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Difference {
    /// mean of `ours − theirs`
    pub mean: f64,
    /// standard deviation of the differences (with n − 1) over the square root of their number; 0 for fewer than two
    pub standard_error: f64,
}

impl Difference {
    /// Difference of the scores of the same queries.
    #[must_use]
    pub fn of(ours: &[f64], theirs: &[f64]) -> Self {
        let differences: Vec<f64> = ours.iter().zip(theirs).map(|(ours, theirs)| ours - theirs).collect();
        let n = differences.len() as f64;
        if differences.is_empty() {
            return Self { mean: 0.0, standard_error: 0.0 };
        }
        let mean = differences.iter().sum::<f64>() / n;
        let squares: f64 = differences.iter().map(|difference| (difference - mean).powi(2)).sum();
        let standard_error = if n < 2.0 { 0.0 } else { (squares / (n - 1.0) / n).sqrt() };
        Self { mean, standard_error }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_first_of_equal_rows_is_the_best() {
        let rows = [vec![1.0, 0.0], vec![0.0, 1.0], vec![2.0, -1.0]];
        assert_eq!(best_row(&rows, &|_| true), 0);
        assert_eq!(best_row(&rows, &|query| query == 1), 1);
        assert_eq!(best_row(&rows, &|query| query == 0), 2);
        assert_eq!(best_row(&[], &|_| true), 0);
    }

    #[test]
    fn differences_and_their_standard_error() {
        let difference = Difference::of(&[1.0, 2.0, 3.0, 4.0], &[0.0, 0.0, 2.0, 2.0]);
        assert_eq!(difference.mean, 1.5);
        assert!((difference.standard_error - (1.0_f64 / 3.0 / 4.0).sqrt()).abs() < 1e-12);
        assert_eq!(Difference::of(&[], &[]), Difference { mean: 0.0, standard_error: 0.0 });
        assert_eq!(Difference::of(&[2.0], &[1.0]), Difference { mean: 1.0, standard_error: 0.0 });
    }

    proptest! {
        /// The plain twin: for every query, the best row over the queries of other parts.
        #[test]
        fn no_query_helps_to_choose_its_own_setting(
            rows in prop::collection::vec(prop::collection::vec(0u8..5, 9), 1..5),
            count in 1usize..6,
        ) {
            let rows: Vec<Vec<f64>> = rows.iter().map(|row| row.iter().map(|score| f64::from(*score)).collect()).collect();
            let order = [4, 7, 1, 0, 8, 3, 2, 6, 5];
            let folds = Folds::new(&order, count);
            let held_out = folds.held_out(|may_see| best_row(&rows, may_see), |row, query| rows[row][query]);
            for (at, &query) in order.iter().enumerate() {
                let others: Vec<usize> =
                    order.iter().enumerate().filter(|(other, _)| other % count != at % count).map(|(_, query)| *query).collect();
                let mean = |row: &Vec<f64>| others.iter().map(|query| row[*query]).sum::<f64>();
                let mut best = 0;
                for row in 1..rows.len() {
                    if mean(&rows[row]) > mean(&rows[best]) {
                        best = row;
                    }
                }
                prop_assert_eq!(held_out[query], rows[best][query]);
            }
        }
    }
}
