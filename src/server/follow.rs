//! Changes from outside while the server runs: new commits of an index, and signals.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Result;

use super::App;

/// Time between two looks for new commits.
const INTERVAL: Duration = Duration::from_secs(1);

/// Opens a snapshot of every new commit, on a thread of its own, so that no request waits for it.
pub(super) fn commits(app: &Arc<App>) {
    let app = Arc::clone(app);
    tokio::spawn(async move {
        // an index that fails is named once, and not every second
        let mut failing = HashSet::new();
        loop {
            tokio::time::sleep(INTERVAL).await;
            let work = Arc::clone(&app);
            let before = std::mem::take(&mut failing);
            let looked = tokio::task::spawn_blocking(move || work.refresh_all(&before)).await;
            failing = looked.unwrap_or_default();
        }
    });
}

impl App {
    /// Opens a snapshot of every index with a new commit. Returns the names of those that fail.
    fn refresh_all(&self, failing: &HashSet<String>) -> HashSet<String> {
        let mut failed = HashSet::new();
        for served in self.catalog.all() {
            match served.refresh() {
                Ok(None) => {}
                Ok(Some(documents)) => self.metrics.opened(&served.name, documents),
                Err(error) => {
                    if !failing.contains(&served.name) {
                        tracing::warn!(
                            "{}: the last snapshot is served: {error:#}; SIGHUP opens the folder anew",
                            served.name
                        );
                    }
                    failed.insert(served.name.clone());
                }
            }
        }
        failed
    }

    /// Opens all indexes and the file of keys anew.
    fn reopen(&self) {
        if let Err(error) = self.keys.reload() {
            tracing::error!("the old keys stay: {error:#}");
        }
        for served in self.catalog.reopen() {
            let documents = served.searcher().len();
            self.metrics.opened(&served.name, documents);
            tracing::info!("{}: opened anew, {documents} documents", served.name);
        }
    }
}

/// Opens the indexes anew at every SIGHUP.
#[cfg(unix)]
pub(super) fn hang_ups(app: &Arc<App>) -> Result<()> {
    let mut signals = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup())?;
    let app = Arc::clone(app);
    tokio::spawn(async move {
        while signals.recv().await.is_some() {
            let work = Arc::clone(&app);
            // a failure is a panic, which the hook of panics reports
            let _ = tokio::task::spawn_blocking(move || work.reopen()).await;
        }
    });
    Ok(())
}

/// Other systems have no such signal.
#[cfg(not(unix))]
pub(super) fn hang_ups(_: &Arc<App>) -> Result<()> {
    Ok(())
}

/// Ends at the first signal to stop.
pub(super) fn stop(app: &Arc<App>) -> Result<impl Future<Output = ()> + use<>> {
    #[cfg(unix)]
    let mut terminated = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let app = Arc::clone(app);
    Ok(async move {
        #[cfg(unix)]
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminated.recv() => {}
        }
        #[cfg(not(unix))]
        let _ = tokio::signal::ctrl_c().await;
        app.is_stopping.store(true, Ordering::SeqCst);
        tracing::info!("stopping after the requests that were read");
    })
}
