//! `splade index`: corpus → document vectors → index folder.

mod fields;

use std::collections::HashSet;
use std::path::Path;

use anyhow::Result;
use indicatif::ProgressBar;
use splade_core::{Pruning, SparseVector, encode_stream};
use splade_files::{Architecture, AtomicFolder, Document, ModelDir, Precision, read_documents, read_ids, read_vectors};
use splade_index::{FindingKind, ImpactIndex, ImpactWriter, IndexSettings, Language, StoredDocument, WriterOptions};

use super::interrupt;
use crate::cli::IndexArgs;
use crate::console::{self, size};
use crate::encoders::{document_encoder, read_as, static_query_encoder};
use crate::failure::{Failure, bad_input};
use crate::hub::{self, Wants};
use crate::outputs::{refuse_existing, say};

pub(crate) fn run(args: &IndexArgs) -> Result<()> {
    if let Some(dir) = &args.check {
        return check(dir, args.json);
    }
    let model = hub::open(args.model(), Wants::encoder(&args.network).and_weights())?;
    let model = read_as(model, &args.network.reading)?;
    let settings = settings(&model, args)?;
    if args.append {
        let index = ImpactIndex::open(args.index())?;
        let settings = IndexSettings {
            model_fingerprint: model.fingerprint_like(&index.settings().model_fingerprint)?,
            ..settings
        };
        expect_same(&index, &settings, args)?;
        fill(&index, &model, args)?;
        return report(&index, args);
    }
    refuse_existing(args.index(), args.overwrite)?;
    refuse_other(args.index())?;
    let settings = IndexSettings { fields: fields::typed_fields(args)?, ..settings };
    let folder = AtomicFolder::create(args.index())?;
    let index = ImpactIndex::create(folder.path(), &settings)?;
    if model.architecture() == Architecture::InferenceFree {
        index.write_query_encoder(&static_query_encoder(&model, &args.network)?)?;
    }
    fill(&index, &model, args)?;
    drop(index);
    folder.commit()?;
    report(&ImpactIndex::open(args.index())?, args)
}

/// Checks an index and prints the findings. Fails if there are any.
fn check(dir: &Path, json: bool) -> Result<()> {
    let mut report = ImpactIndex::check(dir)?;
    // the most serious first
    report.findings.sort_by_key(|finding| finding.kind);
    if json {
        say(serde_json::to_string_pretty(&report)?)?;
    } else {
        for finding in &report.findings {
            say(format_args!("{}: {}", finding.path.display(), finding.message))?;
        }
    }
    match &report.findings[..] {
        [] if json => Ok(()),
        [] => say(format_args!(
            "{}: sound, {} files, {}{}",
            dir.display(),
            report.files,
            size(report.bytes),
            if report.version == 1 { "; format version 1, of which some files have no checksums" } else { "" }
        )),
        [finding, ..] => {
            let hint = match finding.kind {
                FindingKind::Damaged => "restore the file from a copy, or make the index anew with --overwrite",
                FindingKind::Leftover => "results are not affected; the next `splade index --append` removes it",
                FindingKind::Unknown => "results are not affected; remove it if you do not need it",
            };
            Err(Failure::run(format!("{}: {}", finding.path.display(), finding.message), hint).into())
        }
    }
}

/// Refuses to replace a folder that is not an index: it may have been given by mistake.
fn refuse_other(place: &Path) -> Result<()> {
    let is_empty = || std::fs::read_dir(place).is_ok_and(|mut entries| entries.next().is_none());
    if place.exists() && !ImpactIndex::is_at(place) && !is_empty() {
        return Err(bad_input(
            format!("{}: is there and is no index, so it is not replaced", place.display()),
            "choose another --index, or remove it yourself",
        ));
    }
    Ok(())
}

fn settings(model: &ModelDir, args: &IndexArgs) -> Result<IndexSettings> {
    let vocabulary = model.vocabulary(None)?;
    let terms = u32::try_from(model.dimensions()?)?;
    let mut settings = IndexSettings::new(terms, &model.fingerprint()?, vocabulary.fingerprint());
    settings.pruning = Some(args.prune.pruning()?);
    settings.language = args.language.as_deref().unwrap_or("none").parse::<Language>()?;
    // ready vectors do not say how they were made
    settings.encoder_precision = args.vectors.is_none().then(|| Precision::from(args.network.precision).to_string());
    Ok(settings)
}

fn expect_same(index: &ImpactIndex, new: &IndexSettings, args: &IndexArgs) -> Result<()> {
    let old = index.settings();
    index.expect_model(new.vocabulary_size, &new.model_fingerprint, &new.tokenizer_fingerprint)?;
    fields::expect_same(index, args)?;
    if args.language.is_some() && old.language != new.language {
        return Err(bad_input(
            format!("{}: made for the language {}, not {}", args.index().display(), old.language, new.language),
            "leave --language out, or make the index anew",
        ));
    }
    pruning(old.pruning, args)?;
    if let (Some(old), Some(new)) = (&old.encoder_precision, &new.encoder_precision)
        && old != new
        && args.input.is_some()
    {
        return Err(bad_input(
            format!("{}: its documents were encoded in {old}, not in {new}", args.index().display()),
            format!("use --precision {old}, or make the index anew"),
        ));
    }
    Ok(())
}

