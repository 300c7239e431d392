//! [`write_segment`]: builds a segment file from forward rows, at a commit and at a merge.

use super::format::{Header, Identity, PostingsKind, SEED_DEPTHS, TermEntry, WINDOW, padding};
use super::row::{Entry, Row};

/// Writes a segment file of `documents`, in their order. The iterator runs several times, so that only the postings are held in
/// memory.
pub fn write_segment<'a>(
    out: &mut impl std::io::Write,
    identity: &Identity,
    mut documents: impl Iterator<Item = Entry<'a>> + Clone,
) -> std::io::Result<()> {
    let rows = documents.clone().map(|document| document.row);
    let inverted = Inverted::build(identity.vocabulary_size, rows.clone());
    let (starts, n_postings) = offsets(rows.clone().map(|row| row.len()));
    let (id_starts, ids_len) = offsets(documents.clone().map(|document| document.id.len()));
    let terms: Vec<u8> = inverted.terms.iter().flat_map(|term| term.to_bytes()).collect();
    let windows: Vec<u8> = inverted.windows.iter().flat_map(|offset| offset.to_le_bytes()).collect();
    let rows_len = n_postings * identity.layout.entry_len();

    let before = [&terms, &windows, &inverted.postings, &inverted.dense, &starts];
    let [terms_len, windows_len, postings_len, dense_len, starts_len] = before.map(Vec::len);
    let lens = [terms_len, windows_len, postings_len, dense_len, starts_len, rows_len, id_starts.len(), ids_len];
    out.write_all(&Header::new(identity, inverted.n_docs, n_postings as u64, lens).to_bytes())?;
    for section in before {
        out.write_all(section)?;
        pad(out, section.len())?;
    }
    for row in rows {
        for part in row.bytes() {
            out.write_all(part)?;
        }
    }
    pad(out, rows_len)?;
    out.write_all(&id_starts)?;
    pad(out, id_starts.len())?;
    documents.try_for_each(|document| out.write_all(document.id))
}

/// Start of each part and end of the last part, as bytes; and the end as a number.
fn offsets(lens: impl Iterator<Item = usize>) -> (Vec<u8>, usize) {
    let mut end = 0;
    let mut bytes = 0_u64.to_le_bytes().to_vec();
    for len in lens {
        end += len;
        bytes.extend_from_slice(&(end as u64).to_le_bytes());
    }
    (bytes, end)
}

fn pad(out: &mut impl std::io::Write, len: usize) -> std::io::Result<()> {
    out.write_all(&vec![0; padding(len)])
}

/// Postings of all terms, built from forward rows.
struct Inverted {
    n_docs: u32,
    terms: Vec<TermEntry>,
    windows: Vec<u32>,
    postings: Vec<u8>,
    dense: Vec<u8>,
}

