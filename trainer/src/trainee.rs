//! [`Trainee`]: the model in training, made from a config or a checkpoint and written as a model folder.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use candle_core::{Device, Tensor, Var};
use splade_core::{
    DocumentEncoder, DocumentSettings, Encoder, HeadMode, QueryEncoder, QueryWeights, SpladePooling, TokenBatch,
    Vocabulary,
};
use splade_files::{Architecture, HeadSource, ModelDir, NewModel, files_beside_tokenizer};

use crate::config::{ModelInit, QueryInit, TokenizerInit, TokenizerKind, TrainConfig};
use crate::data::{Example, ReadyTokens};
use crate::model::{BertConfig, Candle, CandleNetwork, Pool, Tape, TransformerConfig, Weights, splade};
use crate::optimizer::{ModelPart, Parameter};
use crate::tokenizer::{SPECIAL_TOKENS, TokenizerBuilder};
use crate::{Error, Result};

/// A model whose parameters are variables.
///
/// The network encodes documents, and queries too unless there is a query table.
#[derive(Debug)]
pub struct Trainee {
    config: TransformerConfig,
    network: Arc<BTreeMap<String, Tensor>>,
    network_vars: BTreeMap<String, Var>,
    query: Option<Var>,
    frozen: bool,
    /// compute layers again in the backward pass
    recomputing: bool,
    /// compute products of matrices in bfloat16 where the device has it
    mixed_precision: bool,
    /// memory of training passes
    pool: Arc<Pool>,
    pooling: SpladePooling,
    vocabulary: Vocabulary,
    pad: u32,
    device: Device,
    /// the parts of the folder beside the weights
    files: Files,
    /// tokens that were made ahead
    ready: Option<ReadyTokens>,
}

/// The parts of a model folder that training does not change.
#[derive(Debug, Clone)]
struct Files {
    config_json: Vec<u8>,
    tokenizer_json: Vec<u8>,
    tokenizer_files: BTreeMap<String, Vec<u8>>,
    code_files: BTreeMap<String, Vec<u8>>,
    prompts: (String, String),
    max_active_dims: Option<usize>,
    max_length: usize,
}

impl Trainee {
    /// The model of a config: a base model, a finished sparse encoder, or a new one.
    ///
    /// `texts` is called where a tokenizer or idf weights are made from the data.
    ///
    /// # Errors
    /// A folder that is missing or broken, a config that contradicts it.
    pub fn new(config: &TrainConfig, texts: impl Fn() -> Result<Vec<String>>, device: &Device) -> Result<Self> {
        let mut trainee = match (&config.model.init, &config.model.base_model) {
            (Some(init), _) => Self::from_init(config, init, &texts, device)?,
            (None, Some(base)) => {
                let folder = config.model.base_folder.as_deref().unwrap_or(Path::new(base));
                Self::from_folder(config, folder, device)?
            }
            (None, None) => {
                return Err(Error::config("model.base_model", "is missing", "give a model folder, or model.init"));
            }
        };
        if trainee.query.is_none() && config.model.architecture == Architecture::InferenceFree {
            let weights = trainee.initial_query_weights(&config.model.query_init, &texts)?;
            trainee.query = Some(Var::from_vec(weights, trainee.config.vocab_size(), device)?);
        }
        trainee.frozen = config.model.freeze_static_embedding;
        Ok(trainee)
    }

    /// The model of a checkpoint.
    ///
    /// # Errors
    /// A folder that is missing or broken.
    pub fn from_checkpoint(config: &TrainConfig, folder: &Path, device: &Device) -> Result<Self> {
        let mut trainee = Self::from_dir(config, &ModelDir::open(folder)?, true, device)?;
        trainee.frozen = config.model.freeze_static_embedding;
        Ok(trainee)
    }

    fn from_folder(config: &TrainConfig, folder: &Path, device: &Device) -> Result<Self> {
        if !folder.is_dir() {
            return Err(Error::config(
                "model.base_model",
                format!("{} is not a folder", folder.display()),
                "give a model folder",
            ));
        }
        let model = ModelDir::open(folder)?.ignoring_config_keys(config.model.ignored_config_keys.clone());
        Self::from_dir(config, &model, config.model.load_pretrained_sparse_encoder, device)
    }

