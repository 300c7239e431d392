//! All scores of mteb for 10 000 queries with 1000 hits each, and one paired test of 10 000 queries.
//!
//! Runs have scores drawn from 5000 values, so that a ranking has ties, and 1 to 5 relevant documents per query. Reading
//! runs and qrels is left out.
//!
//! `cargo bench -p splade-eval --bench metrics`

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use splade_core::{Hit, Ranking};
use splade_eval::{Qrels, Resampling, Run, mteb_scores, paired_test};

fn main() {
    divan::main();
}

const QUERIES: usize = 10_000;

fn judged_run() -> (Qrels, Run) {
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let (mut qrels, mut run) = (Qrels::default(), Run::default());
    for query in 0..QUERIES {
        let start = random.random_range(0..1_000_000);
        let hit = |at: usize, random: &mut ChaCha8Rng| {
            let score = random.random_range(0..5000) as f32 / 64.0;
            Hit { id: format!("document-{}", start + at), score }
        };
        let hits = (0..1000).map(|at| hit(at, &mut random)).collect();
        run.insert(format!("q{query}"), Ranking::from_hits(hits));
        for _ in 0..random.random_range(1..=5) {
            let document = start + random.random_range(0..1200);
            qrels.insert(format!("q{query}"), format!("document-{document}"), random.random_range(1..=3));
        }
    }
    (qrels, run)
}

#[divan::bench(sample_count = 5, sample_size = 1)]
fn scores(bencher: divan::Bencher) {
    let (qrels, run) = judged_run();
    bencher.bench(|| mteb_scores(divan::black_box(&qrels), &run).unwrap());
}

#[divan::bench(sample_count = 5, sample_size = 1)]
fn test(bencher: divan::Bencher) {
    let mut random = ChaCha8Rng::seed_from_u64(2);
    let mut values = || (0..QUERIES).map(|_| random.random::<f64>()).collect::<Vec<_>>();
    let (ours, baseline) = (values(), values());
    bencher.bench(|| paired_test(divan::black_box(&ours), &baseline, &Resampling::default()).unwrap());
}
