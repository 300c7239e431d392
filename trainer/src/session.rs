//! [`Session`]: a model, its material, its optimizer and loss, and one optimizer step.

use std::ops::Range;

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor, Var};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use splade_core::TokenBatch;

use crate::config::{InnerLossType, Objective, TrainConfig};
use crate::data::{Batch, DataSet, Material, Piece, ReadyTokens};
use crate::loss::{Embeddings, LossParts, LossValues, RankingLoss, RegularizerWeights, SpladeLoss};
use crate::mlm::{Masking, logits_at, mlm_loss, predicting};
use crate::optimizer::{AdamW, Gradients, OptimizerSettings};
use crate::schedule::{LinearSchedule, RegularizerSchedule};
use crate::{Error, Result, Trainee};

/// A model in training: everything that one more step needs.
#[derive(Debug)]
pub struct Session {
    trainee: Trainee,
    material: Material,
    optimizer: AdamW,
    loss: SpladeLoss,
    masking: Option<Masking>,
    /// texts encoded at a time; none: those of a whole batch
    mini_batch_size: Option<usize>,
    schedule: LinearSchedule,
    regularizers: RegularizerSchedule,
    seed: u64,
    warnings: Vec<String>,
    /// of the last step
    vectors: Option<Embeddings>,
}

/// Numbers of a step.
#[derive(Debug, Clone, PartialEq)]
pub struct StepReport {
    /// loss of each micro-batch
    pub losses: Vec<LossValues>,
    /// global norm before clipping
    pub grad_norm: f64,
    /// learning rate of the first group, times the schedule
    pub learning_rate: f64,
    /// regularizer weights of the step
    pub regularizer_weights: RegularizerWeights,
    /// mean active dims of the documents; 0 for the masked-language-model objective
    pub active_dims: f64,
}

impl Session {
    /// A training of `total_steps` optimizer steps as `config` describes it.
    ///
    /// # Errors
    /// A pattern that matches nothing, a tokenizer without a mask token where one is needed.
    pub fn new(config: &TrainConfig, trainee: Trainee, material: Material, total_steps: usize) -> Result<Self> {
        let training = &config.training;
        let settings = OptimizerSettings {
            learning_rate: training.learning_rate,
            query_learning_rate: training.query_learning_rate,
            learning_rate_patterns: config.router.learning_rate_patterns.clone(),
            weight_decay: training.weight_decay,
            max_grad_norm: training.max_grad_norm,
        };
        let (optimizer, warnings) = AdamW::new(trainee.parameters(), &settings)?;
        let full = RegularizerWeights {
            document: config.loss.document_regularizer_weight,
            query: config.loss.query_regularizer_weight,
        };
        let masking = match training.objective {
            Objective::Mlm => Some(Masking::new(trainee.vocabulary(), &config.mlm)?),
            Objective::Retrieval => None,
        };
        Ok(Self {
            loss: splade_loss(config),
            mini_batch_size: config.loss.mini_batch_size,
            schedule: LinearSchedule::new(total_steps, training.warmup_ratio),
            regularizers: RegularizerSchedule::new(
                config.loss.regularizer_schedule,
                config.loss.regularizer_warmup_ratio,
                total_steps,
                full,
            ),
            seed: training.seed,
            trainee,
            material,
            optimizer,
            masking,
            warnings,
            vectors: None,
        })
    }

    /// Oddities of the config that do not stop a training.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The model as it is now.
    #[must_use]
    pub fn trainee(&self) -> &Trainee {
        &self.trainee
    }

    /// Takes the tokens of texts from here, where they are ready.
    pub(crate) fn take_tokens_from(&mut self, ready: ReadyTokens) {
        self.trainee.take_tokens_from(ready);
    }

    /// The examples or the running text.
    #[must_use]
    pub fn material(&self) -> &Material {
        &self.material
    }

    /// The step, counted from 0, from which on the regularizers have their full weights.
    #[must_use]
    pub fn ramp_end(&self) -> usize {
        self.regularizers.end()
    }

    /// The optimizer.
    #[must_use]
    pub fn optimizer(&self) -> &AdamW {
        &self.optimizer
    }

    /// The optimizer, to restore its state.
    pub fn optimizer_mut(&mut self) -> &mut AdamW {
        &mut self.optimizer
    }

    /// One optimizer step, counted from 0, over micro-batches whose gradients are averaged.
    ///
    /// # Errors
    /// A loss or gradient that is not finite (the weights are then unchanged), tensor operations.
    pub fn step(&mut self, step: usize, batches: &[Batch]) -> Result<StepReport> {
        let weights = self.regularizers.weights(step);
        let (gradients, losses, active_dims, vectors) = self.gradients_and_vectors(step, batches, weights)?;
        self.vectors = vectors;
        let multiplier = self.schedule.multiplier(step);
        let learning_rate = self.optimizer.groups().first().map_or(0.0, |group| group.learning_rate) * multiplier;
        let grad_norm = self.optimizer.step(&gradients, multiplier)?;
        Ok(StepReport { losses, grad_norm, learning_rate, regularizer_weights: weights, active_dims })
    }

