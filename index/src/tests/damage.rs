//! Flipped bytes, truncations and missing files of whole index folders: errors that name the file, no panic, and no wrong
//! result.

use std::panic::{AssertUnwindSafe, catch_unwind};

use serde_json::json;

use super::compatibility::fixture;
use super::dense::{dense_vector, with_dense};
use super::*;
use splade_core::{Fusion, QueryEncoder, QueryWeights, Vocabulary};

const VOCABULARY: u32 = 300;

fn words(rng: &mut ChaCha8Rng, n: usize) -> String {
    (0..n).map(|_| format!("ord{} ", f64::from(VOCABULARY).powf(rng.random::<f64>()) as u32)).collect()
}

/// An index whose largest files are checked in parts: two segments, deletes, other fields, a query encoder.
fn build_large(dir: &Path) {
    let mut rng = ChaCha8Rng::seed_from_u64(91);
    let index = ImpactIndex::create(dir, &with_dense(settings(VOCABULARY))).unwrap();
    let vocabulary: Vec<String> = (0..VOCABULARY).map(|dim| format!("\"ord{dim}\": {dim}")).collect();
    let tokenizer = format!(
        r#"{{"added_tokens": [], "pre_tokenizer": {{"type": "Whitespace"}},
            "model": {{"type": "WordLevel", "unk_token": "ord0", "vocab": {{{}}}}}}}"#,
        vocabulary.join(", ")
    );
    let weights = (0..VOCABULARY).map(|dim| dim as f32 * 0.125).collect();
    let vocabulary = Vocabulary::parse(tokenizer.into(), 512).unwrap();
    let encoder = QueryEncoder::new(vocabulary, QueryWeights::new(weights).unwrap(), "").unwrap();
    index.write_query_encoder(&encoder).unwrap();
    // memory for all documents, so that there are few and large segments
    let mut writer = index.writer(WriterOptions { memory_bytes: 200 << 20, ..UNMERGED }).unwrap();
    for doc in 0..2600_u32 {
        let document = StoredDocument {
            id: format!("document-{doc}"),
            title: (doc % 2 == 0).then(|| words(&mut rng, 3)),
            text: format!("{}{}", words(&mut rng, 40), rng.random::<u128>()),
            other: json!({"lang": if doc % 3 == 0 { "nn" } else { "nb" }, "n": doc}).as_object().unwrap().clone(),
        };
        let (sparse, dense) = (zipf_vector(&mut rng, VOCABULARY, 40), dense_vector(&mut rng));
        writer.add(&document, Vectors { sparse: &sparse, dense: Some(&dense) }).unwrap();
        if doc == 2500 {
            writer.commit().unwrap();
        }
    }
    (0..2600).step_by(13).for_each(|doc| writer.delete(&format!("document-{doc}")));
    writer.finish().unwrap();
    let sizes: Vec<(PathBuf, usize)> = contents(dir).into_iter().map(|(path, content)| (path, content.len())).collect();
    let large = sizes.iter().filter(|(_, size)| *size > 300_000).count();
    assert!(large >= 3, "{large} files are checked in parts: {sizes:?}");
}

