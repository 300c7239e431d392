//! Loss: a ranking loss over sparse vectors plus FLOPS regularizers.
//!
//! The functions take rows of weights over the vocabulary, as tensors with gradients. Each term is one matrix product: with
//! a vocabulary of 50 000, a copy of the rows costs more than the loss.

use candle_core::{D, DType, Tensor};

use crate::model::Linear;
use crate::{Error, Result};

/// Vectors of a batch of B examples over a vocabulary of V terms.
#[derive(Debug, Clone)]
pub struct Embeddings {
    /// query vectors `[B, V]`
    pub queries: Tensor,
    /// document vectors `[m · B, V]`: the B positives, then the B first negatives, and so on
    pub documents: Tensor,
}

impl Embeddings {
    /// Returns these vectors without gradients.
    #[must_use]
    pub fn detach(&self) -> Self {
        Self { queries: self.queries.detach(), documents: self.documents.detach() }
    }

    /// Concatenates one tensor `[B, V]` per column of documents, positives first.
    ///
    /// # Errors
    /// Columns of different shapes.
    pub fn from_columns(queries: Tensor, documents: &[Tensor]) -> Result<Self> {
        let documents = if let [only] = documents { only.clone() } else { Tensor::cat(documents, 0)? };
        Ok(Self { queries, documents })
    }

    /// Returns B and the number m of document columns.
    fn shape(&self) -> Result<(usize, usize)> {
        let (n_queries, dims) = self.queries.dims2()?;
        let (n_documents, document_dims) = self.documents.dims2()?;
        if n_queries == 0 || n_documents == 0 || n_documents % n_queries != 0 || dims != document_dims {
            let message = format!(
                "a batch needs as many documents of every column as queries: got queries {:?}, documents {:?}",
                self.queries.dims(),
                self.documents.dims()
            );
            return Err(Error::invalid(message, ""));
        }
        Ok((n_queries, n_documents / n_queries))
    }

    /// q_i · d_j for all pairs, `[B, m · B]`.
    fn all_products(&self) -> Result<Tensor> {
        Ok(self.queries.contiguous()?.apply_op2(&self.documents.contiguous()?, Linear)?)
    }

    /// q_i · d for the documents of example i only, `[B, m]`, positive first.
    fn own_products(&self) -> Result<Tensor> {
        let (n_queries, columns) = self.shape()?;
        let own = |query: usize| (0..columns).map(move |column| (column * n_queries + query) as u32);
        let own: Vec<u32> = (0..n_queries).flat_map(own).collect();
        let own = Tensor::from_vec(own, (n_queries, columns), self.queries.device())?;
        Ok(self.all_products()?.gather(&own, 1)?)
    }
}

/// Ranking loss of a batch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RankingLoss {
    /// Cross-entropy with in-batch negatives: every positive and hard negative of the batch is a candidate for every query.
    MultipleNegativesRanking {
        /// factor on the dot products
        scale: f64,
    },
    /// Margin MSE: mean squared error of the margins against those of a teacher.
    MarginMse,
    /// Distillation: KL divergence from a teacher's distribution over positive and negatives.
    DistillKlDiv {
        /// temperature T of both softmaxes; 2 in the reference
        temperature: f64,
    },
}

impl RankingLoss {
    /// Computes the loss of a batch, a scalar. `labels` `[B, n]` are scores or margins of a teacher, for losses with one.
    ///
    /// # Errors
    /// Shapes that do not fit, missing labels.
    pub fn forward(self, batch: &Embeddings, labels: Option<&Tensor>) -> Result<Tensor> {
        let teacher = || {
            labels.ok_or_else(|| {
                Error::invalid("the ranking loss needs teacher scores, but the examples have no labels", "")
            })
        };
        match self {
            Self::MultipleNegativesRanking { scale } => multiple_negatives_ranking(batch, scale),
            Self::MarginMse => margin_mse(batch, teacher()?),
            Self::DistillKlDiv { temperature } => distill_kl_div(batch, teacher()?, temperature),
        }
    }
}

/// mean_i( logsumexp_j s_ij − s_ii ) over s = scale · q_i · d_j.
fn multiple_negatives_ranking(batch: &Embeddings, scale: f64) -> Result<Tensor> {
    let (n_queries, _) = batch.shape()?;
    let scores = (batch.all_products()? * scale)?;
    let own = Tensor::arange(0, n_queries as u32, scores.device())?.unsqueeze(1)?;
    let positives = scores.gather(&own, 1)?.squeeze(1)?;
    Ok((log_sum_exp(&scores)? - positives)?.mean_all()?)
}

