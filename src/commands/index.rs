//! `splade index`: corpus → document vectors → index folder.

mod ahead;
mod bulk;
mod fields;
mod input;
mod journal;
mod passages;
mod shard;

use std::path::Path;

use anyhow::Result;
use splade_core::{DocumentEncoder, Pruning};
use splade_files::{Architecture, Document, ModelDir, Precision, read_documents, read_ids};
use splade_index::{DenseSettings, FindingKind, ImpactIndex, ImpactWriter, IndexSettings, Language, WriterOptions};

use self::bulk::{Sources, Unfinished};
use crate::cli::IndexArgs;
use crate::console::size;
use crate::dense::DenseModel;
use crate::encoders::{named_encoder, read_as, static_query_encoder};
use crate::failure::{Failure, bad_input};
use crate::hub::{self, Wants};
use crate::outputs::{refuse_existing, say};
use crate::share::{Share, warn_of_batches};

/// Documents in which `--language auto` detects the language.
const LANGUAGE_SAMPLE: usize = 1000;

pub(crate) fn run(args: &IndexArgs) -> Result<()> {
    if let Some(dir) = &args.check {
        return check(dir, args.json);
    }
    if let Some(dir) = &args.optimize {
        let index = ImpactIndex::open(dir)?;
        index.optimize()?;
        return report(&index, args.json, None);
    }
    let model = hub::open(args.model(), Wants::encoder(&args.network).and_weights())?;
    let model = read_as(model, &args.network.reading)?;
    let dense = DenseModel::open(&args.dense, &args.network)?;
    if args.dense.dense.is_some() && args.input.is_none() && args.vectors.is_some() {
        return Err(bad_input("--dense: --vectors alone has no texts for it", "give the texts with --input"));
    }
    let settings = IndexSettings { dense: dense_settings(dense.as_ref())?, ..settings(&model, args)? };
    if args.append {
        return append(&model, dense.as_ref(), settings, args);
    }
    let share = Share::of(&args.share);
    // an index with a manifest may be the shard itself
    let may_be_shard = share.is_some() && shard::has_manifest(args.index());
    if !may_be_shard {
        refuse_existing(args.index(), args.overwrite)?;
    }
    refuse_other(args.index())?;
    let settings = IndexSettings { fields: fields::typed_fields(args)?, passages: args.passages, ..settings };
    let has_table = model.architecture() == Architecture::InferenceFree;
    let table = has_table.then(|| static_query_encoder(&model, &args.network)).transpose()?;
    let sources =
        Sources { encoder: encoder(&model, args, share.as_ref())?, model: &model, dense: dense.as_ref(), share };
    if may_be_shard && !args.overwrite && shard::is_complete(&sources, &settings, args)? {
        return report(&ImpactIndex::open(args.index())?, args.json, None);
    }
    let unfinished = Unfinished::open(bulk::open_place(args)?, &settings, args, &sources)?;
    if let Some(table) = table.filter(|_| unfinished.is_new()) {
        unfinished.index.write_query_encoder(&table)?;
    }
    let Unfinished { index, place, truncated, .. } = unfinished.fill(&sources, args)?;
    shard::write_manifest(&index, &sources, args)?;
    drop(index);
    place.commit()?;
    report(&ImpactIndex::open(args.index())?, args.json, truncated)
}

