//! AdamW with one group per learning rate and decay, clipping, and moments that can be saved.
//!
//! On the CPU an update is one pass over weights, gradients and moments together, in parallel over pieces of fixed
//! size: the result is the same bit for bit with any number of threads. On other devices, and in the tests to compare
//! with, it is written in tensor operations.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::LazyLock;

use candle_core::backprop::GradStore;
use candle_core::{CpuStorage, DType, Device, InplaceOp2, Layout, Storage, Tensor, Var};
use rayon::prelude::*;
use regex::Regex;

use crate::{Error, Result};

/// Numbers updated, or summed, by one thread at a time.
const PIECE: usize = 1 << 15;

/// The part of a model that a parameter belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ModelPart {
    /// The query table of an inference-free model.
    QueryTable,
    /// The document network of an inference-free model.
    Document,
    /// The one network of a regular model.
    Shared,
}

/// A tensor that is trained. A tensor used twice, as an embedding tied to the head, is one parameter under the
/// embedding's name.
#[derive(Debug, Clone)]
pub struct Parameter {
    part: ModelPart,
    name: String,
    var: Var,
    in_norm_layer: bool,
}

impl Parameter {
    /// A parameter by its name in the model's file, like `bert.embeddings.word_embeddings.weight`.
    #[must_use]
    pub fn new(part: ModelPart, name: impl Into<String>, var: Var) -> Self {
        Self { part, name: name.into(), var, in_norm_layer: false }
    }

    /// Marks it as part of a normalization layer, if its name does not show this.
    #[must_use]
    pub fn in_norm_layer(mut self) -> Self {
        self.in_norm_layer = true;
        self
    }

    /// The tensor.
    #[must_use]
    pub fn var(&self) -> &Var {
        &self.var
    }

    /// Its key in our files: `query/weight`, `document/bert.…`, `model/bert.…`.
    #[must_use]
    pub fn key(&self) -> String {
        let part = match self.part {
            ModelPart::QueryTable => "query",
            ModelPart::Document => "document",
            ModelPart::Shared => "model",
        };
        format!("{part}/{}", self.name)
    }

    /// Its name in the reference's trainer, which `learning_rate_patterns` match.
    #[must_use]
    pub fn reference_name(&self) -> String {
        match self.part {
            ModelPart::QueryTable => format!("model.0.sub_modules.query.0.{}", self.name),
            ModelPart::Document => format!("model.0.sub_modules.document.0.model.{}", self.name),
            ModelPart::Shared => format!("model.0.model.{}", self.name),
        }
    }

    /// The reference decays every weight but biases and those of normalization layers; the query table is decayed.
    fn is_decayed(&self) -> bool {
        static NOT_DECAYED: LazyLock<Regex> = LazyLock::new(|| {
            Regex::new(r"(?i)bias|layernorm|rmsnorm|(?:^|\.)norm(?:$|\.)|_norm(?:$|\.)")
                .expect("a fixed, tested pattern")
        });
        !self.in_norm_layer && !NOT_DECAYED.is_match(&self.name)
    }
}

/// The settings of the optimizer.
#[derive(Debug, Clone, PartialEq)]
pub struct OptimizerSettings {
    /// Learning rate of the parameters that no other setting is about.
    pub learning_rate: f64,
    /// Learning rate of the query table.
    pub query_learning_rate: f64,
    /// Regex on [`Parameter::reference_name`] → learning rate, in order; a later one wins.
    pub learning_rate_patterns: Vec<(String, f64)>,
    /// Decoupled, times the learning rate.
    pub weight_decay: f64,
    /// Gradients are scaled down to this global norm; 0 switches it off.
    pub max_grad_norm: f64,
}

/// Parameters with the same learning rate and decay.
#[derive(Debug, Clone, PartialEq)]
pub struct ParameterGroup {
    /// Before the schedule's multiplier.
    pub learning_rate: f64,
    /// Before the learning rate.
    pub weight_decay: f64,
    /// Indices into the list of parameters.
    pub parameters: Vec<usize>,
}

