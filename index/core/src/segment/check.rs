//! [`SegmentFile::check`]: all values of a segment file.

use super::format::{Defect, SegmentFile};
use super::header::{Section, Version};
use super::term::{COUNT_BLOCK, Postings, TermEntry, TermList, check_offsets};

impl SegmentFile {
    /// Checks that terms are ascending and in the vocabulary, and that their postings are inside the file.
    pub(super) fn check_terms(&self) -> Result<(), Defect> {
        let mut below = 0;
        let mut postings = 0;
        for (position, entry) in self.term_entries().iter().enumerate() {
            let term = TermEntry::from_bytes(entry)?;
            let id = term.id;
            if id < below || id >= self.header.vocabulary_size {
                return Err(format!("term {id} is out of order or beyond the vocabulary"));
            }
            below = id + 1;
            postings += u64::from(term.df);
            if term.df == 0 || term.df > self.n_docs() {
                return Err(format!("term {id} claims {} of {} documents", term.df, self.n_docs()));
            }
            if !(term.step.is_finite() && term.step > 0.0 && term.error.is_finite() && term.error >= 0.0) {
                return Err(format!("term {id} has a step or an error that is no positive number"));
            }
            let list = self.list(position)?;
            // in version 2 they are checked when the list is read
            if let (Version::One, Postings::Windowed { offsets, .. }) = (self.header.version, list.postings) {
                check_offsets(offsets, term.df).map_err(|defect| format!("term {id}: {defect}"))?;
            }
        }
        if postings != self.n_postings() {
            return Err(format!("its terms have {postings} postings, its header states {}", self.n_postings()));
        }
        if self.has_rows() && (self.section(Section::Rows).len() / self.layout.entry_len()) as u64 != postings {
            return Err("its forward section has another number of weights than its postings".into());
        }
        Ok(())
    }

    /// Checks the offsets of ids and of rows.
    pub(super) fn check_all_starts(&self) -> Result<(), Defect> {
        if self.has_rows() {
            self.check_starts(Section::Starts, Section::Rows, self.layout.entry_len())?;
        }
        self.check_starts(Section::IdStarts, Section::Ids, 1)
    }

    /// Checks that the offsets in `starts`, counted in units of `unit` bytes, ascend from 0 to the end of `section`.
    fn check_starts(&self, starts: Section, section: Section, unit: usize) -> Result<(), Defect> {
        let starts: &[[u8; 8]] = self.section(starts).as_chunks().0;
        if starts.len() != self.n_docs() as usize + 1 {
            return Err(format!("section {section:?} has another number of documents"));
        }
        let offsets = starts.iter().map(|start| u64::from_le_bytes(*start));
        let end = offsets.clone().next_back().and_then(|end| end.checked_mul(unit as u64));
        if offsets.clone().next() != Some(0) || !offsets.is_sorted() || end != Some(self.section(section).len() as u64)
        {
            return Err(format!("the offsets of section {section:?} do not fit it"));
        }
        Ok(())
    }

    /// Checks every block and every value. This reads the whole file.
    ///
    /// # Errors
    /// The first defect found.
    pub fn check(&self) -> Result<(), Defect> {
        self.bytes.check(0..self.bytes.len())?;
        for position in 0..self.term_entries().len() {
            let list = self.list(position)?;
            check_list(&list, self.n_docs()).map_err(|defect| format!("term {}: {defect}", list.entry.id))?;
        }
        self.check_all_starts()?;
        for doc in 0..self.n_docs() {
            self.check_document(doc).map_err(|defect| format!("document {doc}: {defect}"))?;
        }
        Ok(())
    }

    fn check_document(&self, doc: u32) -> Result<(), Defect> {
        let id = self.id(doc)?;
        if id.is_empty() || std::str::from_utf8(id).is_err() {
            return Err("its id is empty or no UTF-8".into());
        }
        if !self.has_rows() {
            return Ok(());
        }
        let mut below = 0;
        for (dim, weight) in self.row(doc)?.iter() {
            if dim < below || dim >= self.header.vocabulary_size {
                return Err(format!("term {dim} is out of order or beyond the vocabulary"));
            }
            check_weight(weight).map_err(|defect| format!("term {dim}: {defect}"))?;
            below = dim + 1;
        }
        Ok(())
    }
}

fn check_weight(weight: f32) -> Result<(), Defect> {
    if weight.is_finite() && weight > 0.0 { Ok(()) } else { Err(format!("a weight of {weight}")) }
}

fn check_list(list: &TermList<'_>, n_docs: u32) -> Result<(), Defect> {
    if let Postings::Windowed { offsets, ids, .. } = list.postings {
        check_offsets(offsets, list.entry.df)?;
        if ids.iter().any(|id| u32::from(u16::from_le_bytes(*id)) >= 1 << list.window_bits) {
            return Err("an id beyond its window".into());
        }
    }
    let (mut below, mut found) = (0, 0);
    let mut defect = None;
    list.for_each(|doc, posting| {
        found += 1;
        let weight = list.remainders.map_or(Ok(()), |all| check_weight(all.weight(posting.at, posting.impact)));
        if let Err(weight) = weight {
            defect.get_or_insert(weight);
        }
        if doc < below || doc >= n_docs {
            defect.get_or_insert("document ids out of order or range".into());
        }
        if posting.impact == 0 {
            defect.get_or_insert("an impact of zero".into());
        }
        below = doc.saturating_add(1);
    });
    if let Some(defect) = defect {
        return Err(defect);
    }
    if found != list.entry.df {
        return Err(format!("{found} postings instead of {}", list.entry.df));
    }
    check_counts(list)?;
    let positions = list.remainders.map_or(&[][..], |all| all.positions);
    let positions = positions.iter().map(|at| u32::from_le_bytes(*at));
    if !positions.clone().is_sorted_by(|a, b| a < b) || positions.max().is_some_and(|at| at >= list.entry.df) {
        return Err("exceptions out of order or range".into());
    }
    Ok(())
}

/// Checks the numbers of postings before each block of a dense list of version 2.
fn check_counts(list: &TermList<'_>) -> Result<(), Defect> {
    let Postings::Dense { impacts, counts } = list.postings else { return Ok(()) };
    let mut before = 0;
    for (count, block) in counts.iter().zip(impacts.chunks(COUNT_BLOCK)) {
        if u32::from_le_bytes(*count) != before {
            return Err("wrong counts of its blocks".into());
        }
        before += block.iter().filter(|impact| **impact != 0).count() as u32;
    }
    Ok(())
}
