//! [`prepare`]: the collection that a push fills, made or checked.

use anyhow::Result;

use super::limits::Survey;
use super::retry::Retries;
use super::{Collection, CollectionManifest, Engine, PushOptions, Source};
use crate::commands::interrupt;
use crate::console;
use crate::failure::{Failure, bad_input};

/// Prefix of the names of fields that drivers add to documents.
const OWN_FIELDS: &str = "_splade";

/// Makes the collection, or completes and checks the one that exists. Returns its manifest, and true if it was made.
///
/// # Errors
/// A collection that is not of this program or of another model, an engine that fails.
pub(super) fn prepare(
    engine: &dyn Engine,
    source: &Source,
    wanted: CollectionManifest,
    options: &PushOptions,
) -> Result<(CollectionManifest, bool)> {
    if let Some(field) = wanted.fields.iter().find(|field| field.name.starts_with(OWN_FIELDS)) {
        return Err(bad_input(
            format!("the field {:?} has a name that this program uses in engines", field.name),
            format!("rename the field: names with {OWN_FIELDS} at their start are reserved"),
        ));
    }
    match Retries::FIRST_CONTACT.run(|| engine.state())? {
        None => Ok((create(engine, source, wanted, options)?, true)),
        Some(Collection { manifest: None, .. }) => Err(bad_input(
            format!("{}: it exists, and this program did not make it", engine.place()),
            "choose another --collection, or remove it yourself",
        )),
        Some(_) if options.overwrite => {
            options.retries.run(|| engine.remove())?;
            Ok((create(engine, source, wanted, options)?, true))
        }
        Some(Collection { manifest: Some(existing), .. }) => {
            Ok((complete(engine, source, existing, &wanted, options)?, false))
        }
    }
}

fn create(
    engine: &dyn Engine,
    source: &Source,
    mut wanted: CollectionManifest,
    options: &PushOptions,
) -> Result<CollectionManifest> {
    survey(engine, source, &mut wanted, true)?;
    options.retries.run(|| engine.create(&wanted))?;
    let kept = options.retries.run(|| engine.state())?.and_then(|collection| collection.manifest);
    if kept.as_ref() != Some(&wanted) {
        let message = format!("{}: the engine did not keep the manifest of the collection", engine.place());
        return Err(Failure::run(message, "docs/engines.md names the version that is needed").into());
    }
    Ok(wanted)
}

/// Completes a collection of an earlier push, which may have been interrupted at any request.
fn complete(
    engine: &dyn Engine,
    source: &Source,
    existing: CollectionManifest,
    wanted: &CollectionManifest,
    options: &PushOptions,
) -> Result<CollectionManifest> {
    if let Some(difference) = existing.difference(wanted).or_else(|| existing.other_setting(&wanted.driver)) {
        return Err(bad_input(
            format!("{}: it exists and {difference}", engine.place()),
            "choose another --collection, or replace it with --overwrite",
        ));
    }
    options.retries.run(|| engine.complete(&existing))?;
    let mut manifest = existing.clone();
    survey(engine, source, &mut manifest, false)?;
    if manifest != existing {
        // before the documents that need it
        options.retries.run(|| engine.write_manifest(&manifest))?;
    }
    Ok(manifest)
}

/// Reads all vectors, and writes what follows from them into a manifest, if the engine has limits that depend on them.
fn survey(engine: &dyn Engine, source: &Source, manifest: &mut CollectionManifest, is_new: bool) -> Result<()> {
    let limits = engine.limits();
    if !limits.needs_survey(manifest.vocabulary_size) {
        return Ok(());
    }
    let bar = console::progress("reading vectors", source.count());
    let mut survey = Survey::default();
    for vector in source.vectors()? {
        interrupt::check()?;
        survey.add(&vector?);
        bar.inc(1);
    }
    bar.finish_and_clear();
    survey.complete(manifest, &limits, is_new)
}