/// Divides parameters into the reference's groups: the base group with and without decay, then two for each learning
/// rate of its own; empty ones are left out. The second list holds warnings.
///
/// # Errors
/// A pattern that is no regular expression or matches nothing.
pub fn parameter_groups(
    parameters: &[Parameter],
    settings: &OptimizerSettings,
) -> Result<(Vec<ParameterGroup>, Vec<String>)> {
    let mut warnings = Vec::new();
    // The group of learning rates each parameter is in: 0 the base, 1 the query table's, then one per pattern.
    let mut chosen: Vec<usize> =
        parameters.iter().map(|parameter| usize::from(parameter.part == ModelPart::QueryTable)).collect();
    let mut rates = vec![settings.learning_rate, settings.query_learning_rate];
    for (pattern, rate) in &settings.learning_rate_patterns {
        let matches = matching(parameters, pattern)?;
        warnings.extend(query_pattern_warning(parameters, &matches, pattern, *rate));
        rates.push(*rate);
        matches.iter().for_each(|&parameter| chosen[parameter] = rates.len() - 1);
    }
    let mut groups = Vec::new();
    for (group, &learning_rate) in rates.iter().enumerate() {
        for decayed in [true, false] {
            let member = |&at: &usize| chosen[at] == group && parameters[at].is_decayed() == decayed;
            let members: Vec<usize> = (0..parameters.len()).filter(member).collect();
            if !members.is_empty() {
                let weight_decay = if decayed { settings.weight_decay } else { 0.0 };
                groups.push(ParameterGroup { learning_rate, weight_decay, parameters: members });
            }
        }
    }
    Ok((groups, warnings))
}

/// The parameters whose reference name a pattern finds.
fn matching(parameters: &[Parameter], pattern: &str) -> Result<Vec<usize>> {
    let key = format!("router.learning_rate_patterns.{pattern}");
    let regex = Regex::new(pattern).map_err(|error| Error::config(&key, error.to_string(), ""))?;
    let matches: Vec<usize> =
        (0..parameters.len()).filter(|&at| regex.is_match(&parameters[at].reference_name())).collect();
    if matches.is_empty() {
        let example = parameters.first().map(Parameter::reference_name).unwrap_or_default();
        return Err(Error::config(key, "matches no parameter", format!("names look like `{example}`")));
    }
    Ok(matches)
}

/// A warning about a pattern for the query table that also matches the document network, as the Python project's own does:
/// `.*\.query\..*` matches BERT's `attention.self.query`, which is then trained at the table's rate.
fn query_pattern_warning(parameters: &[Parameter], matches: &[usize], pattern: &str, rate: f64) -> Option<String> {
    let in_part = |part| matches.iter().filter(|&&at| parameters[at].part == part).collect::<Vec<_>>();
    let (table, document) = (in_part(ModelPart::QueryTable), in_part(ModelPart::Document));
    let first = &parameters[**document.first().filter(|_| !table.is_empty())?];
    Some(format!(
        "router.learning_rate_patterns: `{pattern}` also matches {} tensors of the document network, like `{}`, which are \
         trained at {rate:e}; if it is meant for the query table, write `sub_modules\\.query\\.`",
        document.len(),
        first.reference_name()
    ))
}

/// Gradients, one per parameter in the optimizer's order; none for a parameter the loss did not touch.
#[derive(Debug, Clone, Default)]
pub struct Gradients(Vec<Option<Tensor>>);

impl Gradients {
    /// Takes the gradients of `parameters` from the result of a backward pass, contiguous as the parameters are.
    ///
    /// # Errors
    /// A tensor operation.
    pub fn take(parameters: &[Parameter], store: &mut GradStore) -> Result<Self> {
        // detached: what candle returns may hold the graph it was made from
        let take = |parameter: &Parameter| {
            store.remove(parameter.var()).map(|gradient| gradient.detach().contiguous()).transpose()
        };
        Ok(Self(parameters.iter().map(take).collect::<candle_core::Result<_>>()?))
    }

    /// Adds the gradients of another micro-batch of the same step.
    ///
    /// # Errors
    /// A tensor operation.
    pub fn add(&mut self, other: Self) -> Result<()> {
        self.0.resize(self.0.len().max(other.0.len()), None);
        for (sum, gradient) in self.0.iter_mut().zip(other.0) {
            *sum = match (sum.take(), gradient) {
                (Some(sum), Some(gradient)) => Some((sum + gradient)?),
                (sum, gradient) => sum.or(gradient),
            };
        }
        Ok(())
    }