    fn from_dir(config: &TrainConfig, model: &ModelDir, with_query: bool, device: &Device) -> Result<Self> {
        let mut transformer = TransformerConfig::of(model)?;
        let mode = match (config.model.mlm_head, model.head_choice()) {
            (Some(mode), _) => Some(mode),
            (None, Some(choice)) if choice.source == HeadSource::Stated || with_query => Some(choice.mode),
            (None, Some(_)) => Some(HeadMode::SoftCap),
            (None, None) => None,
        };
        if let Some(mode) = mode {
            transformer.set_head_mode(mode).map_err(|problem| {
                Error::config("model.mlm_head", problem.to_string(), problem.hint().unwrap_or_default())
            })?;
        }
        let weights = Weights::from_files(&model.checkpoint()?, &transformer)?;
        let vocabulary = model.vocabulary(Some(config.training.max_seq_length))?;
        let pad = model.pad_id(&vocabulary)?;
        let code = model.family().map_or(&[][..], |family| family.code_files);
        let mut code_files = read_existing(model.root(), code.iter().copied())?;
        code_files.extend(read_existing(model.transformer_dir(), code.iter().copied())?);
        let files = Files {
            config_json: transformer.without_unknown_keys(splade_files::read_file(&model.config_path())?),
            tokenizer_json: vocabulary.json().to_vec(),
            tokenizer_files: read_existing(model.transformer_dir(), files_beside_tokenizer())?,
            code_files,
            prompts: (model.query_prompt().to_owned(), model.document_prompt().to_owned()),
            max_active_dims: model.max_active_dims(),
            max_length: vocabulary.max_length(),
        };
        let mut trainee = Self::assemble(config, transformer, &weights, vocabulary, pad, files, device)?;
        if with_query && config.model.architecture == Architecture::InferenceFree {
            let table = as_long_as(model.query_encoder()?.weights().as_slice(), trainee.config.vocab_size())?;
            trainee.query = Some(Var::from_vec(table, trainee.config.vocab_size(), device)?);
        }
        Ok(trainee)
    }

    fn from_init(
        config: &TrainConfig,
        init: &ModelInit,
        texts: impl Fn() -> Result<Vec<String>>,
        device: &Device,
    ) -> Result<Self> {
        if init.architecture != "bert" {
            let message = format!("a new model of architecture `{}` cannot be made", init.architecture);
            return Err(Error::config("model.init.architecture", message, "use `bert`"));
        }
        let tokenizer_json = match &init.tokenizer {
            TokenizerInit::Path(path) => {
                let path = if path.is_dir() { path.join("tokenizer.json") } else { path.clone() };
                // with what the other files of its folder override
                splade_files::read_vocabulary(&path, usize::MAX)?.json().to_vec()
            }
            TokenizerInit::TrainOn { kind, files } => train_tokenizer(*kind, files, texts, init.vocab_size)?,
        };
        let length = config.training.max_seq_length;
        let vocabulary = Vocabulary::parse(tokenizer_json.clone(), length)?;
        let pad = ["[PAD]", "<pad>"].iter().find_map(|token| vocabulary.dim(token)).unwrap_or(0);
        let bert = BertConfig {
            vocab_size: vocabulary.min_dimensions(),
            hidden_size: init.hidden_size,
            num_hidden_layers: init.layers,
            num_attention_heads: init.heads,
            intermediate_size: init.intermediate_size,
            max_position_embeddings: length.max(512),
            // small models that are trained for a short time do not overfit
            hidden_dropout_prob: 0.0,
            attention_probs_dropout_prob: 0.0,
            ..BertConfig::default()
        };
        let config_json = bert.to_json(pad).into_bytes();
        let transformer = TransformerConfig::parse(&String::from_utf8_lossy(&config_json), Path::new("model.init"))?;
        let weights = Weights::new(&transformer, config.training.seed)?;
        let special = |at: usize| SPECIAL_TOKENS.get(at).copied().unwrap_or_default();
        let tokenizer_config = serde_json::json!({
            "tokenizer_class": "PreTrainedTokenizerFast",
            "pad_token": special(0), "unk_token": special(1), "cls_token": special(2), "sep_token": special(3),
            "mask_token": special(4),
        });
        let files = Files {
            config_json,
            tokenizer_json,
            tokenizer_files: [("tokenizer_config.json".to_owned(), tokenizer_config.to_string().into_bytes())].into(),
            code_files: BTreeMap::new(),
            prompts: Default::default(),
            max_active_dims: None,
            max_length: length,
        };
        Self::assemble(config, transformer, &weights, vocabulary, pad, files, device)
    }

