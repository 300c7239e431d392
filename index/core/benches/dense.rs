//! Search by dense vectors on one thread, over codes of 8 bits and over all exact values.
//!
//! Measured: the best 10 and 100 of 100 000 random documents of 384 dimensions around 200 centers, in memory, in one segment.
//! Random vectors are harder than those of a model, whose best documents stand out more. Left out: encoding, ids, the disk.
//! Compare the rows of a run.

use ownedbytes::OwnedBytes;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use splade_core::dense::{DenseFile, DenseIdentity, DenseQuery, DenseVector, write_dense};
use splade_core::segment::{CheckedBytes, Live};

const DOCUMENTS: u32 = 100_000;
const DIMENSIONS: usize = 384;
const CENTERS: usize = 200;

fn main() {
    divan::main();
}

struct All;

impl Live for All {
    fn is_live(&self, _segment: usize, _doc: u32) -> bool {
        true
    }
}

/// A vector of length 1 around a center.
fn vector(rng: &mut ChaCha8Rng, centers: &[Vec<f32>]) -> DenseVector {
    let center = &centers[rng.random_range(0..centers.len())];
    let values = center.iter().map(|value| value + rng.random_range(-1.0..1.0)).collect();
    DenseVector::new(values).expect("finite values").normalized()
}

fn collection() -> (DenseFile, Vec<DenseQuery>) {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let center = |rng: &mut ChaCha8Rng| (0..DIMENSIONS).map(|_| rng.random_range(-1.0..1.0)).collect();
    let centers: Vec<Vec<f32>> = (0..CENTERS).map(|_| center(&mut rng)).collect();
    let rows: Vec<Vec<u8>> = (0..DOCUMENTS).map(|_| vector(&mut rng, &centers).to_bytes()).collect();
    let identity = DenseIdentity { dimensions: DIMENSIONS as u32, fingerprint: [0; 32] };
    let mut bytes = Vec::new();
    write_dense(&mut bytes, &identity, DOCUMENTS, rows.iter().map(Vec::as_slice)).expect("memory");
    let file = DenseFile::open(CheckedBytes::unchecked(OwnedBytes::new(bytes)), &identity, DOCUMENTS);
    let queries = (0..20).map(|_| DenseQuery::new(vector(&mut rng, &centers))).collect();
    (file.expect("a sound file"), queries)
}

#[divan::bench(args = [10, 100], sample_count = 5)]
fn codes_then_exact_values(bencher: divan::Bencher<'_, '_>, k: usize) {
    let (file, queries) = collection();
    bencher.counter(divan::counter::ItemsCount::new(queries.len())).bench(|| {
        let found = queries.iter().map(|query| query.search(&[&file], k, &All, 1).expect("a sound file").len());
        found.sum::<usize>()
    });
}

#[divan::bench(sample_count = 3)]
fn all_exact_values(bencher: divan::Bencher<'_, '_>) {
    let (file, queries) = collection();
    bencher.counter(divan::counter::ItemsCount::new(queries.len())).bench(|| {
        let found = queries.iter().map(|query| query.score_all(&[&file], &All).expect("a sound file").len());
        found.sum::<usize>()
    });
}
