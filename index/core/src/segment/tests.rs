//! Files of both versions, and merges of them, against a brute-force search.

use ownedbytes::OwnedBytes;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;

mod version_1;

/// Number of terms of the vocabulary.
const VOCABULARY: u32 = 500;

/// Weights by document and ascending term.
type Documents = Vec<Vec<(u32, f32)>>;

/// Documents with terms that are dense, windowed and short, and weights of all sizes.
fn documents(seed: u64, n: usize) -> Documents {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut document = || {
        let mut weights = std::collections::BTreeMap::new();
        for _ in 0..20 {
            let term = f64::from(VOCABULARY).powf(rng.random::<f64>()) as u32 - 1;
            let weight = match rng.random_range(0..4) {
                0 => rng.random_range(1..8) as f32 * 0.5,
                1 => rng.random::<f32>() * 0.02 + 1e-6,
                _ => rng.random::<f32>() * 3.0 + 1e-3,
            };
            weights.insert(term, weight);
        }
        weights.into_iter().collect()
    };
    (0..n).map(|_| document()).collect()
}

fn identity(precision: ForwardPrecision) -> Identity {
    Identity { vocabulary_size: VOCABULARY, fingerprint: [7; 32], layout: RowLayout::new(VOCABULARY, precision) }
}

/// Rows and ids as the writers take them.
struct Rows {
    layout: RowLayout,
    parts: Vec<(String, Vec<u8>)>,
}

impl Rows {
    fn new(documents: &Documents, layout: RowLayout) -> Self {
        let row = |weights: &Vec<(u32, f32)>| {
            let mut row = Vec::new();
            layout.encode(weights.iter().map(|(dim, _)| *dim), weights.iter().map(|(_, weight)| *weight), &mut row);
            row
        };
        let parts = documents.iter().enumerate().map(|(doc, weights)| (format!("d{doc}"), row(weights)));
        Self { layout, parts: parts.collect() }
    }

    fn entries(&self) -> impl Iterator<Item = Entry<'_>> + Clone {
        self.parts.iter().map(|(id, row)| Entry { id: id.as_bytes(), row: self.layout.row(row) })
    }
}

fn open(bytes: Vec<u8>, identity: &Identity, n_docs: usize) -> SegmentFile {
    SegmentFile::open(CheckedBytes::unchecked(OwnedBytes::new(bytes)), identity, n_docs as u32).unwrap()
}

fn version_1(documents: &Documents, identity: &Identity) -> SegmentFile {
    let bytes = version_1::write(identity, Rows::new(documents, identity.layout).entries());
    open(bytes, identity, documents.len())
}

fn version_2(documents: &Documents, identity: &Identity) -> SegmentFile {
    let mut bytes = Vec::new();
    write_segment(&mut bytes, identity, Rows::new(documents, identity.layout).entries()).unwrap();
    open(bytes, identity, documents.len())
}

/// Documents of each file for which a filter is false.
struct Hidden(Vec<Vec<bool>>);

impl Live for Hidden {
    fn is_live(&self, segment: usize, doc: u32) -> bool {
        !self.0[segment][doc as usize]
    }
}

fn dot(query: &[(u32, f32)], weights: &[(u32, f32)]) -> f32 {
    let mut sum = 0.0;
    for (term, query_weight) in query {
        if let Ok(at) = weights.binary_search_by_key(term, |(term, _)| *term) {
            sum += query_weight * weights[at].1;
        }
    }
    sum
}

/// The `k` best scores above zero, with segment and document, in order.
fn best(mut scored: Vec<(f32, usize, u32)>, k: usize) -> Vec<(f32, usize, u32)> {
    scored.retain(|(score, ..)| *score > 0.0);
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then((a.1, a.2).cmp(&(b.1, b.2))));
    scored.truncate(k);
    scored
}

