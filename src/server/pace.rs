//! [`Pace`]: the mean time of the last plain searches, which says whether the next one is short.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Mean time of short work, which the thread that read the request does by itself. There are as many of these threads as
/// searches run at a time, so that another request waits no longer than it would for a free processor.
const SHORT: Duration = Duration::from_micros(200);
/// Longest time that counts, so that one answer that was interrupted does not change the mean by much.
const LONGEST: Duration = Duration::from_micros(800);
/// Share of the newest time in the mean: one in so many.
const MEMORY: u32 = 16;

/// Running mean of the times of searches. A search is long until many were short.
pub(crate) struct Pace {
    mean_ns: AtomicU32,
}

impl Default for Pace {
    fn default() -> Self {
        Self { mean_ns: AtomicU32::new(nanoseconds(LONGEST)) }
    }
}

impl Pace {
    /// True if the last searches were short.
    pub(crate) fn is_short(&self) -> bool {
        self.mean_ns.load(Ordering::Relaxed) <= nanoseconds(SHORT)
    }

    /// Takes the time of a search into the mean.
    pub(crate) fn note(&self, time: Duration) {
        let mean = self.mean_ns.load(Ordering::Relaxed);
        // of two threads at a time one may be left out
        self.mean_ns.store(mean - mean / MEMORY + nanoseconds(time.min(LONGEST)) / MEMORY, Ordering::Relaxed);
    }
}

/// A time below a second.
fn nanoseconds(time: Duration) -> u32 {
    time.subsec_nanos()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_short_after_many_short_times_and_long_after_some_long_ones() {
        let pace = Pace::default();
        let (fast, slow) = (Duration::from_micros(40), Duration::from_millis(9));
        let until = |time: Duration, is_short: bool| {
            (1..1000).find(|_| {
                pace.note(time);
                pace.is_short() == is_short
            })
        };
        assert!(!pace.is_short());
        assert!((10..50).contains(&until(fast, true).unwrap()));
        (0..100).for_each(|_| pace.note(fast));
        // one answer may have been interrupted
        assert!((3..10).contains(&until(slow, false).unwrap()));
        assert_eq!(until(Duration::from_micros(201), true), None);
    }
}