    fn assemble(
        config: &TrainConfig,
        transformer: TransformerConfig,
        weights: &Weights,
        vocabulary: Vocabulary,
        pad: u32,
        files: Files,
        device: &Device,
    ) -> Result<Self> {
        let var =
            |(name, tensor): (&String, &Tensor)| Ok((name.clone(), Var::from_tensor(&tensor.to_device(device)?)?));
        let network_vars = weights.tensors().iter().map(var).collect::<Result<BTreeMap<String, Var>>>()?;
        let network = network_vars.iter().map(|(name, var)| (name.clone(), var.as_tensor().clone()));
        Ok(Self {
            config: transformer,
            network: Arc::new(network.collect()),
            network_vars,
            query: None,
            frozen: false,
            recomputing: config.hardware.gradient_checkpointing,
            mixed_precision: config.training.bf16,
            pool: Arc::default(),
            pooling: SpladePooling {
                strategy: config.model.pooling_strategy,
                activation: config.model.activation_function,
            },
            vocabulary,
            pad,
            device: device.clone(),
            files,
            ready: None,
        })
    }

    fn initial_query_weights(&self, init: &QueryInit, texts: impl Fn() -> Result<Vec<String>>) -> Result<Vec<f32>> {
        let terms = self.config.vocab_size();
        match init {
            QueryInit::Ones => Ok(vec![1.0; terms]),
            QueryInit::Idf => idf(&self.vocabulary, &texts()?, terms),
            QueryInit::File(path) if path.extension().is_some_and(|extension| extension == "safetensors") => {
                as_long_as(splade_files::read_query_weights(path)?.as_slice(), terms)
            }
            QueryInit::File(path) => as_long_as(splade_files::read_idf(path, &self.vocabulary)?.as_slice(), terms),
        }
    }

    /// The parameters that an optimizer trains, the query table first.
    #[must_use]
    pub fn parameters(&self) -> Vec<Parameter> {
        let part = if self.query.is_some() { ModelPart::Document } else { ModelPart::Shared };
        let table = self.query.iter().filter(|_| !self.frozen);
        let table = table.map(|var| Parameter::new(ModelPart::QueryTable, "weight", var.clone()));
        let network = self.network_vars.iter().map(|(name, var)| Parameter::new(part, name.clone(), var.clone()));
        table.chain(network).collect()
    }

    /// The network's tokenizer.
    #[must_use]
    pub fn vocabulary(&self) -> &Vocabulary {
        &self.vocabulary
    }

    /// The id of padding.
    #[must_use]
    pub fn pad(&self) -> u32 {
        self.pad
    }

    /// Terms of the vocabulary.
    #[must_use]
    pub fn dimensions(&self) -> usize {
        self.config.vocab_size()
    }

    /// The network's sizes.
    #[must_use]
    pub fn config(&self) -> &TransformerConfig {
        &self.config
    }

    /// The query table, if the model has one.
    #[must_use]
    pub fn query_table(&self) -> Option<&Var> {
        self.query.as_ref()
    }

    /// The number of weights, frozen ones included.
    #[must_use]
    pub fn parameter_count(&self) -> usize {
        let table = self.query.as_ref().map_or(0, |var| var.elem_count());
        table + self.network.values().map(Tensor::elem_count).sum::<usize>()
    }

    /// The algebra of one forward pass on any device, with gradients and with dropout drawn from `seed`; with neither if there
    /// is no seed.
    #[must_use]
    pub fn algebra(&self, seed: Option<u64>) -> Candle {
        let Some(seed) = seed else {
            let constants = self.network.iter().map(|(name, tensor)| (name.clone(), tensor.detach())).collect();
            return Candle::new(&constants, &self.device);
        };
        let a = Candle::training(&self.network, &self.device, seed);
        let a = if self.mixed_precision { a.mixed_precision() } else { a };
        if self.recomputing { a.recomputing() } else { a }
    }

    /// The algebra of a training pass over `batch`, which the CPU has; none on other devices.
    #[must_use]
    pub fn tape(&self, batch: &TokenBatch, seed: u64) -> Option<Tape> {
        let tape = || Tape::new(&self.network, &self.pool, batch, seed).recomputing_layers(self.recomputing);
        self.device.is_cpu().then(tape)
    }

