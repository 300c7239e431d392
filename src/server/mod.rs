//! `splade serve`: indexes over HTTP.
//!
//! `api` has the requests and answers, `catalog` the indexes by name with their newest snapshots, `models` their encoders,
//! `documents` the thread of the network, `writers` those that write, `pool` the limits of the work at a time, `pace` the times
//! of searches, `connections` the sockets, `guards` keys, hosts and the metrics of every request, `follow` new commits and
//! signals, `page` the page for people.
//!
//! The only place with an async runtime: a request is a task, and what takes long is the work of a thread that may block.

mod api;
mod body;
mod catalog;
mod connections;
mod documents;
mod follow;
mod guards;
mod keys;
mod metrics;
mod models;
mod pace;
mod page;
mod pool;
mod problem;
mod writers;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Context, Result};
use axum::Router;
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use tokio::net::TcpListener;

use crate::cli::ServeArgs;
use crate::failure::bad_input;
use catalog::Catalog;
use documents::Documents;
use keys::Keys;
use metrics::Metrics;
use models::Models;
use pool::Pool;
use problem::Problem;
use writers::Writers;

/// Everything that requests share.
struct App {
    catalog: Arc<Catalog>,
    pool: Pool,
    /// none without `--model`
    documents: Option<Documents>,
    /// none without `--writable`
    writers: Option<Writers>,
    keys: Keys,
    limits: Limits,
    metrics: Arc<Metrics>,
    /// true if the server listens on this machine alone
    is_local: bool,
    /// true from the signal to stop on
    is_stopping: AtomicBool,
}

/// Limits of a request.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// bytes of a body
    body: usize,
    /// queries, texts or documents
    batch: usize,
    /// tokens of a query
    tokens: usize,
    /// hits
    k: usize,
    /// requests that are answered or wait at a time
    concurrent: usize,
}

/// Serves the indexes until a signal to stop.
pub(crate) fn serve(args: &ServeArgs) -> Result<()> {
    if !args.host.is_loopback() && args.api_key_file.is_none() && !args.allow_unauthenticated {
        return Err(bad_input(
            format!("--host {}: other machines reach it, and there is no key", args.host),
            "give keys with --api-key-file, or --allow-unauthenticated if everyone may search",
        ));
    }
    let app = Arc::new(App::open(args)?);
    // as many as there are searches at a time, since short ones run on these threads; two at least, so that one answers while
    // the other searches
    let workers = app.pool.threads().max(2);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build()?;
    let served = runtime.block_on(async {
        let address = SocketAddr::new(args.host, args.port);
        let listener = TcpListener::bind(address).await.with_context(|| format!("--host and --port: {address}"))?;
        let address = listener.local_addr()?;
        let names: Vec<String> = app.catalog.all().iter().map(|served| served.name.clone()).collect();
        follow::commits(&app);
        follow::hang_ups(&app)?;
        let (router, stop) = (router(&app), follow::stop(&app)?);
        // who reads this line may send a signal
        tracing::info!("serving {} on http://{address}", names.join(", "));
        connections::serve(listener, router, stop).await;
        Ok(())
    });
    // searches whose requests have ended need not be waited for
    runtime.shutdown_timeout(Duration::from_secs(1));
    served
}

impl App {
    fn open(args: &ServeArgs) -> Result<Self> {
        let metrics = Arc::new(Metrics::new()?);
        let models = Models::open(args)?;
        let documents = models.documents()?;
        let documents = documents.map(|encoder| Documents::start(encoder, Arc::clone(&metrics))).transpose()?;
        let catalog = Arc::new(Catalog::open(&args.index, models)?);
        let start = || Writers::start(&catalog, documents.as_ref(), &metrics, &args.network);
        let writers = args.writable.then(start).transpose()?;
        for served in catalog.all() {
            metrics.opened(&served.name, served.searcher().len());
        }
        let threads = match args.network.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        };
        Ok(Self {
            catalog,
            pool: Pool::new(args.max_concurrent, threads, Duration::from_secs(args.timeout)),
            documents,
            writers,
            keys: Keys::read(args.api_key_file.as_deref())?,
            limits: Limits {
                body: args.max_body,
                batch: args.max_batch,
                tokens: args.max_tokens,
                k: args.max_k,
                concurrent: args.max_concurrent,
            },
            metrics,
            is_local: args.host.is_loopback(),
            is_stopping: AtomicBool::new(false),
        })
    }
}

/// All paths.
fn router(app: &Arc<App>) -> Router {
    let with_key = Router::new()
        .route("/v1/search", post(api::search::search))
        .route("/v1/explain", post(api::explain::explain))
        .route("/v1/encode", post(api::encode::encode))
        .route("/v1/documents", post(api::documents::change))
        .route("/embed_sparse", post(api::tei::embed_sparse))
        .route("/v1/indexes", get(api::state::indexes))
        .route("/version", get(api::state::version))
        .route("/metrics", get(api::state::metrics))
        .route("/openapi.json", get(api::openapi::openapi))
        .route_layer(from_fn_with_state(Arc::clone(app), guards::expect_key));
    let open = Router::new()
        .route("/", get(page::page))
        .route("/healthz", get(api::state::healthz))
        .route("/readyz", get(api::state::readyz));
    with_key
        .merge(open)
        .fallback(async || Problem::new(StatusCode::NOT_FOUND, "there is no such path: /openapi.json lists all"))
        .method_not_allowed_fallback(async || {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "the path has another method: /openapi.json lists all")
        })
        .layer(from_fn_with_state(Arc::clone(app), guards::expect_host))
        .layer(from_fn_with_state(Arc::clone(app), guards::observe))
        .with_state(Arc::clone(app))
}