/// Pruning of new documents: as the index states it, else as the flags request it.
///
/// # Errors
/// Flags that differ from what the index states: documents that are pruned in different ways would not have comparable scores.
fn pruning(stated: Option<Pruning>, args: &IndexArgs) -> Result<Pruning> {
    let requested = args.prune.pruning()?;
    match stated {
        Some(stated) if requested != stated && !requested.keeps_all() => Err(bad_input(
            format!("{}: the pruning of its documents is: {stated}; requested: {requested}", args.index().display()),
            "leave the flags of pruning out, which prunes as before, or make the index anew",
        )),
        Some(stated) => Ok(stated),
        None => Ok(requested),
    }
}

/// Deletes and adds documents. Readers see the changes after the commit at the end.
fn fill(index: &ImpactIndex, model: &ModelDir, args: &IndexArgs) -> Result<()> {
    let mut writer = index.writer(WriterOptions::default())?;
    if let Some(path) = &args.delete {
        delete(&mut writer, path)?;
    }
    if let Some(input) = &args.input {
        let pruning = pruning(index.settings().pruning, args)?;
        let bar = console::progress("indexing", None);
        let mut sink = Sink { writer, seen: HashSet::new(), bar, pruning, args };
        let documents = read_documents(input)?.map(|document| document.map_err(anyhow::Error::from));
        match &args.vectors {
            Some(vectors) => sink.add_encoded(documents, vectors)?,
            None => {
                let encoder = document_encoder(model, &args.network)?;
                let text = |document: &Document| document.full_text().into_owned();
                encode_stream(&encoder, documents, text, |document, vector| sink.add(document, vector))?;
            }
        }
        let (count, seconds) = (sink.seen.len(), sink.bar.elapsed().as_secs_f64());
        sink.bar.finish_and_clear();
        if count == 0 {
            return Err(bad_input(
                format!("{}: there are no documents in it", input.display()),
                "one JSON object a line is needed: {\"_id\": \"d1\", \"text\": \"…\"}",
            ));
        }
        tracing::info!("{count} documents in {seconds:.1} s ({:.0} per second)", count as f64 / seconds.max(1e-9));
        writer = sink.writer;
    }
    let counts = writer.finish()?;
    if counts.dropped_weights > 0 {
        tracing::warn!("{} weights were zero or negative and were left out", counts.dropped_weights);
    }
    if counts.unindexed_values > 0 {
        tracing::warn!(
            "{} values are not of the type that their fields have in the first documents: filters such as field:value do not \
             find them; declare the types with --fields",
            counts.unindexed_values
        );
    }
    Ok(())
}

fn delete(writer: &mut ImpactWriter, path: &Path) -> Result<()> {
    let mut n_ids = 0;
    for id in read_ids(path)? {
        writer.delete(&id?);
        n_ids += 1;
    }
    if n_ids == 0 {
        return Err(bad_input(format!("{}: there are no ids in it", path.display()), "one id a line is needed"));
    }
    Ok(())
}

/// Destination of documents and their vectors.
struct Sink<'a> {
    writer: ImpactWriter,
    seen: HashSet<String>,
    bar: ProgressBar,
    pruning: Pruning,
    args: &'a IndexArgs,
}

impl Sink<'_> {
    fn add(&mut self, document: Document, vector: SparseVector) -> Result<()> {
        interrupt::check()?;
        if !self.seen.insert(document.id.clone()) {
            let input = self.args.input.as_deref().unwrap_or(Path::new("-"));
            return Err(bad_input(
                format!("{}: the id {:?} occurs twice", input.display(), document.id),
                "every document needs an id of its own",
            ));
        }
        let vector = self.pruning.apply(vector);
        let stored = StoredDocument {
            id: document.id,
            title: Some(document.title).filter(|title| !title.is_empty()),
            text: document.text,
            other: document.fields,
        };
        if self.args.append {
            self.writer.update(&stored, &vector)?;
        } else {
            self.writer.add(&stored, &vector)?;
        }
        self.bar.inc(1);
        Ok(())
    }

    /// Adds documents and vectors of two files, whose ids must be equal line by line.
    fn add_encoded(&mut self, documents: impl Iterator<Item = Result<Document>>, path: &Path) -> Result<()> {
        let mut vectors = read_vectors(path)?;
        for document in documents {
            let document = document?;
            let apart = |found: &str| {
                bad_input(
                    format!("{}: {found} where the corpus has {:?}", path.display(), document.id),
                    "the vectors of `encode --role document` over the same corpus are needed",
                )
            };
            let (id, vector) = vectors.next().ok_or_else(|| apart("it ends"))??;
            if id != document.id {
                return Err(apart(&format!("the id {id:?}")));
            }
            self.add(document, vector)?;
        }
        match vectors.next() {
            None => Ok(()),
            Some(more) => Err(bad_input(
                format!("{}: the id {:?} is not in the corpus", path.display(), more?.0),
                "the vectors of `encode --role document` over the same corpus are needed",
            )),
        }
    }
}

fn report(index: &ImpactIndex, args: &IndexArgs) -> Result<()> {
    let stats = index.stats()?;
    if args.json {
        return say(serde_json::to_string_pretty(&stats)?);
    }
    say(format_args!(
        "{}: {} documents, {:.0} active dims each, {} segment{}, {}",
        args.index().display(),
        stats.documents,
        stats.active_dims_mean,
        stats.segments,
        if stats.segments == 1 { "" } else { "s" },
        size(stats.total_bytes),
    ))
}
