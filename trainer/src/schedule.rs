//! What changes from step to step: learning rates, regularizer weights, and where in the data a step is.

use crate::config::RegularizerRamp;
use crate::loss::RegularizerWeights;

/// The multiplier on all learning rates: up from 0, then down to 0, both in a straight line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinearSchedule {
    total: usize,
    warmup: usize,
}

impl LinearSchedule {
    /// For `total` optimizer steps, of which the share `warmup_ratio`, rounded up, rises.
    #[must_use]
    pub fn new(total: usize, warmup_ratio: f64) -> Self {
        Self { total, warmup: (total as f64 * warmup_ratio).ceil() as usize }
    }

    /// The multiplier at `step`, counted from 0: so the first step of a warm-up changes nothing.
    #[must_use]
    pub fn multiplier(self, step: usize) -> f64 {
        if step < self.warmup {
            return step as f64 / self.warmup as f64;
        }
        let decay = self.total.saturating_sub(self.warmup).max(1);
        self.total.saturating_sub(step) as f64 / decay as f64
    }
}

/// The regularizer weights, which start at 0 so that the model first learns to rank and then to be sparse.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RegularizerSchedule {
    ramp: RegularizerRamp,
    steps: usize,
    full: RegularizerWeights,
}

impl RegularizerSchedule {
    /// For `total` optimizer steps, over the share `warmup_ratio` of which the weights rise to `full`.
    #[must_use]
    pub fn new(ramp: RegularizerRamp, warmup_ratio: f64, total: usize, full: RegularizerWeights) -> Self {
        Self { ramp, steps: ((total as f64 * warmup_ratio) as usize).max(1), full }
    }

    /// The weights at `step`, counted from 0; the same for all its micro-batches.
    #[must_use]
    pub fn weights(self, step: usize) -> RegularizerWeights {
        let factor = self.factor(step);
        RegularizerWeights {
            document: self.full.document * factor,
            query: self.full.query.map(|weight| weight * factor),
        }
    }

    fn factor(self, step: usize) -> f64 {
        if step >= self.steps {
            return 1.0;
        }
        let share = step as f64 / self.steps as f64;
        match self.ramp {
            RegularizerRamp::Quadratic => share * share,
            RegularizerRamp::Linear => share,
            RegularizerRamp::None => 1.0,
        }
    }
}

/// How batches make steps, and steps epochs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepPlan {
    batches_per_epoch: usize,
    accumulation: usize,
    total: usize,
}

/// Where in the data an optimizer step begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Counted from 0.
    pub epoch: usize,
    /// Batches of that epoch that were used before.
    pub batch: usize,
}

impl StepPlan {
    /// `accumulation` micro-batches make a step, fewer at the end of an epoch; `max_steps` wins over `epochs`, which may
    /// be a fraction.
    #[must_use]
    pub fn new(batches_per_epoch: usize, accumulation: usize, epochs: f64, max_steps: Option<usize>) -> Self {
        let accumulation = accumulation.max(1);
        let steps_per_epoch = batches_per_epoch.div_ceil(accumulation);
        let total = max_steps.unwrap_or_else(|| (epochs * steps_per_epoch as f64).ceil() as usize);
        Self { batches_per_epoch, accumulation, total: if steps_per_epoch == 0 { 0 } else { total } }
    }

    /// Optimizer steps of the run.
    #[must_use]
    pub fn total(self) -> usize {
        self.total
    }

    /// Optimizer steps of an epoch.
    #[must_use]
    pub fn steps_per_epoch(self) -> usize {
        self.batches_per_epoch.div_ceil(self.accumulation)
    }

    /// Where `step`, counted from 0, begins.
    #[must_use]
    pub fn position(self, step: usize) -> Position {
        let steps = self.steps_per_epoch().max(1);
        Position { epoch: step / steps, batch: (step % steps) * self.accumulation }
    }

    /// The number of micro-batches of `step`, counted from 0: what each of their losses is divided by.
    #[must_use]
    pub fn micro_batches(self, step: usize) -> usize {
        self.batches_per_epoch.saturating_sub(self.position(step).batch).min(self.accumulation)
    }

