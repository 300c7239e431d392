//! [`DenseModel`]: the model of `--dense`, in ONNX Runtime. [`DenseSide`]: the dense ranking of queries.

use std::path::Path;
use std::sync::OnceLock;

use anyhow::Result;
use splade_core::Ranking;
use splade_core::dense::DenseVector;
use splade_encode::{DenseEncoder, OnnxDevice, OnnxOptions};
use splade_eval::Run;
use splade_files::DenseModelDir;
use splade_index::{DensePart, DenseSettings, ImpactIndex};

use crate::cli::{DenseArgs, DenseSearchArgs, Mode, NetworkArgs};
use crate::encoders::{load_library, onnx_options, use_threads};
use crate::evaluation::Lengths;
use crate::failure::bad_input;
use crate::hub;

/// A dense encoder with its prompts. The network is loaded when the first text is encoded.
pub(crate) struct DenseModel {
    folder: DenseModelDir,
    network: NetworkArgs,
    encoder: OnceLock<DenseEncoder>,
    fingerprint: String,
    query_prompt: String,
    document_prompt: String,
}

impl DenseModel {
    /// Opens the model of `--dense`; none without the flag. Flags for prompts take the place of those of the folder.
    pub(crate) fn open(args: &DenseArgs, network: &NetworkArgs) -> Result<Option<Self>> {
        let Some(model) = &args.dense else { return Ok(None) };
        let folder = hub::open_dense(model)?;
        let prompt = |given: &Option<String>, own: &str| given.clone().unwrap_or_else(|| own.to_owned());
        let query_prompt = prompt(&args.dense_query_prompt, folder.query_prompt());
        let document_prompt = prompt(&args.dense_document_prompt, folder.document_prompt());
        Ok(Some(Self::of_folder(folder, network, query_prompt, document_prompt)?))
    }

    /// Opens the dense model of an index.
    ///
    /// # Errors
    /// An index without dense vectors, or with those of another model.
    pub(crate) fn of_index(model: &Path, index: &ImpactIndex, network: &NetworkArgs) -> Result<Self> {
        let Some(settings) = &index.settings().dense else {
            return Err(bad_input(
                format!("{}: the index has no dense vectors", index.dir().display()),
                "make it anew with `splade index --dense MODEL`, or give a run with --dense-run",
            ));
        };
        let folder = hub::open_dense(model)?;
        let (query_prompt, document_prompt) = (settings.query_prompt.clone(), settings.document_prompt.clone());
        let opened = Self::of_folder(folder, network, query_prompt, document_prompt)?;
        opened.expect_same(settings, index.dir())?;
        // a network that cannot run is known before the first query
        opened.encoder()?;
        Ok(opened)
    }

    fn of_folder(
        folder: DenseModelDir,
        network: &NetworkArgs,
        query_prompt: String,
        document_prompt: String,
    ) -> Result<Self> {
        use_threads(network.threads);
        load_library()?;
        Ok(Self {
            fingerprint: folder.fingerprint()?,
            folder,
            network: network.clone(),
            encoder: OnceLock::new(),
            query_prompt,
            document_prompt,
        })
    }

    /// The encoder, whose network is loaded by the first call.
    fn encoder(&self) -> Result<&DenseEncoder> {
        if let Some(encoder) = self.encoder.get() {
            return Ok(encoder);
        }
        let encoder = open_encoder(&self.folder, &self.network)?;
        Ok(self.encoder.get_or_init(|| encoder))
    }

    /// Number of dimensions of the vectors.
    pub(crate) fn dimensions(&self) -> Result<usize> {
        Ok(self.encoder()?.dimensions())
    }

    /// Settings of an index with vectors of this model.
    pub(crate) fn settings(&self) -> Result<DenseSettings> {
        Ok(self.settings_of(u32::try_from(self.dimensions()?)?))
    }

    /// Settings of an index with vectors of this model, whose number of dimensions is known.
    pub(crate) fn settings_of(&self, dimensions: u32) -> DenseSettings {
        DenseSettings {
            dimensions,
            model_fingerprint: self.fingerprint.clone(),
            query_prompt: self.query_prompt.clone(),
            document_prompt: self.document_prompt.clone(),
        }
    }

