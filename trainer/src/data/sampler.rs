//! The order of examples: batches without duplicates, data sets in turn.
//!
//! The functions take their permutations as an input, so that tests can give the reference's and compare the batches;
//! [`Sampler`] draws them from a documented generator seeded by seed and epoch, the same on every machine.

use std::ops::Range;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rayon::slice::ParallelSliceMut;

use super::DataSet;
use super::report::hash;
use crate::config::{BatchSampler, SamplingStrategy};

/// Rows of one data set that make one micro-batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Index of the data set.
    pub data_set: usize,
    /// Indices of its examples.
    pub rows: Vec<usize>,
}

/// The size of batches, and the rule for a smaller last one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BatchRules {
    /// At least 1.
    pub(crate) batch_size: usize,
    /// True leaves out batches that are not full; the reference does so on several devices only.
    pub(crate) drop_last: bool,
}

impl BatchRules {
    /// The number of batches the reference reports for so many rows; without duplicates it may be another one.
    pub(crate) fn reported_len(self, rows: usize) -> usize {
        let size = self.batch_size.max(1);
        if self.drop_last { rows / size } else { rows.div_ceil(size) }
    }

    fn accepts(self, rows: &[usize]) -> bool {
        rows.len() == self.batch_size || (!self.drop_last && !rows.is_empty())
    }
}

/// Draws a permutation of `0..n`.
pub(crate) trait Permutations {
    /// The next permutation of `0..n`.
    fn next(&mut self, n: usize) -> Vec<usize>;
}

impl<F: FnMut(usize) -> Vec<usize>> Permutations for F {
    fn next(&mut self, n: usize) -> Vec<usize> {
        self(n)
    }
}

/// Permutations of one epoch and one data set.
///
/// ChaCha8 seeded with seed + epoch, one stream per data set; without shuffling, the identity.
#[derive(Debug, Clone)]
pub(crate) struct SeededPermutations {
    generator: Option<ChaCha8Rng>,
}

impl SeededPermutations {
    /// For one data set (`stream`) in one epoch; `shuffle: false` keeps every order as it is.
    pub(crate) fn new(seed: u64, epoch: u64, stream: u64, shuffle: bool) -> Self {
        let generator = shuffle.then(|| {
            let mut generator = ChaCha8Rng::seed_from_u64(seed.wrapping_add(epoch));
            generator.set_stream(stream);
            generator
        });
        Self { generator }
    }
}

impl Permutations for SeededPermutations {
    fn next(&mut self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        if let Some(generator) = &mut self.generator {
            order.shuffle(generator);
        }
        order
    }
}

/// A random permutation divided into batches; the last one may be short.
pub(crate) fn batch_sampler(
    n_rows: usize,
    rules: BatchRules,
    mut permutations: impl Permutations,
) -> impl Iterator<Item = Vec<usize>> {
    let order = permutations.next(n_rows);
    let size = rules.batch_size.max(1);
    let mut at = 0;
    std::iter::from_fn(move || {
        let rows = order[at..order.len().min(at + size)].to_vec();
        at += rows.len();
        rules.accepts(&rows).then_some(rows)
    })
}

/// The values of each row as numbers: equal texts have equal numbers, whatever their column.
#[derive(Debug, Clone)]
pub(crate) struct RowValues {
    values: Vec<u32>,
    starts: Vec<usize>,
    n_distinct: usize,
}