    /// The gradients of a step, before clipping, the losses of its micro-batches, and the documents' mean active dims.
    ///
    /// # Errors
    /// As [`step`](Self::step); no batches.
    pub fn gradients(
        &self,
        step: usize,
        batches: &[Batch],
        weights: RegularizerWeights,
    ) -> Result<(Gradients, Vec<LossValues>, f64)> {
        let (gradients, losses, active_dims, _) = self.gradients_and_vectors(step, batches, weights)?;
        Ok((gradients, losses, active_dims))
    }

    /// Vectors of the last micro-batch of the last step, with the weights and the dropout of that step; none for running text.
    pub(crate) fn vectors(&self) -> Option<&Embeddings> {
        self.vectors.as_ref()
    }

    /// As [`gradients`](Self::gradients), with the vectors of the last micro-batch.
    fn gradients_and_vectors(
        &self,
        step: usize,
        batches: &[Batch],
        weights: RegularizerWeights,
    ) -> Result<(Gradients, Vec<LossValues>, f64, Option<Embeddings>)> {
        let mut last = None;
        let mut sum: Option<Gradients> = None;
        let mut active_dims = 0.0;
        let mut losses = Vec::with_capacity(batches.len());
        for (at, batch) in batches.iter().enumerate() {
            let seed = seed_of(self.seed, step, at);
            let BatchLoss { parts, active_dims: active, vectors, cached } = self.loss_of(batch, weights, seed)?;
            last = vectors;
            active_dims += active / batches.len() as f64;
            let values = parts.values()?;
            if !values.total().is_finite() {
                return Err(Error::not_finite(step, "loss", values.total()));
            }
            losses.push(values);
            let mut grads = (parts.total()? / batches.len() as f64)?.backward()?;
            let mut add = |gradients: Gradients| match &mut sum {
                Some(sum) => sum.add(gradients),
                None => {
                    sum = Some(gradients);
                    Ok(())
                }
            };
            match cached {
                None => add(self.optimizer.gradients(&mut grads)?)?,
                Some(cached) => self.piece_gradients(&cached, &grads, seed, &mut add)?,
            }
        }
        let sum = sum.ok_or_else(|| Error::invalid("a step needs at least one batch", ""))?;
        Ok((sum, losses, active_dims, last))
    }

    /// The gradients of the pieces of a batch, one piece in memory at a time, from those of its vectors.
    fn piece_gradients(
        &self,
        cached: &Cached<'_>,
        grads: &GradStore,
        seed: u64,
        add: &mut impl FnMut(Gradients) -> Result<()>,
    ) -> Result<()> {
        let sides = [(Side::Query, &cached.texts.queries, &cached.queries)];
        let sides = sides.into_iter().chain([(Side::Document, &cached.texts.documents, &cached.documents)]);
        for (side, texts, vectors) in sides {
            let Some(gradient) = grads.get(vectors) else { continue };
            for piece in pieces(texts, cached.size) {
                let vectors = self.encode_piece(side, texts, &piece, seed)?;
                let gradient = gradient.narrow(0, piece.start, piece.len())?;
                // the gradient of Σ vectors · gradient with respect to the vectors is `gradient`
                add(self.optimizer.gradients(&mut (vectors * gradient)?.sum_all()?.backward()?)?)?;
            }
        }
        Ok(())
    }

    /// Vectors of the texts of a piece; its dropout is its own, and each time equal.
    fn encode_piece(&self, side: Side, texts: &[&str], piece: &Range<usize>, seed: u64) -> Result<Tensor> {
        let seed = Some(seed_of(seed, piece.start, 0) ^ side as u64);
        match side {
            Side::Query => self.trainee.encode_queries(&texts[piece.clone()], seed),
            Side::Document => self.trainee.encode_documents(&texts[piece.clone()], seed),
        }
    }

    /// Vectors of all texts of a side as a variable: computed piece by piece, without the graphs of the pieces.
    fn encode_cached(&self, side: Side, texts: &[&str], size: usize, seed: u64) -> Result<Var> {
        let encode = |piece: Range<usize>| Ok(self.encode_piece(side, texts, &piece, seed)?.detach());
        let vectors = pieces(texts, size).map(encode).collect::<Result<Vec<Tensor>>>()?;
        Ok(Var::from_tensor(&Tensor::cat(&vectors, 0)?)?)
    }

