//! The BM25 scorer against tantivy's, against the formula, and against itself.

use proptest::prelude::{ProptestConfig, prop, prop_assert, prop_assert_eq, proptest};

use super::*;

/// Documents of words `o0`, `o1`, …, by Zipf's law, at most 40 words long: the index keeps such lengths exactly.
fn texts(seed: u64, n: usize, n_words: f64) -> Vec<(String, String)> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut text = |_| {
        let length = rng.random_range(0..=40);
        (0..length).map(|_| format!("o{} ", n_words.powf(rng.random::<f64>()) as u32)).collect::<String>()
    };
    (0..n).map(|at| (format!("d{:04}", at * 7919 % n), text(at))).collect()
}

/// Index of `texts` in several segments.
fn index_of(dir: &Path, texts: &[(String, String)], language: Language) -> ImpactIndex {
    let index = ImpactIndex::create(dir, &IndexSettings { language, ..settings(1) }).unwrap();
    let mut writer = index.writer(UNMERGED).unwrap();
    for (at, (id, text)) in texts.iter().enumerate() {
        writer.add(&document(id, text), &SparseVector::default()).unwrap();
        if at % 400 == 150 {
            writer.commit().unwrap();
        }
    }
    writer.finish().unwrap();
    index
}

fn queries() -> Vec<String> {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let query = |length| (0..length).map(|_| format!("o{} ", rng.random_range(0..60))).collect();
    [0, 1, 1, 2, 3, 5, 8, 8].into_iter().map(query).collect()
}

fn with(bm25: Bm25Options) -> SearchOptions {
    SearchOptions { bm25, ..SearchOptions::default() }
}

/// The formula, from the words of every document.
fn formula(texts: &[(String, String)], query: &str, k1: f64, b: f64) -> Vec<(String, f64)> {
    let words = |text: &str| text.split_whitespace().map(String::from).collect::<Vec<_>>();
    let documents: Vec<Vec<String>> = texts.iter().map(|(_, text)| words(text)).collect();
    let n = documents.len() as f64;
    let mean = documents.iter().map(Vec::len).sum::<usize>() as f64 / n;
    let distinct: std::collections::BTreeSet<String> = words(query).into_iter().collect();
    let mut scores = vec![0.0; documents.len()];
    for word in distinct {
        let df = documents.iter().filter(|document| document.contains(&word)).count() as f64;
        let idf = (1.0 + (n - df + 0.5) / (df + 0.5)).ln();
        for (score, document) in scores.iter_mut().zip(&documents) {
            let tf = document.iter().filter(|other| **other == word).count() as f64;
            if tf > 0.0 {
                *score += idf * (k1 + 1.0) * tf / (tf + k1 * (1.0 - b + b * document.len() as f64 / mean));
            }
        }
    }
    texts.iter().map(|(id, _)| id.clone()).zip(scores).collect()
}

