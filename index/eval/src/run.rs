//! [`Run`]: query → ranking, by one system.

use std::collections::{HashMap, HashSet};
use std::io::{self, Write};
use std::path::Path;

use splade_core::{Hit, Ranking};
use splade_files::read_text;

use crate::error::{Error, Result};

/// Rankings of many queries, in the order in which they were added.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Run {
    rankings: Vec<(String, Ranking)>,
    places: HashMap<String, usize>,
}

impl Run {
    /// Adds the ranking of a query and returns the one it replaces.
    pub fn insert(&mut self, query_id: impl Into<String>, ranking: Ranking) -> Option<Ranking> {
        let query_id = query_id.into();
        if let Some(&place) = self.places.get(&query_id) {
            return Some(std::mem::replace(&mut self.rankings[place].1, ranking));
        }
        self.places.insert(query_id.clone(), self.rankings.len());
        self.rankings.push((query_id, ranking));
        None
    }

    /// Ranking of a query.
    #[must_use]
    pub fn ranking(&self, query_id: &str) -> Option<&Ranking> {
        self.places.get(query_id).map(|&place| &self.rankings[place].1)
    }

    /// Queries and their rankings, in the order in which they were added.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Ranking)> {
        self.rankings.iter().map(|(id, ranking)| (id.as_str(), ranking))
    }

    /// Number of queries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rankings.len()
    }

    /// True if there are no queries.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rankings.is_empty()
    }

    /// Writes one line per hit, `query Q0 document rank score system`, ranks from 1; scores are the shortest decimals
    /// that read back to the same f32. A query without hits leaves no line.
    ///
    /// ```
    /// use splade_core::{Hit, Ranking};
    /// use splade_eval::Run;
    ///
    /// let mut run = Run::default();
    /// run.insert("q1", Ranking::from_hits(vec![Hit { id: "d7".into(), score: 12.25 }]));
    /// let mut out = Vec::new();
    /// run.write_trec(&mut out, "splade")?;
    /// assert_eq!(out, b"q1 Q0 d7 1 12.25 splade\n");
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    /// Errors of `out`; [`io::ErrorKind::InvalidInput`] for an id or a system name that is empty or holds white space,
    /// which the form cannot express.
    pub fn write_trec(&self, out: &mut impl Write, system: &str) -> io::Result<()> {
        word(system)?;
        for (query_id, ranking) in self.iter() {
            word(query_id)?;
            for (rank, hit) in (1..).zip(ranking.hits()) {
                writeln!(out, "{query_id} Q0 {} {rank} {} {system}", word(&hit.id)?, hit.score)?;
            }
        }
        Ok(())
    }

    /// Reads a run in the TREC form. Scores order the hits; ranks and the system's name are ignored. ASCII white space
    /// separates columns, as in trec_eval.
    ///
    /// # Errors
    /// A file that cannot be opened, a line without six columns or with a score that is not a finite number, a duplicate
    /// document id of a query.
    pub fn read_trec(path: &Path) -> Result<Self> {
        let text = read_text(path)?;
        let lines = trec_lines(&text);
        let mut places: HashMap<&str, usize> = HashMap::new();
        let mut queries: Vec<(&str, Vec<Hit>)> = Vec::new();
        for (number, line) in lines.clone() {
            let (query_id, hit) = trec_hit(line).map_err(|message| Error::line(path, number, message))?;
            let place = *places.entry(query_id).or_insert(queries.len());
            if place == queries.len() {
                queries.push((query_id, Vec::new()));
            }
            queries[place].1.push(hit);
        }
        let mut run = Self::default();
        for (query_id, hits) in queries {
            let count = hits.len();
            let ranking = Ranking::from_hits(hits);
            if ranking.len() < count {
                return Err(duplicate_hit(path, lines, query_id));
            }
            run.insert(query_id, ranking);
        }
        Ok(run)
    }
}

/// Lines of a TREC run that are not blank, with their numbers from 1.
fn trec_lines(text: &str) -> impl Iterator<Item = (usize, &str)> + Clone {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    (1..).zip(text.lines()).filter(|(_, line)| !line.trim_ascii().is_empty())
}