    /// The loss of a batch of this session's material.
    fn loss_of(&self, batch: &Batch, weights: RegularizerWeights, seed: u64) -> Result<BatchLoss<'_>> {
        match &self.material {
            Material::Examples(sets) => {
                let set = sets.get(batch.data_set).ok_or_else(|| out_of_range("data set", batch.data_set))?;
                let texts = texts_of(set, &batch.rows)?;
                let cached = self.mini_batch_size.map(|size| self.encode_in_pieces(texts.clone(), size, seed));
                let cached = cached.transpose()?;
                let vectors = match &cached {
                    None => self.encode(&texts, Some(seed))?,
                    Some(cached) => cached.vectors(),
                };
                let (parts, active_dims) = self.loss_of_vectors(&vectors, &texts, weights)?;
                Ok(BatchLoss { parts, active_dims, vectors: Some(vectors.detach()), cached })
            }
            Material::Pieces(pieces) => {
                let piece = |row: &usize| pieces.get(*row).ok_or_else(|| out_of_range("piece", *row));
                let rows = batch.rows.iter().map(piece).collect::<Result<Vec<&Piece>>>()?;
                let parts = self.masked_loss(&rows, Some(seed))?;
                Ok(BatchLoss { parts, active_dims: 0.0, vectors: None, cached: None })
            }
        }
    }

    /// The loss of rows of a data set, training (`seed`) or evaluating, and the documents' mean active dims.
    ///
    /// # Errors
    /// Tensor operations, rows out of range, examples of several shapes, labels that are missing.
    pub fn ranking_loss(
        &self,
        set: &DataSet,
        rows: &[usize],
        weights: RegularizerWeights,
        seed: Option<u64>,
    ) -> Result<(LossParts, f64)> {
        let texts = texts_of(set, rows)?;
        self.loss_of_vectors(&self.encode(&texts, seed)?, &texts, weights)
    }

    /// Vectors of texts, training (`seed`) or evaluating.
    fn encode(&self, texts: &Texts<'_>, seed: Option<u64>) -> Result<Embeddings> {
        Ok(Embeddings {
            queries: self.trainee.encode_queries(&texts.queries, seed.map(|seed| seed ^ 1))?,
            documents: self.trainee.encode_documents(&texts.documents, seed)?,
        })
    }

    /// Vectors of texts as variables, encoded in pieces.
    fn encode_in_pieces<'a>(&self, texts: Texts<'a>, size: usize, seed: u64) -> Result<Cached<'a>> {
        let queries = self.encode_cached(Side::Query, &texts.queries, size, seed)?;
        let documents = self.encode_cached(Side::Document, &texts.documents, size, seed)?;
        Ok(Cached { texts, size, queries, documents })
    }

    /// The loss of vectors of these texts, and the documents' mean active dims.
    fn loss_of_vectors(
        &self,
        vectors: &Embeddings,
        texts: &Texts<'_>,
        weights: RegularizerWeights,
    ) -> Result<(LossParts, f64)> {
        let labels = match texts.n_labels {
            0 => None,
            n => {
                let labels = texts.labels.clone();
                Some(Tensor::from_vec(labels, (texts.queries.len(), n), vectors.queries.device())?)
            }
        };
        let active = vectors.documents.detach().ne(0.0)?.to_dtype(DType::F32)?.sum_all()?.to_scalar::<f32>()?;
        let active_dims = f64::from(active) / texts.documents.len().max(1) as f64;
        Ok((self.loss.forward(vectors, labels.as_ref(), weights)?, active_dims))
    }

    fn masked_loss(&self, rows: &[&Piece], seed: Option<u64>) -> Result<LossParts> {
        let masking = self.masking.as_ref().ok_or_else(|| Error::invalid("no mask token", ""))?;
        let mut rng = ChaCha8Rng::seed_from_u64(seed.unwrap_or(0));
        let ids: Vec<&[u32]> = rows.iter().map(|piece| piece.ids.as_slice()).collect();
        let mut batch = TokenBatch::new(&ids, self.trainee.pad());
        let targets = masking.apply(&mut batch, rows, &mut rng);
        if targets.is_empty() {
            return Err(Error::invalid("a batch has no token to mask", "leave out empty texts"));
        }
        let base = mlm_loss(&self.logits_of(&batch, &targets, seed)?, &targets)?;
        let document_regularizer = Tensor::zeros((), base.dtype(), &Device::Cpu)?.to_device(base.device())?;
        Ok(LossParts { base, document_regularizer, query_regularizer: None })
    }

    /// Logits `[n, V]` that predict the picked tokens, and no others.
    fn logits_of(&self, batch: &TokenBatch, targets: &[(u32, u32)], seed: Option<u64>) -> Result<Tensor> {
        let config = self.trainee.config();
        if let Some(a) = seed.and_then(|seed| self.trainee.tape(batch, seed)) {
            let head = config.forward(&a, &a.inputs())?.head;
            let rows = a.rows_of(&head.features, &predicting(&head, targets))?;
            let logits = logits_at(&a, &head, &rows)?;
            return a.attach(&logits);
        }
        let a = self.trainee.algebra(seed);
        let head = config.forward(&a, &a.batch(batch)?)?.head;
        let (rows, width, size) = head.features.dims3()?;
        let at = Tensor::from_vec(predicting(&head, targets), targets.len(), head.features.device())?;
        let rows = head.features.reshape((rows * width, size))?.index_select(&at, 0)?;
        logits_at(&a, &head, &rows)
    }

    /// The weights of the regularizers at a step.
    #[must_use]
    pub fn regularizer_weights(&self, step: usize) -> RegularizerWeights {
        self.regularizers.weights(step)
    }
}

