//! [`DensePlugin`]: writes and merges `<segment>.dns`, the dense vectors of a segment.
//!
//! Deletes, commits, adopted segments and leftovers are those of tantivy's files: a vector is in its segment.

use std::any::Any;

use tantivy::index::{Segment, SegmentReader};
use tantivy::indexer::DocIdMapping;
use tantivy::indexer::doc_id_mapping::MappingType;
use tantivy::plugin::{PluginMergeContext, PluginWriter, PluginWriterContext, SegmentPlugin};
use tantivy::schema::document::ErasedDocument;
use tantivy::schema::{Field, Schema, Value};
use tantivy::{DocId, TantivyDocument, TantivyError};

use crate::directory::CheckedDirectory;
use crate::plugin::{named, read_file, sorting_refused, write_file};
use crate::schema::Fields;
use crate::settings::IndexSettings;
use splade_core::dense::{DenseFile, DenseIdentity, write_dense};

/// Extension of the plugin's file.
pub(crate) const EXTENSION: &str = "dns";

/// tantivy's plugin for `<segment>.dns`.
pub(crate) struct DensePlugin {
    identity: DenseIdentity,
    field: Field,
    directory: CheckedDirectory,
}

impl DensePlugin {
    /// The plugin of an index; none if it has no dense vectors.
    pub(crate) fn of(settings: &IndexSettings, fields: &Fields, directory: &CheckedDirectory) -> Option<Self> {
        let (dense, field) = (settings.dense.as_ref()?, fields.dense?);
        Some(Self { identity: dense.identity(), field, directory: directory.clone() })
    }
}

/// Opens the file of a segment.
pub(crate) fn open_file(
    reader: &SegmentReader,
    directory: &CheckedDirectory,
    identity: &DenseIdentity,
) -> tantivy::Result<DenseFile> {
    let bytes = read_file(reader, directory, EXTENSION)?;
    let opened = match bytes.has_checksums() {
        true => DenseFile::open(bytes, identity, reader.max_doc()),
        // every version of the program wrote them
        false => Err("damaged: it has no checksums".to_owned()),
    };
    opened.map_err(|defect| directory.damage_error(&named(reader, EXTENSION), defect))
}

impl SegmentPlugin for DensePlugin {
    fn extensions(&self) -> &[&str] {
        &[EXTENSION]
    }

    fn create_writer(&self, _context: &PluginWriterContext) -> tantivy::Result<Box<dyn PluginWriter>> {
        Ok(Box::new(RowWriter { identity: self.identity, field: self.field, rows: Vec::new(), n_docs: 0 }))
    }

    /// Builds the file of the new segment from the rows of the old ones, in the order that
    /// [`ImpactPlugin`](crate::plugin::ImpactPlugin) explains.
    fn merge(&self, context: PluginMergeContext) -> tantivy::Result<()> {
        if context.doc_id_mapping.mapping_type() == MappingType::Shuffled {
            return Err(sorting_refused());
        }
        let mut sources = Vec::new();
        for reader in context.readers {
            sources.push((reader, open_file(reader, &self.directory, &self.identity)?));
        }
        let mut rows = Vec::new();
        for (reader, file) in &sources {
            for doc in reader.doc_ids_alive() {
                rows.push(
                    file.row(doc).map_err(|defect| self.directory.damage_error(&named(reader, EXTENSION), defect))?,
                );
            }
        }
        let n_docs = context.readers.iter().map(SegmentReader::num_docs).sum();
        write_file(context.target_segment, EXTENSION, |out| {
            write_dense(out, &self.identity, n_docs, rows.iter().copied())
        })
    }
}

/// Collects the vectors of documents until the segment is written.
struct RowWriter {
    identity: DenseIdentity,
    field: Field,
    /// values in f32, little endian
    rows: Vec<u8>,
    n_docs: u32,
}

impl PluginWriter for RowWriter {
    fn add_document(&mut self, _id: DocId, document: &dyn ErasedDocument, _schema: &Schema) -> tantivy::Result<()> {
        let refused = || TantivyError::InvalidArgument("only a TantivyDocument can hold a dense vector".into());
        let document: &TantivyDocument = document.as_any().downcast_ref().ok_or_else(refused)?;
        let row = document.get_first(self.field).and_then(|value| value.as_custom().map(<[u8]>::to_vec));
        let row = row.ok_or_else(|| TantivyError::InvalidArgument("a document without a dense vector".into()))?;
        self.rows.extend_from_slice(&row);
        self.n_docs += 1;
        Ok(())
    }

    fn serialize(self: Box<Self>, segment: &Segment, mapping: Option<&DocIdMapping>) -> tantivy::Result<()> {
        if mapping.is_some() {
            return Err(sorting_refused());
        }
        let rows = self.rows.chunks(self.identity.dimensions as usize * 4);
        write_file(segment, EXTENSION, |out| write_dense(out, &self.identity, self.n_docs, rows))
    }

    /// Memory of the rows, and of their scales while the segment is written.
    fn mem_usage(&self) -> usize {
        self.rows.capacity() + self.n_docs as usize * 12
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}
