//! Files of dense vectors and searches in them, against brute force; damaged files.

use ownedbytes::OwnedBytes;
use proptest::prelude::*;

use super::*;
use crate::score_order;
use crate::segment::{BlockChecksums, CheckedBytes, Live};

/// Documents of which some are deleted: those whose number is a multiple of `every`; none for 0.
struct Deleted {
    every: u32,
}

impl Live for Deleted {
    fn is_live(&self, _: usize, doc: u32) -> bool {
        self.every == 0 || !doc.is_multiple_of(self.every)
    }
}

const FINGERPRINT: [u8; 32] = [3; 32];

fn bytes(vectors: &[Vec<f32>], dimensions: u32) -> Vec<u8> {
    let rows: Vec<Vec<u8>> =
        vectors.iter().map(|values| DenseVector::new(values.clone()).unwrap().to_bytes()).collect();
    let mut bytes = Vec::new();
    let identity = DenseIdentity { dimensions, fingerprint: FINGERPRINT };
    write_dense(&mut bytes, &identity, rows.len() as u32, rows.iter().map(Vec::as_slice)).unwrap();
    bytes
}

fn open(bytes: Vec<u8>, dimensions: u32, n_docs: usize) -> Result<DenseFile, String> {
    let identity = DenseIdentity { dimensions, fingerprint: FINGERPRINT };
    DenseFile::open(CheckedBytes::unchecked(OwnedBytes::new(bytes)), &identity, n_docs as u32)
}

/// The best `k`: score descending, then by place.
fn best(mut hits: Vec<DenseHit>, k: usize) -> Vec<DenseHit> {
    hits.sort_by(|a, b| score_order(a.score, b.score).then((a.segment, a.doc).cmp(&(b.segment, b.doc))));
    hits.truncate(k);
    hits
}

fn expect_exact(segments: &[Vec<Vec<f32>>], query: &[f32], every: u32) {
    let dimensions = query.len() as u32;
    let files: Vec<DenseFile> =
        segments.iter().map(|vectors| open(bytes(vectors, dimensions), dimensions, vectors.len()).unwrap()).collect();
    let files: Vec<&DenseFile> = files.iter().collect();
    files.iter().for_each(|file| file.check().unwrap());
    let (query, live) = (DenseQuery::new(DenseVector::new(query.to_vec()).unwrap()), Deleted { every });
    let all = query.score_all(&files, &live).unwrap();
    // the definition of a score
    for hit in &all {
        let vector = DenseVector::new(segments[hit.segment as usize][hit.doc as usize].clone()).unwrap();
        assert_eq!(hit.score, query.vector().dot(&vector));
    }
    for k in [0, 1, 2, 10, 300, usize::MAX] {
        for threads in [0, 1, 3] {
            let found = query.search(&files, k, &live, threads).unwrap();
            assert_eq!(best(found, k), best(all.clone(), k), "k {k}, {threads} threads");
        }
    }
}

/// Values of very different sizes, and many that tie.
fn value() -> impl Strategy<Value = f32> {
    prop_oneof![
        4 => -1.0_f32..1.0,
        2 => prop_oneof![Just(0.0_f32), Just(1.0), Just(-1.0), Just(0.5)],
        1 => prop_oneof![Just(1e-42_f32), Just(-1e-30), Just(1e15), Just(-1e15), Just(1e-8)],
    ]
}