/// Query id and hit of a line, or what is wrong with it.
fn trec_hit(line: &str) -> Result<(&str, Hit), String> {
    let mut words = line.split_ascii_whitespace();
    let mut next = || words.next();
    let columns = (next(), next(), next(), next(), next(), next(), next());
    let (Some(query_id), _, Some(id), _, Some(score), Some(_), None) = columns else {
        let count = line.split_ascii_whitespace().count();
        return Err(format!("{count} columns, expected six: `query Q0 document rank score system`"));
    };
    match score.parse() {
        Ok(number) if f32::is_finite(number) => Ok((query_id, Hit { id: id.to_owned(), score: number })),
        _ => Err(format!("the score '{score}' is not a finite number")),
    }
}

/// Error that names the first line with a document that the query has already.
fn duplicate_hit<'a>(path: &Path, lines: impl Iterator<Item = (usize, &'a str)>, query_id: &str) -> Error {
    let mut seen = HashSet::new();
    for (number, line) in lines {
        let mut words = line.split_ascii_whitespace();
        let (query, id) = (words.next(), words.nth(1).unwrap_or_default());
        if query == Some(query_id) && !seen.insert(id) {
            return Error::line(path, number, format!("duplicate document id {id} of query {query_id}"));
        }
    }
    Error::file(path, format!("duplicate document id of query {query_id}"))
}

/// True if a TREC run can hold `text` as an id: it is not empty and has no white space.
#[must_use]
pub fn is_trec_word(text: &str) -> bool {
    !text.is_empty() && !text.contains(char::is_whitespace)
}

impl FromIterator<(String, Ranking)> for Run {
    fn from_iter<I: IntoIterator<Item = (String, Ranking)>>(rankings: I) -> Self {
        let mut run = Self::default();
        rankings.into_iter().for_each(|(query_id, ranking)| drop(run.insert(query_id, ranking)));
        run
    }
}

fn word(text: &str) -> io::Result<&str> {
    if !is_trec_word(text) {
        let message = format!("'{text}' is empty or holds white space, which a TREC run cannot express");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<Run> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.trec");
        std::fs::write(&path, text).unwrap();
        Run::read_trec(&path)
    }

    #[test]
    fn lines_of_different_queries_may_mix() {
        let run = read("b Q0 d1 1 1 x\na Q0 d1 1 2 x\n\nb Q0 d2 9 3.5 x\n").unwrap();
        assert_eq!(run.iter().map(|(id, _)| id).collect::<Vec<_>>(), ["b", "a"]);
        assert_eq!(run.ranking("b").unwrap().hits()[0].id, "d2");
        assert!(run.ranking("c").is_none());
    }

    #[test]
    fn defects_are_named() {
        let cases = [
            ("q Q0 d 1 x s", "run.trec:1: the score 'x' is not a finite number"),
            ("q Q0 d 1 NaN s", "run.trec:1: the score 'NaN' is not a finite number"),
            ("q Q0 d 1 1", "run.trec:1: 5 columns, expected six"),
            ("q Q0 d 1 1 s\nq Q0 d 2 0.5 s", "run.trec:2: duplicate document id d of query q"),
        ];
        for (text, wanted) in cases {
            let message = read(text).unwrap_err().to_string();
            assert!(message.contains(wanted), "{message}");
        }
        let run: Run = [("a b".to_owned(), Ranking::default())].into_iter().collect();
        assert!(run.write_trec(&mut Vec::new(), "s").is_err());
        assert!(Run::default().write_trec(&mut Vec::new(), "").is_err());
    }

    proptest! {
        #[test]
        fn a_run_comes_back_from_its_trec_form(
            rankings in prop::collection::hash_map(
                "[a-zæøå0-9#:/-]{1,6}",
                prop::collection::hash_map("[a-z0-9]{1,4}", -1e30f32..1e30, 1..20),
                0..6,
            ),
        ) {
            let rank = |hits: std::collections::HashMap<String, f32>| {
                Ranking::from_hits(hits.into_iter().map(|(id, score)| Hit { id, score }).collect())
            };
            let run: Run = rankings.into_iter().map(|(query, hits)| (query, rank(hits))).collect();
            let mut out = Vec::new();
            run.write_trec(&mut out, "splade").unwrap();
            prop_assert_eq!(read(&String::from_utf8(out).unwrap()).unwrap(), run);
        }
    }
}
