//! `POST /v1/search`: queries → hits.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use splade_core::SparseVector;
use splade_files::Query;
use tokio::task::JoinSet;
use utoipa::ToSchema;

use super::openapi::Problems;
use super::settings::{QueryBody, SearchBody};
use crate::answer::{AnswerJson, Answerer, Encoded, Shown};
use crate::cli::Mode;
use crate::server::App;
use crate::server::body::{Json, Written};
use crate::server::catalog::Served;
use crate::server::problem::{Answered, Problem};

/// Answers in the order of the queries.
#[derive(Serialize, ToSchema)]
pub(crate) struct SearchAnswer {
    /// one answer for each query
    #[schema(value_type = Vec<AnswerJson<'static>>)]
    results: Vec<Box<RawValue>>,
}

/// Search an index
///
/// The hits are those of `splade search --json`, number by number.
#[utoipa::path(
    post,
    path = "/v1/search",
    tag = "search",
    request_body = SearchBody,
    responses((status = 200, description = "Hits of every query", body = SearchAnswer), Problems)
)]
pub(crate) async fn search(State(app): State<Arc<App>>, Json(body): Json<SearchBody>) -> Answered<Written> {
    let served = app.catalog.get(body.index.as_deref())?;
    app.pool.answer(answer(&app, served, body)).await
}

/// Checks and answers a request on the threads of the pool, a short one on this thread.
async fn answer(app: &Arc<App>, served: Arc<Served>, body: SearchBody) -> Answered<Written> {
    let is_plain = body.is_plain();
    let is_short = is_plain && served.pace(body.mode()).is_short();
    let shared = Arc::clone(app);
    let work = move || {
        let (start, mode) = (Instant::now(), body.mode());
        let begun = begin(shared, Arc::clone(&served), body);
        if is_plain {
            served.pace(mode).note(start.elapsed());
        }
        begun
    };
    match app.pool.run_near(is_short, work).await?? {
        Begun::Answered(answer) => Ok(answer),
        Begun::Several(work, asked) => {
            let results = work.answer_all(asked).await?;
            app.pool.run(move || Written::of(&SearchAnswer { results })).await?
        }
    }
}

/// A request whose settings were checked.
enum Begun {
    /// its only query was answered
    Answered(Written),
    /// each of its queries is a piece of work
    Several(Arc<Work>, Vec<Asked>),
}

/// Checks a request, and answers it if it has one query.
fn begin(app: Arc<App>, served: Arc<Served>, body: SearchBody) -> Answered<Begun> {
    let mut asked = body.asked(&served, &app)?;
    let settings = body.resolve(&served, &app.limits)?;
    body.expect_typed(&served)?;
    expect_few(asked.len(), settings.k, app.limits.k)?;
    let work = Work { answerer: served.answerer(settings), body, served, app };
    match asked.pop() {
        Some(only) if asked.is_empty() => {
            let results = vec![work.answer(only)?];
            Written::of(&SearchAnswer { results }).map(Begun::Answered)
        }
        last => {
            asked.extend(last);
            Ok(Begun::Several(Arc::new(work), asked))
        }
    }
}

/// Most hits of a request, in those of a query.
const QUERIES_OF_ALL_HITS: usize = 10;

/// Refuses a request whose answer would be very large.
fn expect_few(queries: usize, k: usize, most: usize) -> Answered<()> {
    let most = most.saturating_mul(QUERIES_OF_ALL_HITS);
    if queries.saturating_mul(k) <= most {
        return Ok(());
    }
    Err(Problem::invalid("/k", format!("{queries} queries with {k} hits each: at most {most} hits are sent at a time")))
}

/// A query with its vector, if the request has one.
struct Asked {
    query: Query,
    vector: Option<SparseVector>,
}

impl SearchBody {
    fn asked(&self, served: &Served, app: &App) -> Answered<Vec<Asked>> {
        let one = (self.query.is_some() || self.vector.is_some()).then(|| QueryBody {
            id: None,
            text: self.query.clone(),
            vector: self.vector.clone(),
        });
        let (queries, place) = match (one, &self.queries) {
            (Some(query), None) => (vec![query], None),
            (None, Some(queries)) => (queries.clone(), Some("/queries")),
            (Some(_), Some(_)) => {
                return Err(Problem::invalid("/queries", "give several queries or one `query`, and not both"));
            }
            (None, None) => return Err(Problem::invalid("", "there is no query: give `query`, `vector` or `queries`")),
        };
        let most = app.limits.batch;
        if queries.is_empty() || queries.len() > most {
            return Err(Problem::invalid("/queries", format!("{} queries, expected 1 to {most}", queries.len())));
        }
        let mode = self.mode();
        (0..).zip(queries).map(|(at, query)| query.asked(at, place, mode, served, app)).collect()
    }
}

