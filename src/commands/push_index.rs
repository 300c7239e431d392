//! `splade push-index`: index folder or vectors → collection of a search engine.

use anyhow::Result;
use serde_json::{Value as Json, json};
use splade_files::{Query, read_queries};
use splade_index::ImpactIndex;

use crate::cli::PushIndexArgs;
use crate::encoders::use_threads;
use crate::engines::{
    self, CollectionManifest, Engine, EngineClient, PushOptions, Pushed, QueryModel, Source, Verified, WordSettings,
    push, sample_queries, sample_texts, verify, verify_words,
};
use crate::failure::bad_input;
use crate::outputs::say;

pub(crate) fn run(args: &PushIndexArgs) -> Result<()> {
    use_threads(args.network.threads);
    let engine = engines::open(args.to, &args.engine, &args.new_collection)?;
    let settings = engine.settings();
    if args.verify_only && !settings.is_null() {
        return Err(bad_input(
            format!("--verify-only makes no collection, and these are settings of a new one: {settings}"),
            "leave them out",
        ));
    }
    let (source, model) = source(args)?;
    let options = PushOptions {
        sync: args.sync,
        overwrite: args.overwrite,
        batch_bytes: args.batch_bytes,
        concurrency: args.engine.concurrency(),
        ..PushOptions::default()
    };
    let pushed = if args.verify_only {
        None
    } else {
        let manifest = manifest(args, engine.as_ref(), &model)?;
        let pushed = push(engine.as_ref(), &source, manifest, &options)?;
        remark(engine.as_ref(), &pushed);
        Some(pushed)
    };
    let verified = if args.no_verify { None } else { Some(verification(args, engine, &source, &model)) };
    // the summary of what was pushed comes before the error of a verification that failed
    let (verified, failed) = verified.transpose().map_or_else(|error| (None, Some(error)), |verified| (verified, None));
    match failed {
        Some(error) if pushed.is_none() => return Err(error),
        _ => report(args, pushed.as_ref(), verified.as_ref())?,
    }
    failed.map_or(Ok(()), Err)
}

/// Manifest of a new collection.
fn manifest(args: &PushIndexArgs, engine: &dyn Engine, model: &QueryModel) -> Result<CollectionManifest> {
    let mut manifest = model.manifest().clone();
    manifest.driver = engine.settings();
    // a file of vectors has no texts
    if engine.takes_word_vectors() && ImpactIndex::is_at(&args.source) {
        manifest.words = Some(WordSettings::of(&ImpactIndex::open(&args.source)?)?);
    }
    Ok(manifest)
}

/// Logs what was changed so that the engine can hold it.
fn remark(engine: &dyn Engine, pushed: &Pushed) {
    let place = engine.place();
    for line in pushed.changes.lines(&engine.limits()) {
        tracing::warn!("{place}: {line}");
    }
    if pushed.manifest.document_scale != 1.0 {
        tracing::warn!("{place}: all weights of documents are scaled by {}", pushed.manifest.document_scale);
    }
    if let Some(numbers) = &pushed.manifest.renumbering {
        tracing::warn!("{place}: {} dimensions are renumbered from 0", numbers.len());
    }
}

/// Results of the comparisons after a push.
struct Verification {
    vectors: Verified,
    /// none for a collection or a source without vectors of words
    words: Option<Verified>,
}

/// Compares scores of the collection with exact ones.
fn verification(
    args: &PushIndexArgs,
    engine: Box<dyn Engine>,
    source: &Source,
    model: &QueryModel,
) -> Result<Verification> {
    let client = EngineClient::open(engine, args.engine.concurrency())?;
    model.expect(client.manifest(), &client.place())?;
    let (texts, queries) = match &args.queries {
        None => (sample_texts(source)?, sample_queries(source)?),
        Some(path) => {
            let queries = read_queries(path)?.collect::<Result<Vec<Query>, _>>()?;
            let texts: Vec<&str> = queries.iter().map(|query| query.text.as_str()).collect();
            let vectors = model.encode(&texts)?;
            (queries.clone(), queries.into_iter().zip(vectors).collect())
        }
    };
    let vectors = verify(&client, source, &queries)?;
    if vectors.hits == 0 {
        tracing::warn!("{}: no query has a hit, so nothing was compared", client.place());
    }
    let words = verify_words(&client, source, &texts)?;
    Ok(Verification { vectors, words })
}

