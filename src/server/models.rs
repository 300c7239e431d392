//! [`Models`]: the query side of each index, and the model of `--model`, which is opened once.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use splade_core::{DocumentEncoder, Vocabulary};
use splade_files::{Architecture, ModelDir};
use splade_index::ImpactIndex;

use crate::answer::QuerySide;
use crate::cli::{Mode, NetworkArgs, ServeArgs};
use crate::commands::search::query_side;
use crate::dense::{DenseModel, DenseSide};
use crate::encoders::{document_encoder, query_encoder, read_as};
use crate::failure::bad_input;
use crate::hub::{self, Wants};

/// Models that the flags name.
pub(crate) struct Models {
    model: Option<Model>,
    dense: Option<PathBuf>,
    writable: bool,
    network: NetworkArgs,
}

/// Model of `--model`.
struct Model {
    folder: ModelDir,
    vocabulary: Vocabulary,
    side: Arc<QuerySide>,
}

impl Models {
    /// Opens the model of `--model`, if there is one.
    ///
    /// # Errors
    /// A model that cannot be opened.
    pub(crate) fn open(args: &ServeArgs) -> Result<Self> {
        let model = match &args.model {
            Some(path) => Some(Model::open(path, &args.network)?),
            None => None,
        };
        Ok(Self { model, dense: args.dense.clone(), writable: args.writable, network: args.network.clone() })
    }

    /// Encoder of documents; none without `--model`.
    ///
    /// # Errors
    /// A network that cannot be opened.
    pub(crate) fn documents(&self) -> Result<Option<DocumentEncoder>> {
        self.model.as_ref().map(|model| document_encoder(&model.folder, &self.network)).transpose()
    }

    /// Query side of an index: that of `--model`, else the one that the index keeps.
    ///
    /// # Errors
    /// An index of another model; one whose queries need the network, without `--model`.
    pub(crate) fn query_side(&self, index: &ImpactIndex) -> Result<Arc<QuerySide>> {
        if let Some(Model { folder, vocabulary, side }) = &self.model {
            let terms = u32::try_from(folder.dimensions()?)?;
            let fingerprint = folder.fingerprint_like(&index.settings().model_fingerprint)?;
            index.expect_model(terms, &fingerprint, vocabulary.fingerprint())?;
            return Ok(Arc::clone(side));
        }
        let side = query_side(index, index.dir(), Mode::Sparse, true, None, &self.network)?;
        side.ok_or_else(|| bad_input(format!("{}: the index keeps no query encoder", index.dir().display()), ""))
    }

    /// Dense side of an index that has dense vectors; none without `--dense`.
    ///
    /// # Errors
    /// Another dense model than that of the index.
    pub(crate) fn dense_side(&self, index: &ImpactIndex) -> Result<Option<Arc<DenseSide>>> {
        let model = self.dense_model(index)?;
        Ok(model.map(|model| Arc::new(DenseSide::Model(Box::new(model)))))
    }

    /// Dense encoder of the documents that requests add to an index, apart from that of queries, which wait for no document.
    ///
    /// # Errors
    /// Those of [`dense_side`](Self::dense_side).
    pub(crate) fn dense_documents(&self, index: &ImpactIndex) -> Result<Option<Arc<DenseModel>>> {
        let model = if self.writable { self.dense_model(index)? } else { None };
        Ok(model.map(Arc::new))
    }

    fn dense_model(&self, index: &ImpactIndex) -> Result<Option<DenseModel>> {
        let path = self.dense.as_deref().filter(|_| index.settings().dense.is_some());
        path.map(|path| DenseModel::of_index(path, index, &self.network)).transpose()
    }
}

impl Model {
    fn open(path: &std::path::Path, network: &NetworkArgs) -> Result<Self> {
        let folder = read_as(hub::open(path, Wants::encoder(network).and_weights())?, &network.reading)?;
        let vocabulary = folder.vocabulary(None)?;
        let runs_network = folder.architecture() == Architecture::Splade;
        let side = QuerySide::new(query_encoder(&folder, network)?, runs_network, &vocabulary, true)?;
        Ok(Self { folder, vocabulary, side: Arc::new(side) })
    }
}