    /// The gradient of a parameter by its index.
    #[must_use]
    pub fn get(&self, parameter: usize) -> Option<&Tensor> {
        self.0.get(parameter)?.as_ref()
    }

    /// The global L2 norm over all parameters, summed in f64 in a fixed order.
    ///
    /// # Errors
    /// A tensor operation.
    pub fn norm(&self) -> Result<f64> {
        let mut sum = 0.0;
        for gradient in self.0.iter().flatten() {
            sum += sum_of_squares(gradient)?;
        }
        Ok(sum.sqrt())
    }
}

fn sum_of_squares(tensor: &Tensor) -> Result<f64> {
    let tensor = tensor.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    if let (Storage::Cpu(CpuStorage::F32(values)), Some((start, end))) = (&*storage, layout.contiguous_offsets()) {
        return Ok(sum_of_squares_f32(&values[start..end]));
    }
    drop(storage);
    let sum = tensor.to_dtype(DType::F32)?.sqr()?.sum_all()?.to_scalar::<f32>()?;
    Ok(f64::from(sum))
}

/// Pieces of fixed size are summed apart and then in order, so that threads do not change the sum.
fn sum_of_squares_f32(values: &[f32]) -> f64 {
    // Eight sums side by side let the compiler use vector registers.
    let piece = |values: &[f32]| {
        let mut sums = [0.0f64; 8];
        let (eights, rest) = values.as_chunks::<8>();
        for eight in eights {
            for (sum, &value) in sums.iter_mut().zip(eight) {
                *sum += f64::from(value) * f64::from(value);
            }
        }
        sums.iter().sum::<f64>() + rest.iter().map(|&value| f64::from(value) * f64::from(value)).sum::<f64>()
    };
    let sums: Vec<f64> = values.par_chunks(PIECE).map(piece).collect();
    sums.iter().sum()
}

/// First and second moments of a parameter's gradient.
#[derive(Debug)]
enum Moments {
    /// On the CPU, in f32, flat.
    Flat(Vec<f32>, Vec<f32>),
    /// On another device.
    Tensors(Tensor, Tensor),
}

impl Moments {
    fn zeros(var: &Var) -> Result<Self> {
        if var.device().is_cpu() && var.dtype() == DType::F32 {
            let n = var.elem_count();
            return Ok(Self::Flat(vec![0.0; n], vec![0.0; n]));
        }
        Ok(Self::Tensors(var.zeros_like()?.detach(), var.zeros_like()?.detach()))
    }

    fn to_tensors(&self, shape: &candle_core::Shape) -> Result<[Tensor; 2]> {
        Ok(match self {
            Self::Flat(first, second) => [
                Tensor::from_slice(first, shape.clone(), &Device::Cpu)?,
                Tensor::from_slice(second, shape.clone(), &Device::Cpu)?,
            ],
            Self::Tensors(first, second) => [first.clone(), second.clone()],
        })
    }

    fn from_tensors(first: &Tensor, second: &Tensor, var: &Var) -> Result<Self> {
        let same = |tensor: &Tensor| tensor.to_device(var.device())?.to_dtype(var.dtype());
        let (first, second) = (same(first)?, same(second)?);
        if var.device().is_cpu() && var.dtype() == DType::F32 {
            return Ok(Self::Flat(first.flatten_all()?.to_vec1()?, second.flatten_all()?.to_vec1()?));
        }
        Ok(Self::Tensors(first, second))
    }
}

/// Numbers of one update, equal for every element of a group.
#[derive(Debug, Clone, Copy)]
struct Update {
    /// 1 − lr · decay
    keep: f64,
    /// lr / (1 − β₁ᵗ)
    step_size: f64,
    /// √(1 − β₂ᵗ)
    second_correction: f64,
    /// factor of the gradients, to clip them
    gradient_scale: f64,
}

const BETA_1: f64 = 0.9;
const BETA_2: f64 = 0.999;
const EPSILON: f64 = 1e-8;

impl Update {
    fn new(learning_rate: f64, weight_decay: f64, step: usize, gradient_scale: f64) -> Self {
        let power = i32::try_from(step).unwrap_or(i32::MAX);
        Self {
            keep: 1.0 - learning_rate * weight_decay,
            step_size: learning_rate / (1.0 - BETA_1.powi(power)),
            second_correction: (1.0 - BETA_2.powi(power)).sqrt(),
            gradient_scale,
        }
    }