/// mean((margin − label)²), where a margin is positive score − negative score.
///
/// Labels are margins [B] or [B, n], or scores [B, n + 1] with the positive's first.
fn margin_mse(batch: &Embeddings, labels: &Tensor) -> Result<Tensor> {
    let (_, columns) = batch.shape()?;
    let n_negatives = columns - 1;
    let labels = if labels.rank() == 1 { labels.unsqueeze(1)? } else { labels.clone() };
    let n_labels = labels.dim(1)?;
    if n_negatives == 0 || (n_labels != n_negatives && n_labels != columns) {
        let message = format!(
            "margin MSE with {n_negatives} negatives needs {n_negatives} margins or {columns} scores a row, got {n_labels}"
        );
        return Err(Error::invalid(message, "give every row a negative and its labels"));
    }
    let wanted = if n_labels == columns { margins(&labels)? } else { labels };
    Ok((margins(&batch.own_products()?)? - wanted)?.sqr()?.mean_all()?)
}

/// First column minus each of the others: [B, n + 1] → [B, n].
fn margins(scores: &Tensor) -> Result<Tensor> {
    let n_others = scores.dim(1)? - 1;
    Ok(scores.narrow(1, 0, 1)?.broadcast_sub(&scores.narrow(1, 1, n_others)?)?)
}

/// T² · mean_i Σ_c p_c (log p_c − log softmax(s / T)_c) with p = softmax(teacher / T).
fn distill_kl_div(batch: &Embeddings, labels: &Tensor, temperature: f64) -> Result<Tensor> {
    let (n_queries, columns) = batch.shape()?;
    if columns < 2 || labels.dims() != [n_queries, columns] {
        let message = format!(
            "distillation needs a negative, and {columns} teacher scores a row for {n_queries} rows, got {:?}",
            labels.dims()
        );
        return Err(Error::invalid(message, "give every row a negative and a score for each document"));
    }
    let student = log_softmax(&(batch.own_products()? / temperature)?)?;
    let teacher = log_softmax(&(labels / temperature)?)?.detach();
    let divergence = (teacher.exp()? * (&teacher - student)?)?.sum_all()?;
    Ok((divergence * (temperature * temperature / n_queries as f64))?)
}

fn log_softmax(scores: &Tensor) -> Result<Tensor> {
    Ok(scores.broadcast_sub(&log_sum_exp(scores)?.unsqueeze(1)?)?)
}

/// log Σ exp over each row. The maximum is detached from the graph, since its gradient cancels.
fn log_sum_exp(scores: &Tensor) -> Result<Tensor> {
    let max = scores.max_keepdim(D::Minus1)?.detach();
    let sum = scores.broadcast_sub(&max)?.exp()?.sum(D::Minus1)?;
    Ok((sum.log()? + max.squeeze(D::Minus1)?)?)
}

/// FLOPS regularizer: Σ_v (mean over rows of weight v)² over the rows of one or several blocks `[n, V]`.
///
/// Rows with at most `threshold` active dims count as zero rows; the mean is still over all rows.
///
/// # Errors
/// A tensor operation that fails.
pub fn flops(blocks: &[&Tensor], threshold: Option<usize>) -> Result<Tensor> {
    let mut n_rows = 0;
    let mut sums: Option<Tensor> = None;
    for rows in blocks {
        n_rows += rows.dim(0)?;
        // a product with a row of ones, since candle's sum over the first axis is not vectorized
        let sum = counted_rows(rows, threshold)?.matmul(&rows.contiguous()?)?;
        sums = Some(match sums {
            Some(sums) => (sums + sum)?,
            None => sum,
        });
    }
    let sums = sums.ok_or_else(|| Error::invalid("a regularizer needs vectors", ""))?;
    Ok((sums / n_rows.max(1) as f64)?.sqr()?.sum_all()?)
}

/// 1 for each row that is regularized, 0 for the others, `[1, n]`.
fn counted_rows(rows: &Tensor, threshold: Option<usize>) -> Result<Tensor> {
    let n_rows = rows.dim(0)?;
    let Some(threshold) = threshold else {
        return Ok(Tensor::ones((1, n_rows), rows.dtype(), rows.device())?);
    };
    let active_dims = rows.detach().ne(0.0)?.to_dtype(DType::F32)?.sum(1)?;
    Ok(active_dims.gt(threshold as f64)?.to_dtype(rows.dtype())?.unsqueeze(0)?)
}