impl QueryBody {
    /// The query at position `at` of the list at `place`, or the only one.
    fn asked(self, at: usize, place: Option<&str>, mode: Mode, served: &Served, app: &App) -> Answered<Asked> {
        let base = place.map_or_else(String::new, |place| format!("{place}/{at}"));
        let name = if place.is_some() { "text" } else { "query" };
        if self.vector.is_some() && matches!(mode, Mode::Bm25 | Mode::Dense) {
            return Err(Problem::invalid(format!("{base}/vector"), "the mode has no sparse vectors"));
        }
        if self.text.is_none() && (mode != Mode::Sparse || self.vector.is_none()) {
            return Err(Problem::invalid(format!("{base}/{name}"), "the mode needs the text of the query"));
        }
        let text = self.text.unwrap_or_default();
        served.expect_short(&text, app.limits.tokens, &format!("{base}/{name}"))?;
        let vector = self.vector.map(|vector| {
            let size = served.index.settings().vocabulary_size;
            vector.parse(app.limits.tokens, size, &format!("{base}/vector"))
        });
        let id = self.id.unwrap_or_else(|| (at + 1).to_string());
        Ok(Asked { query: Query { id, text }, vector: vector.transpose()? })
    }
}

/// Everything that the threads need to answer the queries of a request.
struct Work {
    answerer: Answerer,
    body: SearchBody,
    served: Arc<Served>,
    app: Arc<App>,
}

impl Work {
    /// Answers queries in their order, as many at a time as there are threads.
    async fn answer_all(self: Arc<Self>, asked: Vec<Asked>) -> Answered<Vec<Box<RawValue>>> {
        let mut waiting = asked.into_iter().enumerate();
        let mut results = BTreeMap::new();
        // its tasks end with the request
        let mut running = JoinSet::new();
        let start = |running: &mut JoinSet<_>, (at, asked)| {
            let work = Arc::clone(&self);
            running.spawn(async move {
                let pool = &Arc::clone(&work.app).pool;
                (at, pool.run(move || work.answer(asked)).await)
            });
        };
        waiting.by_ref().take(self.app.pool.threads()).for_each(|next| start(&mut running, next));
        while let Some(done) = running.join_next().await {
            let (at, answer) = done.map_err(|error| Problem::of(&error.into()))?;
            results.insert(at, answer??);
            waiting.next().into_iter().for_each(|next| start(&mut running, next));
        }
        Ok(results.into_values().collect())
    }

    /// Answers a query on this thread.
    fn answer(&self, asked: Asked) -> Answered<Box<RawValue>> {
        self.result(asked).map_err(|error| {
            let problem = Problem::of(&error);
            // texts and vectors were checked before, so that an invalid one is the filter
            let is_filter = problem.status == StatusCode::UNPROCESSABLE_ENTITY && self.body.filter.is_some();
            if is_filter { problem.at("/filter") } else { problem }
        })
    }

    fn result(&self, Asked { query, vector }: Asked) -> anyhow::Result<Box<RawValue>> {
        let Self { answerer, body, .. } = self;
        let encoded = match vector {
            Some(vector) => Encoded { vector: answerer.settings.pruning.apply(vector), ..Encoded::default() },
            None => answerer.encode(&[&query.text])?.pop().unwrap_or_default(),
        };
        let answer = answerer.answer_encoded(&query, encoded)?;
        self.app.metrics.searched(&self.served.name, body.mode().name(), answer.search_time);
        let counted = answerer.count(&query, &answer, &body.count_by)?;
        let hits = answerer.hits(&query, answer)?;
        let shown = Shown { explanation: body.explain, snippets: body.snippets.is_some(), fields: body.fields.clone() };
        Ok(to_raw_value(&AnswerJson::of(&query, &hits, &shown, &counted))?)
    }
}
