//! Connections: accepted up to a number, with limits of time for clients that send or read slowly, and an orderly end.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_io_timeout::TimeoutStream;

/// Connections at a time; further ones wait in the queue of the system.
const CONNECTIONS: usize = 1024;
/// Longest time for the head of a request to arrive; a connection without requests is closed after it.
const HEAD_TIMEOUT: Duration = Duration::from_secs(20);
/// Longest time in which a client reads nothing of its answer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(20);
/// Bytes of the head of a request, and of the buffer of a connection.
const HEAD_BYTES: usize = 32 << 10;
/// Time in which requests end after the signal to stop.
const GRACE: Duration = Duration::from_secs(30);
/// Pause after a connection could not be accepted, as for lack of file descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves connections until `stop` ends, then lets the requests that were read end.
pub(super) async fn serve(listener: TcpListener, router: Router, stop: impl Future<Output = ()>) {
    let graceful = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut stop = std::pin::pin!(stop);
    loop {
        let accepted = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place, listener.accept().await)
        };
        tokio::select! {
            () = &mut stop => break,
            (place, accepted) = accepted => match (place, accepted) {
                (Ok(place), Ok((stream, _))) => serve_one(stream, &router, &graceful, place),
                (_, Err(error)) => {
                    tracing::debug!("a connection was not accepted: {error}");
                    tokio::time::sleep(PAUSE).await;
                }
                // the semaphore is never closed
                (Err(_), _) => break,
            },
        }
    }
    drop(listener);
    if tokio::time::timeout(GRACE, graceful.shutdown()).await.is_err() {
        tracing::warn!("some requests did not end within {} seconds", GRACE.as_secs());
    }
}

fn serve_one(stream: TcpStream, router: &Router, graceful: &GracefulShutdown, place: OwnedSemaphorePermit) {
    // fails on a connection that is closed already
    let _ = stream.set_nodelay(true);
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(WRITE_TIMEOUT));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(Box::pin(stream)), TowerToHyperService::new(router.clone()));
    let connection = graceful.watch(connection);
    tokio::spawn(async move {
        let _place = place;
        if let Err(error) = connection.await {
            tracing::debug!("a connection ended: {error}");
        }
    });
}
