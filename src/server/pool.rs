//! [`Pool`]: the requests that are answered at a time, and the threads that search.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::problem::{Answered, Problem};

/// Limits of the work at a time.
pub(crate) struct Pool {
    /// requests that are answered or wait
    admitted: Arc<Semaphore>,
    /// pieces of work that run, one thread each
    running: Arc<Semaphore>,
    threads: usize,
    timeout: Duration,
}

impl Pool {
    /// A pool of `threads` threads for `requests` requests, each of which takes at most `timeout`.
    pub(crate) fn new(requests: usize, threads: usize, timeout: Duration) -> Self {
        // a semaphore has a maximum of its own, far above any number of requests
        let permits = |number: usize| Arc::new(Semaphore::new(number.clamp(1, Semaphore::MAX_PERMITS)));
        Self { admitted: permits(requests), running: permits(threads), threads: threads.max(1), timeout }
    }

    /// Number of threads.
    pub(crate) fn threads(&self) -> usize {
        self.threads
    }

    /// Requests that are answered or wait.
    pub(crate) fn admitted(&self, most: usize) -> usize {
        most.saturating_sub(self.admitted.available_permits())
    }

    /// Answers a request whose body was read, within the limits of number and time.
    ///
    /// # Errors
    /// 429 where too many requests are answered, 503 after the time. The work of a request that is out of time is not started
    /// where it waits.
    pub(crate) async fn answer<T>(&self, work: impl Future<Output = Answered<T>>) -> Answered<T> {
        let Ok(_permit) = Arc::clone(&self.admitted).try_acquire_owned() else {
            return Err(Problem::too_many("the server answers as many requests as it may at a time: try again later"));
        };
        match tokio::time::timeout(self.timeout, work).await {
            Ok(answer) => answer,
            Err(_) => Err(Problem::unavailable("the request took too long: try again later, or ask for less")),
        }
    }

    /// Runs `work` on a thread that may block, as soon as one is free. Waiting pieces run in the order in which they came.
    pub(crate) async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Answered<T> {
        let permit = self.permit().await?;
        let work = move || {
            // held to the end of the work, even if the request has ended before
            let _permit: OwnedSemaphorePermit = permit;
            work()
        };
        tokio::task::spawn_blocking(work).await.map_err(|error| match error.is_panic() {
            true => Problem::of(&error.into()),
            false => Problem::unavailable("the server stops"),
        })
    }

    async fn permit(&self) -> Answered<OwnedSemaphorePermit> {
        // the semaphore is never closed
        Arc::clone(&self.running).acquire_owned().await.map_err(|error| Problem::of(&error.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn work_beyond_the_limits_is_refused() {
        let pool = Arc::new(Pool::new(1, 1, Duration::from_millis(300)));
        assert_eq!(pool.answer(async { pool.run(|| 7).await }).await.unwrap(), 7);
        let slow = Arc::clone(&pool);
        let slow = tokio::spawn(async move {
            slow.answer(async { slow.run(|| std::thread::sleep(Duration::from_millis(900))).await }).await
        });
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(pool.admitted(1), 1);
        assert_eq!(pool.answer(async { Ok(()) }).await.unwrap_err().status.as_u16(), 429);
        assert_eq!(slow.await.unwrap().unwrap_err().status.as_u16(), 503);
        // the thread is still busy with the work of the request that has ended
        assert_eq!(pool.answer(async { pool.run(|| 7).await }).await.unwrap_err().status.as_u16(), 503);
        tokio::time::sleep(Duration::from_millis(600)).await;
        assert_eq!(pool.answer(async { pool.run(|| 7).await }).await.unwrap(), 7);
    }
}