impl Inverted {
    fn build<'a>(vocabulary_size: u32, rows: impl Iterator<Item = Row<'a>> + Clone) -> Self {
        let mut counts = vec![0_u32; vocabulary_size as usize];
        let mut largest = vec![0_f32; vocabulary_size as usize];
        let mut n_docs = 0;
        for row in rows.clone() {
            n_docs += 1;
            for (dim, weight) in row.iter() {
                counts[dim as usize] += 1;
                largest[dim as usize] = largest[dim as usize].max(weight);
            }
        }
        let mut inverted =
            Self { n_docs, terms: Vec::new(), windows: Vec::new(), postings: Vec::new(), dense: Vec::new() };
        // position in `terms` by vocabulary id; `u32::MAX` for a term that no document has
        let mut places = vec![u32::MAX; vocabulary_size as usize];
        for (id, (&df, &weight)) in (0..).zip(counts.iter().zip(&largest)) {
            if df > 0 {
                places[id as usize] = inverted.terms.len() as u32;
                inverted.reserve(id, df, weight);
            }
        }
        inverted.fill(&places, rows);
        inverted.finish();
        inverted
    }

    /// Allocates the postings of a term.
    fn reserve(&mut self, id: u32, df: u32, largest: f32) {
        let n_windows = (self.n_docs as usize).div_ceil(WINDOW);
        let (kind, start) = if u64::from(df) * 4 > u64::from(self.n_docs) {
            self.dense.resize(self.dense.len() + self.n_docs as usize, 0);
            (PostingsKind::Dense, self.dense.len() - self.n_docs as usize)
        } else if df as usize <= 2 * (n_windows + 1) {
            self.postings.resize(self.postings.len() + df as usize * 5, 0);
            (PostingsKind::Short, self.postings.len() - df as usize * 5)
        } else {
            self.postings.resize(self.postings.len() + df as usize * 3, 0);
            (PostingsKind::Windowed, self.postings.len() - df as usize * 3)
        };
        let windows = self.windows.len() as u32;
        if kind == PostingsKind::Windowed {
            self.windows.resize(self.windows.len() + n_windows + 1, 0);
        }
        // for a weight near the smallest float, the quotient may be zero
        let step = (largest / 255.0).max(f32::MIN_POSITIVE);
        self.terms.push(TermEntry { id, df, step, error: 0.0, start: start as u64, windows, kind, seeds: [0; 2] });
    }

    /// Writes every posting to its position, by ascending document.
    fn fill<'a>(&mut self, places: &[u32], rows: impl Iterator<Item = Row<'a>>) {
        let mut filled = vec![0_usize; self.terms.len()];
        for (doc, row) in (0_u32..).zip(rows) {
            for (dim, weight) in row.iter() {
                let place = places[dim as usize] as usize;
                let term = &mut self.terms[place];
                let impact = (weight / term.step).round().clamp(1.0, 255.0) as u8;
                let error = (f64::from(weight) - f64::from(impact) * f64::from(term.step)).abs();
                term.error = term.error.max((error as f32).next_up());
                let (start, df) = (term.start as usize, term.df as usize);
                let at = filled[place];
                filled[place] += 1;
                match term.kind {
                    PostingsKind::Short => {
                        self.postings[start + at * 4..][..4].copy_from_slice(&doc.to_le_bytes());
                        self.postings[start + df * 4 + at] = impact;
                    }
                    PostingsKind::Windowed => {
                        let id = (doc as usize % WINDOW) as u16;
                        self.postings[start + at * 2..][..2].copy_from_slice(&id.to_le_bytes());
                        self.postings[start + df * 2 + at] = impact;
                        self.windows[term.windows as usize + doc as usize / WINDOW + 1] += 1;
                    }
                    PostingsKind::Dense => self.dense[start + doc as usize] = impact,
                }
            }
        }
    }

    /// Sums the counts of the windows to offsets, and computes the k-th largest impacts.
    fn finish(&mut self) {
        let n_windows = (self.n_docs as usize).div_ceil(WINDOW);
        for term in &mut self.terms {
            let (start, df) = (term.start as usize, term.df as usize);
            let impacts = match term.kind {
                PostingsKind::Short => &self.postings[start + df * 4..][..df],
                PostingsKind::Windowed => {
                    let offsets = &mut self.windows[term.windows as usize..][..=n_windows];
                    for at in 1..offsets.len() {
                        offsets[at] += offsets[at - 1];
                    }
                    &self.postings[start + df * 2..][..df]
                }
                PostingsKind::Dense => &self.dense[start..][..self.n_docs as usize],
            };
            term.seeds = SEED_DEPTHS.map(|k| kth_largest(impacts, k));
        }
    }
}

/// The `k`-th largest of `impacts`; 0 if there are fewer than `k`.
fn kth_largest(impacts: &[u8], k: usize) -> u8 {
    let mut counts = [0_usize; 256];
    for &impact in impacts {
        counts[usize::from(impact)] += 1;
    }
    let mut above = 0;
    for impact in (1..=255_u8).rev() {
        above += counts[usize::from(impact)];
        if above >= k {
            return impact;
        }
    }
    0
}
