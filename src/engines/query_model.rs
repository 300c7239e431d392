//! [`QueryModel`]: the model whose queries a collection answers, of an index folder or a model folder.

use std::path::Path;

use anyhow::Result;
use splade_core::{Encoder, SparseVector, Vocabulary};
use splade_files::{Architecture, ModelDir};
use splade_index::ImpactIndex;

use super::CollectionManifest;
use super::manifest::table_fingerprint;
use crate::cli::NetworkArgs;
use crate::encoders::{query_encoder, read_as, static_query_encoder};
use crate::failure::bad_input;
use crate::hub::{self, Wants};

/// Fingerprints of a model, and its encoder of queries.
pub(crate) struct QueryModel {
    /// where the model is from, for messages
    name: String,
    manifest: CollectionManifest,
    /// none for an index whose queries go through a network
    encoder: Option<Box<dyn Encoder>>,
    /// none together with `encoder`
    vocabulary: Option<Vocabulary>,
    /// the model folder, whose fingerprint has several forms; none for an index
    folder: Option<ModelDir>,
}

impl QueryModel {
    /// The model of an index, with the query table that the index has.
    ///
    /// # Errors
    /// A damaged index.
    pub(crate) fn of_index(index: &ImpactIndex) -> Result<Self> {
        let settings = index.settings();
        let encoder = index.read_query_encoder()?;
        let table = encoder.as_ref().map(table_fingerprint);
        let vocabulary = encoder.as_ref().map(|encoder| encoder.vocabulary().clone());
        let (model, tokenizer) = (&settings.model_fingerprint, &settings.tokenizer_fingerprint);
        let mut manifest = CollectionManifest::new(settings.vocabulary_size, model, tokenizer, table);
        manifest.language = settings.language.to_string();
        manifest.fields = settings.fields.clone();
        let encoder = encoder.map(|encoder| Box::new(encoder) as Box<dyn Encoder>);
        Ok(Self { name: index.dir().display().to_string(), manifest, encoder, vocabulary, folder: None })
    }

    /// A model folder or model of the Hub.
    ///
    /// # Errors
    /// A folder that cannot be read, a network that cannot be loaded.
    pub(crate) fn of_folder(folder: &Path, network: &NetworkArgs) -> Result<Self> {
        let model = hub::open(folder, Wants::encoder(network).and_weights())?;
        let model = read_as(model, &network.reading)?;
        let vocabulary = model.vocabulary(None)?;
        let has_table = model.architecture() == Architecture::InferenceFree;
        let (encoder, table): (Box<dyn Encoder>, _) = if has_table {
            let encoder = static_query_encoder(&model, network)?;
            let table = table_fingerprint(&encoder);
            (Box::new(encoder), Some(table))
        } else {
            (query_encoder(&model, network)?, None)
        };
        let terms = u32::try_from(model.dimensions()?)?;
        let manifest = CollectionManifest::new(terms, &model.fingerprint()?, vocabulary.fingerprint(), table);
        let name = folder.display().to_string();
        Ok(Self { name, manifest, encoder: Some(encoder), vocabulary: Some(vocabulary), folder: Some(model) })
    }

    /// This model with the typed fields and the language of the documents of `other`, an index of the same model.
    pub(crate) fn with_documents_of(mut self, other: &Self) -> Self {
        self.manifest.fields.clone_from(&other.manifest.fields);
        self.manifest.language.clone_from(&other.manifest.language);
        self.manifest.model.clone_from(&other.manifest.model);
        self
    }

    /// Manifest of a new collection for this model.
    pub(crate) fn manifest(&self) -> &CollectionManifest {
        &self.manifest
    }

    /// The vocabulary; none for an index whose queries go through a network.
    pub(crate) fn vocabulary(&self) -> Option<&Vocabulary> {
        self.vocabulary.as_ref()
    }

    /// Refuses a collection of another model.
    ///
    /// # Errors
    /// The first difference, by name.
    pub(crate) fn expect(&self, manifest: &CollectionManifest, place: &str) -> Result<()> {
        let mut ours = self.manifest.clone();
        // fields and language are those of the documents
        ours.fields.clone_from(&manifest.fields);
        ours.language.clone_from(&manifest.language);
        if let Some(folder) = &self.folder {
            ours.model = folder.fingerprint_like(&manifest.model)?;
        }
        match manifest.difference(&ours) {
            None => Ok(()),
            Some(difference) => Err(bad_input(
                format!("{place}: made with another model than {}: {difference}", self.name),
                "give the index or the model that the collection was made with",
            )),
        }
    }

    /// Vectors of queries.
    ///
    /// # Errors
    /// An index without a query table, a text that the tokenizer refuses.
    pub(crate) fn encode(&self, texts: &[&str]) -> Result<Vec<SparseVector>> {
        let Some(encoder) = &self.encoder else {
            return Err(bad_input(
                format!("{}: queries of this index go through the model's network", self.name),
                "give the model folder with --model",
            ));
        };
        Ok(encoder.encode(texts)?)
    }
}