impl RowValues {
    /// Numbers the texts of `n_rows` rows.
    ///
    /// Texts are sorted by a hash, and those with the same hash compared: 16 bytes a text at the most, where a table of
    /// texts takes several times that.
    pub(crate) fn new<'a, T: Iterator<Item = &'a str>>(n_rows: usize, texts_of: impl Fn(usize) -> T + Sync) -> Self {
        let mut starts = vec![0];
        let mut hashes: Vec<(u64, u32)> = Vec::new();
        for row in 0..n_rows {
            hashes.extend(texts_of(row).zip(hashes.len() as u32..).map(|(text, at)| (hash(text), at)));
            starts.push(hashes.len());
        }
        hashes.par_sort_unstable();
        let text_at = |at: u32| {
            let row = starts.partition_point(|start| *start <= at as usize) - 1;
            texts_of(row).nth(at as usize - starts[row])
        };
        let mut values = vec![0; hashes.len()];
        let mut n_distinct = 0;
        for run in hashes.chunk_by(|a, b| a.0 == b.0) {
            // nearly always one text
            let mut known: Vec<(Option<&str>, u32)> = Vec::new();
            for (_, at) in run {
                let text = (run.len() > 1).then(|| text_at(*at)).flatten();
                let number = known.iter().find(|(other, _)| *other == text).map(|(_, number)| *number);
                values[*at as usize] = number.unwrap_or_else(|| {
                    known.push((text, n_distinct));
                    n_distinct += 1;
                    n_distinct - 1
                });
            }
        }
        Self { values, starts, n_distinct: n_distinct as usize }
    }

    fn len(&self) -> usize {
        self.starts.len() - 1
    }

    fn of(&self, row: usize) -> &[u32] {
        &self.values[self.starts[row]..self.starts[row + 1]]
    }
}

/// Batches in which no text occurs twice, neither in one column nor across columns.
///
/// Walks the rows that are left in permutation order and skips a row if one of its texts is in the batch already;
/// skipped rows are candidates for the next batch. A set with many duplicates therefore gives more and smaller batches than
/// [`BatchRules::reported_len`]. With `drop_last` it may give fewer, and is then refilled by up to two further passes,
/// as sentence-transformers 6.2 does.
struct NoDuplicates<V, P> {
    values: V,
    rules: BatchRules,
    permutations: P,
    remaining: Remaining,
    /// For every text, the number of the last batch it was in: a set that is emptied by counting up `batch`.
    last_batch: Vec<u32>,
    batch: u32,
    n_given: usize,
    refills_left: usize,
}

impl<V: std::borrow::Borrow<RowValues>, P: Permutations> NoDuplicates<V, P> {
    fn new(values: V, rules: BatchRules, mut permutations: P) -> Self {
        let remaining = Remaining::new(permutations.next(values.borrow().len()));
        let last_batch = vec![0; values.borrow().n_distinct];
        Self { values, rules, permutations, remaining, last_batch, batch: 0, n_given: 0, refills_left: 2 }
    }

    /// Takes rows until the batch is full or all that are left have a text in common with it.
    fn fill(&mut self) -> Vec<usize> {
        self.batch += 1;
        let (values, batch) = (self.values.borrow(), self.batch);
        let mut rows = Vec::with_capacity(self.rules.batch_size);
        let mut cursor = self.remaining.first();
        while let Some(at) = cursor.filter(|_| rows.len() < self.rules.batch_size.max(1)) {
            let texts = values.of(self.remaining.row(at));
            if texts.iter().any(|&text| self.last_batch[text as usize] == batch) {
                cursor = self.remaining.after(at);
                continue;
            }
            for &text in texts {
                self.last_batch[text as usize] = batch;
            }
            rows.push(self.remaining.row(at));
            cursor = self.remaining.remove(at);
        }
        rows
    }

    /// Starts over with a new permutation if fewer batches came out than are reported.
    fn refill(&mut self) -> bool {
        let n_rows = self.values.borrow().len();
        if self.n_given == 0 || self.n_given >= self.rules.reported_len(n_rows) || self.refills_left == 0 {
            return false;
        }
        self.refills_left -= 1;
        self.remaining = Remaining::new(self.permutations.next(n_rows));
        true
    }
}

impl<V: std::borrow::Borrow<RowValues>, P: Permutations> Iterator for NoDuplicates<V, P> {
    type Item = Vec<usize>;

