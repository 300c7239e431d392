//! [`Condition`]: a filter as queries of tantivy, combined by set operations on their documents.
//!
//! tantivy's own boolean queries would do, but skip through their parts in ways that some of its scorers do not expect, and a
//! filter needs all documents in any case.

use tantivy::query::{EnableScoring, Query};
use tantivy::{Searcher, SegmentReader};

use crate::Result;
use crate::bits::Bits;

/// A condition on the documents of a segment.
pub(super) enum Condition {
    /// no condition
    All,
    /// the documents of a query, which is not a boolean one
    Query(Box<dyn Query>),
    /// all hold
    And(Vec<Condition>),
    /// at least one holds
    Or(Vec<Condition>),
    /// it does not hold
    Not(Box<Condition>),
}

impl Condition {
    /// The condition of a query.
    pub(super) fn query(query: impl Query) -> Self {
        Self::Query(Box::new(query))
    }

    /// No document.
    pub(super) fn none() -> Self {
        Self::Or(Vec::new())
    }

    /// The documents of a segment that meet it. Deleted ones may be among them.
    pub(super) fn evaluate(&self, searcher: &Searcher, reader: &SegmentReader) -> Result<Bits> {
        let n_docs = reader.max_doc();
        Ok(match self {
            Self::All => Bits::all(n_docs),
            Self::Query(query) => {
                let weight = query.weight(EnableScoring::disabled_from_searcher(searcher))?;
                let mut found = Bits::none(n_docs);
                weight.for_each_no_score(reader, &mut |docs| docs.iter().for_each(|doc| found.insert(*doc)))?;
                found
            }
            Self::And(conditions) => {
                let mut common = Bits::all(n_docs);
                for condition in conditions {
                    common.intersect(&condition.evaluate(searcher, reader)?);
                }
                common
            }
            Self::Or(conditions) => {
                let mut any = Bits::none(n_docs);
                for condition in conditions {
                    any.unite(&condition.evaluate(searcher, reader)?);
                }
                any
            }
            Self::Not(condition) => {
                let mut others = condition.evaluate(searcher, reader)?;
                others.complement();
                others
            }
        })
    }
}
