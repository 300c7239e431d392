//! Answers to many queries on all threads, in the order of the queries.

use std::sync::mpsc::sync_channel;
use std::time::Duration;

use anyhow::Result;
use rayon::prelude::*;
use splade_files::Query;

use super::asked::Asked;
use crate::answer::{Answer, Answerer, Encoded};
use crate::commands::interrupt;

/// Hits that are held in memory at a time, about.
const HITS_OF_A_BLOCK: usize = 10_000;
/// Fewest and most queries of a block. It does not depend on the number of threads: the rounding of a network may depend on
/// the texts of its batch.
const QUERIES_OF_A_BLOCK: [usize; 2] = [8, 512];

/// Answer to a query as it is written.
#[derive(Default)]
pub(super) struct Rendered {
    /// for stdout
    pub(super) lines: Vec<u8>,
    /// for the page of `--html`; empty without it
    pub(super) section: String,
}

/// Answer to a query as it is written, and the times that it took.
pub(super) struct Answered {
    pub(super) rendered: Rendered,
    pub(super) encoding_time: Duration,
    pub(super) search_time: Duration,
}

/// Answers `queries`, each on one thread, and calls `write` with the results of `render` in the order of the queries.
///
/// Memory is bounded: one block of queries is answered while the next one is read.
///
/// # Errors
/// The first error in the order of the queries; everything before it has been written. A signal.
pub(super) fn answer_all(
    answerer: &Answerer,
    queries: impl Iterator<Item = Result<Asked>> + Send,
    render: impl Fn(&Query, Answer) -> Result<Rendered> + Sync,
    mut write: impl FnMut(Answered) -> Result<()>,
) -> Result<()> {
    let [fewest, most] = QUERIES_OF_A_BLOCK;
    let size = (HITS_OF_A_BLOCK / answerer.settings.k.max(1)).clamp(fewest, most);
    std::thread::scope(|scope| {
        let (sender, receiver) = sync_channel(1);
        scope.spawn(move || {
            for block in blocks(queries, size) {
                if interrupt::received() || sender.send(block).is_err() {
                    break;
                }
            }
        });
        for block in receiver {
            for answered in answer_block(answerer, block, &render) {
                interrupt::check()?;
                write(answered?)?;
            }
        }
        interrupt::check()
    })
}

/// Queries in blocks of `size`. The first error ends them.
pub(super) fn blocks(
    queries: impl Iterator<Item = Result<Asked>>,
    size: usize,
) -> impl Iterator<Item = Vec<Result<Asked>>> {
    let mut queries = queries.fuse();
    let mut ended = false;
    std::iter::from_fn(move || {
        let mut block = Vec::new();
        while !ended && block.len() < size {
            let Some(query) = queries.next() else { break };
            ended = query.is_err();
            block.push(query);
        }
        (!block.is_empty()).then_some(block)
    })
}

fn answer_block(
    answerer: &Answerer,
    block: Vec<Result<Asked>>,
    render: &(impl Fn(&Query, Answer) -> Result<Rendered> + Sync),
) -> Vec<Result<Answered>> {
    let encoded = match encode_block(answerer, &block) {
        Ok(encoded) => encoded,
        Err(error) => return vec![Err(error)],
    };
    let answer = |(asked, encoded): (Result<Asked>, Option<Encoded>)| -> Result<Answered> {
        interrupt::check()?;
        let Asked { query, vector: given } = asked?;
        let encoded = given.map(|vector| Encoded { vector, ..Encoded::default() }).or(encoded);
        let encoded = match encoded {
            Some(encoded) => encoded,
            None => answerer.encode(&[&query.text])?.pop().unwrap_or_default(),
        };
        let encoding_time = encoded.time;
        let answer = answerer.answer_encoded(&query, encoded)?;
        let search_time = answer.search_time;
        Ok(Answered { rendered: render(&query, answer)?, encoding_time, search_time })
    };
    // one query stays on this thread, whose search may use the others
    match block.len() {
        1 => block.into_iter().zip(encoded).map(answer).collect(),
        _ => block.into_par_iter().zip(encoded).map(answer).collect(),
    }
}

/// Vectors of a block that a network encodes at once; none for queries that are encoded one by one.
fn encode_block(answerer: &Answerer, block: &[Result<Asked>]) -> Result<Vec<Option<Encoded>>> {
    let mut encoded: Vec<Option<Encoded>> = Vec::new();
    // either all queries have vectors, or none
    let have_vectors = block.iter().flatten().any(|asked| asked.vector.is_some());
    if answerer.encodes_in_blocks() && !have_vectors {
        let texts: Vec<&str> = block.iter().flatten().map(|asked| asked.query.text.as_str()).collect();
        encoded.extend(answerer.encode(&texts)?.into_iter().map(Some));
    }
    encoded.resize_with(block.len(), || None);
    Ok(encoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_have_all_queries_up_to_the_first_error() {
        let query = |id: usize| Asked::from(Query { id: id.to_string(), text: String::new() });
        for count in [0, 1, 2, 3, 7] {
            let sizes: Vec<usize> = blocks((0..count).map(|id| Ok(query(id))), 3).map(|block| block.len()).collect();
            assert_eq!(sizes.iter().sum::<usize>(), count);
            assert!(sizes.iter().rev().skip(1).all(|size| *size == 3), "{sizes:?}");
        }
        let with_error = (0..9).map(|id| if id == 4 { Err(anyhow::anyhow!("broken")) } else { Ok(query(id)) });
        let all: Vec<Result<Asked>> = blocks(with_error, 3).flatten().collect();
        assert_eq!(all.len(), 5);
        assert!(all[4].is_err() && all[..4].iter().all(Result::is_ok));
    }
}