fn collection() -> impl Strategy<Value = (Vec<Vec<Vec<f32>>>, Vec<f32>)> {
    (1_usize..40).prop_flat_map(|dimensions| {
        let vector = || prop::collection::vec(value(), dimensions);
        (prop::collection::vec(prop::collection::vec(vector(), 0..60), 1..4), vector())
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_search_equals_brute_force((segments, query) in collection(), every in 0_u32..4) {
        expect_exact(&segments, &query, every);
    }
}

#[test]
fn a_search_of_many_similar_documents_equals_brute_force() {
    use rand::{Rng, SeedableRng};
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(5);
    let center: Vec<f32> = (0..48).map(|_| rng.random_range(-1.0..1.0)).collect();
    // scores differ by less than the error of the codes
    let near = |rng: &mut rand_chacha::ChaCha8Rng| -> Vec<f32> {
        center.iter().map(|value| value + rng.random_range(-1e-3..1e-3)).collect()
    };
    let segments: Vec<Vec<Vec<f32>>> =
        [9000, 300, 20_000].iter().map(|n| (0..*n).map(|_| near(&mut rng)).collect()).collect();
    expect_exact(&segments, &near(&mut rng), 7);
}

#[test]
fn the_largest_codes_of_the_largest_vectors_do_not_overflow() {
    let dimensions = MAX_DIMENSIONS;
    let vectors = vec![vec![1.0; dimensions], vec![-1.0; dimensions], vec![0.0; dimensions]];
    expect_exact(&[vectors], &vec![1.0; dimensions], 0);
}

#[test]
fn few_documents_beyond_the_best_are_scored_exactly() {
    use rand::{Rng, SeedableRng};
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(6);
    let mut vector = || (0..128).map(|_| rng.random_range(-1.0..1.0)).collect::<Vec<f32>>();
    let vectors: Vec<Vec<f32>> = (0..20_000).map(|_| vector()).collect();
    let file = open(bytes(&vectors, 128), 128, vectors.len()).unwrap();
    let query = DenseQuery::new(DenseVector::new(vector()).unwrap());
    let found = query.search(&[&file], 10, &Deleted { every: 0 }, 1).unwrap();
    assert!((10..400).contains(&found.len()), "{}", found.len());
}

#[test]
fn a_damaged_or_foreign_file_is_refused_with_a_reason() {
    let vectors = vec![vec![1.0, 0.5], vec![0.25, -1.0]];
    let whole = bytes(&vectors, 2);
    assert!(open(whole.clone(), 2, 2).is_ok());
    let defect = |bytes: Vec<u8>, dimensions: u32, n_docs: usize| open(bytes, dimensions, n_docs).err().unwrap();
    let changed = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        bytes
    };
    assert_eq!(defect(changed(0), 2, 2), "not a file of dense vectors");
    assert!(defect(changed(8), 2, 2).starts_with("version 0 of dense vectors"));
    assert_eq!(defect(whole.clone(), 3, 2), "vectors of 2 dimensions, the index has 3");
    assert_eq!(defect(whole.clone(), 2, 3), "vectors of 2 documents, the segment has 3");
    assert_eq!(defect(changed(30), 2, 2), "vectors of another model than the index");
    assert_eq!(
        defect(whole[..whole.len() - 1].to_vec(), 2, 2),
        format!("{} bytes do not fit its header", whole.len() - 1)
    );
    assert_eq!(defect(Vec::new(), 2, 2), "it is shorter than its header states");
    // values, codes and scales
    for at in [64, 128, 192] {
        let file = open(changed(at), 2, 2).unwrap();
        assert_eq!(file.check().unwrap_err(), "document 0: its codes are not those of its values");
    }
}

#[test]
fn a_flipped_bit_is_found_by_the_checksum_before_a_search_uses_it() {
    let vectors: Vec<Vec<f32>> = (0..2000).map(|doc| vec![doc as f32, 1.0, -1.0, 0.5]).collect();
    let content = bytes(&vectors, 4);
    let with_checksums = |at: Option<usize>| {
        let mut checksums = BlockChecksums::default();
        checksums.update(&content);
        let mut file = [&content[..], &checksums.finish()].concat();
        at.into_iter().for_each(|at| file[at] ^= 4);
        CheckedBytes::open(&OwnedBytes::new(file)).unwrap().unwrap()
    };
    let identity = DenseIdentity { dimensions: 4, fingerprint: FINGERPRINT };
    let query = DenseQuery::new(DenseVector::new(vec![1.0, 0.0, 0.0, 0.0]).unwrap());
    let search = |at: Option<usize>| {
        let file = DenseFile::open(with_checksums(at), &identity, 2000)?;
        query.search(&[&file], 5, &Deleted { every: 0 }, 1).map_err(|damage| damage.defect)
    };
    assert!(search(None).unwrap().len() >= 5);
    // in the header, in the exact values of the best document, in codes and in scales
    let last_row = 64 + 1999 * 16;
    for at in [10, last_row, 64 + 2000 * 16 + 70, content.len() - 3] {
        assert!(search(Some(at)).unwrap_err().starts_with("damaged: wrong checksum"), "byte {at}");
    }
}
