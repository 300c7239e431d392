//! [`QueryScorer`]: BM25 scores with any parameters, from tantivy's postings.

use tantivy::index::SegmentReader;
use tantivy::postings::Postings;
use tantivy::query::Bm25StatisticsProvider;
use tantivy::schema::{Field, IndexRecordOption};
use tantivy::{DocSet, TERMINATED, TantivyError, Term};

use super::Bm25Options;
use super::saturation::Saturation;
use crate::Result;
use crate::hits::Address;
use crate::passages::DocumentStatistics;
use splade_core::segment::Live;

/// Words of the index that count as one word of a query.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Group {
    /// factor of the group's scores
    pub(crate) weight: f32,
    /// the word itself first, then its compounds
    pub(crate) words: Vec<Term>,
}

impl Group {
    /// Group of one word.
    pub(crate) fn word(word: Term) -> Self {
        Self { weight: 1.0, words: vec![word] }
    }
}

/// Scorer of one query over a snapshot. All sums are in the order of the groups.
pub(super) struct QueryScorer<'a> {
    searcher: &'a tantivy::Searcher,
    field: Field,
    groups: Vec<ScoredGroup>,
    saturation: Saturation,
}

struct ScoredGroup {
    word: Term,
    text: String,
    /// weight · idf · (k1 + 1)
    factor: f32,
    /// document and tf by segment, ascending; none for a group of one word, which is read from its postings
    merged: Option<Vec<Vec<(u32, u32)>>>,
}

impl<'a> QueryScorer<'a> {
    pub(super) fn new(
        statistics: &DocumentStatistics<'a>,
        field: Field,
        groups: Vec<Group>,
        options: Bm25Options,
    ) -> Result<Self> {
        let searcher = statistics.searcher();
        let documents = statistics.total_num_docs()?;
        let saturation = Saturation::new(options, statistics.mean_length(field)?);
        let mut scored = Vec::with_capacity(groups.len());
        for Group { weight, words } in groups {
            let merged = if words.len() > 1 { Some(merge(searcher, field, &words)?) } else { None };
            let Some(word) = words.into_iter().next() else { continue };
            let df = match &merged {
                Some(segments) => segments.iter().map(|segment| segment.len() as u64).sum(),
                None => searcher.doc_freq(&word)?,
            };
            let text = word.value().as_str().unwrap_or_default().to_owned();
            scored.push(ScoredGroup {
                word,
                text,
                factor: weight * (idf(df, documents) * (1.0 + options.k1())),
                merged,
            });
        }
        Ok(Self { searcher, field, groups: scored, saturation })
    }

    /// Word of a group, by the number that [`parts`](Self::parts) gives.
    pub(super) fn word(&self, group: usize) -> &str {
        &self.groups[group].text
    }

    /// Documents among which the best `k` are, those that tie with the last of them included.
    pub(super) fn top(&self, k: usize, live: &impl Live) -> Result<Vec<(f32, Address)>, TantivyError> {
        let mut best = Best { k, limit: k.saturating_mul(4).max(1024), least: 0.0, kept: Vec::new() };
        for (segment, reader) in self.searcher.segment_readers().iter().enumerate() {
            let scores = self.score_segment(segment, reader)?;
            for (doc, score) in (0_u32..).zip(scores) {
                if score > 0.0 && score >= best.least && live.is_live(segment, doc) {
                    best.push(score, Address::new(segment as u32, doc));
                }
            }
        }
        Ok(best.kept)
    }

    /// Scores of all documents of a segment.
    fn score_segment(&self, segment: usize, reader: &SegmentReader) -> Result<Vec<f32>, TantivyError> {
        let lengths = reader.get_fieldnorms_reader(self.field)?;
        let inverted = reader.inverted_index(self.field)?;
        let mut scores = vec![0.0_f32; reader.max_doc() as usize];
        let mut add = |factor: f32, doc: u32, tf: u32| {
            // a damaged list may name a document beyond the segment
            if let Some(score) = scores.get_mut(doc as usize) {
                *score += self.part(factor, tf, lengths.fieldnorm_id(doc));
            }
        };
        for group in &self.groups {
            if let Some(merged) = &group.merged {
                merged[segment].iter().for_each(|&(doc, tf)| add(group.factor, doc, tf));
                continue;
            }
            let Some(mut postings) = inverted.read_block_postings(&group.word, IndexRecordOption::WithFreqs)? else {
                continue;
            };
            while !postings.docs().is_empty() {
                let block = postings.docs().iter().zip(postings.freqs());
                block.for_each(|(&doc, &tf)| add(group.factor, doc, tf));
                postings.advance();
            }
        }
        Ok(scores)
    }

