//! Throughput and latency of searches, for `--stats`.

use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::{Value, json};

use crate::outputs::Output;

/// Times of the queries so far.
pub(super) struct Stats {
    start: Instant,
    search: Vec<Duration>,
    with_encoding: Vec<Duration>,
}

/// Throughput and latency of all queries.
pub(super) struct Summary {
    queries: usize,
    threads: usize,
    seconds: f64,
    search: Latency,
    with_encoding: Latency,
}

/// Mean and percentiles (nearest rank) of times in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Latency {
    mean: f64,
    p50: f64,
    p90: f64,
    p99: f64,
    max: f64,
}

impl Stats {
    /// Starts the clock of the throughput.
    pub(super) fn start() -> Self {
        Self { start: Instant::now(), search: Vec::new(), with_encoding: Vec::new() }
    }

    /// Adds the times of a query.
    pub(super) fn add(&mut self, encoding: Duration, search: Duration) {
        self.search.push(search);
        self.with_encoding.push(encoding + search);
    }

    /// Stops the clock.
    pub(super) fn finish(self) -> Summary {
        Summary {
            queries: self.search.len(),
            threads: rayon::current_num_threads(),
            seconds: self.start.elapsed().as_secs_f64(),
            search: Latency::of(self.search),
            with_encoding: Latency::of(self.with_encoding),
        }
    }
}

impl Summary {
    /// Writes the summary to a file as JSON, or to the log without a file.
    pub(super) fn report(&self, file: Option<Output>) -> Result<()> {
        if let Some(mut file) = file {
            file.put(|file| writeln!(file, "{:#}", self.to_json()))?;
            return file.finish();
        }
        let plural = |count: usize| if count == 1 { "" } else { "s" };
        tracing::info!(
            "{} {} in {:.3} s on {} thread{}: {:.0} per second, reading and printing included",
            self.queries,
            if self.queries == 1 { "query" } else { "queries" },
            self.seconds,
            self.threads,
            plural(self.threads),
            self.per_second(),
        );
        tracing::info!("search:        {}", self.search.to_line());
        tracing::info!("with encoding: {}", self.with_encoding.to_line());
        Ok(())
    }

    fn per_second(&self) -> f64 {
        self.queries as f64 / self.seconds.max(1e-9)
    }

    fn to_json(&self) -> Value {
        json!({
            "queries": self.queries,
            "threads": self.threads,
            "seconds": self.seconds,
            "queries_per_second": self.per_second(),
            "search_us": self.search.to_json(),
            "with_encoding_us": self.with_encoding.to_json(),
        })
    }
}

impl Latency {
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let Some(last) = times.last() else { return Self::default() };
        let us = |time: Duration| time.as_secs_f64() * 1e6;
        let percentile = |percent: usize| us(times[(times.len() * percent).div_ceil(100).max(1) - 1]);
        Self {
            mean: times.iter().copied().map(us).sum::<f64>() / times.len() as f64,
            p50: percentile(50),
            p90: percentile(90),
            p99: percentile(99),
            max: us(*last),
        }
    }

    fn to_line(self) -> String {
        let Self { mean, p50, p90, p99, max } = self;
        format!("mean {mean:.1} µs, p50 {p50:.1}, p90 {p90:.1}, p99 {p99:.1}, max {max:.1}")
    }

    fn to_json(self) -> Value {
        let Self { mean, p50, p90, p99, max } = self;
        json!({"mean": mean, "p50": p50, "p90": p90, "p99": p99, "max": max})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let of = |times: &[u64]| Latency::of(times.iter().map(|us| Duration::from_micros(*us)).collect());
        assert_eq!(of(&[]), Latency::default());
        assert_eq!(of(&[7]), Latency { mean: 7.0, p50: 7.0, p90: 7.0, p99: 7.0, max: 7.0 });
        let hundred: Vec<u64> = (1..=100).rev().collect();
        assert_eq!(of(&hundred), Latency { mean: 50.5, p50: 50.0, p90: 90.0, p99: 99.0, max: 100.0 });
        assert_eq!(of(&[1, 2, 3]), Latency { mean: 2.0, p50: 2.0, p90: 3.0, p99: 3.0, max: 3.0 });
    }
}