/// Results of everything that reads an index, as text; errors are left out, and their number is returned.
fn results(dir: &Path) -> (Vec<Option<String>>, Vec<String>) {
    let mut errors = Vec::new();
    let mut results = Vec::new();
    let mut note = |result: crate::Result<String>| {
        results.push(result.map_err(|error| errors.push(error.to_string())).ok());
    };
    let index = ImpactIndex::open(dir);
    let searcher = index
        .as_ref()
        .map_err(ToString::to_string)
        .and_then(|index| index.searcher().map_err(|error| error.to_string()));
    let (index, searcher) = match (index, searcher) {
        (Ok(index), Ok(searcher)) => (index, searcher),
        (_, searcher) => return (Vec::new(), searcher.err().into_iter().collect()),
    };
    let queries =
        [vector(&[(0, 1.0), (1, 0.5), (7, 2.0), (120, 3.0)]), vector(&[(2, 1.0), (40, 2.0), (250, 2.5), (1, -0.25)])];
    let filter =
        Filter::All(vec![Filter::equals("lang", "nn"), Filter::Not(Box::new(Filter::Ids(vec!["document-6".into()])))]);
    let show = |found: &[Found]| {
        let mut text = String::new();
        for found in found {
            text += &format!("{:?} {:?}\n", found.hit, searcher.vector(found.address)?);
        }
        Ok(text)
    };
    for query in &queries {
        for (k, scoring, threads) in [(10, Scoring::Exact, 1), (100, Scoring::Exact, 2), (10, Scoring::Quantized, 1)] {
            for filter in [None, Some(filter.clone())] {
                let options = SearchOptions { scoring, filter, threads, ..SearchOptions::default() };
                note(searcher.search(query, k, &options).and_then(|found| show(&found)));
            }
        }
        note(searcher.search_exact(query, 5, None).and_then(|found| show(&found)));
        let hybrid =
            searcher.search_hybrid((query, "ord5 ord77"), 10, 50, &Fusion::default(), &SearchOptions::default());
        note(hybrid.and_then(|found| {
            let documents =
                found.iter().map(|found| searcher.document(found.address)).collect::<crate::Result<Vec<_>>>()?;
            Ok(format!("{documents:?}{:?}", searcher.explain(query, found[0].address)?))
        }));
    }
    if searcher.dense_settings().is_some() {
        let query = dense_vector(&mut ChaCha8Rng::seed_from_u64(93));
        note(searcher.search_dense(&query, 10, &SearchOptions::default()).and_then(|found| show(&found)));
        note(searcher.search_dense_exact(&query, 5, Some(&filter)).and_then(|found| show(&found)));
    }
    for text in ["ord3", "ord5 ord77 ord9", "ord200"] {
        note(searcher.search_bm25(text, 20, None).and_then(|found| show(&found)));
        note(searcher.search_bm25(text, 5, Some(&filter)).and_then(|found| show(&found)));
    }
    note(searcher.search_bm25("ord1", 3, Some(&Filter::Phrase("ord1 ord2".into()))).and_then(|found| show(&found)));
    for doc in [0, 1, 1300, 2599] {
        note(searcher.find(&format!("document-{doc}")).map(|address| format!("{address:?}")));
    }
    note(index.stats().map(|stats| format!("{:?}", IndexStats { total_bytes: 0, ..stats })));
    note(index.read_query_encoder().and_then(|encoder| {
        Ok(format!("{:?}", encoder.map(|encoder| encoder.encode_query("ord3 ord299 ord41")).transpose()?))
    }));
    (results, errors)
}

/// Damages one file, and returns a description of the damage.
fn damage(rng: &mut ChaCha8Rng, path: &Path, content: &[u8]) -> String {
    let at = rng.random_range(0..content.len());
    match rng.random_range(0..10) {
        0 => {
            std::fs::remove_file(path).unwrap();
            "removed".into()
        }
        1..=3 => {
            std::fs::write(path, &content[..at]).unwrap();
            format!("truncated from {} to {at} bytes", content.len())
        }
        _ => {
            let mut damaged = content.to_vec();
            let change = rng.random_range(1..=255_u8);
            damaged[at] ^= change;
            std::fs::write(path, damaged).unwrap();
            format!("byte {at} of {} changed by {change:#x}", content.len())
        }
    }
}

