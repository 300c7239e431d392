//! An index folder: settings and statistics.

use std::path::Path;

use anyhow::Result;
use serde_json::json;
use splade_core::{PassageLength, QueryEncoder, Vocabulary};
use splade_index::{FieldSpec, ImpactIndex};

use super::table::Weights;
use super::{Findings, vocabulary};
use crate::cli::InspectArgs;
use crate::commands::interrupt;
use crate::console::size;
use crate::report::{Report, Section};
use crate::sparsity::Side;

/// Kind of the findings about an index.
pub(super) const KIND: &str = "index";

pub(super) fn inspect(path: &Path, args: &InspectArgs) -> Result<Findings> {
    let index = ImpactIndex::open(path)?;
    let (settings, stats) = (index.settings(), index.stats()?);
    let query = index.read_query_encoder()?;
    let table = query.as_ref().map(|query| Weights::of_table(query.weights()));
    let query_json = query.as_ref().zip(table.as_ref()).map(|(query, table)| {
        json!({"tokens": query.vocabulary().size(), "max_length": length(query), "table": table.json()})
    });
    let mut found = Findings::new(json!({
        "kind": KIND, "path": path, "settings": settings, "stats": stats, "query": query_json,
    }));
    let facts = &mut found.facts;
    facts.add("index", path.display());
    facts.add("documents", format_args!("{}, and {} deleted", stats.documents, stats.deleted_documents));
    if let Some((passages, length)) = stats.passages.zip(settings.passages) {
        let PassageLength { tokens, overlap } = length;
        facts.add("passages", format_args!("{passages}, of at most {tokens} tokens, of which {overlap} overlap"));
    }
    facts.add("terms", format_args!("{} in use of {}", stats.active_terms, settings.vocabulary_size));
    let unit = if stats.passages.is_some() { "passage" } else { "document" };
    facts.add("weights", format_args!("{}, {:.1} a {unit}", stats.postings, stats.active_dims_mean));
    facts.add(
        "size",
        format_args!(
            "{}, of which {} are vectors; {} segments",
            size(stats.total_bytes),
            size(stats.vector_bytes),
            stats.segments
        ),
    );
    facts.add("weights kept in", settings.forward);
    facts.add("documents encoded in", settings.encoder_precision.as_deref().unwrap_or("unknown precision"));
    facts.add("pruning", settings.pruning.map_or("not stated".to_owned(), |pruning| pruning.to_string()));
    facts.add("language of BM25", settings.language);
    if let Some(dense) = &settings.dense {
        let bytes = size(stats.dense_bytes.unwrap_or_default());
        facts.add("dense vectors", format_args!("{} dimensions, {bytes}", dense.dimensions));
        facts.add("dense model", &dense.model_fingerprint);
    }
    if !settings.fields.is_empty() {
        let fields: Vec<String> = settings.fields.iter().map(FieldSpec::to_string).collect();
        facts.add("fields", fields.join(", "));
    }
    match (&query, &table) {
        (Some(query), Some(table)) => {
            facts.add("queries", "by the table in the index: no model is needed to search");
            facts.add("query table", table.short());
            let length = length(query).map_or_else(|| "any length".to_owned(), |length| format!("{length} tokens"));
            facts.add("query length", format_args!("{length}, {} tokens in the vocabulary", query.vocabulary().size()));
        }
        _ => facts.add("queries", "through the network: searching needs --model"),
    }
    facts.add("model", &settings.model_fingerprint);
    facts.add("tokenizer", &settings.tokenizer_fingerprint);
    if args.analyze_sparsity {
        let vocabulary = match &query {
            Some(query) => Some(query.vocabulary().with_max_length(usize::MAX)?),
            None => vocabulary(path, args)?,
        };
        let side = side(&index, vocabulary)?;
        found.json["sparsity"] = side.json();
        let sections = vec![Section { heading: String::new(), blocks: vec![side.block("documents")] }];
        found.section("vectors", &Report { title: String::new(), sections }.to_text());
    }
    Ok(found)
}

/// Analysis of all vectors of an index.
fn side(index: &ImpactIndex, vocabulary: Option<Vocabulary>) -> Result<Side> {
    let searcher = index.searcher()?;
    let mut side = Side::new(searcher.vocabulary_size() as usize, vocabulary);
    for address in searcher.addresses() {
        interrupt::check()?;
        let document = searcher.document(address)?;
        let text = document.full_text();
        for address in searcher.passage_addresses(address)? {
            // the words of a vector are those of the text that was encoded
            let part = searcher.passage(address)?.map_or(Some(&*text), |passage| text.get(passage.range));
            side.add(&document.id, part.map(str::trim), &searcher.vector(address)?)?;
        }
    }
    Ok(side)
}

/// Maximum length of queries; none if there is no limit.
fn length(query: &QueryEncoder) -> Option<usize> {
    Some(query.vocabulary().max_length()).filter(|length| *length < usize::MAX)
}
