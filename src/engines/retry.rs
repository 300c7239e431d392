//! Repetition of requests that failed for a while, with growing pauses.

use std::time::Duration;

use anyhow::Result;
use rand::Rng as _;

use super::error::EngineErrorKind;
use super::{Engine, EngineResult, ItemFailure, Record};
use crate::commands::interrupt;

/// Largest pause between two attempts.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// Longest pause that an engine may ask for; a longer one ends the attempts.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);
/// Length of a step of a pause, after which signals are noticed.
const STEP: Duration = Duration::from_millis(100);

/// Number of attempts and the pauses between them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Retries {
    /// attempts, the first one included
    pub(crate) attempts: u32,
    /// pause after the first attempt; each further pause is twice as long
    pub(crate) first_pause: Duration,
}

impl Retries {
    /// Few attempts, for the first request to an address that may be wrong.
    pub(crate) const FIRST_CONTACT: Self = Self { attempts: 5, first_pause: Duration::from_millis(250) };
}

impl Default for Retries {
    fn default() -> Self {
        Self { attempts: 8, first_pause: Duration::from_millis(250) }
    }
}

impl Retries {
    /// Calls `request` until it succeeds, fails for good, or was tried often enough.
    ///
    /// # Errors
    /// The last error of `request`; a signal.
    pub(crate) fn run<T>(&self, mut request: impl FnMut() -> EngineResult<T>) -> Result<T> {
        let mut attempt = 1;
        loop {
            let error = match request() {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            let EngineErrorKind::Outage { retry_after } = error.kind() else { return Err(error.into()) };
            if attempt >= self.attempts || retry_after.is_some_and(|pause| pause > RETRY_AFTER_MAX) {
                return Err(error.into());
            }
            let pause = retry_after.unwrap_or_else(|| self.pause(attempt));
            tracing::debug!("attempt {attempt} failed, next in {pause:?}: {error}");
            wait(pause)?;
            attempt += 1;
        }
    }

    /// Sends records, and those alone again that the engine did not take for now. Returns those that it refuses.
    ///
    /// A request that is refused as a whole for its content is halved, so that the records at fault are found.
    ///
    /// # Errors
    /// An engine that stays unreachable or busy; a signal.
    pub(crate) fn upsert(&self, engine: &dyn Engine, records: Vec<Record>) -> Result<Vec<ItemFailure>> {
        let mut refused = Vec::new();
        let mut parts = vec![records];
        while let Some(mut part) = parts.pop() {
            let mut attempt = 1;
            while !part.is_empty() {
                let failures = match self.run(|| whole_or_items(engine, &part))? {
                    Sent::Items(failures) => failures,
                    Sent::TooMany => {
                        parts.push(part.split_off(part.len() / 2));
                        continue;
                    }
                };
                let (later, finally): (Vec<_>, Vec<_>) =
                    failures.into_iter().partition(|failure| failure.retryable && attempt < self.attempts);
                refused.extend(finally);
                part.retain(|record| later.iter().any(|failure| failure.id == record.id));
                if !part.is_empty() {
                    wait(self.pause(attempt))?;
                    attempt += 1;
                }
            }
        }
        Ok(refused)
    }

    /// Pause after an attempt: doubled each time, between half and all of it by chance, so that several clients do not come
    /// back at the same moment.
    fn pause(&self, attempt: u32) -> Duration {
        let whole = self.first_pause.saturating_mul(1 << (attempt - 1).min(16)).min(PAUSE_MAX);
        whole.mul_f64(rand::rng().random_range(0.5..=1.0))
    }
}

/// Outcome of one request with records.
enum Sent {
    /// records that were not taken
    Items(Vec<ItemFailure>),
    /// the request was refused as a whole, and has several records
    TooMany,
}

/// Sends records in one request. A refusal of one record's content is a failure of that record.
fn whole_or_items(engine: &dyn Engine, records: &[Record]) -> EngineResult<Sent> {
    match engine.upsert(records) {
        Ok(failures) => Ok(Sent::Items(failures)),
        Err(error) if error.kind() == EngineErrorKind::Content => Ok(match records {
            [record] => {
                Sent::Items(vec![ItemFailure { id: record.id.clone(), message: error.to_string(), retryable: false }])
            }
            _ => Sent::TooMany,
        }),
        Err(error) => Err(error),
    }
}

/// Waits, or fails at a signal.
fn wait(pause: Duration) -> Result<()> {
    let end = std::time::Instant::now() + pause;
    loop {
        interrupt::check()?;
        let left = end.saturating_duration_since(std::time::Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        std::thread::sleep(left.min(STEP));
    }
}