    /// Takes the tokens of texts from here, where they are ready.
    pub(crate) fn take_tokens_from(&mut self, ready: ReadyTokens) {
        self.ready = Some(ready);
    }

    /// The texts of an example that go through the network, with their prompts.
    pub(crate) fn network_texts<'a>(&'a self, example: &'a Example) -> impl Iterator<Item = String> + 'a {
        let (query, document) = &self.files.prompts;
        let anchor = self.query.is_none().then(|| format!("{query}{}", example.anchor));
        anchor.into_iter().chain(example.texts().skip(1).map(move |text| format!("{document}{text}")))
    }

    /// Tokens of texts, those that are ready or new ones.
    fn tokenize<T: AsRef<str> + Sync>(&self, texts: &[T]) -> Result<Vec<Vec<u32>>> {
        let Some(ready) = &self.ready else { return Ok(self.vocabulary.tokenize_all(texts)?) };
        let found: Vec<Option<Vec<u32>>> = texts.iter().map(|text| ready.get(text.as_ref())).collect();
        let missing: Vec<&str> =
            texts.iter().zip(&found).filter(|(_, found)| found.is_none()).map(|(text, _)| text.as_ref()).collect();
        let mut new = self.vocabulary.tokenize_all(&missing)?.into_iter();
        Ok(found.into_iter().filter_map(|found| found.or_else(|| new.next())).collect())
    }

    /// SPLADE vectors `[B, V]` of texts through the network, with gradients if there is a seed.
    ///
    /// # Errors
    /// A text that the tokenizer refuses, tensor operations.
    pub fn encode(&self, texts: &[&str], prompt: &str, seed: Option<u64>) -> Result<Tensor> {
        let tokens = if prompt.is_empty() {
            self.tokenize(texts)?
        } else {
            let texts: Vec<String> = texts.iter().map(|text| format!("{prompt}{text}")).collect();
            self.tokenize(&texts)?
        };
        let rows: Vec<&[u32]> = tokens.iter().map(Vec::as_slice).collect();
        let batch = TokenBatch::new(&rows, self.pad);
        if let Some(a) = seed.and_then(|seed| self.tape(&batch, seed)) {
            let inputs = a.inputs();
            let encoded = self.config.forward(&a, &inputs)?;
            let vectors = splade(&a, &encoded.head, &inputs.mask, self.pooling)?;
            return a.attach(&vectors);
        }
        let a = self.algebra(seed);
        let inputs = a.batch(&batch)?;
        let encoded = self.config.forward(&a, &inputs)?;
        splade(&a, &encoded.head, &inputs.mask, self.pooling)
    }

