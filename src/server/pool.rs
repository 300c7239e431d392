//! [`Pool`]: the requests that are answered at a time, and the threads that work for them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use splade_core::guarded;
use tokio::sync::{Semaphore, oneshot};

use super::problem::{Answered, Problem};

/// Limits of the work at a time.
pub(crate) struct Pool {
    /// requests that are answered or wait
    admitted: Semaphore,
    queue: Arc<Queue>,
    timeout: Duration,
}

impl Pool {
    /// A pool of `threads` threads for `requests` requests, each of which takes at most `timeout`.
    pub(crate) fn new(requests: usize, threads: usize, timeout: Duration) -> Self {
        // a semaphore has a maximum of its own, far above any number of requests
        let admitted = Semaphore::new(requests.clamp(1, Semaphore::MAX_PERMITS));
        let queue = Queue { state: Mutex::default(), threads: threads.max(1) };
        Self { admitted, queue: Arc::new(queue), timeout }
    }

    /// Number of threads.
    pub(crate) fn threads(&self) -> usize {
        self.queue.threads
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
        let Ok(_permit) = self.admitted.try_acquire() else {
            return Err(Problem::too_many("the server answers as many requests as it may at a time: try again later"));
        };
        match tokio::time::timeout(self.timeout, work).await {
            Ok(answer) => answer,
            Err(_) => Err(Problem::unavailable("the request took too long: try again later, or ask for less")),
        }
    }

    /// Runs `work` on a thread that may block, as soon as one is free. Waiting pieces run in the order in which they came.
    ///
    /// # Errors
    /// 500 for a panic, 503 where the server stops.
    pub(crate) async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Answered<T> {
        let (reply, result) = oneshot::channel();
        self.queue.push(Box::new(move || {
            // the request may have ended while its work waited
            if !reply.is_closed() {
                // fails if it ends now
                let _ = reply.send(guarded(work));
            }
        }));
        match result.await {
            Ok(result) => result.map_err(failed),
            Err(_) => Err(Problem::unavailable("the server stops")),
        }
    }

    /// Runs `work` on this thread if it is short and fewer than all threads work, else by [`run`](Self::run).
    ///
    /// Two threads that wake one another take longer than a search in a small index.
    ///
    /// # Errors
    /// Those of [`run`](Self::run).
    pub(crate) async fn run_near<T: Send + 'static>(
        &self,
        is_short: bool,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Answered<T> {
        match is_short.then(|| self.queue.enter()).flatten() {
            Some(_place) => guarded(work).map_err(failed),
            None => self.run(work).await,
        }
    }
}

fn failed(panic: String) -> Problem {
    Problem::of(&anyhow::Error::msg(panic))
}

/// A piece of work.
type Work = Box<dyn FnOnce() + Send>;

/// Threads that work, and the work that waits for them.
struct Queue {
    state: Mutex<State>,
    threads: usize,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Work>,
    /// threads that work
    working: usize,
}

impl Queue {
    fn push(self: &Arc<Self>, work: Work) {
        let mut state = self.state();
        if state.working == self.threads {
            state.waiting.push_back(work);
            return;
        }
        state.working += 1;
        drop(state);
        self.start(work);
    }

    /// Runs a piece, and those that wait after it, on another thread.
    fn start(self: &Arc<Self>, first: Work) {
        let queue = Arc::clone(self);
        tokio::task::spawn_blocking(move || queue.work_from(first));
    }

    /// Takes this thread as one of those that work, if fewer than all do.
    fn enter(self: &Arc<Self>) -> Option<Place<'_>> {
        let mut state = self.state();
        let is_free = state.working < self.threads;
        state.working += usize::from(is_free);
        is_free.then(|| Place(self))
    }

    /// Runs a piece and then those that wait: a thread that is done wakes no other one for the next piece.
    fn work_from(&self, first: Work) {
        let mut next = Some(first);
        while let Some(work) = next {
            work();
            next = self.next();
        }
    }

    /// The piece that has waited longest, for a thread that is done; none if the thread ends.
    fn next(&self) -> Option<Work> {
        let mut state = self.state();
        let next = state.waiting.pop_front();
        state.working -= usize::from(next.is_none());
        next
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Place of a thread that works and may not take the next piece: another one does.
struct Place<'q>(&'q Arc<Queue>);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some(next) = self.0.next() {
            self.0.start(next);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Poll;

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
        let late = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&late);
        let waiting = pool.answer(async { pool.run(move || count.fetch_add(1, Ordering::SeqCst)).await });
        assert_eq!(waiting.await.unwrap_err().status.as_u16(), 503);
        tokio::time::sleep(Duration::from_millis(600)).await;
        assert_eq!(pool.answer(async { pool.run(|| 7).await }).await.unwrap(), 7);
        assert_eq!(late.load(Ordering::SeqCst), 0, "work of a request that had ended");
    }

    /// Runs 40 pieces on so many threads, of which one panics. Returns the order in which they started, and the most at a time.
    async fn run_many(threads: usize) -> (Vec<usize>, usize) {
        let pool = Arc::new(Pool::new(100, threads, Duration::from_secs(30)));
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let started = Arc::new(Mutex::new(Vec::new()));
        let mut all = tokio::task::JoinSet::new();
        for number in 0..40 {
            let (pool, running, most) = (Arc::clone(&pool), Arc::clone(&running), Arc::clone(&most));
            let started = Arc::clone(&started);
            let work = move || {
                started.lock().unwrap().push(number);
                most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(5));
                running.fetch_sub(1, Ordering::SeqCst);
                assert_ne!(number, 7);
            };
            let mut run = Box::pin(async move { pool.run(work).await });
            // polled here once, so that the pieces come in order
            let is_pending = std::future::poll_fn(|context| Poll::Ready(run.as_mut().poll(context).is_pending()));
            assert!(is_pending.await);
            all.spawn(async move { (number, run.await) });
        }
        while let Some(done) = all.join_next().await {
            let (number, result) = done.unwrap();
            let status = result.err().map(|problem| problem.status.as_u16());
            assert_eq!(status, (number == 7).then_some(500), "{number}");
        }
        (started.lock().unwrap().clone(), most.load(Ordering::SeqCst))
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn work_runs_in_its_order_on_so_many_threads() {
        assert_eq!(run_many(1).await, ((0..40).collect(), 1));
        let (mut started, most) = run_many(2).await;
        started.sort_unstable();
        assert_eq!((started, most), ((0..40).collect(), 2));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn short_work_runs_on_the_thread_of_its_request() {
        let pool = Pool::new(1, 1, Duration::from_secs(30));
        let here = std::thread::current().id();
        assert_eq!(pool.run_near(true, || std::thread::current().id()).await.unwrap(), here);
        assert_ne!(pool.run_near(false, || std::thread::current().id()).await.unwrap(), here);
        let failed = pool.run_near(true, || -> u8 { panic!("broken") }).await;
        assert_eq!(failed.unwrap_err().status.as_u16(), 500);
        // where all threads work, short work waits as any other, and what waits for a short piece runs after it
        let place = pool.queue.enter().unwrap();
        let mut waiting = Box::pin(pool.run_near(true, || std::thread::current().id()));
        tokio::time::timeout(Duration::from_millis(50), &mut waiting).await.unwrap_err();
        drop(place);
        assert_ne!(waiting.await.unwrap(), here);
    }
}