/// Damages files of the index in `dir` one after the other. In version 2 every damage must be found by the check, and none
/// may change a result.
fn trial(dir: &Path, seed: u64, trials: usize) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let files: Vec<(PathBuf, Vec<u8>)> = contents(dir).into_iter().filter(|(_, content)| !content.is_empty()).collect();
    let (expected, errors) = results(dir);
    assert!(errors.is_empty() && expected.len() > 20, "{errors:?}");
    let report = ImpactIndex::check(dir).unwrap();
    assert_eq!(report.findings, []);
    let (mut reported, mut unseen, mut wrong_trials) = (0, 0, 0);
    for trial in 0..trials {
        let (path, content) = &files[rng.random_range(0..files.len())];
        let how = format!("trial {trial}: {}: {}", path.display(), damage(&mut rng, path, content));
        let (found, errors) = catch_unwind(|| results(dir)).unwrap_or_else(|_| panic!("panic of a search; {how}"));
        let wrong =
            found.iter().zip(&expected).filter(|(found, expected)| found.is_some() && found != expected).count();
        let named = |text: &str| text.contains(path.file_name().unwrap().to_str().unwrap());
        if report.version > 1 {
            assert_eq!(wrong, 0, "wrong results; {how}");
            assert!(errors.iter().all(|error| named(error)), "another file is blamed; {how}: {errors:?}");
        }
        if wrong > 0 {
            wrong_trials += 1;
        } else if errors.is_empty() {
            unseen += 1;
        } else {
            reported += 1;
        }
        let findings = catch_unwind(|| ImpactIndex::check(dir)).unwrap_or_else(|_| panic!("panic of the check; {how}"));
        match findings {
            // without a manifest it is no index
            Err(error) => assert!(path.ends_with("manifest.json"), "{error}; {how}"),
            Ok(findings) => {
                let found = findings.findings.iter().any(|finding| finding.path == *path);
                let has_checksum = report.version > 1 || path.extension().is_some_and(|extension| extension != "json");
                // the version of tantivy that wrote the file; it is in no checksum and of no effect
                let in_footer = report.version == 1 && how.contains(" changed by ") && errors.is_empty();
                let in_query = path.parent().is_some_and(|parent| parent.ends_with("query"));
                assert!(
                    found || !has_checksum || in_footer || report.version == 1 && in_query,
                    "not found by the check; {how}: {findings:?}"
                );
            }
        }
        if trial % 8 == 0 {
            let copied = folder();
            copy(dir, copied.path());
            let written = catch_unwind(AssertUnwindSafe(|| {
                let index = ImpactIndex::open(copied.path())?;
                let mut writer = index.writer(WriterOptions::default())?;
                let dense = dense_vector(&mut ChaCha8Rng::seed_from_u64(95));
                let dense = index.settings().dense.is_some().then_some(&dense);
                writer.add(&document("new", "ny"), Vectors { sparse: &SparseVector::default(), dense })?;
                writer.finish_merged()
            }));
            let written = written.unwrap_or_else(|_| panic!("panic of a writer; {how}"));
            if written.is_ok() && report.version > 1 {
                // the writer read nothing that was damaged, and no damage got checksums of its own
                let address = |index: &ImpactIndex| index.searcher()?.find("new");
                assert!(
                    ImpactIndex::open(copied.path()).and_then(|index| address(&index)).is_ok_and(|new| new.is_some()),
                    "{how}"
                );
            }
        }
        std::fs::write(path, content).unwrap();
    }
    // some 950 of 1000 are reported by a search, the others have no effect on it; in version 1 some 1 of 1000 is wrong
    assert!(
        reported > trials / 2 && reported + unseen + wrong_trials == trials,
        "{reported}, {unseen}, {wrong_trials}"
    );
    assert!(wrong_trials * 50 <= trials, "{wrong_trials}");
    assert_eq!(results(dir), (expected, Vec::new()));
}

#[test]
fn damage_is_an_error_and_never_a_wrong_result() {
    let dir = folder();
    build_large(dir.path());
    trial(dir.path(), 92, 1000);
}

/// Without checksums a search can be wrong; it must not panic, and the check finds what tantivy's checksums cover.
#[test]
fn damage_of_version_1_is_found_by_the_check() {
    let dir = folder();
    fixture(dir.path());
    trial(dir.path(), 94, 300);
}
