//! [`ImpactPlugin`]: writes and merges `<segment>.spl` beside tantivy's files of a segment.

use std::any::Any;
use std::io::Write;

use tantivy::directory::WritePtr;
use tantivy::index::{Segment, SegmentComponent, SegmentReader};
use tantivy::indexer::DocIdMapping;
use tantivy::indexer::doc_id_mapping::MappingType;
use tantivy::plugin::{PluginMergeContext, PluginWriter, PluginWriterContext, SegmentPlugin};
use tantivy::schema::document::ErasedDocument;
use tantivy::schema::{Field, Schema, Value};
use tantivy::{DocId, HasLen, TantivyDocument, TantivyError};

use crate::directory::CheckedDirectory;
use crate::schema::Fields;
use crate::settings::IndexSettings;
use splade_core::segment::{CheckedBytes, Entry, RowLayout};
use splade_core::segment::{Identity, SegmentFile, Source, merge_segments, write_segment};

/// Extension of the plugin's file.
pub(crate) const EXTENSION: &str = "spl";

/// tantivy's name for a file of a plugin.
fn component(extension: &str) -> SegmentComponent {
    SegmentComponent::Custom(extension.into())
}

/// tantivy's plugin for `<segment>.spl`.
pub(crate) struct ImpactPlugin {
    identity: Identity,
    id: Field,
    vector: Field,
    directory: CheckedDirectory,
}

impl ImpactPlugin {
    /// The plugin of an index.
    pub(crate) fn new(settings: &IndexSettings, fields: &Fields, directory: &CheckedDirectory) -> Self {
        Self { identity: settings.identity(), id: fields.id, vector: fields.vector, directory: directory.clone() }
    }

    /// Opens the file of a segment to merge.
    fn open_source(&self, reader: &SegmentReader) -> tantivy::Result<SegmentFile> {
        let bytes = read_file(reader, &self.directory, EXTENSION)?;
        if !bytes.has_checksums() {
            // a damaged file must not get valid checksums by the merge
            self.directory.check_segment(&reader.segment_id().uuid_string())?;
        }
        let file = SegmentFile::open(bytes, &self.identity, reader.max_doc());
        file.map_err(|defect| self.directory.damage_error(&file_name(reader), defect))
    }
}

impl SegmentPlugin for ImpactPlugin {
    fn extensions(&self) -> &[&str] {
        &[EXTENSION]
    }

    fn create_writer(&self, _context: &PluginWriterContext) -> tantivy::Result<Box<dyn PluginWriter>> {
        Ok(Box::new(EntryWriter {
            identity: self.identity,
            id: self.id,
            vector: self.vector,
            ends: Vec::new(),
            rows: Vec::new(),
            ids: Vec::new(),
        }))
    }

    /// Builds the file of the new segment from those of the old segments.
    ///
    /// In an index without sorting, the new segment has the documents of the old segments in their order, without the deleted
    /// ones. tantivy passes no mapping for this order.
    fn merge(&self, context: PluginMergeContext) -> tantivy::Result<()> {
        if context.doc_id_mapping.mapping_type() == MappingType::Shuffled {
            return Err(sorting_refused());
        }
        let files = context.readers.iter().map(|reader| self.open_source(reader));
        let files = files.collect::<tantivy::Result<Vec<SegmentFile>>>()?;
        let (mut sources, mut n_docs) = (Vec::new(), 0);
        for (reader, file) in context.readers.iter().zip(&files) {
            let source = Source::new(file, n_docs, |doc| !reader.is_deleted(doc));
            let source = source.map_err(|defect| self.directory.damage_error(&file_name(reader), defect))?;
            n_docs += source.n_live();
            sources.push(source);
        }
        write_file(context.target_segment, EXTENSION, |out| merge_segments(out, &self.identity, &sources))
    }
}

/// The bytes of a segment file without tantivy's footer, checked when they are read.
pub(crate) fn read_file(
    reader: &SegmentReader,
    directory: &CheckedDirectory,
    extension: &str,
) -> tantivy::Result<CheckedBytes> {
    let len = reader.open_read(component(extension))?.len();
    let name = named(reader, extension);
    Ok(directory.bytes(std::path::Path::new(&name))?.truncated(len))
}