/// Searches `files` of `documents` with and without hidden documents, by every path.
fn assert_searches(files: &[&SegmentFile], documents: &[&Documents], seed: u64) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let none = Hidden(documents.iter().map(|all| vec![false; all.len()]).collect());
    let some = documents.iter().map(|all| all.iter().map(|_| rng.random_range(0..3) == 0).collect());
    let some = Hidden(some.collect());
    for round in 0..12 {
        let mut query: std::collections::BTreeMap<u32, f32> = std::collections::BTreeMap::new();
        for _ in 0..8 {
            let term = f64::from(VOCABULARY).powf(rng.random::<f64>()) as u32 - 1;
            let sign = if round % 3 == 2 && rng.random() { -1.0 } else { 1.0 };
            query.insert(term, sign * (rng.random::<f32>() * 5.0 + 0.01));
        }
        let query: Vec<(u32, f32)> = query.into_iter().collect();
        for (k, hidden) in [(1, &none), (10, &none), (100, &some), (1000, &none)] {
            let counts: Vec<usize> = hidden.0.iter().map(|all| all.iter().filter(|hidden| **hidden).count()).collect();
            let demand = Demand { query: &query, k, hidden: Some(&counts) };
            let plan = QueryPlan::new(files.iter().copied(), &demand).unwrap().unwrap();
            let all = documents.iter().enumerate().flat_map(|(segment, documents)| {
                let live = (0..).zip(documents.iter()).filter(move |(doc, _)| hidden.is_live(segment, *doc));
                live.map(move |(doc, weights)| (segment, doc, weights))
            });
            let all = all.map(|(segment, doc, weights)| (dot(&query, weights), segment, doc));
            let expected = best(all.collect(), k);
            for threads in [1, 3] {
                let mut candidates = plan.exact_candidates(k, hidden, threads);
                let scores = plan.exact_scores(&mut candidates).unwrap();
                let found = scores.into_iter().zip(candidates);
                let found = found.map(|(score, found)| (score, found.segment as usize, found.doc));
                assert_eq!(best(found.collect(), k), expected, "k {k}, {threads} threads, {query:?}");
            }
        }
        for (file, documents) in files.iter().zip(documents) {
            let expected: Vec<f32> = documents.iter().map(|weights| dot(&query, weights)).collect();
            assert_eq!(file.all_scores(&query).unwrap(), expected);
            let docs: Vec<u32> = (0..documents.len() as u32).step_by(7).collect();
            let some: Vec<f32> = docs.iter().map(|doc| expected[*doc as usize]).collect();
            assert_eq!(file.scores(&query, &docs).unwrap(), some);
        }
    }
}

/// Every weight, by every look-up.
fn assert_weights(file: &SegmentFile, documents: &Documents) {
    file.check().unwrap();
    file.warm().unwrap();
    let n_postings: usize = documents.iter().map(Vec::len).sum();
    assert_eq!(file.n_postings(), n_postings as u64);
    assert_eq!(file.count_postings(|doc| doc == 3).unwrap(), documents[3].len() as u64);
    for doc in (0..documents.len()).step_by(97).chain([0, documents.len() - 1]) {
        let weights = &documents[doc];
        assert_eq!(&file.vector(doc as u32).unwrap(), weights);
        for term in 0..VOCABULARY {
            let expected = weights.iter().find(|(id, _)| *id == term).map(|(_, weight)| *weight);
            assert_eq!(file.weight(term, doc as u32).unwrap(), expected);
        }
    }
    assert_eq!(file.vector(documents.len() as u32).unwrap(), []);
    let n = documents.len() as u32;
    for docs in [0..n, 0..0, 1..2, n / 3..n - 1, n - 1..n + 5, 127..300.min(n), n..n + 1] {
        let expected = &documents[docs.start as usize..(docs.end.min(n)).max(docs.start) as usize];
        assert_eq!(file.vectors(docs.clone()).unwrap(), expected, "{docs:?}");
    }
}

#[test]
fn both_versions_over_several_windows_equal_brute_force() {
    let identity = identity(ForwardPrecision::F32);
    let documents = documents(1, 2 * WINDOW + 77);
    let files = [version_1(&documents, &identity), version_2(&documents, &identity)];
    for file in &files {
        assert_weights(file, &documents);
        assert_searches(&[file], &[&documents], 2);
    }
    // 9.6 bytes of postings and rows in version 1
    let per_posting = |file: &SegmentFile| file.len_bytes() as f64 / file.n_postings() as f64;
    assert!(per_posting(&files[1]) < 0.76 * per_posting(&files[0]), "{}", per_posting(&files[1]));
}