    fn apply(self, var: &Var, gradient: &Tensor, moments: &mut Moments) -> Result<()> {
        match moments {
            Moments::Flat(first, second) => {
                let update = FlatUpdate { update: self, moments: RefCell::new((first, second)) };
                var.inplace_op2(&gradient.contiguous()?, &update)?;
            }
            Moments::Tensors(first, second) => self.apply_by_tensors(var, gradient, first, second)?,
        }
        Ok(())
    }

    /// Applies the update of [`FlatUpdate`] in tensor operations.
    fn apply_by_tensors(self, var: &Var, gradient: &Tensor, first: &mut Tensor, second: &mut Tensor) -> Result<()> {
        let gradient = (gradient.to_dtype(var.dtype())? * self.gradient_scale)?;
        *first = ((&*first * BETA_1)? + (&gradient * (1.0 - BETA_1))?)?.detach();
        *second = ((&*second * BETA_2)? + (gradient.sqr()? * (1.0 - BETA_2))?)?.detach();
        let denominator = ((second.sqrt()? / self.second_correction)? + EPSILON)?;
        let weights = ((var.as_detached_tensor() * self.keep)? - (&*first * self.step_size)?.div(&denominator)?)?;
        Ok(var.set(&weights)?)
    }
}

/// An [`Update`] of f32 on the CPU, in one pass.
struct FlatUpdate<'a> {
    update: Update,
    moments: RefCell<(&'a mut Vec<f32>, &'a mut Vec<f32>)>,
}

impl InplaceOp2 for FlatUpdate<'_> {
    fn name(&self) -> &'static str {
        "adamw"
    }

    fn cpu_fwd(
        &self,
        weights: &mut CpuStorage,
        weights_layout: &Layout,
        gradient: &CpuStorage,
        gradient_layout: &Layout,
    ) -> candle_core::Result<()> {
        let mut moments = self.moments.borrow_mut();
        let (CpuStorage::F32(weights), CpuStorage::F32(gradient)) = (weights, gradient) else {
            candle_core::bail!("adamw: weights and gradients must be f32");
        };
        let (Some((start, end)), Some((gradient_start, gradient_end))) =
            (weights_layout.contiguous_offsets(), gradient_layout.contiguous_offsets())
        else {
            candle_core::bail!("adamw: weights and gradients must be contiguous");
        };
        let (weights, gradient) = (&mut weights[start..end], &gradient[gradient_start..gradient_end]);
        let (first, second) = &mut *moments;
        if weights.len() != gradient.len() || weights.len() != first.len() {
            candle_core::bail!("adamw: {} weights, {} gradients", weights.len(), gradient.len());
        }
        self.update.flat(weights, gradient, first, second);
        Ok(())
    }
}

impl Update {
    fn flat(self, weights: &mut [f32], gradient: &[f32], first: &mut [f32], second: &mut [f32]) {
        let (keep, step_size) = (self.keep as f32, self.step_size as f32);
        let (correction, scale) = (self.second_correction as f32, self.gradient_scale as f32);
        let (beta_1, rest_1) = (BETA_1 as f32, (1.0 - BETA_1) as f32);
        let (beta_2, rest_2) = (BETA_2 as f32, (1.0 - BETA_2) as f32);
        weights
            .par_chunks_mut(PIECE)
            .zip(gradient.par_chunks(PIECE))
            .zip(first.par_chunks_mut(PIECE).zip(second.par_chunks_mut(PIECE)))
            .for_each(|((weights, gradient), (first, second))| {
                let moments = first.iter_mut().zip(second);
                for ((weight, &gradient), (first, second)) in weights.iter_mut().zip(gradient).zip(moments) {
                    let gradient = gradient * scale;
                    *first = *first * beta_1 + gradient * rest_1;
                    *second = *second * beta_2 + gradient * gradient * rest_2;
                    *weight = *weight * keep - *first * step_size / (second.sqrt() / correction + EPSILON as f32);
                }
            });
    }
}

