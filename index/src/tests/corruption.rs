//! Damaged bytes: an error when the file is opened or verified, or nothing; never a panic.

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
        identity.layout.encode(vector.dims(), vector.weights(), &mut rows);
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

/// Opens, searches and checks; tells whether damage was reported.
fn exercise(bytes: Vec<u8>, identity: &Identity, n_docs: u32, queries: &[Vec<(u32, f32)>]) -> bool {
    let Ok(file) = SegmentFile::open(OwnedBytes::new(bytes), identity, n_docs) else { return true };
    for query in queries {
        let demand = Demand { query, k: 10, hidden: Some(&[0]) };
        if let Some(plan) = QueryPlan::new(std::iter::once(&file), &demand) {
            for candidate in plan.exact_candidates(10, &Everything, 1) {
                assert!(candidate.doc < n_docs);
                file.row(candidate.doc).dot(query);
            }
            plan.quantised_candidates(10, &Everything, 1);
        }
    }
    file.row(n_docs).iter().count();
    file.check().is_err()
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
    let section = |at: usize| u64::from_le_bytes(bytes[72 + at * 16..][..8].try_into().unwrap()) as usize;
    let mut starts: Vec<usize> = vec![0];
    starts.extend((0..8).map(section));
    starts.push(bytes.len());
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
    assert!(reported[1] > 20 && reported[2] > 40 && reported[5] > 55 && reported[7] > 55, "{reported:?}");
}

#[test]
fn truncated_and_wrong_files() {
    let documents = zipf_collection(82, 50, 400, 4);
    let identity = settings(400).identity();
    let bytes = segment_bytes(&identity, &documents);
    for len in 0..bytes.len() {
        assert!(exercise(bytes[..len].to_vec(), &identity, 50, &[]), "cut to {len} bytes");
    }
    let open = |bytes: Vec<u8>, n_docs| SegmentFile::open(OwnedBytes::new(bytes), &identity, n_docs).err().unwrap();
    assert!(open(bytes.clone(), 51).contains("documents 50, expected 51"));
    let with = |at: usize, value: u8| {
        let mut bytes = bytes.clone();
        bytes[at] = value;
        bytes
    };
    assert!(open(with(0, b'x'), 50).contains("magic"));
    assert!(open(with(8, 2), 50).contains("version 2 of the segment format, this program reads version 1"));
    assert!(open(with(24, 14), 50).contains("window bits 14, expected 13"));
    // header counts that would overflow an allocation
    for at in (72..200).step_by(8) {
        let mut bytes = bytes.clone();
        bytes[at..at + 8].copy_from_slice(&u64::MAX.to_le_bytes());
        open(bytes, 50);
    }
}

/// On disk: whatever opening lets through, the checksum reports; a merge refuses to spread it.
#[test]
fn a_flipped_bit_on_disk_is_reported() {
    let mut rng = ChaCha8Rng::seed_from_u64(84);
    let documents = zipf_collection(83, 200, 50, 6);
    let dir = folder();
    drop(build(dir.path(), 50, &documents, &[100]));
    let tantivy = dir.path().join("tantivy");
    let files = std::fs::read_dir(&tantivy).unwrap().map(|entry| entry.unwrap().path());
    let file = files.into_iter().find(|path| path.extension().is_some_and(|ext| ext == "spl")).unwrap();
    let bytes = std::fs::read(&file).unwrap();
    let query = vector(&[(0, 1.0), (1, 1.0), (7, -1.0)]);
    let footer = u32::from_le_bytes(bytes[bytes.len() - 8..][..4].try_into().unwrap()) as usize + 8;
    for _ in 0..80 {
        let mut damaged = bytes.clone();
        damaged[rng.random_range(0..bytes.len() - footer)] ^= 1 << rng.random_range(0..8);
        std::fs::write(&file, &damaged).unwrap();
        let index = ImpactIndex::open(dir.path()).unwrap();
        assert!(index.verify().unwrap_err().to_string().contains(".spl"), "verify");
        if let Ok(searcher) = index.searcher() {
            // an id that is no UTF-8 any more is an error, anything else a result
            let _ = searcher.search(&query, 10, &SearchOptions::default());
            let _ = searcher.search_exact(&query, 10, None);
        }
    }
    let mut damaged = bytes.clone();
    let rows = u64::from_le_bytes(bytes[72 + 5 * 16..][..8].try_into().unwrap()) as usize;
    damaged[rows + 1] ^= 0x40;
    std::fs::write(&file, &damaged).unwrap();
    let index = ImpactIndex::open(dir.path()).unwrap();
    assert!(index.writer(UNMERGED).unwrap().finish_merged().is_err());
    std::fs::write(&file, &bytes).unwrap();
    let index = ImpactIndex::open(dir.path()).unwrap();
    index.verify().unwrap();
    assert_equal(&index.searcher().unwrap(), &documents, &query, 10);
}
