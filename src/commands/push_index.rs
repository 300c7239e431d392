//! `splade push-index`: index folder or vectors → collection of a search engine.

use anyhow::Result;
use serde_json::json;
use splade_index::ImpactIndex;

use crate::cli::PushIndexArgs;
use crate::encoders::use_threads;
use crate::engines::{self, CollectionManifest, Engine, PushOptions, Pushed, QueryModel, Source, push};
use crate::failure::bad_input;
use crate::outputs::say;

pub(crate) fn run(args: &PushIndexArgs) -> Result<()> {
    use_threads(args.network.threads);
    let engine = engines::open(args.to, &args.engine)?;
    let (source, manifest) = source(args)?;
    let options = PushOptions {
        sync: args.sync,
        overwrite: args.overwrite,
        batch_bytes: args.batch_bytes,
        concurrency: args.concurrency,
        retries: Default::default(),
    };
    let pushed = push(engine.as_ref(), &source, manifest, &options)?;
    for line in pushed.changes.lines(&engine.limits()) {
        tracing::warn!("{}: {line}", engine.place());
    }
    report(args, engine.as_ref(), &pushed)
}

/// The documents to push, and the manifest of a new collection for them.
fn source(args: &PushIndexArgs) -> Result<(Source, CollectionManifest)> {
    if ImpactIndex::is_at(&args.source) {
        if args.vector_ids.is_some() {
            return Err(bad_input("--vector-ids: an index has ids of its own", "leave it out"));
        }
        let index = ImpactIndex::open(&args.source)?;
        let of_index = QueryModel::of_index(&index)?;
        if let Some(folder) = &args.model {
            let model = QueryModel::of_folder(folder, &args.network)?;
            model.expect(of_index.manifest(), &args.source.display().to_string())?;
        }
        return Ok((Source::of_index(&index)?, of_index.manifest().clone()));
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
    let manifest = model.manifest().clone();
    let vocabulary = model.vocabulary().cloned();
    let vocabulary = vocabulary.ok_or_else(|| bad_input(format!("{}: it has no tokenizer", folder.display()), ""))?;
    let source = Source::of_vectors(&args.source, args.vector_ids.as_deref(), vocabulary, manifest.vocabulary_size);
    Ok((source, manifest))
}

/// Prints the summary.
fn report(args: &PushIndexArgs, engine: &dyn Engine, pushed: &Pushed) -> Result<()> {
    let per_second = pushed.sent as f64 / pushed.seconds.max(1e-9);
    if args.json {
        let changes = &pushed.changes;
        return say(format_args!(
            "{:#}",
            json!({
                "engine": engine.name(),
                "documents": pushed.documents,
                "sent": pushed.sent,
                "unchanged": pushed.unchanged,
                "deleted": pushed.deleted,
                "seconds": pushed.seconds,
                "documents_per_second": per_second,
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
        ));
    }
    say(format_args!(
        "{}: {} documents; {} sent, {per_second:.0} a second; {} unchanged, {} deleted",
        engine.place(),
        pushed.documents,
        pushed.sent,
        pushed.unchanged,
        pushed.deleted,
    ))
}
