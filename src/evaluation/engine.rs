//! [`EvaluatedEngine`]: sparse rankings of a task by a search engine instead of the index.

use anyhow::Result;
use splade_core::{EncodedQuery, ErrorKind, Hit, Ranking, Retriever};
use splade_eval::{EncodedTask, Evaluation, evaluate};
use splade_index::ImpactIndex;

use crate::cli::{CollectionArgs, EngineArgs, EngineKind};
use crate::engines::{self, EngineClient, PushOptions, QueryModel, Source, Wanted, WantedRanking, push};
use crate::failure::bad_input;

/// Engine with a collection that each task fills in turn.
pub(crate) struct EvaluatedEngine {
    kind: EngineKind,
    args: EngineArgs,
}

impl EvaluatedEngine {
    /// The engine and the collection of the flags.
    ///
    /// # Errors
    /// A collection that exists: it would be replaced.
    pub(crate) fn open(kind: EngineKind, args: &EngineArgs) -> Result<Self> {
        let engine = engines::open(kind, args, &CollectionArgs::default())?;
        if engine.state()?.is_some() {
            return Err(bad_input(
                format!("{}: it exists, and an evaluation makes and removes one of its own", engine.place()),
                "choose another --collection",
            ));
        }
        tracing::info!("sparse rankings are those of {}", engine.place());
        Ok(Self { kind, args: args.clone() })
    }

    /// Evaluates a task whose documents are in `index`. The collection is removed afterwards.
    ///
    /// # Errors
    /// An engine that fails, an index that is damaged.
    pub(super) fn evaluate(&self, index: &ImpactIndex, task: &EncodedTask) -> Result<Evaluation> {
        let engine = engines::open(self.kind, &self.args, &CollectionArgs::default())?;
        let manifest = QueryModel::of_index(index)?.manifest().clone();
        let concurrency = self.args.concurrency();
        let options = PushOptions { concurrency, ..PushOptions::default() };
        let open = || engines::open(self.kind, &self.args, &CollectionArgs::default());
        let evaluated = push(engine.as_ref(), &Source::of_index(index)?, manifest, &options)
            .and_then(|_| EngineClient::open(open()?, concurrency))
            .and_then(|client| Ok(client.on_threads(|| evaluate(&EngineRetriever(&client), task))?));
        // also after a failure, so that the next run can start
        let removed = engine.remove();
        let evaluation = evaluated?;
        removed?;
        Ok(evaluation)
    }
}

/// Documents of a collection by the engine's dot product.
struct EngineRetriever<'a>(&'a EngineClient);

impl Retriever for EngineRetriever<'_> {
    fn retrieve(&self, query: EncodedQuery<'_>, depth: usize) -> splade_core::Result<Ranking> {
        let ranking = WantedRanking::Vectors;
        let wanted = Wanted { vector: query.vector, ranking, k: depth, filter: None, with_documents: false };
        let failed = |error: anyhow::Error| {
            let error = error.context(format!("query {:?}", query.text));
            splade_core::Error::retriever(ErrorKind::Io, error.into_boxed_dyn_error())
        };
        let hits = self.0.search(&wanted).map_err(failed)?;
        Ok(Ranking::from_hits(hits.into_iter().map(|hit| Hit { id: hit.document.id, score: hit.score }).collect()))
    }
}