#[test]
fn the_scorer_equals_tantivys_at_the_defaults() {
    let dir = folder();
    let texts = texts(1, 1500, 200.0);
    let index = index_of(dir.path(), &texts, Language::None);
    let mut writer = index.writer(UNMERGED).unwrap();
    (0..200).for_each(|n| writer.delete(&format!("d{:04}", n * 5)));
    writer.finish().unwrap();
    let searcher = index.searcher().unwrap();
    let mut compared = 0;
    for query in queries() {
        for k in [1, 10, 100, 2000] {
            let ours = hits(searcher.search_bm25_scored(&query, k, &SearchOptions::default()).unwrap());
            let tantivys = hits(searcher.search_bm25(&query, k, None).unwrap());
            assert_eq!(ours.len(), tantivys.len(), "{query} {k}");
            for (ours, tantivys) in ours.iter().zip(&tantivys) {
                // the sums are in another order
                assert!((ours.score - tantivys.score).abs() <= 4e-6 * ours.score, "{query} {k}: {ours:?} {tantivys:?}");
                compared += 1;
            }
        }
    }
    assert!(compared > 3000, "{compared}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Collections of any shape: empty and long texts, several segments, deletes, every k.
    #[test]
    fn the_scorer_is_a_twin_of_tantivys(
        lengths in prop::collection::vec(0usize..200, 1..40),
        seed: u64,
        commit_after in 0usize..40,
        deleted in prop::collection::vec(0usize..40, 0..8),
        query in prop::collection::vec(0u8..9, 0..6),
        k in 1usize..45,
    ) {
        let dir = folder();
        let index = ImpactIndex::create(dir.path(), &settings(1)).unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut writer = index.writer(UNMERGED).unwrap();
        for (n, length) in lengths.into_iter().enumerate() {
            let text: String = (0..length).map(|_| format!("o{} ", 8_f64.powf(rng.random::<f64>()) as u32)).collect();
            writer.add(&document(&format!("d{n:02}"), &text), &SparseVector::default()).unwrap();
            if n == commit_after {
                writer.commit().unwrap();
            }
        }
        writer.commit().unwrap();
        deleted.iter().for_each(|n| writer.delete(&format!("d{n:02}")));
        writer.finish().unwrap();
        let searcher = index.searcher().unwrap();
        let query: String = query.iter().map(|word| format!("o{word} ")).collect();
        let ours = hits(searcher.search_bm25_scored(&query, 100, &SearchOptions::default()).unwrap());
        let tantivys = hits(searcher.search_bm25(&query, 100, None).unwrap());
        prop_assert_eq!(ours.len(), tantivys.len());
        for hit in &ours {
            let other = tantivys.iter().find(|other| other.id == hit.id).unwrap();
            // the sums are in another order
            prop_assert!((hit.score - other.score).abs() <= 4e-6 * hit.score, "{:?} {:?}", hit, other);
        }
        let best = hits(searcher.search_bm25_scored(&query, k, &SearchOptions::default()).unwrap());
        prop_assert_eq!(&best[..], &ours[..k.min(ours.len())]);
    }
}

/// Weights of the encoder, multiplied by idf and added up, are the scores of the index: in documents of any length, with titles.
#[test]
fn the_encoder_is_a_twin_of_the_scorer() {
    let dir = folder();
    let mut texts = texts(5, 300, 60.0);
    texts.push(("long".into(), (0..2000).map(|n| format!("o{} ", n % 90)).collect()));
    let index =
        ImpactIndex::create(dir.path(), &IndexSettings { language: Language::Norwegian, ..settings(1) }).unwrap();
    let mut writer = index.writer(UNMERGED).unwrap();
    let title = |n: usize| n.is_multiple_of(3).then(|| format!("Titlene o{} O{}", n % 7, n % 5));
    for (n, (id, text)) in texts.iter().enumerate() {
        writer.add(&StoredDocument { title: title(n), ..document(id, text) }, &SparseVector::default()).unwrap();
    }
    writer.finish().unwrap();
    let searcher = index.searcher().unwrap();
    let bm25 = Bm25Options::new(0.9, 0.4).unwrap();
    let mean = searcher.bm25_mean_length().unwrap();
    let encoder = Bm25Encoder::new(Language::Norwegian, AnalyzerVersion::NEWEST, bm25, mean).unwrap();
    let documents: Vec<BTreeMap<String, f32>> = (0..)
        .zip(&texts)
        .map(|(n, (_, text))| encoder.document(title(n).as_deref().into_iter().chain([text.as_str()])))
        .collect();
    let addresses: Vec<Address> = texts.iter().map(|(id, _)| searcher.find(id).unwrap().unwrap()).collect();
    let mut compared = 0;
    for query in ["o1", "o2 o3 O3", "tittel o1 o4 o88", "o5 o6 o7 o1 o0 titler", "ukjent"] {
        let words = encoder.query(query);
        let idf = |word: &String| {
            let df = documents.iter().filter(|document| document.contains_key(word)).count() as f32;
            (1.0 + (texts.len() as f32 - df + 0.5) / (df + 0.5)).ln()
        };
        let words: Vec<(&String, f32)> = words.iter().map(|word| (word, idf(word))).collect();
        let scores = searcher.bm25_scores(query, &addresses, bm25).unwrap();
        for (score, document) in scores.iter().zip(&documents) {
            let ours: f32 = words.iter().filter_map(|(word, idf)| Some(idf * document.get(*word)?)).sum();
            assert!((ours - score).abs() <= 4e-6 * score, "{query}: {ours} {score}");
            compared += usize::from(*score > 0.0);
        }
    }
    assert!(compared > 300, "{compared}");
    assert!(Bm25Encoder::new(Language::None, AnalyzerVersion::NEWEST, bm25, 0.5).is_err());
}

#[test]
fn scores_follow_the_formula() {
    let dir = folder();
    let texts = texts(2, 900, 80.0);
    let searcher = index_of(dir.path(), &texts, Language::None).searcher().unwrap();
    for (k1, b) in [(1.2, 0.75), (0.0, 0.5), (0.6, 0.0), (2.5, 1.0)] {
        let options = with(Bm25Options::new(k1, b).unwrap());
        for query in queries() {
            let mut expected = formula(&texts, &query, k1.into(), b.into());
            expected.retain(|(_, score)| *score > 0.0);
            let found = hits(searcher.search_bm25_with(&query, 1000, &options).unwrap());
            assert_eq!(found.len(), expected.len(), "{query}");
            for hit in found {
                let (_, score) = expected.iter().find(|(id, _)| *id == hit.id).unwrap();
                assert!((f64::from(hit.score) - score).abs() <= 4e-6 * score, "{k1} {b} {query} {hit:?} {score}");
            }
        }
    }
}

#[test]
fn the_best_are_the_first_of_all() {
    let dir = folder();
    let searcher = index_of(dir.path(), &texts(4, 6000, 50.0), Language::None).searcher().unwrap();
    let options = with(Bm25Options::new(0.9, 0.4).unwrap());
    for query in queries() {
        let all = searcher.search_bm25_with(&query, 10_000, &options).unwrap();
        for k in [0, 1, 10, 300] {
            assert_eq!(searcher.search_bm25_with(&query, k, &options).unwrap(), all[..k.min(all.len())], "{query} {k}");
        }
    }
}

#[test]
fn scores_of_single_documents_equal_those_of_a_search() {
    let dir = folder();
    let texts = texts(5, 700, 60.0);
    let searcher = index_of(dir.path(), &texts, Language::None).searcher().unwrap();
    let bm25 = Bm25Options::new(0.9, 0.4).unwrap();
    for query in queries() {
        let found = searcher.search_bm25_with(&query, 1000, &with(bm25)).unwrap();
        // in another order than the documents', and some of them twice
        let addresses: Vec<Address> = found.iter().chain(&found[..found.len().min(5)]).map(|hit| hit.address).collect();
        let scores = searcher.bm25_scores(&query, &addresses, bm25).unwrap();
        assert!(found.iter().zip(&scores).all(|(found, score)| found.hit.score == *score), "{query}");
        assert_eq!(scores[found.len()..], scores[..addresses.len() - found.len()]);
        for found in found.iter().take(20) {
            let words = searcher.explain_bm25(&query, found.address, bm25).unwrap();
            let sum = words.iter().map(|word| word.score).sum::<f32>();
            assert!((sum - found.hit.score).abs() <= 4e-6 * sum, "{words:?}");
            assert!(words.is_sorted_by(|a, b| a.score >= b.score));
            assert!(words.iter().all(|word| query.contains(&word.word)), "{words:?}");
        }
    }
    assert!(searcher.bm25_scores("o1", &[], bm25).unwrap().is_empty());
    let other = folder();
    let bigger = index_of(other.path(), &self::texts(6, 2000, 60.0), Language::None).searcher().unwrap();
    let foreign = bigger.addresses().last().unwrap();
    let error = searcher.bm25_scores("o1", &[foreign], bm25).unwrap_err();
    assert!(error.to_string().contains("another snapshot"), "{error}");
    assert!(searcher.explain_bm25("o1", foreign, bm25).is_err());
}

#[test]
fn a_filter_holds_with_any_parameters() {
    let dir = folder();
    let index = ImpactIndex::create(dir.path(), &settings(1)).unwrap();
    let mut writer = index.writer(UNMERGED).unwrap();
    for n in 0..50 {
        let lang = if n % 2 == 0 { "nb" } else { "nn" };
        let other = [("lang".to_owned(), serde_json::json!(lang))].into_iter().collect();
        writer.add(&StoredDocument { other, ..document(&format!("{n:02}"), "ord") }, &SparseVector::default()).unwrap();
    }
    writer.finish().unwrap();
    let options =
        SearchOptions { filter: Some(Filter::equals("lang", "nn")), ..with(Bm25Options::new(2.0, 0.1).unwrap()) };
    let found = hits(index.searcher().unwrap().search_bm25_with("ord", 3, &options).unwrap());
    assert_eq!(found.iter().map(|hit| hit.id.as_str()).collect::<Vec<_>>(), ["01", "03", "05"]);
}

/// `passord` finds `passordbeskyttelse` and the other way round; without the option it does not.
#[test]
fn a_word_matches_the_compounds_it_is_part_of() {
    let dir = folder();
    let texts: Vec<(String, String)> = [
        ("a", "passordbeskyttelse av dokumenter"),
        ("b", "skriv passord og beskyttelse"),
        ("c", "passord passord"),
        ("d", "beskyttelse"),
        ("e", "fisk"),
    ]
    .map(|(id, text)| (id.to_owned(), text.to_owned()))
    .into();
    let searcher = index_of(dir.path(), &texts, Language::Norwegian).searcher().unwrap();
    let found = |query: &str, bm25: Bm25Options| {
        let mut hits = hits(searcher.search_bm25_with(query, 10, &with(bm25)).unwrap());
        hits.sort_by(|a, b| a.id.cmp(&b.id));
        hits
    };
    let ids = |hits: &[Hit]| hits.iter().map(|hit| hit.id.as_str()).collect::<String>();
    let (plain, split) = (Bm25Options::default(), Bm25Options::default().with_compounds(true));
    assert_eq!(ids(&found("passordet", plain)), "bc");
    assert_eq!(ids(&found("passordet", split)), "abc");
    assert_eq!(ids(&found("passordbeskyttelsen", plain)), "a");
    assert_eq!(ids(&found("passordbeskyttelsen", split)), "abcd");
    assert_eq!(ids(&found("passordfisk", split)), "abce", "a compound that no document has");
    // `passord` and its compound are one word with df 3; tf 1 in a document of 3 words, mean length 11 / 5
    let idf = (1.0_f64 + 2.5 / 3.5).ln();
    let expected = idf * 2.2 / (1.0 + 1.2 * (0.25 + 0.75 * 3.0 / 2.2));
    let score = f64::from(found("passord", split)[0].score);
    assert!((score - expected).abs() < 1e-6, "{score} {expected}");
    // the parts of the query's compound have half the weight
    let a = searcher.find("a").unwrap().unwrap();
    let parts = searcher.explain_bm25("passordbeskyttelse", a, split).unwrap();
    let mut words: Vec<&str> = parts.iter().map(|part| part.word.as_str()).collect();
    words.sort_unstable();
    assert_eq!(words, ["beskytt", "passord", "passordbeskytt"]);
    let part = parts.iter().find(|part| part.word == "passord").unwrap();
    assert!((f64::from(part.score) - expected / 2.0).abs() < 1e-6, "{parts:?}");
}

#[test]
fn stop_words_are_dropped_on_demand() {
    let dir = folder();
    let texts = [("a".to_owned(), "hva er det".to_owned()), ("b".to_owned(), "hovedstaden er Oslo".to_owned())];
    let searcher = index_of(dir.path(), &texts, Language::Norwegian).searcher().unwrap();
    let ids = |query: &str, drop: bool| {
        let options = with(Bm25Options::default().without_stop_words(drop));
        hits(searcher.search_bm25_with(query, 10, &options).unwrap()).into_iter().map(|hit| hit.id).collect::<String>()
    };
    assert_eq!(ids("hva er hovedstaden", false), "ab");
    assert_eq!(ids("hva er hovedstaden", true), "b");
    assert_eq!(ids("hva", true), "a");
}