/// Weights of the regularizers at one step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RegularizerWeights {
    /// λ_d
    pub document: f64,
    /// λ_q; none for no term, also in the log
    pub query: Option<f64>,
}

/// A ranking loss with FLOPS regularizers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SpladeLoss {
    /// ranking loss
    pub ranking: RankingLoss,
    /// number of active dims up to which documents are not regularized
    pub document_threshold: Option<usize>,
    /// true for one regularizer over queries and documents together, with the weight λ_d
    pub document_regularizer_only: bool,
}

/// Terms of the loss of a micro-batch: scalars, multiplied by their weights.
#[derive(Debug, Clone)]
pub struct LossParts {
    /// ranking loss
    pub base: Tensor,
    /// λ_d · FLOPS of the documents.
    pub document_regularizer: Tensor,
    /// λ_q · FLOPS of the queries; none without this term
    pub query_regularizer: Option<Tensor>,
}

impl LossParts {
    /// Sum of the terms.
    ///
    /// # Errors
    /// A tensor operation.
    pub fn total(&self) -> Result<Tensor> {
        let regularized = (&self.base + &self.document_regularizer)?;
        Ok(match &self.query_regularizer {
            Some(term) => (regularized + term)?,
            None => regularized,
        })
    }

    /// Returns the terms as numbers.
    ///
    /// # Errors
    /// A tensor operation.
    pub fn values(&self) -> Result<LossValues> {
        let value = |term: &Tensor| -> Result<f64> { Ok(f64::from(term.to_dtype(DType::F32)?.to_scalar::<f32>()?)) };
        Ok(LossValues {
            base: value(&self.base)?,
            document_regularizer: value(&self.document_regularizer)?,
            query_regularizer: self.query_regularizer.as_ref().map(value).transpose()?,
        })
    }
}

/// Values of [`LossParts`].
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct LossValues {
    /// ranking loss
    pub base: f64,
    /// λ_d · FLOPS of the documents.
    pub document_regularizer: f64,
    /// λ_q · FLOPS of the queries; none without this term
    pub query_regularizer: Option<f64>,
}

impl LossValues {
    /// Sum of the terms.
    #[must_use]
    pub fn total(&self) -> f64 {
        self.base + self.document_regularizer + self.query_regularizer.unwrap_or(0.0)
    }
}

