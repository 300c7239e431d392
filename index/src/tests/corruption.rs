//! Damaged segment files without checksums: an error when one is opened or checked, or nothing; never a panic.
//! `damage.rs` damages whole index folders.

use splade_core::segment::{CheckedBytes, Defect};
use tantivy::directory::OwnedBytes;

use super::*;
use splade_core::segment::{Demand, Entry, Identity, Live, QueryPlan, SegmentFile, WINDOW, write_segment};

struct Everything;

impl Live for Everything {
    fn is_live(&self, _segment: usize, _doc: u32) -> bool {
        true
    }
}

/// A file with dense, windowed and short terms.
fn segment_bytes(identity: &Identity, documents: &Plain) -> Vec<u8> {
    let mut rows = Vec::new();
    let mut ends = vec![0];
    for (_, vector) in &documents.0 {
        let (dims, weights) = (vector.dims().iter().copied(), vector.weights().iter().copied());
        identity.layout.encode(dims, weights, &mut rows);
        ends.push(rows.len());
    }
    let entries = documents
        .0
        .iter()
        .zip(ends.windows(2))
        .map(|((id, _), pair)| Entry { id: id.as_bytes(), row: identity.layout.row(&rows[pair[0]..pair[1]]) });
    let mut bytes = Vec::new();
    write_segment(&mut bytes, identity, entries).unwrap();
    bytes
}

fn open(bytes: Vec<u8>, identity: &Identity, n_docs: u32) -> Result<SegmentFile, Defect> {
    SegmentFile::open(CheckedBytes::unchecked(OwnedBytes::new(bytes)), identity, n_docs)
}

/// Opens, searches and checks; true if damage was reported.
fn exercise(bytes: Vec<u8>, identity: &Identity, n_docs: u32, queries: &[Vec<(u32, f32)>]) -> bool {
    let Ok(file) = open(bytes, identity, n_docs) else { return true };
    let mut reported = false;
    for query in queries {
        let demand = Demand { query, k: 10, hidden: Some(&[0]) };
        match QueryPlan::new(std::iter::once(&file), &demand) {
            Ok(Some(plan)) => {
                let mut candidates = plan.exact_candidates(10, &Everything, 1);
                assert!(candidates.iter().all(|candidate| candidate.doc < n_docs));
                assert_eq!(plan.exact_scores(&mut candidates).unwrap().len(), candidates.len());
                plan.quantized_candidates(10, &Everything, 1);
                file.all_scores(query).unwrap();
            }
            plan => reported |= plan.is_err(),
        }
    }
    for doc in [0, n_docs / 2, n_docs - 1] {
        reported |= file.vector(doc).is_err();
    }
    if let Ok(beyond) = file.vector(n_docs) {
        assert_eq!(beyond, []);
    }
    let checked = file.check().is_err();
    assert!(checked || !reported, "an error that the check does not report");
    checked
}

#[test]
fn flipped_bits_in_every_section() {
    let mut rng = ChaCha8Rng::seed_from_u64(81);
    let documents = zipf_collection(80, WINDOW + 300, 400, 4);
    let n_docs = documents.0.len() as u32;
    let identity = settings(400).identity();
    let bytes = segment_bytes(&identity, &documents);
    let queries = [
        (0..400).map(|dim| (dim, 1.0)).collect(),
        (0..400).step_by(3).map(|dim| (dim, if dim % 2 == 0 { 2.0 } else { -1.0 })).collect::<Vec<_>>(),
    ];
    assert!(!exercise(bytes.clone(), &identity, n_docs, &queries));
    // the table of the sections: postings, terms, id starts, ids
    let header = bytes.len() - 256;
    let section = |at: usize| u64::from_le_bytes(bytes[header + 72 + at * 16..][..8].try_into().unwrap()) as usize;
    let mut starts: Vec<usize> = vec![0];
    starts.extend((0..4).map(section));
    starts.extend([header, bytes.len()]);
    let mut reported = Vec::new();
    for pair in starts.windows(2) {
        let mut count = 0;
        for _ in 0..60 {
            let mut damaged = bytes.clone();
            damaged[rng.random_range(pair[0]..pair[1])] ^= 1 << rng.random_range(0..8);
            count += usize::from(exercise(damaged, &identity, n_docs, &queries));
        }
        reported.push(count);
    }
    // tables are checked value by value; weights and impacts can take another sound value, which checksums report
    assert!(reported[1] > 5 && reported[2] > 20 && reported[3] > 55 && reported[5] > 20, "{reported:?}");
}

#[test]
fn truncated_and_wrong_files() {
    let documents = zipf_collection(82, 50, 400, 4);
    let identity = settings(400).identity();
    let bytes = segment_bytes(&identity, &documents);
    for len in 0..bytes.len() {
        assert!(exercise(bytes[..len].to_vec(), &identity, 50, &[]), "truncated to {len} bytes");
    }
    let open = |bytes: Vec<u8>, n_docs| open(bytes, &identity, n_docs).err().unwrap();
    assert!(open(bytes.clone(), 51).contains("documents 50, expected 51"));
    let with = |at: usize, value: u8| {
        let mut bytes = bytes.clone();
        bytes[at] = value;
        bytes
    };
    assert!(open(with(0, b'x'), 50).contains("magic"));
    assert!(open(with(8, 3), 50).contains("version 3 of the segment format, this program reads versions 1 and 2"));
    let header = bytes.len() - 256;
    assert!(open(with(header, b'x'), 50).contains("truncated"));
    assert!(open(with(header + 24, 13), 50).contains("window bits 13, expected 14"));
    // header counts that would overflow an allocation
    for at in (header + 72..header + 136).step_by(8) {
        let mut bytes = bytes.clone();
        bytes[at..at + 8].copy_from_slice(&u64::MAX.to_le_bytes());
        open(bytes, 50);
    }
}