/// The name of the file of sparse vectors of a segment.
pub(crate) fn file_name(reader: &SegmentReader) -> String {
    named(reader, EXTENSION)
}

/// The name of a file of a segment.
pub(crate) fn named(reader: &SegmentReader, extension: &str) -> String {
    format!("{}.{extension}", reader.segment_id().uuid_string())
}

pub(crate) fn sorting_refused() -> TantivyError {
    TantivyError::InvalidArgument("a sorted index cannot hold sparse vectors".into())
}

/// Writes a file of a segment.
pub(crate) fn write_file(
    segment: &Segment,
    extension: &str,
    write: impl FnOnce(&mut WritePtr) -> std::io::Result<()>,
) -> tantivy::Result<()> {
    let mut out = segment.clone().open_write(component(extension))?;
    write(&mut out)?;
    out.flush()?;
    tantivy::directory::TerminatingWrite::terminate(out)?;
    Ok(())
}

/// Collects ids and forward rows until the segment is written.
struct EntryWriter {
    identity: Identity,
    id: Field,
    vector: Field,
    /// end of each document in `ids` and in `rows`
    ends: Vec<(usize, usize)>,
    ids: Vec<u8>,
    rows: Vec<u8>,
}

impl PluginWriter for EntryWriter {
    fn add_document(&mut self, _id: DocId, document: &dyn ErasedDocument, _schema: &Schema) -> tantivy::Result<()> {
        let document: &TantivyDocument = document
            .as_any()
            .downcast_ref()
            .ok_or_else(|| TantivyError::InvalidArgument("only a TantivyDocument can hold a vector".into()))?;
        if let Some(bytes) = document.get_first(self.vector).and_then(|value| value.as_custom()) {
            decode(bytes, self.identity.layout, &mut self.rows);
        }
        if let Some(id) = document.get_first(self.id).and_then(|value| value.as_str()) {
            self.ids.extend_from_slice(id.as_bytes());
        }
        self.ends.push((self.ids.len(), self.rows.len()));
        Ok(())
    }

    fn serialize(self: Box<Self>, segment: &Segment, mapping: Option<&DocIdMapping>) -> tantivy::Result<()> {
        if mapping.is_some() {
            return Err(sorting_refused());
        }
        let starts = std::iter::once(&(0, 0)).chain(&self.ends);
        let documents = starts.zip(&self.ends).map(|(start, end)| Entry {
            id: &self.ids[start.0..end.0],
            row: self.identity.layout.row(&self.rows[start.1..end.1]),
        });
        write_file(segment, EXTENSION, |out| write_segment(out, &self.identity, documents))
    }

    /// Memory of rows and ids, and the place in each row while the segment is written. Writing takes a fixed amount beyond it,
    /// and the longest posting list.
    fn mem_usage(&self) -> usize {
        self.rows.capacity()
            + self.ids.capacity()
            + self.ends.capacity() * (size_of::<(usize, usize)>() + size_of::<u32>())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}

/// Encodes a vector as the bytes of its field: ids, then weights.
pub(crate) fn encode(dims: &[u32], weights: &[f32]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(size_of_val(dims) + size_of_val(weights));
    dims.iter().for_each(|dim| bytes.extend_from_slice(&dim.to_le_bytes()));
    weights.iter().for_each(|weight| bytes.extend_from_slice(&weight.to_le_bytes()));
    bytes
}

/// Appends the row of an encoded vector.
fn decode(bytes: &[u8], layout: RowLayout, rows: &mut Vec<u8>) {
    let (dims, weights) = bytes.split_at(bytes.len() / 8 * 4);
    let dims = dims.as_chunks().0.iter().map(|dim| u32::from_le_bytes(*dim));
    let weights = weights.as_chunks().0.iter().map(|weight| f32::from_le_bytes(*weight));
    layout.encode(dims, weights, rows);
}
