//! `splade merge`: the shards of a job → one index or one vector file.

use std::path::{Path, PathBuf};

use anyhow::Result;
use splade_files::{
    AtomicFolder, DistinctIds, IdsDigest, Partition, ShardKind, ShardManifest, complete_set, merge_vectors,
};
use splade_index::{FindingKind, ImpactIndex};

use super::index::{refuse_other, report};
use super::interrupt;
use crate::cli::MergeArgs;
use crate::console;
use crate::failure::bad_input;
use crate::outputs::{Output, refuse_existing};

/// A shard's output with its manifest.
type Named = (PathBuf, ShardManifest);

pub(crate) fn run(args: &MergeArgs) -> Result<()> {
    let shards = args.shards.iter().map(|path| Ok((path.clone(), ShardManifest::of_output(path)?)));
    let shards = complete_set(shards.collect::<Result<_>>()?)?;
    let kind = shards[0].1.kind;
    match (&args.index, &args.output, kind) {
        (Some(dir), _, ShardKind::Index) => merge_indexes(&shards, dir, args),
        (_, Some(path), ShardKind::Vectors) => merge_files(&shards, path, args),
        (_, _, ShardKind::Index) => Err(bad_input("the shards are indexes, not vector files", "give --index DIR")),
        (_, _, ShardKind::Vectors) => Err(bad_input("the shards are vector files, not indexes", "give --output FILE")),
    }
}

fn merge_files(shards: &[Named], path: &Path, args: &MergeArgs) -> Result<()> {
    let mut output = Output::open(Some(path), args.overwrite)?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let folder = if path.as_os_str() == "-" { std::env::temp_dir() } else { parent.unwrap_or(Path::new(".")).into() };
    let count = merge_vectors(shards, &folder, |line| {
        interrupt::check()?;
        output.write_bytes(line)
    })?;
    output.finish()?;
    tracing::info!("{count} vectors of {} shards", shards.len());
    Ok(())
}

/// Joins the indexes beside the destination, which an interrupted command leaves as it was.
fn merge_indexes(shards: &[Named], dir: &Path, args: &MergeArgs) -> Result<()> {
    refuse_existing(dir, args.overwrite)?;
    refuse_other(dir)?;
    let place = AtomicFolder::create(dir)?;
    let mut ids = DistinctIds::new(place.path())?;
    let bar = console::progress("checking", None);
    let mut parts = Vec::new();
    for (number, (path, manifest)) in (0..).zip(shards) {
        refuse_damaged(path)?;
        let part = ImpactIndex::open(path)?;
        check_documents(&part, manifest, |id, row| {
            bar.inc(1);
            match manifest.partition {
                // its shard is stated by the id, and an index has no id twice
                Partition::Ids => Ok(()),
                Partition::Parts => Ok(ids.add(id, number, row)?),
            }
        })?;
        parts.push(part);
    }
    bar.finish_and_clear();
    if let Some((id, [(first, _), (second, _)])) = ids.find_double()? {
        let [first, second] = [first, second].map(|number| shards[number as usize].0.display());
        return Err(bad_input(
            format!("{second}: the id {id:?} is also in {first}"),
            "every document needs an id of its own",
        ));
    }
    ImpactIndex::join(place.path(), &parts)?;
    interrupt::check()?;
    place.commit()?;
    report(&ImpactIndex::open(dir)?, args.json, None)
}

/// Refuses an index with a damaged file.
fn refuse_damaged(path: &Path) -> Result<()> {
    let findings = ImpactIndex::check(path)?.findings;
    match findings.into_iter().find(|finding| finding.kind == FindingKind::Damaged) {
        None => Ok(()),
        Some(finding) => {
            Err(bad_input(format!("{}: {}", finding.path.display(), finding.message), "make the shard anew"))
        }
    }
}

/// Compares the documents of an index with the manifest of its shard. Calls `visit` with each id and its number.
fn check_documents(
    index: &ImpactIndex,
    manifest: &ShardManifest,
    mut visit: impl FnMut(&str, u64) -> Result<()>,
) -> Result<()> {
    let ShardManifest { shard, partition, .. } = manifest;
    let dir = index.dir().display();
    let searcher = index.searcher()?;
    let mut digest = IdsDigest::default();
    for (row, address) in (0..).zip(searcher.addresses()) {
        interrupt::check()?;
        let id = searcher.id(address)?;
        if *partition == Partition::Ids && !shard.takes(&id) {
            return Err(bad_input(format!("{dir}: the document {id:?} is not of shard {shard}"), CHANGED));
        }
        digest.add(&id);
        visit(&id, row)?;
    }
    if (digest.count(), digest.text()) != (manifest.documents, manifest.ids_digest.clone()) {
        let (found, stated) = (digest.count(), manifest.documents);
        return Err(bad_input(format!("{dir}: {found} documents, not the {stated} of its manifest"), CHANGED));
    }
    Ok(())
}

/// Hint for a shard that does not hold the documents of its manifest.
const CHANGED: &str =
    "a shard that was changed after it was made cannot be merged: make it anew, then change the merged index";