    fn next(&mut self) -> Option<Vec<usize>> {
        let refilled = self.refills_left < 2;
        if refilled && self.n_given >= self.rules.reported_len(self.values.borrow().len()) {
            return None;
        }
        loop {
            if self.remaining.first().is_none() && !self.refill() {
                return None;
            }
            let rows = self.fill();
            if self.rules.accepts(&rows) {
                self.n_given += 1;
                return Some(rows);
            }
            // A batch that is dropped is the last of its pass, which has visited every remaining row.
        }
    }
}

/// The rows that are not used yet, in order, with removal in constant time: a linked list over a permutation.
struct Remaining {
    order: Vec<usize>,
    /// `next[i]` follows position `i - 1`; `next[0]` is the first.
    next: Vec<u32>,
    previous: Vec<u32>,
}

impl Remaining {
    fn new(order: Vec<usize>) -> Self {
        let n = order.len() as u32;
        // Position i of `order` is node i + 1; node 0 stands before the first and after the last.
        let next = (0..=n).map(|node| if node == n { 0 } else { node + 1 }).collect();
        let previous = (0..=n).map(|node| if node == 0 { n } else { node - 1 }).collect();
        Self { order, next, previous }
    }

    fn row(&self, node: u32) -> usize {
        self.order[node as usize - 1]
    }

    fn first(&self) -> Option<u32> {
        self.after(0)
    }

    fn after(&self, node: u32) -> Option<u32> {
        Some(self.next[node as usize]).filter(|&next| next != 0)
    }

    /// Removes a node and returns the one after it.
    fn remove(&mut self, node: u32) -> Option<u32> {
        let (before, after) = (self.previous[node as usize], self.next[node as usize]);
        self.next[before as usize] = after;
        self.previous[after as usize] = before;
        Some(after).filter(|&after| after != 0)
    }
}

/// One batch of each data set in turn, until one of them has no further batch at its turn.
///
/// The batches of the others in that unfinished round are dropped, as in the reference.
pub(crate) fn round_robin<I: Iterator<Item = Batch>>(mut data_sets: Vec<I>) -> impl Iterator<Item = Batch> {
    let round = move || -> Option<Vec<Batch>> {
        let round: Vec<Batch> = data_sets.iter_mut().map(Iterator::next).collect::<Option<_>>()?;
        (!round.is_empty()).then_some(round)
    };
    std::iter::from_fn(round).flatten()
}

/// A batch of the data set that `order` names next; sets without further batches are skipped.
pub(crate) fn proportional<I: Iterator<Item = Vec<usize>>>(
    mut data_sets: Vec<I>,
    order: impl IntoIterator<Item = usize>,
) -> impl Iterator<Item = Batch> {
    order.into_iter().filter_map(move |data_set| {
        let rows = data_sets.get_mut(data_set)?.next()?;
        Some(Batch { data_set, rows })
    })
}

/// Batches of a training, epoch by epoch. They depend on the seed, the examples and the rules only, on every machine.
#[derive(Debug, Clone)]
pub(crate) struct Sampler {
    data_sets: Vec<SampledSet>,
    /// Data sets that take one turn of a round together: the two parts of a set that was split by its negatives.
    turns: Vec<Range<usize>>,
    strategy: SamplingStrategy,
    rules: BatchRules,
    seed: u64,
    shuffle: bool,
}

/// The part of a data set that a sampler needs.
#[derive(Debug, Clone)]
struct SampledSet {
    n_rows: usize,
    /// Values of the rows, for [`BatchSampler::NoDuplicates`] only.
    values: Option<RowValues>,
}