/// The documents to push, and their model.
fn source(args: &PushIndexArgs) -> Result<(Source, QueryModel)> {
    if ImpactIndex::is_at(&args.source) {
        if args.vector_ids.is_some() {
            return Err(bad_input("--vector-ids: an index has ids of its own", "leave it out"));
        }
        let index = ImpactIndex::open(&args.source)?;
        let of_index = QueryModel::of_index(&index)?;
        if let Some(folder) = &args.model {
            let model = QueryModel::of_folder(folder, &args.network)?;
            model.expect(of_index.manifest(), &args.source.display().to_string())?;
            return Ok((Source::of_index(&index)?, model.with_documents_of(&of_index)));
        }
        return Ok((Source::of_index(&index)?, of_index));
    }
    if args.source.is_dir() {
        return Err(bad_input(
            format!("{}: no index there", args.source.display()),
            "give an index folder or a file of vectors",
        ));
    }
    let Some(folder) = &args.model else {
        return Err(bad_input(
            format!("{}: a file of vectors does not say which model made them", args.source.display()),
            "give the model with --model",
        ));
    };
    let model = QueryModel::of_folder(folder, &args.network)?;
    let vocabulary = model.vocabulary().cloned();
    let vocabulary = vocabulary.ok_or_else(|| bad_input(format!("{}: it has no tokenizer", folder.display()), ""))?;
    let dimensions = model.manifest().vocabulary_size;
    Ok((Source::of_vectors(&args.source, args.vector_ids.as_deref(), vocabulary, dimensions), model))
}

/// Prints the summary: of the push, of the verification, or of both.
fn report(args: &PushIndexArgs, pushed: Option<&Pushed>, verified: Option<&Verification>) -> Result<()> {
    if args.json {
        let mut json = json!({"engine": args.to.name(), "collection": args.engine.collection()?});
        if let Some(pushed) = pushed {
            json["push"] = push_json(pushed);
        }
        if let Some(verified) = verified {
            json["verification"] = verified_json(&verified.vectors);
            if let Some(words) = &verified.words {
                json["verification"]["bm25"] = verified_json(words);
            }
        }
        return say(format_args!("{json:#}"));
    }
    let place = format!("{} collection {}", args.to.name(), args.engine.collection()?);
    if let Some(pushed) = pushed {
        say(format_args!(
            "{place}: {} documents; {} sent, {:.0} a second; {} unchanged, {} deleted",
            pushed.documents,
            pushed.sent,
            per_second(pushed),
            pushed.unchanged,
            pushed.deleted,
        ))?;
    }
    let Some(verified) = verified else { return Ok(()) };
    say(format_args!("{place}: verified by {}", verified_text(&verified.vectors)))?;
    match &verified.words {
        Some(words) => say(format_args!("{place}: BM25 verified by {}", verified_text(words))),
        None => Ok(()),
    }
}

fn verified_text(verified: &Verified) -> String {
    let Verified { queries, hits, difference, relative_difference, rank_differences, recall } = verified;
    format!(
        "{queries} queries with {hits} hits: largest difference of scores {difference:.1e} ({relative_difference:.1e} of the \
         score), {rank_differences} queries in another order, recall {recall:.3}"
    )
}

fn per_second(pushed: &Pushed) -> f64 {
    pushed.sent as f64 / pushed.seconds.max(1e-9)
}

fn push_json(pushed: &Pushed) -> Json {
    let changes = &pushed.changes;
    json!({
        "documents": pushed.documents,
        "sent": pushed.sent,
        "unchanged": pushed.unchanged,
        "deleted": pushed.deleted,
        "seconds": pushed.seconds,
        "documents_per_second": per_second(pushed),
        "changes": {
            "negative_weights_dropped": changes.negative_weights,
            "small_weights_dropped": changes.small_weights,
            "large_weights_lowered": changes.large_weights,
            "vectors_truncated": changes.long_vectors,
            "empty_vectors": changes.empty_vectors,
            "field_values_left_out": changes.field_values,
            "document_scale": pushed.manifest.document_scale,
            "renumbered_dimensions": pushed.manifest.renumbering.as_ref().map(Vec::len),
        },
    })
}

fn verified_json(verified: &Verified) -> Json {
    json!({
        "queries": verified.queries,
        "hits": verified.hits,
        "largest_difference": verified.difference,
        "largest_relative_difference": verified.relative_difference,
        "queries_in_another_order": verified.rank_differences,
        "recall": verified.recall,
    })
}