impl SpladeLoss {
    /// Computes the terms of the loss of a micro-batch. A term of weight 0 is 0 and is not computed.
    ///
    /// # Errors
    /// Shapes that do not fit, missing labels.
    pub fn forward(
        &self,
        batch: &Embeddings,
        labels: Option<&Tensor>,
        weights: RegularizerWeights,
    ) -> Result<LossParts> {
        let base = self.ranking.forward(batch, labels)?;
        let weighted = |weight: f64, blocks: &[&Tensor], threshold: Option<usize>| -> Result<Tensor> {
            if weight == 0.0 {
                return Ok(base.zeros_like()?.detach());
            }
            Ok((flops(blocks, threshold)? * weight)?)
        };
        let (document_regularizer, query_regularizer) = if self.document_regularizer_only {
            (weighted(weights.document, &[&batch.queries, &batch.documents], self.document_threshold)?, None)
        } else {
            let document = weighted(weights.document, &[&batch.documents], self.document_threshold)?;
            (document, weights.query.map(|weight| weighted(weight, &[&batch.queries], None)).transpose()?)
        };
        Ok(LossParts { base, document_regularizer, query_regularizer })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use candle_core::{Device, Var};

    use super::*;

    const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/sparse-encoder/losses");

    struct Golden {
        tensors: HashMap<String, Tensor>,
        values: HashMap<String, f64>,
    }

    impl Golden {
        fn read() -> Self {
            let values = std::fs::read_to_string(format!("{FIXTURES}/expected.json")).unwrap();
            let tensors = candle_core::safetensors::load(format!("{FIXTURES}/tensors.safetensors"), &Device::Cpu);
            Self { tensors: tensors.unwrap(), values: serde_json::from_str(&values).unwrap() }
        }

        fn columns(&self, n: usize) -> Vec<Var> {
            (0..n).map(|n| Var::from_tensor(&self.tensors[&format!("embedding_{n}")]).unwrap()).collect()
        }

        /// Compares a loss and its gradients.
        fn check(&self, case: &str, loss: &Tensor, columns: &[Var]) {
            let (value, expected) = (f64::from(loss.to_scalar::<f32>().unwrap()), self.values[case]);
            assert!((value - expected).abs() <= 1e-5 * expected.abs() + 1e-7, "{case}: {value}, not {expected}");
            let gradients = loss.backward().unwrap();
            for (n, column) in columns.iter().enumerate() {
                let expected = &self.tensors[&format!("{case}.grad_{n}")];
                let zeros = expected.zeros_like().unwrap();
                let gradient = gradients.get(column).unwrap_or(&zeros);
                let scale = max_abs(expected).max(1e-3);
                let difference = max_abs(&(gradient - expected).unwrap());
                assert!(difference <= 1e-5 * scale, "{case}.grad_{n}: off by {difference} at a scale of {scale}");
            }
        }
    }

    fn max_abs(tensor: &Tensor) -> f32 {
        tensor.abs().unwrap().max_all().unwrap().to_scalar().unwrap()
    }

    fn batch(columns: &[Var]) -> Embeddings {
        let documents: Vec<Tensor> = columns[1..].iter().map(|column| column.as_tensor().clone()).collect();
        Embeddings::from_columns(columns[0].as_tensor().clone(), &documents).unwrap()
    }

    #[test]
    fn ranking_losses_and_gradients_are_those_of_the_reference() {
        let golden = Golden::read();
        let ranking = |scale| RankingLoss::MultipleNegativesRanking { scale };
        let cases = [
            ("mnrl_scale1_cols2", 2, ranking(1.0), None),
            ("mnrl_scale1_cols3", 3, ranking(1.0), None),
            ("mnrl_scale1_cols4", 4, ranking(1.0), None),
            ("mnrl_scale20_cols2", 2, ranking(20.0), None),
            ("mnrl_scale20_cols3", 3, ranking(20.0), None),
            ("mnrl_scale20_cols4", 4, ranking(20.0), None),
            ("margin_mse_1neg_labels1", 3, RankingLoss::MarginMse, Some("labels_1")),
            ("margin_mse_1neg_labels2", 3, RankingLoss::MarginMse, Some("labels_2")),
            ("margin_mse_2neg_labels2", 4, RankingLoss::MarginMse, Some("labels_2")),
            ("margin_mse_2neg_labels3", 4, RankingLoss::MarginMse, Some("labels_3")),
        ];
        for (case, n_columns, loss, labels) in cases {
            let columns = golden.columns(n_columns);
            let labels = labels.map(|name| &golden.tensors[name]);
            golden.check(case, &loss.forward(&batch(&columns), labels).unwrap(), &columns);
        }
        let distillation = [("distill_kl_t2_cols4", 4, 2.0, "labels_3"), ("distill_kl_t1_cols3", 3, 1.0, "labels_2")];
        for (case, n_columns, temperature, labels) in distillation {
            let columns = golden.columns(n_columns);
            let loss = RankingLoss::DistillKlDiv { temperature };
            golden.check(case, &loss.forward(&batch(&columns), Some(&golden.tensors[labels])).unwrap(), &columns);
        }
    }

    #[test]
    fn cosine_similarity_is_the_same_loss_over_unit_vectors() {
        let golden = Golden::read();
        let columns = golden.columns(3);
        let unit = |column: &Var| {
            // The reference's smallest norm, which one all-zero row of the fixture has.
            let norm = (column.sqr().unwrap().sum_keepdim(1).unwrap() + 1e-24).unwrap().sqrt().unwrap();
            column.broadcast_div(&norm).unwrap()
        };
        let documents: Vec<Tensor> = columns[1..].iter().map(unit).collect();
        let batch = Embeddings::from_columns(unit(&columns[0]), &documents).unwrap();
        let loss = RankingLoss::MultipleNegativesRanking { scale: 20.0 }.forward(&batch, None).unwrap();
        golden.check("mnrl_cos_scale20_cols3", &loss, &columns);
    }

    #[test]
    fn flops_and_its_gradients_are_those_of_the_reference() {
        let golden = Golden::read();
        for (case, threshold) in
            [("flops_threshold_None", None), ("flops_threshold_5", Some(5)), ("flops_threshold_9", Some(9))]
        {
            let columns = golden.columns(1);
            golden.check(case, &flops(&[columns[0].as_tensor()], threshold).unwrap(), &columns);
        }
        let columns = golden.columns(3);
        let documents = [columns[1].as_tensor(), columns[2].as_tensor()];
        let case = "flops_documents_concat";
        golden.check(case, &flops(&documents, None).unwrap(), &columns);
        golden.check(case, &flops(&[&Tensor::cat(&documents, 0).unwrap()], None).unwrap(), &columns);
    }

    #[test]
    fn flops_agrees_with_its_plain_twin() {
        let rows = Tensor::randn(0f32, 1.0, (7, 301), &Device::Cpu).unwrap().relu().unwrap();
        let plain = rows.mean(0).unwrap().sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
        let ours = flops(&[&rows], None).unwrap().to_scalar::<f32>().unwrap();
        assert!((ours - plain).abs() < 1e-4 * plain, "{ours}, not {plain}");
    }

    fn splade_loss(document_regularizer_only: bool) -> SpladeLoss {
        let ranking = RankingLoss::MultipleNegativesRanking { scale: 1.0 };
        SpladeLoss { ranking, document_threshold: None, document_regularizer_only }
    }

    #[test]
    fn terms_carry_their_weights_and_add_up() {
        let golden = Golden::read();
        let batch = batch(&golden.columns(3));
        let weights = RegularizerWeights { document: 0.5, query: Some(0.25) };
        let parts = splade_loss(false).forward(&batch, None, weights).unwrap();
        let values = parts.values().unwrap();
        let query = golden.values["flops_threshold_None"] * 0.25;
        assert!((values.query_regularizer.unwrap() - query).abs() < 1e-5);
        assert!((values.base - golden.values["mnrl_scale1_cols3"]).abs() < 1e-5);
        let total = f64::from(parts.total().unwrap().to_scalar::<f32>().unwrap());
        assert!((total - values.total()).abs() < 1e-5);

        let documents = golden.values["flops_documents_concat"] * 0.5;
        assert!((values.document_regularizer - documents).abs() < 1e-5);

        let together = splade_loss(true).forward(&batch, None, weights).unwrap().values().unwrap();
        let all = Tensor::cat(&[&batch.queries, &batch.documents], 0).unwrap();
        let expected = 0.5 * f64::from(flops(&[&all], None).unwrap().to_scalar::<f32>().unwrap());
        assert!((together.document_regularizer - expected).abs() < 1e-5);
        assert_eq!(together.query_regularizer, None);
    }

    #[test]
    fn a_term_of_weight_zero_is_zero_and_no_term_is_none() {
        let batch = batch(&Golden::read().columns(2));
        let values = |query| {
            let weights = RegularizerWeights { document: 0.0, query };
            splade_loss(false).forward(&batch, None, weights).unwrap().values().unwrap()
        };
        assert_eq!((values(Some(0.0)).document_regularizer, values(Some(0.0)).query_regularizer), (0.0, Some(0.0)));
        assert_eq!(values(None).query_regularizer, None);
    }

    #[test]
    fn batches_that_do_not_fit_are_refused() {
        let rows = |n: usize| Tensor::ones((n, 3), DType::F32, &Device::Cpu).unwrap();
        let odd = Embeddings { queries: rows(2), documents: rows(3) };
        let ranking = RankingLoss::MultipleNegativesRanking { scale: 1.0 };
        let message = ranking.forward(&odd, None).unwrap_err().to_string();
        assert_eq!(
            message,
            "a batch needs as many documents of every column as queries: got queries [2, 3], documents [3, 3]"
        );
        let pairs = Embeddings { queries: rows(2), documents: rows(2) };
        assert!(RankingLoss::MarginMse.forward(&pairs, None).unwrap_err().to_string().contains("no labels"));
        let message = RankingLoss::MarginMse.forward(&pairs, Some(&rows(2))).unwrap_err().to_string();
        assert_eq!(message, "margin MSE with 0 negatives needs 0 margins or 1 scores a row, got 3");
        let distillation = RankingLoss::DistillKlDiv { temperature: 2.0 };
        assert!(
            distillation.forward(&pairs, Some(&rows(2))).unwrap_err().to_string().starts_with("distillation needs")
        );
    }
}