impl Sampler {
    /// Prepares the batches of `data_sets`, whose order is that of the round.
    pub(crate) fn new(
        data_sets: &[DataSet],
        kind: BatchSampler,
        strategy: SamplingStrategy,
        rules: BatchRules,
        seed: u64,
        shuffle: bool,
    ) -> Self {
        let sampled = |set: &DataSet| SampledSet {
            n_rows: set.examples.len(),
            values: (kind == BatchSampler::NoDuplicates)
                .then(|| RowValues::new(set.examples.len(), |row| set.examples[row].texts())),
        };
        let is_other = |a: &DataSet, b: &DataSet| a.set.is_empty() || a.set != b.set;
        let mut turns: Vec<Range<usize>> = Vec::new();
        for at in 0..data_sets.len() {
            match turns.last_mut().filter(|turn| !is_other(&data_sets[turn.start], &data_sets[at])) {
                Some(turn) => turn.end = at + 1,
                None => turns.push(at..at + 1),
            }
        }
        Self { data_sets: data_sets.iter().map(sampled).collect(), turns, strategy, rules, seed, shuffle }
    }

    /// Batches of `n_rows` rows whose texts are not compared: pieces of running text.
    pub(crate) fn of_rows(n_rows: usize, rules: BatchRules, seed: u64, shuffle: bool) -> Self {
        let data_sets = vec![SampledSet { n_rows, values: None }];
        let turns = std::iter::once(0..1).collect();
        Self { data_sets, turns, strategy: SamplingStrategy::Proportional, rules, seed, shuffle }
    }

    /// The number of batches the reference reports for an epoch; an epoch never has more, but may have fewer.
    pub(crate) fn batches_per_epoch(&self) -> usize {
        let length = |turn: &Range<usize>| self.data_sets[turn.clone()].iter().map(|set| self.reported_len(set)).sum();
        let lengths = self.turns.iter().map(length);
        match self.strategy {
            SamplingStrategy::RoundRobin => lengths.min().unwrap_or(0) * self.turns.len(),
            SamplingStrategy::Proportional => lengths.sum(),
        }
    }

