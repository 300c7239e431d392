//! [`Session`]: a model, its material, its optimizer and loss, and one optimizer step.

use candle_core::{DType, Device, Tensor};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use splade_core::TokenBatch;

use crate::config::{InnerLossType, Objective, TrainConfig};
use crate::data::{Batch, DataSet, Material};
use crate::loss::{Embeddings, LossParts, LossValues, RankingLoss, RegularizerWeights, SpladeLoss};
use crate::mlm::{Masking, mlm_loss};
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
    schedule: LinearSchedule,
    regularizers: RegularizerSchedule,
    seed: u64,
    warnings: Vec<String>,
}

/// The numbers of a step.
#[derive(Debug, Clone, PartialEq)]
pub struct StepReport {
    /// the loss of each micro-batch
    pub losses: Vec<LossValues>,
    /// the global norm before clipping
    pub grad_norm: f64,
    /// of the first group, times the schedule
    pub learning_rate: f64,
    /// those in force
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
            Objective::Mlm => Some(Masking::new(trainee.vocabulary())?),
            Objective::Retrieval => None,
        };
        Ok(Self {
            loss: splade_loss(config),
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
        let (gradients, losses, active_dims) = self.gradients(step, batches, weights)?;
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
        let mut sum: Option<Gradients> = None;
        let mut active_dims = 0.0;
        let mut losses = Vec::with_capacity(batches.len());
        for (at, batch) in batches.iter().enumerate() {
            let seed = seed_of(self.seed, step, at);
            let (parts, active) = self.loss_of(batch, weights, Some(seed))?;
            active_dims += active / batches.len() as f64;
            let values = parts.values()?;
            if !values.total().is_finite() {
                return Err(Error::NotFinite { step, what: "loss", value: values.total() });
            }
            losses.push(values);
            let total = (parts.total()? / batches.len() as f64)?;
            let gradients = self.optimizer.gradients(&mut total.backward()?)?;
            match &mut sum {
                Some(sum) => sum.add(gradients)?,
                None => sum = Some(gradients),
            }
        }
        let sum = sum.ok_or_else(|| Error::invalid("a step needs at least one batch", ""))?;
        Ok((sum, losses, active_dims))
    }

    /// The loss of a batch of this session's material, and the documents' mean active dims.
    fn loss_of(&self, batch: &Batch, weights: RegularizerWeights, seed: Option<u64>) -> Result<(LossParts, f64)> {
        match &self.material {
            Material::Examples(sets) => {
                let set = sets.get(batch.data_set).ok_or_else(|| out_of_range("data set", batch.data_set))?;
                self.ranking_loss(set, &batch.rows, weights, seed)
            }
            Material::Pieces(pieces) => {
                let piece = |row: &usize| pieces.get(*row).ok_or_else(|| out_of_range("piece", *row));
                let rows = batch.rows.iter().map(|row| Ok(piece(row)?.as_slice())).collect::<Result<Vec<&[u32]>>>()?;
                Ok((self.masked_loss(&rows, seed)?, 0.0))
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
        let example = |row: &usize| set.examples.get(*row).ok_or_else(|| out_of_range("example", *row));
        let examples = rows.iter().map(example).collect::<Result<Vec<_>>>()?;
        let negatives = examples.first().map_or(0, |example| example.negatives.len());
        if examples.iter().any(|example| example.negatives.len() != negatives) {
            return Err(Error::data_set(&set.name, "its examples have different numbers of negatives", "split it"));
        }
        let anchors: Vec<&str> = examples.iter().map(|example| example.anchor.as_str()).collect();
        // all columns in one forward pass, positives first
        let mut documents: Vec<&str> = Vec::with_capacity((1 + negatives) * rows.len());
        documents.extend(examples.iter().map(|example| example.positive.as_str()));
        for negative in 0..negatives {
            documents.extend(examples.iter().map(|example| example.negatives[negative].as_str()));
        }
        let batch = Embeddings {
            queries: self.trainee.encode_queries(&anchors, seed.map(|seed| seed ^ 1))?,
            documents: self.trainee.encode_documents(&documents, seed)?,
        };
        let labels = examples.first().map_or(0, |example| example.labels.len());
        let labels = match labels {
            0 => None,
            n => {
                let values: Vec<f32> = examples.iter().flat_map(|example| example.labels.iter().copied()).collect();
                Some(Tensor::from_vec(values, (rows.len(), n), batch.queries.device())?)
            }
        };
        let active = batch.documents.detach().ne(0.0)?.to_dtype(DType::F32)?.sum_all()?.to_scalar::<f32>()?;
        let active_dims = f64::from(active) / documents.len().max(1) as f64;
        Ok((self.loss.forward(&batch, labels.as_ref(), weights)?, active_dims))
    }

    fn masked_loss(&self, rows: &[&[u32]], seed: Option<u64>) -> Result<LossParts> {
        let masking = self.masking.as_ref().ok_or_else(|| Error::invalid("no mask token", ""))?;
        let mut rng = ChaCha8Rng::seed_from_u64(seed.unwrap_or(0));
        let mut batch = TokenBatch::new(rows, self.trainee.pad());
        let targets = masking.apply(&mut batch, &mut rng);
        if targets.is_empty() {
            return Err(Error::invalid("a batch has no token to mask", "leave out empty texts"));
        }
        let a = self.trainee.algebra(seed);
        let inputs = a.batch(&batch)?;
        let encoded = self.trainee.config().forward(&a, &inputs)?;
        let base = mlm_loss(&a, &encoded.head, &targets)?;
        let document_regularizer = Tensor::zeros((), base.dtype(), &Device::Cpu)?.to_device(base.device())?;
        Ok(LossParts { base, document_regularizer, query_regularizer: None })
    }

    /// The weights of the regularizers at a step.
    #[must_use]
    pub fn regularizer_weights(&self, step: usize) -> RegularizerWeights {
        self.regularizers.weights(step)
    }
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