/// AdamW (Loshchilov and Hutter 2019) with betas 0.9 and 0.999 and epsilon 1e-8, as torch computes it.
#[derive(Debug)]
pub struct AdamW {
    parameters: Vec<Parameter>,
    groups: Vec<ParameterGroup>,
    moments: Vec<Moments>,
    max_grad_norm: f64,
    steps: usize,
}

impl AdamW {
    /// For `parameters` in the groups of [`parameter_groups`], whose warnings come back too.
    ///
    /// # Errors
    /// A pattern that is no regular expression or matches nothing.
    pub fn new(parameters: Vec<Parameter>, settings: &OptimizerSettings) -> Result<(Self, Vec<String>)> {
        let (groups, warnings) = parameter_groups(&parameters, settings)?;
        let moments = parameters.iter().map(|parameter| Moments::zeros(parameter.var())).collect::<Result<_>>()?;
        Ok((Self { parameters, groups, moments, max_grad_norm: settings.max_grad_norm, steps: 0 }, warnings))
    }

    /// The parameters that are trained.
    #[must_use]
    pub fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// In the reference's order.
    #[must_use]
    pub fn groups(&self) -> &[ParameterGroup] {
        &self.groups
    }

    /// Steps taken, those before a resume included.
    #[must_use]
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// The gradients of a backward pass, in this optimizer's order.
    ///
    /// # Errors
    /// A tensor operation.
    pub fn gradients(&self, store: &mut GradStore) -> Result<Gradients> {
        Gradients::take(&self.parameters, store)
    }

    /// Clips the gradients and moves the parameters; `multiplier` is the schedule's. Returns the norm before clipping.
    ///
    /// # Errors
    /// A norm that is not finite (nothing has been moved then), or a tensor operation.
    pub fn step(&mut self, gradients: &Gradients, multiplier: f64) -> Result<f64> {
        let norm = gradients.norm()?;
        if !norm.is_finite() {
            return Err(Error::not_finite(self.steps, "gradient norm", norm));
        }
        // The small constant is the reference's.
        let clipped = if self.max_grad_norm > 0.0 { (self.max_grad_norm / (norm + 1e-6)).min(1.0) } else { 1.0 };
        self.steps += 1;
        for group in &self.groups {
            let update = Update::new(group.learning_rate * multiplier, group.weight_decay, self.steps, clipped);
            for &parameter in &group.parameters {
                if let Some(gradient) = gradients.get(parameter) {
                    update.apply(self.parameters[parameter].var(), gradient, &mut self.moments[parameter])?;
                }
            }
        }
        Ok(norm)
    }

    /// Everything a resumed run needs: `step`, and for each parameter `<key>.first` and `<key>.second`.
    ///
    /// # Errors
    /// A tensor operation.
    pub fn state(&self) -> Result<HashMap<String, Tensor>> {
        let mut state = HashMap::with_capacity(2 * self.parameters.len() + 1);
        state.insert("step".to_owned(), Tensor::new(&[self.steps as i64], &Device::Cpu)?);
        for (parameter, moments) in self.parameters.iter().zip(&self.moments) {
            let [first, second] = moments.to_tensors(parameter.var().shape())?;
            state.insert(format!("{}.first", parameter.key()), first);
            state.insert(format!("{}.second", parameter.key()), second);
        }
        Ok(state)
    }