#[test]
fn files_of_both_versions_are_searched_together_and_merged() {
    for precision in [ForwardPrecision::F32, ForwardPrecision::F16, ForwardPrecision::U8] {
        let identity = identity(precision);
        let mut parts = [documents(3, 9000), documents(4, 17_000), documents(5, 40), documents(6, 1)];
        for document in parts.iter_mut().flatten() {
            document.iter_mut().for_each(|(_, weight)| *weight = precision.round(*weight));
            document.retain(|(_, weight)| *weight > 0.0);
        }
        // no program wrote 8-bit weights in version 1
        let older = if precision == ForwardPrecision::U8 { version_2 } else { version_1 };
        let files = [
            older(&parts[0], &identity),
            version_2(&parts[1], &identity),
            older(&parts[2], &identity),
            version_2(&parts[3], &identity),
        ];
        assert_searches(&files.each_ref(), &parts.each_ref(), 7);
        for every in [usize::MAX, 3] {
            let is_live = |doc: u32| !(doc as usize).is_multiple_of(every) || every == usize::MAX;
            let (mut sources, mut merged, mut ids) = (Vec::new(), Documents::new(), Vec::new());
            for (file, documents) in files.iter().zip(&parts) {
                sources.push(Source::new(file, merged.len() as u32, is_live).unwrap());
                for (doc, weights) in (0..).zip(documents).filter(|(doc, _)| is_live(*doc)) {
                    merged.push(weights.clone());
                    ids.push(format!("d{doc}"));
                }
                assert_eq!(sources.iter().map(Source::n_live).sum::<u32>() as usize, merged.len());
            }
            let mut bytes = Vec::new();
            merge_segments(&mut bytes, &identity, &sources).unwrap();
            let file = open(bytes.clone(), &identity, merged.len());
            assert_weights(&file, &merged);
            assert_searches(&[&file], &[&merged], 8);
            for (doc, id) in (0..).zip(&ids) {
                assert_eq!(file.id(doc).unwrap(), id.as_bytes());
            }
            // a merge and a commit of these documents write one file, bit for bit, but for the ids
            let written = version_2(&merged, &identity);
            let postings = |file: &SegmentFile| file.section(header::Section::Postings).to_vec();
            assert!(postings(&file) == postings(&written));
        }
    }
}

#[test]
fn eight_bit_weights_take_half_the_bytes() {
    let documents = documents(1, 2 * WINDOW + 77);
    let per_posting = |precision| {
        let file = version_2(&documents, &identity(precision));
        file.len_bytes() as f64 / file.n_postings() as f64
    };
    let (exact, rounded) = (per_posting(ForwardPrecision::F32), per_posting(ForwardPrecision::U8));
    assert!(rounded < exact - 2.9, "{rounded} {exact}");
}

#[test]
fn a_damaged_source_is_not_merged() {
    let identity = identity(ForwardPrecision::F32);
    let documents = documents(9, 300);
    let mut bytes = Vec::new();
    write_segment(&mut bytes, &identity, Rows::new(&documents, identity.layout).entries()).unwrap();
    // the first impact of the dense list of term 0, which is the first
    bytes[header::START_LEN] = u8::from(bytes[header::START_LEN] == 0);
    let file = open(bytes, &identity, documents.len());
    assert!(Source::new(&file, 0, |_| true).err().unwrap().starts_with("term 0: "));
}

#[test]
fn a_query_of_a_thousand_terms_is_exact() {
    let identity = identity(ForwardPrecision::F32);
    let documents = documents(10, 3000);
    let file = version_2(&documents, &identity);
    let query: Vec<(u32, f32)> = (0..VOCABULARY).map(|term| (term, 0.3 + (term % 7) as f32)).collect();
    let demand = Demand { query: &query, k: 20, hidden: Some(&[0]) };
    let plan = QueryPlan::new(std::iter::once(&file), &demand).unwrap().unwrap();
    let none = Hidden(vec![vec![false; documents.len()]]);
    let mut candidates = plan.exact_candidates(20, &none, 1);
    let scores = plan.exact_scores(&mut candidates).unwrap();
    let found = scores.into_iter().zip(candidates).map(|(score, found)| (score, 0, found.doc));
    let all = (0..).zip(&documents).map(|(doc, weights)| (dot(&query, weights), 0, doc));
    assert_eq!(best(found.collect(), 20), best(all.collect(), 20));
}