    /// Epochs done after `steps` steps, as it is logged.
    #[must_use]
    pub fn epochs_after(self, steps: usize) -> f64 {
        let Position { epoch, batch } = self.position(steps);
        epoch as f64 + batch as f64 / self.batches_per_epoch.max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn learning_rates_are_those_of_the_traces() {
        // inference-free/trace_config: 24 steps, warm-up 0.1; trace_accum: 4 steps.
        let schedule = LinearSchedule::new(24, 0.1);
        let rates: Vec<f64> = (0..5).map(|step| 2e-5 * schedule.multiplier(step)).collect();
        let expected = [0.0, 6.666666666666667e-06, 1.3333333333333333e-05, 2e-05, 1.904761904761905e-05];
        for (rate, expected) in rates.iter().zip(expected) {
            assert!((rate - expected).abs() < 1e-18, "{rate}, not {expected}");
        }
        let rates: Vec<f64> = (0..4).map(|step| LinearSchedule::new(4, 0.1).multiplier(step)).collect();
        assert_eq!(rates, [0.0, 1.0, 2.0 / 3.0, 1.0 / 3.0]);
    }

    #[test]
    fn schedules_have_no_edge_to_fall_off() {
        assert_eq!(LinearSchedule::new(4, 0.0).multiplier(0), 1.0);
        assert_eq!(LinearSchedule::new(2, 1.0).multiplier(2), 0.0);
        assert_eq!(LinearSchedule::new(0, 0.1).multiplier(5), 0.0);
        assert_eq!(LinearSchedule::new(4, 0.5).multiplier(9), 0.0);
    }

    fn ramp(ramp: RegularizerRamp, ratio: f64, total: usize) -> RegularizerSchedule {
        RegularizerSchedule::new(ramp, ratio, total, RegularizerWeights { document: 3e-3, query: None })
    }

    #[test]
    fn regularizer_weights_are_those_of_the_traces() {
        let schedule = ramp(RegularizerRamp::Quadratic, 1.0 / 3.0, 24);
        let expected =
            [0.0, 4.6875e-05, 0.0001875, 0.000421875, 0.00075, 0.001171875, 0.0016875, 0.002296875, 0.003, 0.003];
        for (step, expected) in expected.into_iter().enumerate() {
            assert!((schedule.weights(step).document - expected).abs() < 1e-12, "step {step}");
        }
        // trace_accum: a third of 4 steps is 1, so only the first step has none.
        let schedule = ramp(RegularizerRamp::Quadratic, 1.0 / 3.0, 4);
        assert_eq!((schedule.weights(0).document, schedule.weights(1).document), (0.0, 3e-3));
        assert_eq!(ramp(RegularizerRamp::Linear, 0.5, 4).weights(1).document, 1.5e-3);
        assert_eq!(ramp(RegularizerRamp::None, 0.5, 4).weights(0).document, 3e-3);
        assert_eq!(ramp(RegularizerRamp::Linear, 0.0, 4).weights(0).document, 0.0, "as in the reference");
    }

    #[test]
    fn steps_know_their_batches() {
        let plan = StepPlan::new(13, 3, 2.0, None);
        assert_eq!((plan.steps_per_epoch(), plan.total()), (5, 10));
        assert_eq!((0..6).map(|step| plan.micro_batches(step)).collect::<Vec<_>>(), [3, 3, 3, 3, 1, 3]);
        assert_eq!(plan.position(4), Position { epoch: 0, batch: 12 });
        assert_eq!(plan.position(6), Position { epoch: 1, batch: 3 });
        assert_eq!((plan.epochs_after(1), plan.epochs_after(5)), (3.0 / 13.0, 1.0));
        assert_eq!(StepPlan::new(12, 3, 1.0, None).total(), 4);
        assert_eq!(StepPlan::new(10, 1, 0.25, None).total(), 3, "epochs may be fractions");
        assert_eq!(StepPlan::new(10, 1, 0.25, Some(20)).total(), 20, "max_steps wins");
        assert_eq!(StepPlan::new(0, 1, 1.0, Some(20)).total(), 0, "without batches there are no steps");
        assert_eq!(StepPlan::new(0, 1, 1.0, None).position(3), Position { epoch: 3, batch: 0 });
    }
}
