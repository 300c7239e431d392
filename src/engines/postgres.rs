//! PostgreSQL with the extension pgvector, version 0.7 or later, which has the type `sparsevec`.
//!
//! A collection is a table. Weights are f32 and may be negative. A search reads the table from start to end and is exact; with
//! `--hnsw` it reads an approximate index, which takes vectors of up to 1000 entries. Values of users are parameters of statements,
//! and names are quoted.

mod connection;
mod filter;
mod rows;
mod statements;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use serde::Deserialize as _;
use serde_json::Value as Json;

use self::connection::Connections;
use self::statements::{Binder, Table};
use super::error::EngineErrorKind;
use super::limits::Limits;
use super::{
    Collection, CollectionManifest, Engine, EngineError, EngineHit, EngineQuery, EngineRanking, EngineResult, IdPage,
    ItemFailure, Record, Tolerance,
};
use crate::cli::{CollectionArgs, EngineArgs};

/// Most entries of a `sparsevec`.
const ENTRIES_MAX: usize = 16_000;
/// Most entries of a `sparsevec` in an HNSW index.
const HNSW_ENTRIES_MAX: usize = 1_000;
/// Number of dimensions of a `sparsevec`.
const DIMENSIONS_MAX: u32 = 1_000_000_000;
/// Share of the exact best documents that a search of an HNSW index finds.
const RECALL_MIN: f32 = 0.8;
/// Ids of a page.
const PAGE: usize = 1000;

/// A table of PostgreSQL.
pub(super) struct Postgres {
    connections: Connections,
    table: Table,
    /// settings of a new table
    args: CollectionArgs,
    /// manifest of the table, once it is read or written
    known: Mutex<Option<CollectionManifest>>,
    /// false once COPY was refused and INSERT was not
    copies: AtomicBool,
}

impl Postgres {
    /// Prepares connections to `--url`. None is opened yet.
    ///
    /// # Errors
    /// An address that is none of PostgreSQL, a name that no table can have.
    pub(super) fn new(args: &EngineArgs, collection: &CollectionArgs) -> Result<Self> {
        Ok(Self {
            connections: Connections::new(args)?,
            table: Table::named(args.collection()?)?,
            args: collection.clone(),
            known: Mutex::default(),
            copies: AtomicBool::new(true),
        })
    }

    fn known(&self) -> MutexGuard<'_, Option<CollectionManifest>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True for a table with an HNSW index, made or to be made.
    fn has_hnsw(&self) -> bool {
        let settings = self.known().as_ref().map(|manifest| CollectionArgs::deserialize(&manifest.driver));
        settings.and_then(Result::ok).map_or(self.args.hnsw, |settings| settings.hnsw)
    }

    /// The statement of a search.
    fn statement(&self, query: &EngineQuery<'_>, binder: &mut Binder) -> EngineResult<String> {
        let (dimensions, language) = self
            .known()
            .as_ref()
            .map_or((0, "none".to_owned()), |manifest| (manifest.vocabulary_size, manifest.language.clone()));
        let vector = binder.text(rows::vector_text(query.vector, dimensions));
        let condition = query.filter.map(|tree| filter::condition(tree, binder, &self.place())).transpose()?;
        match &query.ranking {
            EngineRanking::Vectors => Ok(self.table.search(query, &vector, condition.as_deref(), self.has_hnsw())),
            EngineRanking::Hybrid(hybrid) => {
                let rrf = statements::Rrf::of(hybrid, &self.place())?;
                let words = statements::words_query(&language, &binder.text(hybrid.words.text.to_owned()));
                Ok(self.table.hybrid_search(query, &vector, &words, condition.as_deref(), &rrf))
            }
            EngineRanking::Words(_) => Err(EngineError::input(
                format!("{}: PostgreSQL ranks words by ts_rank, which is not BM25", self.place()),
                "choose --mode hybrid, which fuses it with the vectors, or --mode sparse",
            )),
        }
    }

    /// Statements before a search: an HNSW index returns no more than it was told to look at.
    fn search_settings(&self, query: &EngineQuery<'_>) -> Option<String> {
        self.has_hnsw().then(|| statements::hnsw_settings(query.depth()))
    }
}