/// The loss of a batch and what it was made of.
struct BatchLoss<'a> {
    parts: LossParts,
    /// of a document, on average
    active_dims: f64,
    /// without gradients; none for running text
    vectors: Option<Embeddings>,
    /// if the texts were encoded in pieces
    cached: Option<Cached<'a>>,
}

/// The texts of some examples.
#[derive(Clone)]
struct Texts<'a> {
    queries: Vec<&'a str>,
    /// the positives, then the first negatives, and so on
    documents: Vec<&'a str>,
    /// those of the first example, then those of the second, and so on
    labels: Vec<f32>,
    /// labels of the first example
    n_labels: usize,
}

/// The texts of rows of a data set.
fn texts_of<'a>(set: &'a DataSet, rows: &[usize]) -> Result<Texts<'a>> {
    let example = |row: &usize| set.examples.get(*row).ok_or_else(|| out_of_range("example", *row));
    let examples = rows.iter().map(example).collect::<Result<Vec<_>>>()?;
    let negatives = examples.first().map_or(0, |example| example.negatives.len());
    if examples.iter().any(|example| example.negatives.len() != negatives) {
        return Err(Error::data_set(&set.name, "its examples have different numbers of negatives", "split it"));
    }
    let mut documents: Vec<&str> = examples.iter().map(|example| example.positive.as_str()).collect();
    for negative in 0..negatives {
        documents.extend(examples.iter().map(|example| example.negatives[negative].as_str()));
    }
    Ok(Texts {
        queries: examples.iter().map(|example| example.anchor.as_str()).collect(),
        documents,
        labels: examples.iter().flat_map(|example| example.labels.iter().copied()).collect(),
        n_labels: examples.first().map_or(0, |example| example.labels.len()),
    })
}

/// Side of an example.
#[derive(Debug, Clone, Copy)]
enum Side {
    Document,
    Query,
}

/// A batch that was encoded in pieces (Gao et al., Scaling Deep Contrastive Learning Batch Size under Memory Limited
/// Setup, 2021).
///
/// The loss needs the vectors of the whole batch, but the network's gradients are sums over its texts. The vectors are
/// therefore computed first, without a graph; the loss gives their gradients; then each piece is encoded a second time,
/// with a graph, and takes its part of those.
struct Cached<'a> {
    texts: Texts<'a>,
    /// texts a piece
    size: usize,
    queries: Var,
    documents: Var,
}

impl Cached<'_> {
    fn vectors(&self) -> Embeddings {
        Embeddings { queries: self.queries.as_tensor().clone(), documents: self.documents.as_tensor().clone() }
    }
}

/// Ranges of at most `size` texts.
fn pieces(texts: &[&str], size: usize) -> impl Iterator<Item = Range<usize>> {
    let end = texts.len();
    (0..end).step_by(size.max(1)).map(move |start| start..(start + size.max(1)).min(end))
}

/// The loss of a config.
fn splade_loss(config: &TrainConfig) -> SpladeLoss {
    let ranking = match config.loss.inner_loss {
        InnerLossType::MultipleNegativesRanking => RankingLoss::MultipleNegativesRanking { scale: config.loss.scale },
        InnerLossType::MarginMse => RankingLoss::MarginMse,
        InnerLossType::DistillKlDiv => RankingLoss::DistillKlDiv { temperature: 2.0 },
    };
    SpladeLoss {
        ranking,
        document_threshold: config.loss.document_regularizer_threshold,
        document_regularizer_only: config.loss.use_document_regularizer_only,
    }
}

fn out_of_range(what: &str, at: usize) -> Error {
    Error::invalid(
        format!("a batch has {what} {at}, which is not in the material"),
        "take batches of a sampler over the same data",
    )
}

/// A seed for each micro-batch, so that a resumed run draws the same numbers as an uninterrupted one.
fn seed_of(seed: u64, step: usize, micro_batch: usize) -> u64 {
    let mut mixed = seed ^ (step as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ (micro_batch as u64) << 48;
    // SplitMix64's finalizer (Steele et al., 2014)
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    (mixed ^ (mixed >> 31)) & !1
}
