//! Schedules of learning rates and regularizer weights, and the position of a step in the data.

use crate::config::RegularizerRamp;
use crate::loss::RegularizerWeights;

/// Multiplier on all learning rates: rises linearly from 0, then falls linearly to 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LinearSchedule {
    total: usize,
    warmup: usize,
}

impl LinearSchedule {
    /// Schedule of `total` optimizer steps; the multiplier rises over the share `warmup_ratio` of them, rounded up.
    pub(crate) fn new(total: usize, warmup_ratio: f64) -> Self {
        Self { total, warmup: (total as f64 * warmup_ratio).ceil() as usize }
    }

    /// Multiplier at `step`, from 0. The first step of a warm-up has the multiplier 0.
    pub(crate) fn multiplier(self, step: usize) -> f64 {
        if step < self.warmup {
            return step as f64 / self.warmup as f64;
        }
        let decay = self.total.saturating_sub(self.warmup).max(1);
        self.total.saturating_sub(step) as f64 / decay as f64
    }
}

/// Schedule of the regularizer weights. They rise from 0, so that the model first learns to rank and then to be sparse.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct RegularizerSchedule {
    ramp: RegularizerRamp,
    steps: usize,
    full: RegularizerWeights,
}

impl RegularizerSchedule {
    /// Schedule of `total` optimizer steps; the weights rise to `full` over the share `warmup_ratio` of them.
    pub(crate) fn new(ramp: RegularizerRamp, warmup_ratio: f64, total: usize, full: RegularizerWeights) -> Self {
        Self { ramp, steps: ((total as f64 * warmup_ratio) as usize).max(1), full }
    }

    /// Weights at `step`, from 0, for all its micro-batches.
    pub(crate) fn weights(self, step: usize) -> RegularizerWeights {
        let factor = self.factor(step);
        RegularizerWeights {
            document: self.full.document * factor,
            query: self.full.query.map(|weight| weight * factor),
        }
    }

    /// The step, counted from 0, from which on the weights are full.
    pub(crate) fn end(self) -> usize {
        if self.ramp == RegularizerRamp::None { 0 } else { self.steps }
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

/// Position in the data at the start of an optimizer step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    /// epoch, from 0
    pub(crate) epoch: usize,
    /// number of batches of the epoch before this position
    pub(crate) batch: usize,
}

/// Number of optimizer steps of a run. A step has `accumulation` micro-batches, the last of an epoch maybe fewer.
/// `max_steps` replaces `epochs`, which may be a fraction.
pub(crate) fn total_steps(
    batches_per_epoch: usize,
    accumulation: usize,
    epochs: f64,
    max_steps: Option<usize>,
) -> usize {
    if batches_per_epoch == 0 {
        return 0;
    }
    let steps_per_epoch = batches_per_epoch.div_ceil(accumulation.max(1));
    max_steps.unwrap_or_else(|| (epochs * steps_per_epoch as f64).ceil() as usize)
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
    fn schedules_hold_at_their_ends() {
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
    fn the_steps_of_a_run_are_counted_as_the_reference_does() {
        assert_eq!(total_steps(13, 3, 2.0, None), 10, "the last step of an epoch has one batch");
        assert_eq!(total_steps(12, 3, 1.0, None), 4);
        assert_eq!(total_steps(10, 1, 0.25, None), 3, "epochs may be fractions");
        assert_eq!(total_steps(10, 1, 0.25, Some(20)), 20, "max_steps decides");
        assert_eq!(total_steps(0, 1, 1.0, Some(20)), 0, "without batches there are no steps");
    }
}