    /// Groups that each document has, with their parts of its score.
    pub(super) fn parts(&self, addresses: &[Address]) -> Result<Vec<Vec<(usize, f32)>>> {
        let mut parts = vec![Vec::new(); addresses.len()];
        // postings are read forwards
        let mut order: Vec<usize> = (0..addresses.len()).collect();
        order.sort_unstable_by_key(|&at| addresses[at]);
        for of_segment in order.chunk_by(|&a, &b| addresses[a].segment() == addresses[b].segment()) {
            let segment = addresses[of_segment[0]].segment();
            let reader = self.searcher.segment_reader(segment);
            let lengths = reader.get_fieldnorms_reader(self.field)?;
            for (number, group) in self.groups.iter().enumerate() {
                let mut frequencies = self.frequencies(group, segment as usize, reader)?;
                for &at in of_segment {
                    let doc = addresses[at].doc();
                    if let Some(tf) = frequencies.of(doc) {
                        parts[at].push((number, self.part(group.factor, tf, lengths.fieldnorm_id(doc))));
                    }
                }
            }
        }
        Ok(parts)
    }

    fn frequencies<'g>(
        &self,
        group: &'g ScoredGroup,
        segment: usize,
        reader: &SegmentReader,
    ) -> Result<Frequencies<'g>> {
        if let Some(merged) = &group.merged {
            return Ok(Frequencies::Merged(&merged[segment]));
        }
        let inverted = reader.inverted_index(self.field)?;
        let postings = inverted.read_postings(&group.word, IndexRecordOption::WithFreqs).map_err(TantivyError::from)?;
        Ok(postings.map_or(Frequencies::Merged(&[]), |postings| Frequencies::Postings(Box::new(postings))))
    }

    /// Part of a word of frequency `tf` in a document of the length with this number.
    fn part(&self, factor: f32, tf: u32, length: u8) -> f32 {
        factor * self.saturation.of(tf, length)
    }
}

/// Lucene's idf, which is never negative.
fn idf(df: u64, documents: u64) -> f32 {
    let x = (documents.saturating_sub(df) as f32 + 0.5) / (df as f32 + 0.5);
    (1.0 + x).ln()
}

/// Frequencies of a group in the documents of one segment, asked for in ascending order.
enum Frequencies<'g> {
    Merged(&'g [(u32, u32)]),
    Postings(Box<tantivy::postings::SegmentPostings>),
}

impl Frequencies<'_> {
    fn of(&mut self, doc: u32) -> Option<u32> {
        match self {
            Self::Merged(list) => list.binary_search_by_key(&doc, |&(doc, _)| doc).ok().map(|at| list[at].1),
            Self::Postings(postings) => {
                if postings.doc() < doc {
                    postings.seek(doc);
                }
                (postings.doc() == doc).then(|| postings.term_freq())
            }
        }
    }
}

/// Documents of any of the words in each segment, ascending, with their frequencies added up.
fn merge(searcher: &tantivy::Searcher, field: Field, words: &[Term]) -> Result<Vec<Vec<(u32, u32)>>> {
    let segment = |reader: &SegmentReader| {
        let inverted = reader.inverted_index(field)?;
        let mut all: Vec<(u32, u32)> = Vec::new();
        for word in words {
            let postings = inverted.read_postings(word, IndexRecordOption::WithFreqs).map_err(TantivyError::from)?;
            let Some(mut postings) = postings else { continue };
            while postings.doc() != TERMINATED {
                all.push((postings.doc(), postings.term_freq()));
                postings.advance();
            }
        }
        all.sort_unstable();
        all.dedup_by(|next, kept| {
            let is_same = next.0 == kept.0;
            if is_same {
                kept.1 = kept.1.saturating_add(next.1);
            }
            is_same
        });
        Ok(all)
    };
    searcher.segment_readers().iter().map(segment).collect()
}

/// The best documents so far.
struct Best {
    k: usize,
    /// number of documents at which the worse ones are dropped
    limit: usize,
    /// score below which a document is not among the best `k`
    least: f32,
    kept: Vec<(f32, Address)>,
}

impl Best {
    fn push(&mut self, score: f32, address: Address) {
        self.kept.push((score, address));
        if self.kept.len() < self.limit {
            return;
        }
        let (_, last, _) = self.kept.select_nth_unstable_by(self.k - 1, |a, b| b.0.total_cmp(&a.0));
        self.least = last.0;
        // ties with the last one stay: the id decides among them
        self.kept.retain(|(score, _)| *score >= self.least);
        self.limit = self.limit.max(self.kept.len().saturating_mul(2));
    }
}