    /// Vectors `[B, V]` of queries: by the table if there is one, else through the network.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn encode_queries(&self, texts: &[&str], seed: Option<u64>) -> Result<Tensor> {
        let prompt = &self.files.prompts.0;
        let Some(table) = &self.query else { return self.encode(texts, prompt, seed) };
        let terms = self.dimensions();
        let mut present = vec![0_f32; texts.len() * terms];
        for (text, row) in texts.iter().zip(present.chunks_exact_mut(terms)) {
            // presence, not counts: a token's weight is taken once
            for id in self.vocabulary.tokenize(&format!("{prompt}{text}"))? {
                if let Some(present) = row.get_mut(id as usize) {
                    *present = 1.0;
                }
            }
        }
        let present = Tensor::from_vec(present, (texts.len(), terms), &self.device)?;
        Ok(present.broadcast_mul(table.as_tensor())?)
    }

    /// Vectors `[B, V]` of documents.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn encode_documents(&self, texts: &[&str], seed: Option<u64>) -> Result<Tensor> {
        self.encode(texts, &self.files.prompts.1, seed)
    }

    /// Encoders of queries and of documents with the present weights, for evaluation.
    ///
    /// # Errors
    /// A query table with weights that are not finite.
    pub fn encoders(&self) -> Result<(Box<dyn Encoder>, Box<dyn Encoder>)> {
        let network = |prompt: &str| -> Result<Box<dyn Encoder>> {
            let weights = Weights::from_tensors(self.network.iter().map(|(n, t)| (n.clone(), t.detach())).collect());
            let network = CandleNetwork::new(self.config.clone(), weights, self.pooling, self.device.clone());
            let settings = DocumentSettings {
                prompt: prompt.to_owned(),
                max_active_dims: self.files.max_active_dims,
                pad: self.pad,
                ..Default::default()
            };
            Ok(Box::new(DocumentEncoder::new(self.vocabulary.clone(), Box::new(network), settings)?))
        };
        let query: Box<dyn Encoder> = match self.query_weights()? {
            Some(table) => Box::new(QueryEncoder::new(self.vocabulary.clone(), table, self.files.prompts.0.clone())?),
            None => network(&self.files.prompts.0)?,
        };
        Ok((query, network(&self.files.prompts.1)?))
    }

    fn query_weights(&self) -> Result<Option<QueryWeights>> {
        let Some(table) = &self.query else { return Ok(None) };
        Ok(Some(QueryWeights::new(table.as_tensor().to_vec1()?)?))
    }

    /// True if Python needs code of the model folder to load it.
    pub(crate) fn has_code(&self) -> bool {
        !self.files.code_files.is_empty()
    }

    /// Writes the model folder into `root`, which exists, with `readme` as its card.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn write(&self, root: &Path, readme: String) -> Result<()> {
        let query = self.query_weights()?.map(|table| (table, self.frozen));
        let model = NewModel {
            architecture: match query {
                Some(_) => Architecture::InferenceFree,
                None => Architecture::Splade,
            },
            config_json: self.files.config_json.clone(),
            weights: Weights::from_tensors((*self.network).clone()).to_safetensors()?,
            tokenizer_json: self.files.tokenizer_json.clone(),
            tokenizer_files: self.files.tokenizer_files.clone(),
            code_files: self.files.code_files.clone(),
            query,
            pooling: self.pooling,
            head_mode: self.config.head_mode(),
            dimensions: self.dimensions(),
            prompts: self.files.prompts.clone(),
            max_active_dims: self.files.max_active_dims,
            max_length: self.files.max_length,
            readme,
        };
        Ok(model.write(root)?)
    }
}

/// Contents, by name, of those of the files `names` that `folder` has.
fn read_existing<'n>(folder: &Path, names: impl Iterator<Item = &'n str>) -> Result<BTreeMap<String, Vec<u8>>> {
    let existing = names.map(|name| (name, folder.join(name))).filter(|(_, path)| path.is_file());
    existing.map(|(name, path)| Ok((name.to_owned(), splade_files::read_file(&path)?))).collect()
}

/// A query table as long as the network's output: terms without a token have weight 0.
fn as_long_as(table: &[f32], terms: usize) -> Result<Vec<f32>> {
    if table.len() > terms {
        let message = format!("the query table has {} weights, but the network has {terms} terms", table.len());
        return Err(Error::invalid(message, "take the table of this model's tokenizer"));
    }
    let mut table = table.to_vec();
    table.resize(terms, 0.0);
    Ok(table)
}

fn train_tokenizer(
    kind: TokenizerKind,
    files: &[String],
    texts: impl Fn() -> Result<Vec<String>>,
    size: usize,
) -> Result<Vec<u8>> {
    let mut builder = TokenizerBuilder::new(kind)?;
    if files.is_empty() {
        for text in texts()? {
            builder.feed(&text)?;
        }
        return builder.build(size);
    }
    for path in files {
        for row in splade_files::read_rows(Path::new(path))? {
            for cell in row?.value().values().filter_map(serde_json::Value::as_str) {
                builder.feed(cell)?;
            }
        }
    }
    builder.build(size)
}

/// Factor on idf in a new query table: with document weights of 1 to 2, scores then start in the range where the gradient
/// of a softmax over a batch does not vanish.
const IDF_SCALE: f64 = 0.3;

/// `0.3 · ln((N + 1)/(df + 0.5))` per token over `texts`; never negative.
fn idf(vocabulary: &Vocabulary, texts: &[String], terms: usize) -> Result<Vec<f32>> {
    let mut frequency = vec![0_u32; terms];
    for text in texts {
        let mut ids = vocabulary.tokenize(text)?;
        ids.sort_unstable();
        ids.dedup();
        for id in ids {
            if let Some(frequency) = frequency.get_mut(id as usize) {
                *frequency += 1;
            }
        }
    }
    let n = texts.len() as f64 + 1.0;
    Ok(frequency.into_iter().map(|df| (IDF_SCALE * (n / (f64::from(df) + 0.5)).ln()).max(0.0) as f32).collect())
}