/// Encoder of the documents, and the name of its backend; none if the input has vectors.
fn encoder(
    model: &ModelDir,
    args: &IndexArgs,
    share: Option<&Share>,
) -> Result<Option<(DocumentEncoder, &'static str)>> {
    if args.vectors.is_some() {
        return Ok(None);
    }
    let (encoder, backend) = named_encoder(model, &args.network, model.document_prompt())?;
    if share.is_some() {
        warn_of_batches(&args.network, backend);
    }
    Ok(Some((encoder, backend)))
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
pub(super) fn refuse_other(place: &Path) -> Result<()> {
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
    settings.language = language(args)?;
    settings.forward = args.weight_format.map(Into::into).unwrap_or_default();
    // ready vectors do not say how they were made
    settings.encoder_precision = args.vectors.is_none().then(|| Precision::from(args.network.precision).to_string());
    Ok(settings)
}

/// Language of `--language`; `auto` detects it in the first documents.
fn language(args: &IndexArgs) -> Result<Language> {
    let name = args.language.as_deref().unwrap_or("none");
    if name != "auto" {
        return Ok(name.parse()?);
    }
    let Some(input) = args.input.as_deref().filter(|input| *input != Path::new("-") && !args.append) else {
        return Err(bad_input(
            "--language auto needs a new index and an --input that is a file, which it reads twice",
            "name the language, or leave --language out",
        ));
    };
    let documents = read_documents(input)?.take(LANGUAGE_SAMPLE).collect::<Result<Vec<Document>, _>>()?;
    let texts: Vec<_> = documents.iter().map(Document::full_text).collect();
    let found = Language::detect(texts.iter().map(AsRef::as_ref));
    match found {
        Some(language) => tracing::info!("language of the first {} documents: {language}", texts.len()),
        None => tracing::warn!(
            "{}: the language of the first {} documents is none of those with a stemmer, so BM25 has none",
            input.display(),
            texts.len()
        ),
    }
    Ok(found.unwrap_or_default())
}

fn expect_same(index: &ImpactIndex, new: &IndexSettings, args: &IndexArgs) -> Result<()> {
    let old = index.settings();
    index.expect_model(new.vocabulary_size, &new.model_fingerprint, &new.tokenizer_fingerprint)?;
    fields::expect_same(index, args)?;
    passages::expect_same(index, args)?;
    if args.language.is_some() && old.language != new.language {
        return Err(bad_input(
            format!("{}: made for the language {}, not {}", args.index().display(), old.language, new.language),
            "leave --language out, or make the index anew",
        ));
    }
    if args.weight_format.is_some() && old.forward != new.forward {
        return Err(bad_input(
            format!("{}: its weights are {}, not {}", args.index().display(), old.forward, new.forward),
            "leave --weight-format out, or make the index anew",
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

fn dense_settings(dense: Option<&DenseModel>) -> Result<Option<DenseSettings>> {
    dense.map(DenseModel::settings).transpose()
}

/// Refuses documents without dense vectors for an index that has them, documents with them for one that does not, and vectors of
/// another model.
fn expect_same_dense(index: &ImpactIndex, dense: Option<&DenseModel>, args: &IndexArgs) -> Result<()> {
    let adds = args.input.is_some() || args.vectors.is_some();
    let dir = args.index();
    match (&index.settings().dense, dense) {
        (Some(settings), Some(dense)) => dense.expect_same(settings, dir),
        (Some(_), None) if adds => Err(bad_input(
            format!("{}: its documents have dense vectors", dir.display()),
            "give the dense model that it was made with: --dense MODEL",
        )),
        (None, Some(_)) => Err(bad_input(
            format!("{}: its documents have no dense vectors", dir.display()),
            "leave --dense out, or make the index anew",
        )),
        _ => Ok(()),
    }
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

/// Deletes and adds documents in one commit.
///
/// The documents are indexed apart, so that readers see none of them before the end, and an interrupted command can be resumed.
fn append(model: &ModelDir, dense: Option<&DenseModel>, settings: IndexSettings, args: &IndexArgs) -> Result<()> {
    let index = ImpactIndex::open(args.index())?;
    let model_fingerprint = model.fingerprint_like(&index.settings().model_fingerprint)?;
    expect_same(&index, &IndexSettings { model_fingerprint, ..settings }, args)?;
    expect_same_dense(&index, dense, args)?;
    // held to the end: another command is refused at once, and not after hours
    let mut writer = index.writer(WriterOptions { memory_bytes: 0, ..WriterOptions::default() })?;
    if let Some(path) = &args.delete {
        delete(&mut writer, path)?;
    }
    if args.input.is_none() && args.vectors.is_none() {
        writer.finish()?;
        return report(&index, args.json, None);
    }
    let place = bulk::open_place(args)?;
    let mark = place.run().map(|run| format!("added by run {run}"));
    if mark.is_some() && index.note()? == mark {
        tracing::info!("the interrupted command had added its documents already");
        place.remove()?;
        return report(&index, args.json, None);
    }
    let sources = Sources { encoder: encoder(model, args, None)?, model, dense, share: None };
    let unfinished = Unfinished::open(place, index.settings(), args, &sources)?.fill(&sources, args)?;
    writer.adopt(&unfinished.index)?;
    writer.finish_with_note(mark.as_deref())?;
    drop(unfinished.index);
    unfinished.place.remove()?;
    report(&index, args.json, unfinished.truncated)
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

/// Prints the statistics, and the number of truncated texts if texts were encoded.
pub(super) fn report(index: &ImpactIndex, as_json: bool, truncated: Option<u64>) -> Result<()> {
    let stats = index.stats()?;
    if as_json {
        let mut json = serde_json::to_value(&stats)?;
        if let Some(truncated) = truncated {
            json["truncated"] = truncated.into();
        }
        return say(serde_json::to_string_pretty(&json)?);
    }
    say(format_args!(
        "{}: {} documents{}, {:.0} active dims each, {} segment{}, {}{}",
        index.dir().display(),
        stats.documents,
        stats.passages.map_or_else(String::new, |passages| format!(" in {passages} passages")),
        stats.active_dims_mean,
        stats.segments,
        if stats.segments == 1 { "" } else { "s" },
        size(stats.total_bytes),
        match truncated.unwrap_or_default() {
            0 => String::new(),
            1 => "; 1 text truncated".to_owned(),
            truncated => format!("; {truncated} texts truncated"),
        },
    ))
}