    /// All that decides its vectors but the device, by name.
    pub(crate) fn identity(&self) -> [(&'static str, &str); 3] {
        [("model", &self.fingerprint), ("query-prompt", &self.query_prompt), ("document-prompt", &self.document_prompt)]
    }

    /// Refuses this model for an index of another one.
    pub(crate) fn expect_same(&self, settings: &DenseSettings, index: &Path) -> Result<()> {
        let other = [
            ("dense model", &settings.model_fingerprint, &self.fingerprint),
            ("prompt of dense queries", &settings.query_prompt, &self.query_prompt),
            ("prompt of dense documents", &settings.document_prompt, &self.document_prompt),
        ];
        match other.into_iter().find(|(_, index, model)| index != model) {
            None => Ok(()),
            Some((what, of_index, of_model)) => {
                let short = |text: &str| text.chars().take(12).collect::<String>();
                Err(bad_input(
                    format!(
                        "{}: built with another {what}: {:?}, not {:?}",
                        index.display(),
                        short(of_index),
                        short(of_model)
                    ),
                    "give the dense model and the prompts that the index was built with, or make the index anew",
                ))
            }
        }
    }

    /// Limit of the texts of queries; none without a limit.
    pub(crate) fn query_lengths(&self) -> Result<Option<Lengths>> {
        Lengths::of(self.encoder()?.vocabulary(), true, &self.query_prompt)
    }

    /// Limit of the texts of documents; none without a limit.
    pub(crate) fn document_lengths(&self) -> Result<Option<Lengths>> {
        Lengths::of(self.encoder()?.vocabulary(), true, &self.document_prompt)
    }

    /// Vectors of queries.
    pub(crate) fn queries(&self, texts: &[&str]) -> Result<Vec<DenseVector>> {
        Ok(self.encoder()?.encode(texts, &self.query_prompt)?)
    }

    /// Vectors of documents.
    pub(crate) fn documents(&self, texts: &[&str]) -> Result<Vec<DenseVector>> {
        Ok(self.encoder()?.encode(texts, &self.document_prompt)?)
    }
}

/// Opens the network of a folder and logs where it runs.
fn open_encoder(folder: &DenseModelDir, network: &NetworkArgs) -> Result<DenseEncoder> {
    let options =
        OnnxOptions { provider_options: network.ep_option.clone(), ..onnx_options(network.device, network.threads)? };
    let encoder = DenseEncoder::open(folder, &options, network.batch_tokens as usize)?;
    let placement = encoder.placement();
    for (refused, reason) in &placement.refused {
        if options.device != OnnxDevice::Auto {
            tracing::warn!("--device {} cannot be used for the dense model: {reason}", refused.name());
        }
    }
    tracing::info!(
        "the dense model runs in ONNX Runtime ({}), {} dimensions: {}",
        placement.device.name(),
        encoder.dimensions(),
        encoder.path().display()
    );
    Ok(encoder)
}

/// Source of the dense ranking of a search.
pub(crate) enum DenseSide {
    /// the vectors of the index
    Model(Box<DenseModel>),
    /// a run, with the ranking of queries that it lacks
    Run(Run, Ranking),
}

impl DenseSide {
    /// The source that the flags name; none for two rankings in hybrid mode and for modes without a dense ranking.
    ///
    /// # Errors
    /// The dense mode without a source, a source in a mode that does not read it.
    pub(crate) fn of(
        args: &DenseSearchArgs,
        mode: Mode,
        index: &ImpactIndex,
        network: &NetworkArgs,
    ) -> Result<Option<Self>> {
        let flag = if args.dense.is_some() { "--dense" } else { "--dense-run" };
        match (&args.dense, &args.dense_run) {
            (None, None) if mode == Mode::Dense => Err(bad_input(
                "--mode dense: no dense ranking",
                "give the dense model of the index with --dense, or a TREC run with --dense-run",
            )),
            (None, None) => Ok(None),
            _ if !matches!(mode, Mode::Dense | Mode::Hybrid) => Err(bad_input(
                format!("{flag} has no effect in the mode {}", mode.name()),
                "choose --mode dense or --mode hybrid, or leave it out",
            )),
            (Some(model), _) => Ok(Some(Self::Model(Box::new(DenseModel::of_index(model, index, network)?)))),
            (None, Some(run)) => Ok(Some(Self::Run(Run::read_trec(run)?, Ranking::default()))),
        }
    }

    /// True if queries are encoded.
    pub(crate) fn runs_network(&self) -> bool {
        matches!(self, Self::Model(_))
    }

    /// Vectors of queries; none for a run.
    pub(crate) fn encode(&self, texts: &[&str]) -> Result<Vec<Option<DenseVector>>> {
        match self {
            Self::Model(model) => Ok(model.queries(texts)?.into_iter().map(Some).collect()),
            Self::Run(..) => Ok(texts.iter().map(|_| None).collect()),
        }
    }

    /// Source of the ranking of a query with this vector.
    pub(crate) fn part<'a>(&'a self, query_id: &str, vector: Option<&'a DenseVector>) -> Option<DensePart<'a>> {
        match self {
            Self::Model(_) => vector.map(DensePart::Vector),
            Self::Run(run, none) => Some(DensePart::Ranking(run.ranking(query_id).unwrap_or(none))),
        }
    }
}