    /// Takes up a [`state`](Self::state) again.
    ///
    /// # Errors
    /// A tensor that is missing or has another shape: the state is that of another model.
    pub fn restore(&mut self, state: &HashMap<String, Tensor>) -> Result<()> {
        let wrong = |what: String| {
            Error::invalid(format!("the saved optimizer {what}"), "resume with the same model and config")
        };
        let tensor = |name: &str| state.get(name).ok_or_else(|| wrong(format!("has no `{name}`")));
        let step = tensor("step")?.flatten_all()?.to_dtype(DType::I64)?.to_vec1::<i64>()?;
        let moments = self.parameters.iter().map(|parameter| {
            let (key, var) = (parameter.key(), parameter.var());
            let (first, second) = (tensor(&format!("{key}.first"))?, tensor(&format!("{key}.second"))?);
            if first.shape() != var.shape() || second.shape() != var.shape() {
                return Err(wrong(format!("has {:?} for `{key}`, which is {:?} here", first.dims(), var.dims())));
            }
            Moments::from_tensors(first, second, var)
        });
        self.moments = moments.collect::<Result<_>>()?;
        self.steps = step.first().and_then(|&step| usize::try_from(step).ok()).unwrap_or(0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn var(values: &[f32]) -> Var {
        Var::from_slice(values, values.len(), &Device::Cpu).unwrap()
    }

    fn settings() -> OptimizerSettings {
        OptimizerSettings {
            learning_rate: 2e-5,
            query_learning_rate: 1e-3,
            learning_rate_patterns: Vec::new(),
            weight_decay: 0.01,
            max_grad_norm: 1.0,
        }
    }

    /// The parameters of an inference-free model that matter for grouping.
    fn parameters() -> Vec<Parameter> {
        let document = |name: &str| Parameter::new(ModelPart::Document, name, var(&[0.0]));
        vec![
            Parameter::new(ModelPart::QueryTable, "weight", var(&[0.0])),
            document("bert.embeddings.LayerNorm.weight"),
            document("bert.encoder.layer.0.attention.self.query.weight"),
            document("bert.encoder.layer.0.attention.self.query.bias"),
            document("bert.encoder.layer.0.output.dense.weight"),
        ]
    }

    fn group(learning_rate: f64, weight_decay: f64, parameters: &[usize]) -> ParameterGroup {
        ParameterGroup { learning_rate, weight_decay, parameters: parameters.to_vec() }
    }

    #[test]
    fn groups_are_those_of_the_reference_trap_included() {
        // The optimizer_groups of inference-free/trace_config.
        let mut settings = settings();
        settings.learning_rate_patterns = vec![(r".*\.query\..*".into(), 1e-3)];
        let (groups, warnings) = parameter_groups(&parameters(), &settings).unwrap();
        let expected =
            [group(2e-5, 0.01, &[4]), group(2e-5, 0.0, &[1]), group(1e-3, 0.01, &[0, 2]), group(1e-3, 0.0, &[3])];
        assert_eq!(groups, expected);
        assert!(warnings[0].contains("also matches 2 tensors of the document network"), "{warnings:?}");
        assert!(
            warnings[0].ends_with(
                r"which are trained at 1e-3; if it is meant for the query table, write `sub_modules\.query\.`"
            )
        );

        settings.learning_rate_patterns = vec![(r"sub_modules\.query\.".into(), 1e-2)];
        let (groups, warnings) = parameter_groups(&parameters(), &settings).unwrap();
        assert_eq!(groups, [group(2e-5, 0.01, &[2, 4]), group(2e-5, 0.0, &[1, 3]), group(1e-2, 0.01, &[0])]);
        assert!(warnings.is_empty());
    }

    #[test]
    fn the_query_table_has_its_own_rate_without_a_pattern() {
        let (groups, _) = parameter_groups(&parameters(), &settings()).unwrap();
        assert_eq!(groups.last(), Some(&group(1e-3, 0.01, &[0])));
    }

    #[test]
    fn a_later_pattern_wins_and_one_that_matches_nothing_is_refused() {
        let mut settings = settings();
        settings.learning_rate_patterns = vec![("weight$".into(), 1.0), (r"query\.0\.weight".into(), 2.0)];
        let (groups, _) = parameter_groups(&parameters(), &settings).unwrap();
        assert_eq!(groups.last(), Some(&group(2.0, 0.01, &[0])));
        settings.learning_rate_patterns = vec![("auto_model".into(), 1.0)];
        let error = parameter_groups(&parameters(), &settings).unwrap_err();
        assert_eq!(error.to_string(), "router.learning_rate_patterns.auto_model: matches no parameter");
        assert_eq!(error.hint(), Some("names look like `model.0.sub_modules.query.0.weight`"));
    }

    #[test]
    fn names_decide_what_is_decayed() {
        let cases = [
            ("bert.encoder.layer.0.output.dense.weight", true),
            ("bert.encoder.layer.0.output.dense.bias", false),
            ("bert.embeddings.LayerNorm.weight", false),
            ("transformer.layer.0.sa_layer_norm.weight", false),
            ("model.layers.0.attn_norm.weight", false),
            ("head.norm.weight", false),
            ("norm.weight", false),
            ("model.normalizer.weight", true),
            ("weight", true),
        ];
        for (name, decayed) in cases {
            let parameter = Parameter::new(ModelPart::Shared, name, var(&[0.0]));
            assert_eq!(parameter.is_decayed(), decayed, "{name}");
            assert!(!parameter.in_norm_layer().is_decayed());
        }
    }

    fn optimizer(values: &[&[f32]], settings: &OptimizerSettings) -> AdamW {
        let parameter =
            |(n, values): (usize, &&[f32])| Parameter::new(ModelPart::Shared, format!("{n}.weight"), var(values));
        AdamW::new(values.iter().enumerate().map(parameter).collect(), settings).unwrap().0
    }

    fn gradients(values: &[&[f32]]) -> Gradients {
        Gradients(values.iter().map(|values| Some(Tensor::new(*values, &Device::Cpu).unwrap())).collect())
    }

    fn weights(optimizer: &AdamW, parameter: usize) -> Vec<f32> {
        optimizer.parameters()[parameter].var().to_vec1().unwrap()
    }

    #[test]
    fn one_step_by_hand() {
        // w = [1, -2], g = [0.3, 0.4]: norm 0.5, not clipped. At step 1 the corrected moments are g and g², so the weights
        // move by lr · sign(g), after decay by lr · 0.01.
        let mut optimizer = optimizer(&[&[1.0, -2.0]], &OptimizerSettings { learning_rate: 0.1, ..settings() });
        let norm = optimizer.step(&gradients(&[&[0.3, 0.4]]), 1.0).unwrap();
        assert!((norm - 0.5).abs() < 1e-7);
        for (weight, expected) in weights(&optimizer, 0).into_iter().zip([0.999 - 0.1, -2.0 * 0.999 - 0.1]) {
            assert!((weight - expected).abs() < 1e-6, "{weight}, not {expected}");
        }
        assert_eq!(optimizer.steps(), 1);
    }

    #[test]
    fn a_multiplier_of_zero_moves_only_the_moments() {
        let mut optimizer = optimizer(&[&[1.0, -2.0]], &settings());
        optimizer.step(&gradients(&[&[0.3, 0.4]]), 0.0).unwrap();
        assert_eq!(weights(&optimizer, 0), [1.0, -2.0]);
        let first = optimizer.state().unwrap()["model/0.weight.first"].to_vec1::<f32>().unwrap();
        assert!((first[0] - 0.03).abs() < 1e-7);
    }

    #[test]
    fn clipping_is_over_all_parameters() {
        let settings = OptimizerSettings { learning_rate: 0.1, weight_decay: 0.0, ..settings() };
        let mut clipped = optimizer(&[&[0.0], &[0.0]], &settings);
        assert!((clipped.step(&gradients(&[&[3.0], &[4.0]]), 1.0).unwrap() - 5.0).abs() < 1e-6);
        let first = clipped.state().unwrap()["model/1.weight.first"].to_vec1::<f32>().unwrap();
        assert!((first[0] - 0.08).abs() < 1e-6, "a tenth of 4 / 5");
        let mut free = optimizer(&[&[0.0], &[0.0]], &OptimizerSettings { max_grad_norm: 0.0, ..settings });
        free.step(&gradients(&[&[3.0], &[4.0]]), 1.0).unwrap();
        let first = free.state().unwrap()["model/1.weight.first"].to_vec1::<f32>().unwrap();
        assert!((first[0] - 0.4).abs() < 1e-6);
    }

    #[test]
    fn a_gradient_that_is_not_finite_moves_nothing() {
        let mut optimizer = optimizer(&[&[1.0]], &settings());
        let error = optimizer.step(&gradients(&[&[f32::NAN]]), 1.0).unwrap_err();
        assert_eq!(error.to_string(), "step 0: the gradient norm is NaN");
        assert_eq!((weights(&optimizer, 0), optimizer.steps()), (vec![1.0], 0));
    }

    #[test]
    fn parameters_without_a_gradient_stay() {
        let mut optimizer = optimizer(&[&[1.0], &[1.0]], &OptimizerSettings { learning_rate: 0.1, ..settings() });
        let mut sum = Gradients::default();
        sum.add(Gradients(vec![Some(Tensor::new(&[1f32], &Device::Cpu).unwrap()), None])).unwrap();
        sum.add(gradients(&[&[1.0]])).unwrap();
        assert!((optimizer.step(&sum, 1.0).unwrap() - 2.0).abs() < 1e-6, "micro-batches are added");
        assert_eq!(weights(&optimizer, 1), [1.0]);
    }

    #[test]
    fn a_restored_optimizer_goes_on_bit_for_bit() {
        let values: &[&[f32]] = &[&[1.0, -2.0, 0.5], &[0.25]];
        let settings = OptimizerSettings { learning_rate: 0.01, ..settings() };
        let step = |optimizer: &mut AdamW, n: usize| {
            let gradient = [0.1 * n as f32, -0.3, 0.02];
            optimizer.step(&gradients(&[&gradient, &[0.7]]), 0.5).unwrap();
        };
        let mut whole = optimizer(values, &settings);
        (0..6).for_each(|n| step(&mut whole, n));

        let mut begun = optimizer(values, &settings);
        (0..3).for_each(|n| step(&mut begun, n));
        let saved: Vec<Vec<f32>> = (0..2).map(|parameter| weights(&begun, parameter)).collect();
        let mut resumed = optimizer(&[&saved[0], &saved[1]], &settings);
        resumed.restore(&begun.state().unwrap()).unwrap();
        (3..6).for_each(|n| step(&mut resumed, n));
        for parameter in 0..2 {
            assert_eq!(weights(&resumed, parameter), weights(&whole, parameter));
        }
        let message = optimizer(&[&[0.0]], &settings).restore(&begun.state().unwrap()).unwrap_err().to_string();
        assert_eq!(message, "the saved optimizer has [3] for `model/0.weight`, which is [1] here");
    }

    proptest! {
        #[test]
        fn the_flat_update_agrees_with_its_plain_twin(
            rows in prop::collection::vec((-2f32..2.0, -2f32..2.0, -1f32..1.0), 1..200),
            learning_rate in 1e-5f64..1e-1,
        ) {
            let weights: Vec<f32> = rows.iter().map(|row| row.0).collect();
            let (flat, plain) = (var(&weights), var(&weights));
            let mut moments = Moments::zeros(&flat).unwrap();
            let mut tensors = (plain.zeros_like().unwrap(), plain.zeros_like().unwrap());
            for step in 1..4 {
                let values: Vec<f32> = rows.iter().map(|row| row.1 + row.2 * step as f32).collect();
                let gradient = Tensor::new(values.as_slice(), &Device::Cpu).unwrap();
                let update = Update::new(learning_rate, 0.01, step, 0.7);
                update.apply(&flat, &gradient, &mut moments).unwrap();
                update.apply_by_tensors(&plain, &gradient, &mut tensors.0, &mut tensors.1).unwrap();
            }
            for (a, b) in flat.to_vec1::<f32>().unwrap().into_iter().zip(plain.to_vec1::<f32>().unwrap()) {
                prop_assert!((a - b).abs() <= 1e-6 * (1.0 + b.abs()), "{} and {}", a, b);
            }
        }

        #[test]
        fn the_sum_of_squares_agrees_with_its_plain_twin(values in prop::collection::vec(-1e3f32..1e3, 0..100), repeats in 1usize..2000) {
            let values = values.repeat(repeats);
            let plain: f64 = values.iter().map(|&value| f64::from(value).powi(2)).sum();
            prop_assert!((sum_of_squares_f32(&values) - plain).abs() <= 1e-9 * plain);
        }
    }

    #[test]
    fn a_strided_gradient_is_read_in_order() {
        let square = Tensor::new(&[[1f32, 2.0], [3.0, 4.0]], &Device::Cpu).unwrap();
        let parameter = Var::zeros((2, 2), DType::F32, &Device::Cpu).unwrap();
        let settings = OptimizerSettings { learning_rate: 1.0, weight_decay: 0.0, max_grad_norm: 0.0, ..settings() };
        let parameters = vec![Parameter::new(ModelPart::Shared, "weight", parameter)];
        let mut optimizer = AdamW::new(parameters, &settings).unwrap().0;
        optimizer.step(&Gradients(vec![Some(square.t().unwrap())]), 1.0).unwrap();
        let first = optimizer.state().unwrap()["model/weight.first"].to_vec2::<f32>().unwrap();
        assert!((first[0][1] - 0.3).abs() < 1e-6 && (first[1][0] - 0.2).abs() < 1e-6);
    }
}
