//! A writer of files of version 1, which this program only reads.

use crate::segment::header::padding;
use crate::segment::term::{PostingsKind, TermEntry};
use crate::segment::writer::{impact_of, step_of};
use crate::segment::{Entry, Identity};

/// Number of documents in a window.
const WINDOW: usize = 8192;

/// Writes a segment file of `documents`.
pub(super) fn write<'a>(identity: &Identity, documents: impl Iterator<Item = Entry<'a>> + Clone) -> Vec<u8> {
    let n_docs = documents.clone().count();
    let mut lists = vec![Vec::new(); identity.vocabulary_size as usize];
    let (mut starts, mut rows, mut id_starts, mut ids) = (vec![0_u64], Vec::new(), vec![0_u64], Vec::new());
    for (doc, entry) in documents.enumerate() {
        let (dims, weights): (Vec<u32>, Vec<f32>) = entry.row.iter().unzip();
        for (dim, weight) in dims.iter().zip(&weights) {
            lists[*dim as usize].push((doc, *weight));
        }
        starts.push(starts[doc] + dims.len() as u64);
        identity.layout.encode(dims, weights, &mut rows);
        ids.extend_from_slice(entry.id);
        id_starts.push(ids.len() as u64);
    }
    let mut lists_of = Lists { n_docs, ..Lists::default() };
    for (id, list) in (0..).zip(&lists) {
        if !list.is_empty() {
            lists_of.add(id, list);
        }
    }
    let bytes = |offsets: &[u64]| offsets.iter().flat_map(|offset| offset.to_le_bytes()).collect::<Vec<u8>>();
    let Lists { terms, windows, postings, dense, .. } = lists_of;
    let sections = [terms, windows, postings, dense, bytes(&starts), rows, bytes(&id_starts), ids];
    let mut file = vec![0; 256];
    file[..8].copy_from_slice(b"SPLADEix");
    for (at, number) in [1, identity.layout.flags(), n_docs as u32, identity.vocabulary_size, 13].iter().enumerate() {
        file[8 + at * 4..][..4].copy_from_slice(&number.to_le_bytes());
    }
    file[28..36].copy_from_slice(&starts[n_docs].to_le_bytes());
    file[40..72].copy_from_slice(&identity.fingerprint);
    for (at, section) in sections.iter().enumerate() {
        let start = file.len() as u64;
        file[72 + at * 16..][..8].copy_from_slice(&start.to_le_bytes());
        file[80 + at * 16..][..8].copy_from_slice(&(section.len() as u64).to_le_bytes());
        file.extend_from_slice(section);
        file.resize(file.len() + padding(file.len()), 0);
    }
    file
}

#[derive(Default)]
struct Lists {
    n_docs: usize,
    terms: Vec<u8>,
    windows: Vec<u8>,
    postings: Vec<u8>,
    dense: Vec<u8>,
}

impl Lists {
    fn add(&mut self, id: u32, list: &[(usize, f32)]) {
        let n_windows = self.n_docs.div_ceil(WINDOW);
        let step = step_of(list.iter().fold(0.0, |largest, (_, weight)| weight.max(largest)));
        let impacts: Vec<u8> = list.iter().map(|(_, weight)| impact_of(*weight, step)).collect();
        let mut extra = 0;
        let (kind, start) = if list.len() * 4 > self.n_docs {
            let start = self.dense.len();
            self.dense.resize(start + self.n_docs, 0);
            list.iter().zip(&impacts).for_each(|((doc, _), impact)| self.dense[start + doc] = *impact);
            (PostingsKind::Dense, start)
        } else if list.len() <= 2 * (n_windows + 1) {
            let start = self.postings.len();
            list.iter().for_each(|(doc, _)| self.postings.extend_from_slice(&(*doc as u32).to_le_bytes()));
            self.postings.extend_from_slice(&impacts);
            (PostingsKind::Short, start)
        } else {
            let start = self.postings.len();
            extra = self.windows.len() as u32 / 4;
            for window in 0..=n_windows {
                let before = list.partition_point(|(doc, _)| *doc < window * WINDOW) as u32;
                self.windows.extend_from_slice(&before.to_le_bytes());
            }
            list.iter().for_each(|(doc, _)| self.postings.extend_from_slice(&((doc % WINDOW) as u16).to_le_bytes()));
            self.postings.extend_from_slice(&impacts);
            (PostingsKind::Windowed, start)
        };
        let errors = list.iter().zip(&impacts).map(|((_, weight), impact)| (weight - f32::from(*impact) * step).abs());
        let error = errors.fold(0.0, f32::max) * 1.001;
        let entry =
            TermEntry { id, df: list.len() as u32, step, error, start: start as u64, extra, kind, seeds: [0; 3] };
        self.terms.extend_from_slice(&entry.to_bytes());
    }
}
