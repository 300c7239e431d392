//! `--shard`: the manifest in the index folder of a shard.

use std::path::Path;

use anyhow::Result;
use serde_json::{Map, Value, json};
use splade_files::{ShardKind, ShardManifest};
use splade_index::{ImpactIndex, IndexSettings};

use super::bulk::Sources;
use super::input::read_items;
use crate::cli::IndexArgs;

/// True if there is a manifest in the index folder.
pub(super) fn has_manifest(index: &Path) -> bool {
    ShardManifest::path_of(index, ShardKind::Index).exists()
}

/// True if the index is the requested shard already: [`Share::is_complete`](crate::share::Share::is_complete).
pub(super) fn is_complete(sources: &Sources<'_>, settings: &IndexSettings, args: &IndexArgs) -> Result<bool> {
    let Some(share) = &sources.share else { return Ok(false) };
    share.is_complete(args.index(), ShardKind::Index, &of_index(settings, sources, args)?, |share| {
        read_items(args, sources.model, Some(share))?.try_for_each(|item| item.map(drop))
    })
}

/// Writes the manifest of a shard into its unfinished index; nothing if the index is no shard.
pub(super) fn write_manifest(index: &ImpactIndex, sources: &Sources<'_>, args: &IndexArgs) -> Result<()> {
    let Some(share) = &sources.share else { return Ok(()) };
    let manifest = share.manifest(ShardKind::Index, of_index(index.settings(), sources, args)?);
    Ok(manifest.write(&ShardManifest::path_of(index.dir(), ShardKind::Index))?)
}

/// Settings of the index, and of the encoder what they do not state.
fn of_index(settings: &IndexSettings, sources: &Sources<'_>, args: &IndexArgs) -> Result<Map<String, Value>> {
    let mut named = serde_json::to_value(settings)?.as_object().cloned().unwrap_or_default();
    if let Some((encoder, backend)) = &sources.encoder {
        named.insert("backend".into(), json!(backend));
        named.insert("max_length".into(), json!(encoder.vocabulary().max_length()));
    }
    named.insert("drop_special_terms".into(), args.network.drop_special_terms.into());
    Ok(named)
}