impl Engine for Postgres {
    fn name(&self) -> &'static str {
        "postgres"
    }

    fn place(&self) -> String {
        format!("postgres table {}", self.table.name())
    }

    fn limits(&self) -> Limits {
        Limits {
            document_terms_max: if self.has_hnsw() { HNSW_ENTRIES_MAX } else { ENTRIES_MAX },
            query_terms_max: ENTRIES_MAX,
            dim_max: DIMENSIONS_MAX - 1,
            ..Limits::NONE
        }
    }

    fn tolerance(&self) -> Tolerance {
        if self.has_hnsw() {
            Tolerance::Recall { share: RECALL_MIN }
        } else {
            Tolerance::Exact { per_unit_of_score: 1e-5 }
        }
    }

    fn settings(&self) -> Json {
        self.args.to_json()
    }

    fn state(&self) -> EngineResult<Option<Collection>> {
        let place = self.place();
        let state = self.connections.run(&place, |client| {
            let Some(row) = client.query_opt(self.table.comment(), &[&self.table.quoted()])? else { return Ok(None) };
            let count: i64 = client.query_one(&self.table.count(), &[])?.try_get(0)?;
            Ok(Some((row.try_get::<_, Option<String>>(0)?, count)))
        })?;
        let collection = state.map(|(comment, count)| {
            let manifest = comment.as_deref().and_then(statements::manifest_of);
            let manifest = manifest.map(|json| CollectionManifest::from_json(&json, &place)).transpose()?;
            Ok(Collection { manifest, n_docs: count.unsigned_abs() })
        });
        let collection = collection.transpose()?;
        *self.known() = collection.as_ref().and_then(|collection| collection.manifest.clone());
        Ok(collection)
    }

    fn create(&self, manifest: &CollectionManifest) -> EngineResult<()> {
        let comment = self.table.set_comment(&manifest.to_json()?);
        let create = self.table.create(manifest.vocabulary_size, &manifest.language);
        self.connections.run(&self.place(), |client| {
            let mut transaction = client.transaction()?;
            transaction.batch_execute(&create)?;
            transaction.batch_execute(&comment)?;
            transaction.commit()
        })?;
        *self.known() = Some(manifest.clone());
        Ok(())
    }

    fn write_manifest(&self, manifest: &CollectionManifest) -> EngineResult<()> {
        let comment = self.table.set_comment(&manifest.to_json()?);
        self.connections.run(&self.place(), |client| client.batch_execute(&comment))?;
        *self.known() = Some(manifest.clone());
        Ok(())
    }

    fn remove(&self) -> EngineResult<()> {
        self.connections.run(&self.place(), |client| client.batch_execute(&self.table.remove()))?;
        *self.known() = None;
        Ok(())
    }

    fn upsert(&self, records: &[Record]) -> EngineResult<Vec<ItemFailure>> {
        let (dimensions, fields) = self
            .known()
            .as_ref()
            .map_or((0, Vec::new()), |manifest| (manifest.vocabulary_size, manifest.fields.clone()));
        let rows: Vec<rows::Row> = records.iter().map(|record| rows::Row::new(record, &fields, dimensions)).collect();
        // the server takes or refuses a transaction as a whole
        if self.copies.load(Ordering::Relaxed) {
            match self.connections.run(&self.place(), |client| self.table.copy(client, &rows)) {
                Err(error) if error.kind() != EngineErrorKind::Content => {
                    self.connections.run(&self.place(), |client| self.table.insert(client, &rows))?;
                    tracing::info!("{}: INSERT takes the place of COPY, which failed: {error}", self.place());
                    self.copies.store(false, Ordering::Relaxed);
                }
                copied => copied?,
            }
        } else {
            self.connections.run(&self.place(), |client| self.table.insert(client, &rows))?;
        }
        Ok(Vec::new())
    }

    fn digests(&self, ids: &[String]) -> EngineResult<HashMap<String, String>> {
        self.connections.run(&self.place(), |client| {
            let rows = client.query(&self.table.digests(), &[&ids])?;
            rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
        })
    }

    fn ids(&self, after: Option<&Json>) -> EngineResult<IdPage> {
        let after = after.and_then(Json::as_str).unwrap_or_default();
        let ids = self.connections.run(&self.place(), |client| {
            let rows = client.query(&self.table.ids(PAGE), &[&after])?;
            rows.iter().map(|row| row.try_get::<_, String>(0)).collect::<Result<Vec<_>, _>>()
        })?;
        let next = ids.last().filter(|_| ids.len() == PAGE).map(|id| Json::from(id.as_str()));
        Ok(IdPage { ids, next })
    }

    fn delete(&self, ids: &[String]) -> EngineResult<()> {
        self.connections.run(&self.place(), |client| client.execute(&self.table.delete(), &[&ids]).map(drop))
    }

    fn settle(&self) -> EngineResult<()> {
        let has_hnsw = self.has_hnsw();
        self.connections.run(&self.place(), |client| {
            if has_hnsw && client.query_opt(self.table.hnsw_index(), &[&self.table.quoted()])?.is_none() {
                // it takes longer than any other statement
                let mut transaction = client.transaction()?;
                transaction.batch_execute("SET LOCAL statement_timeout = 0")?;
                transaction.batch_execute(&self.table.create_hnsw_index())?;
                transaction.commit()?;
            }
            client.batch_execute(&self.table.analyze())
        })
    }

    fn request(&self, query: &EngineQuery<'_>) -> EngineResult<String> {
        let statement = self.statement(query, &mut Binder::Literals)?;
        Ok(match self.search_settings(query) {
            None => format!("{statement};"),
            Some(settings) => format!("BEGIN;\n{settings};\n{statement};\nCOMMIT;"),
        })
    }

    fn search(&self, query: &EngineQuery<'_>) -> EngineResult<Vec<EngineHit>> {
        let mut binder = Binder::Parameters(Vec::new());
        let statement = self.statement(query, &mut binder)?;
        let (settings, parameters) = (self.search_settings(query), binder.parameters());
        self.connections.run(&self.place(), |client| {
            let mut transaction = client.transaction()?;
            if let Some(settings) = &settings {
                transaction.batch_execute(settings)?;
            }
            let rows = transaction.query(&statement, &parameters)?;
            transaction.commit()?;
            rows.iter().map(|row| rows::hit(row, query.with_documents)).collect()
        })
    }
}
