//! Targets of the index: the file of a segment, the manifest, filters.
//!
//! Files of an index carry checksums, which a mutation breaks. The targets take files without checksums, so that mutations reach
//! what is behind them.

use std::path::{Path, PathBuf};

use splade_core::SparseVector;
use splade_core::segment::BlockChecksums;
use splade_index::{Filter, ImpactIndex, SearchOptions};

use super::{children, files, judge};

/// The index of version 1 in the repository.
fn fixture(root: &Path) -> PathBuf {
    root.join("index/tests/data/index-v1")
}

/// The folder of the repository, of which this file is a part twice: in `fuzz/` and in a test.
fn repository() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    if fixture(here).is_dir() { here.to_owned() } else { here.join("..") }
}

/// A copy of the fixture. Each thread has one, since a copy takes longer than most readers.
fn in_an_index(name: &str, bytes: &[u8], read: impl FnOnce(&Path)) {
    thread_local! {
        static FOLDER: tempfile::TempDir = {
            let folder = tempfile::tempdir().expect("a temporary folder");
            let from = fixture(&repository());
            for path in files(&from) {
                let to = folder.path().join(path.strip_prefix(&from).expect("a file in it"));
                std::fs::create_dir_all(to.parent().expect("a folder")).expect("a temporary folder");
                std::fs::copy(&path, to).expect("a copy");
            }
            folder
        };
    }
    FOLDER.with(|folder| {
        let path = folder.path().join(name);
        let before = std::fs::read(&path).expect("a file of the fixture");
        std::fs::write(&path, bytes).expect("a temporary file");
        read(folder.path());
        std::fs::write(&path, before).expect("a temporary file");
    });
}

/// Opens and searches the index, and reads every document.
fn search(dir: &Path, filter: Option<Filter>) {
    let Some(index) = judge(ImpactIndex::open(dir)) else { return };
    judge(index.stats());
    let Some(searcher) = judge(index.searcher()) else { return };
    let query = SparseVector::from_pairs([(0, 1.0), (1, 0.5), (3, -0.5), (7, 2.0)]).expect("a vector");
    for threads in [1, 2] {
        let options = SearchOptions { filter: filter.clone(), threads, ..SearchOptions::default() };
        judge(searcher.search(&query, 5, &options));
    }
    judge(searcher.search_exact(&query, 5, filter.as_ref()));
    for address in searcher.addresses() {
        judge(searcher.document(address));
        judge(searcher.vector(address));
        judge(searcher.explain(&query, address));
    }
    judge(searcher.find("a"));
}

/// Name of the segment file that is replaced.
const SEGMENT: &str = "tantivy/ce97e6b75058461db9e152b37da8b3e5.spl";

/// Reads a file of vectors, which ends in tantivy's footer. It gets checksums here.
pub(super) fn segment(bytes: &[u8]) {
    let mut checksums = BlockChecksums::default();
    checksums.update(bytes);
    let file = [bytes, &checksums.finish()].concat();
    in_an_index(SEGMENT, &file, |dir| {
        search(dir, None);
        judge(ImpactIndex::check(dir));
    });
}

pub(super) fn segment_seeds(root: &Path) -> Vec<Vec<u8>> {
    let segments = children(&fixture(root).join("tantivy")).into_iter();
    let segments = segments.filter(|path| path.extension().is_some_and(|extension| extension == "spl"));
    let mut seeds: Vec<Vec<u8>> = segments.map(|path| std::fs::read(path).expect("a fixture")).collect();
    let half = seeds[0].len() / 2;
    seeds.push(seeds[0][..half].to_vec());
    seeds
}

/// Reads `manifest.json`.
pub(super) fn manifest(bytes: &[u8]) {
    in_an_index("manifest.json", bytes, |dir| {
        judge(ImpactIndex::open(dir).and_then(|index| index.searcher()));
        judge(ImpactIndex::check(dir));
    });
}

pub(super) fn manifest_seeds(root: &Path) -> Vec<Vec<u8>> {
    let sound = std::fs::read_to_string(fixture(root).join("manifest.json")).expect("a fixture");
    let newer = sound.replace("\"version\": 1", "\"version\": 3");
    let without_version = sound.replace("\"version\"", "\"versions\"");
    let named = sound.replace("\"language\": \"none\"", "\"language\": \"norwegian\"");
    [sound, newer, without_version, named].map(String::into_bytes).to_vec()
}

/// Reads a filter, and searches by it.
pub(super) fn filter(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Some(filter) = judge(text.parse::<Filter>()) else { return };
    let manifest = std::fs::read(fixture(&repository()).join("manifest.json")).expect("a fixture");
    in_an_index("manifest.json", &manifest, |dir| search(dir, Some(filter)));
}

pub(super) fn filter_seeds(_: &Path) -> Vec<Vec<u8>> {
    let texts = [
        "lang=nb",
        "lang=nb,year=2020",
        "lang!=nb, year=2021.5",
        "place=\"Oslo, Norge\"",
        "nested.deep=true,tags=\"x\\\"y\"",
        "lang:nb AND year:[2020 TO *]",
        "NOT tags:draft",
        "date:[2020-01-01 TO 2021-01-01}",
        "lang: IN [nb nn]",
        "(a:b OR -c:\"d e\") +f:>=3",
    ];
    texts.map(|text| text.as_bytes().to_vec()).to_vec()
}