    /// The batches of an epoch, at most [`batches_per_epoch`](Self::batches_per_epoch) as the reference's trainer
    /// stops there.
    ///
    /// To resume within an epoch, `skip` the batches that were used: only row numbers are drawn, so this takes milliseconds.
    pub(crate) fn epoch(&self, epoch: u64) -> impl Iterator<Item = Batch> + '_ {
        let batches: Box<dyn Iterator<Item = Batch>> = match self.strategy {
            SamplingStrategy::RoundRobin => {
                Box::new(round_robin(self.turns.iter().map(|turn| self.turn(turn, epoch)).collect()))
            }
            SamplingStrategy::Proportional => Box::new(self.mixed(&(0..self.data_sets.len()), epoch)),
        };
        batches.take(self.batches_per_epoch())
    }

    /// The batches of the data sets that take one turn.
    fn turn(&self, sets: &Range<usize>, epoch: u64) -> Box<dyn Iterator<Item = Batch> + '_> {
        let at = sets.start;
        match sets.len() {
            1 => {
                let batches = self.sub_sampler(&self.data_sets[at], epoch, at as u64);
                Box::new(batches.map(move |rows| Batch { data_set: at, rows }))
            }
            _ => Box::new(self.mixed(sets, epoch)),
        }
    }

    /// All batches of some data sets in random order.
    fn mixed(&self, sets: &Range<usize>, epoch: u64) -> impl Iterator<Item = Batch> + use<'_> {
        let batches = sets.clone().map(|at| self.sub_sampler(&self.data_sets[at], epoch, at as u64)).collect();
        let first = sets.start;
        proportional(batches, self.order_of_data_sets(sets, epoch))
            .map(move |batch| Batch { data_set: first + batch.data_set, ..batch })
    }

    fn reported_len(&self, set: &SampledSet) -> usize {
        self.rules.reported_len(set.n_rows)
    }

    fn sub_sampler<'a>(
        &self,
        set: &'a SampledSet,
        epoch: u64,
        stream: u64,
    ) -> Box<dyn Iterator<Item = Vec<usize>> + 'a> {
        let permutations = SeededPermutations::new(self.seed, epoch, stream, self.shuffle);
        match &set.values {
            Some(values) => Box::new(NoDuplicates::new(values, self.rules, permutations)),
            None => Box::new(batch_sampler(set.n_rows, self.rules, permutations)),
        }
    }

    /// Each of some data sets, counted from the first, as often as it has batches, in random order.
    fn order_of_data_sets(&self, sets: &Range<usize>, epoch: u64) -> Vec<usize> {
        let repeated = |(index, set): (usize, &SampledSet)| std::iter::repeat_n(index, self.reported_len(set));
        let multiset: Vec<usize> = self.data_sets[sets.clone()].iter().enumerate().flat_map(repeated).collect();
        // Streams of its own, beyond those of the data sets.
        let stream = u64::MAX - sets.start as u64;
        let mut permutations = SeededPermutations::new(self.seed, epoch, stream, self.shuffle);
        permutations.next(multiset.len()).into_iter().map(|at| multiset[at]).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;
    use crate::data::Example;

    const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/sparse-encoder");

    fn no_duplicates(
        rows: &[Vec<String>],
        rules: BatchRules,
        permutations: impl Permutations,
    ) -> impl Iterator<Item = Vec<usize>> {
        let values = RowValues::new(rows.len(), |row| rows[row].iter().map(String::as_str));
        NoDuplicates::new(values, rules, permutations)
    }

    #[derive(Deserialize)]
    struct Golden {
        no_duplicates: Vec<NoDuplicatesCase>,
        multi: Vec<MultiCase>,
    }

    #[derive(Deserialize)]
    struct NoDuplicatesCase {
        name: String,
        rows: serde_json::Value,
        batch_size: usize,
        drop_last: bool,
        permutations: Vec<Vec<usize>>,
        batches: Vec<Vec<usize>>,
        len: usize,
    }

    #[derive(Deserialize)]
    struct MultiCase {
        sizes: Vec<usize>,
        batch_size: usize,
        round_robin: Vec<Vec<usize>>,
        round_robin_len: usize,
        proportional_dataset_order: Vec<usize>,
        proportional: Vec<Vec<usize>>,
        proportional_len: usize,
    }

    fn golden() -> Golden {
        let text = std::fs::read_to_string(format!("{FIXTURES}/sampler/expected_batches.json")).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    /// The texts of a golden case's rows: in place, or a file of `training-data`.
    fn texts_of(rows: &serde_json::Value) -> Vec<Vec<String>> {
        let rows: Vec<serde_json::Value> = match rows {
            serde_json::Value::Array(rows) => rows.clone(),
            path => {
                let path = format!("{FIXTURES}/{}", path.as_str().unwrap().trim_start_matches("sparse-encoder/"));
                let text = std::fs::read_to_string(path).unwrap();
                text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
            }
        };
        let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        rows.iter().map(|row| row.as_object().unwrap().values().map(text).collect()).collect()
    }

    #[test]
    fn no_duplicates_gives_the_batches_of_the_reference() {
        for case in golden().no_duplicates {
            let texts = texts_of(&case.rows);
            let rules = BatchRules { batch_size: case.batch_size, drop_last: case.drop_last };
            let mut permutations = case.permutations.clone().into_iter();
            let batches: Vec<_> = no_duplicates(&texts, rules, |_| permutations.next().unwrap()).collect();
            assert_eq!(batches, case.batches, "{}", case.name);
            assert_eq!(rules.reported_len(texts.len()), case.len, "{}", case.name);
        }
    }

    /// Sub-samplers in file order whose rows are numbered through all sets, as the golden file has them.
    fn in_file_order(case: &MultiCase) -> Vec<impl Iterator<Item = Vec<usize>>> {
        let rules = BatchRules { batch_size: case.batch_size, drop_last: false };
        let offset = |set: usize| case.sizes[..set].iter().sum::<usize>();
        let batches = |(set, &size): (usize, &usize)| {
            batch_sampler(size, rules, move |n| (offset(set)..offset(set) + n).collect())
        };
        case.sizes.iter().enumerate().map(batches).collect()
    }

    #[test]
    fn several_data_sets_are_mixed_as_in_the_reference() {
        for case in golden().multi {
            let rows = |batches: Vec<Batch>| batches.into_iter().map(|batch| batch.rows).collect::<Vec<_>>();
            let of_set = |(data_set, batches)| Iterator::map(batches, move |rows| Batch { data_set, rows });
            let turns = in_file_order(&case).into_iter().enumerate().map(of_set).collect();
            assert_eq!(rows(round_robin(turns).collect()), case.round_robin);
            let order = case.proportional_dataset_order.clone();
            assert_eq!(rows(proportional(in_file_order(&case), order).collect()), case.proportional);
            let lengths = [
                (SamplingStrategy::RoundRobin, case.round_robin_len),
                (SamplingStrategy::Proportional, case.proportional_len),
            ];
            for (strategy, expected) in lengths {
                let sampler = sampler(&case.sizes, case.batch_size, BatchSampler::BatchSampler, strategy, true);
                assert_eq!(sampler.batches_per_epoch(), expected);
            }
        }
    }

    /// A handful of rows without a negative once ended every epoch after one batch of each set.
    #[test]
    fn the_two_parts_of_a_split_set_take_one_turn() {
        let set = |name: &str, set: &str, n: usize| DataSet {
            name: name.into(),
            set: set.into(),
            examples: (0..n).map(|row| Example { anchor: format!("{name} {row}"), ..Example::default() }).collect(),
            ..DataSet::default()
        };
        let sets = [set("a", "a", 40), set("a_pairs", "a", 1), set("b", "b", 32)];
        let rules = BatchRules { batch_size: 4, drop_last: false };
        let kind = BatchSampler::BatchSampler;
        let sampler = Sampler::new(&sets, kind, SamplingStrategy::RoundRobin, rules, 42, true);
        // b has 8 batches, a has 10 + 1
        assert_eq!(sampler.batches_per_epoch(), 16);
        let order: Vec<usize> = sampler.epoch(0).map(|batch| batch.data_set).collect();
        assert_eq!(order.len(), 16);
        assert!(order.chunks(2).all(|round| round[0] < 2 && round[1] == 2), "{order:?}");
        // over some epochs the part without negatives has its turn too
        let n_pairs = (0..10).flat_map(|epoch| sampler.epoch(epoch)).filter(|batch| batch.data_set == 1).count();
        assert!((1..10).contains(&n_pairs), "{n_pairs}");
    }

    fn sampler(
        sizes: &[usize],
        batch_size: usize,
        kind: BatchSampler,
        strategy: SamplingStrategy,
        shuffle: bool,
    ) -> Sampler {
        let example = |row: usize| Example {
            anchor: format!("query {}", row % 7),
            positive: format!("document {row}"),
            ..Example::default()
        };
        let set = |(at, &size): (usize, &usize)| DataSet {
            name: at.to_string(),
            set: at.to_string(),
            examples: (0..size).map(example).collect(),
            ..DataSet::default()
        };
        let sets: Vec<DataSet> = sizes.iter().enumerate().map(set).collect();
        Sampler::new(&sets, kind, strategy, BatchRules { batch_size, drop_last: false }, 42, shuffle)
    }

    #[test]
    fn permutations_are_the_same_everywhere() {
        let mut permutations = SeededPermutations::new(42, 1, 0, true);
        assert_eq!(permutations.next(10), PINNED);
        assert_ne!(permutations.next(10), PINNED);
        assert_eq!(SeededPermutations::new(41, 2, 0, true).next(10), PINNED, "seed and epoch are added");
        assert_ne!(SeededPermutations::new(42, 1, 1, true).next(10), PINNED, "data sets have streams of their own");
        assert_eq!(SeededPermutations::new(42, 1, 0, false).next(4), [0, 1, 2, 3]);
    }

    const PINNED: [usize; 10] = [2, 8, 5, 9, 0, 7, 3, 6, 1, 4];

    #[test]
    fn without_shuffling_rows_come_in_file_order() {
        let sampler = sampler(&[5, 4], 2, BatchSampler::BatchSampler, SamplingStrategy::RoundRobin, false);
        let rows: Vec<_> = sampler.epoch(3).map(|batch| (batch.data_set, batch.rows)).collect();
        assert_eq!(rows, [(0, vec![0, 1]), (1, vec![0, 1]), (0, vec![2, 3]), (1, vec![2, 3])]);
    }

    #[test]
    fn an_epoch_with_many_duplicates_ends_where_the_reference_ends() {
        // 20 rows over 7 anchors: batches of 8 cannot be full, so there are more of them than ceil(20 / 8).
        let sampler = sampler(&[20], 8, BatchSampler::NoDuplicates, SamplingStrategy::RoundRobin, true);
        assert_eq!((sampler.batches_per_epoch(), sampler.epoch(0).count()), (3, 3));
    }

    #[test]
    fn no_data_gives_no_batches() {
        for strategy in [SamplingStrategy::RoundRobin, SamplingStrategy::Proportional] {
            for kind in [BatchSampler::NoDuplicates, BatchSampler::BatchSampler] {
                assert_eq!(sampler(&[], 2, kind, strategy, true).epoch(0).count(), 0);
                assert_eq!(sampler(&[0], 2, kind, strategy, true).epoch(0).count(), 0);
            }
        }
    }

    /// The reference's algorithm word by word: a plain list instead of a linked one, sets of texts instead of numbers.
    fn plain_no_duplicates(rows: &[Vec<u8>], batch_size: usize, drop_last: bool, order: Vec<usize>) -> Vec<Vec<usize>> {
        let (mut remaining, mut batches) = (order, Vec::new());
        while !remaining.is_empty() {
            let (mut seen, mut batch) = (HashSet::new(), Vec::new());
            for &row in &remaining {
                let texts: HashSet<u8> = rows[row].iter().copied().collect();
                if seen.is_disjoint(&texts) {
                    batch.push(row);
                    seen.extend(texts);
                }
                if batch.len() == batch_size {
                    break;
                }
            }
            remaining.retain(|row| !batch.contains(row));
            if batch.len() == batch_size || !drop_last {
                batches.push(batch);
            }
        }
        batches
    }

    proptest! {
        #[test]
        fn no_duplicates_agrees_with_its_plain_twin(
            rows in prop::collection::vec(prop::collection::vec(0u8..20, 2..4), 0..40),
            batch_size in 1usize..6,
            seed in 0u64..1000,
        ) {
            let order = SeededPermutations::new(seed, 0, 0, true).next(rows.len());
            let texts: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(u8::to_string).collect()).collect();
            let rules = BatchRules { batch_size, drop_last: false };
            let batches: Vec<_> = no_duplicates(&texts, rules, |_| order.clone()).collect();
            prop_assert_eq!(&batches, &plain_no_duplicates(&rows, batch_size, false, order.clone()));
            let mut used: Vec<usize> = batches.concat();
            used.sort_unstable();
            prop_assert_eq!(used, (0..rows.len()).collect::<Vec<_>>());
        }

        #[test]
        fn an_epoch_can_be_taken_up_anywhere(sizes in prop::collection::vec(0usize..30, 1..4), skip in 0usize..20, epoch in 0u64..3) {
            for strategy in [SamplingStrategy::RoundRobin, SamplingStrategy::Proportional] {
                let sampler = sampler(&sizes, 4, BatchSampler::NoDuplicates, strategy, true);
                let all: Vec<Batch> = sampler.epoch(epoch).collect();
                let rest: Vec<Batch> = sampler.epoch(epoch).skip(skip).collect();
                prop_assert_eq!(&all[skip.min(all.len())..], &rest[..]);
            }
        }
    }
}
