//! Search by dense vectors: [`Searcher::search_dense`] and its plain twin.

use std::sync::Arc;

use splade_core::Ranking;
use splade_core::dense::{DenseFile, DenseHit, DenseQuery, DenseVector};
use splade_core::segment::{Live, SegmentDefect};

use crate::hits::Address;
use crate::hybrid::DensePart;
use crate::plugin::named;
use crate::{Error, Filter, Found, Result, SearchOptions, Searcher, dense_plugin};

impl Searcher {
    /// The `k` documents whose dense vectors have the highest dot products with `query`, score descending, then id ascending.
    ///
    /// Scores may be negative: all documents are ranked. [`SearchOptions::scoring`] is of sparse vectors and not read.
    ///
    /// # Errors
    /// An index without dense vectors, a query of other dimensions, a damaged index, an invalid filter.
    pub fn search_dense(&self, query: &DenseVector, k: usize, options: &SearchOptions) -> Result<Vec<Found>> {
        let (query, files) = self.dense_query(query)?;
        let live = self.live_documents(options.filter.as_ref())?;
        // k may be far larger than the number of documents
        let hits = query.search(&files, k.min(self.len()), &live, options.threads);
        self.dense_best(hits, k)
    }

    /// Scores every document: the plain twin of [`search_dense`](Self::search_dense).
    ///
    /// # Errors
    /// Those of [`search_dense`](Self::search_dense).
    pub fn search_dense_exact(&self, query: &DenseVector, k: usize, filter: Option<&Filter>) -> Result<Vec<Found>> {
        let (query, files) = self.dense_query(query)?;
        let hits = query.score_all(&files, &self.live_documents(filter)?);
        self.dense_best(hits, k)
    }

    /// Dense scores of documents, in their order.
    ///
    /// # Errors
    /// Those of [`search_dense`](Self::search_dense), an address of another snapshot.
    pub fn dense_scores(&self, query: &DenseVector, addresses: &[Address]) -> Result<Vec<f32>> {
        let (query, files) = self.dense_query(query)?;
        let score = |address: &Address| {
            self.expect_address(*address)?;
            query.score(&files, address.segment(), address.doc()).map_err(|damage| self.damaged_dense(damage))
        };
        addresses.iter().map(score).collect()
    }

    /// The dense ranking of a query by either source.
    ///
    /// # Errors
    /// Those of [`search_dense`](Self::search_dense) and [`locate`](Self::locate).
    pub fn search_dense_part(&self, part: DensePart<'_>, k: usize, options: &SearchOptions) -> Result<Vec<Found>> {
        match part {
            DensePart::Vector(vector) => self.search_dense(vector, k, options),
            DensePart::Ranking(ranking) => self.locate(ranking, k, options.filter.as_ref()),
        }
    }

    /// The best `k` documents of a ranking made elsewhere, of those that the index has and that pass the filter.
    ///
    /// # Errors
    /// A damaged index, an invalid filter.
    pub fn locate(&self, ranking: &Ranking, k: usize, filter: Option<&Filter>) -> Result<Vec<Found>> {
        let live = self.live_documents(filter)?;
        let mut found = Vec::new();
        for hit in ranking.hits() {
            if found.len() == k {
                break;
            }
            let Some(address) = self.find(&hit.id)? else { continue };
            if live.is_live(address.segment() as usize, address.doc()) {
                found.push(Found { hit: hit.clone(), address });
            }
        }
        Ok(found)
    }

    /// Reads the dense vectors into memory and checks them.
    pub(crate) fn warm_dense(&self) -> Result<()> {
        let files = self.dense_files().iter().enumerate();
        files.into_iter().try_for_each(|(segment, file)| {
            file.warm().map_err(|defect| self.damaged_dense(SegmentDefect { segment, defect }))
        })
    }

    fn dense_query(&self, query: &DenseVector) -> Result<(DenseQuery, Vec<&DenseFile>)> {
        let Some(dense) = self.dense_settings() else {
            return Err(Error::invalid("the index has no dense vectors", "make it anew with a dense model"));
        };
        if query.dimensions() != dense.dimensions as usize {
            let message = format!("a query of {} dimensions, the index has {}", query.dimensions(), dense.dimensions);
            return Err(Error::invalid(message, "the query must come from the dense model of the index"));
        }
        Ok((DenseQuery::new(query.clone()), self.dense_files().iter().map(Arc::as_ref).collect()))
    }

    fn dense_best(&self, hits: Result<Vec<DenseHit>, SegmentDefect>, k: usize) -> Result<Vec<Found>> {
        let hits = hits.map_err(|damage| self.damaged_dense(damage))?;
        self.best(hits.into_iter().map(|hit| (hit.score, Address::new(hit.segment, hit.doc))).collect(), k)
    }

    /// The error of a damaged file of dense vectors.
    fn damaged_dense(&self, SegmentDefect { segment, defect }: SegmentDefect) -> Error {
        let name = named(self.tantivy().segment_reader(segment as u32), dense_plugin::EXTENSION);
        Error::damaged(self.directory().path().join(name), defect)
    }
}
