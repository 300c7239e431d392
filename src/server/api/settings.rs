//! [`SearchBody`]: the body of a search, and its settings as those of the index complete them.

use serde::Deserialize;
use splade_core::{Fusion, Pruning, Scaling};
use splade_index::{Bm25Options, Filter, Language, SearchOptions};
use utoipa::ToSchema;

use super::vector::VectorBody;
use crate::answer::{Detail, SearchSettings};
use crate::cli::{Bm25Args, FusionArgs, Mode, RankingWeights, Switch};
use crate::ranking::{DEPTH, Defaults, RankingSettings, Untuned, resolve};
use crate::server::Limits;
use crate::server::catalog::Served;
use crate::server::problem::{Answered, Problem};

/// Hits per query, unless a request says otherwise.
const K: usize = 10;
/// Most characters of a snippet, unless a request says otherwise.
const SNIPPET_LENGTH: usize = 160;
/// Most snippets of a hit, and most characters of a snippet.
const MOST_SNIPPETS: usize = 20;
const MOST_CHARACTERS: usize = 10_000;

/// Queries and the settings of their search. Give `query`, `vector` or both for one query, or `queries` for several. Settings that
/// are left out are as tuned for the index, else by default, as for `splade search`.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"query": "hvor mange bor i Oslo", "k": 3, "mode": "hybrid"}))]
pub(crate) struct SearchBody {
    /// name of the index; it may be left out where only one is served
    pub(crate) index: Option<String>,
    /// text of a query
    pub(crate) query: Option<String>,
    /// vector of a query, in place of the one that the text would be encoded to
    pub(crate) vector: Option<VectorBody>,
    /// several queries
    pub(crate) queries: Option<Vec<QueryBody>>,
    /// number of hits
    #[schema(default = 10, minimum = 1)]
    pub(crate) k: Option<usize>,
    /// ranking mode; default: sparse
    pub(crate) mode: Option<Mode>,
    /// condition on the documents, as for `splade search --filter`: `lang:nb AND year:[2020 TO *]`
    pub(crate) filter: Option<String>,
    /// fusion of the rankings, in hybrid mode
    pub(crate) fusion: Option<FusionBody>,
    /// options of BM25, in the modes bm25 and hybrid
    pub(crate) bm25: Option<Bm25Body>,
    /// pruning of query vectors, in the modes sparse and hybrid
    pub(crate) pruning: Option<PruningBody>,
    /// typed fields whose values are counted over all documents that match
    #[serde(default)]
    pub(crate) count_by: Vec<String>,
    /// names of the stored fields in the answer, `title` and `text` among them; default: all
    pub(crate) fields: Option<Vec<String>>,
    /// matching terms of each hit with their shares of the score, and its places in the rankings that were fused
    #[serde(default)]
    pub(crate) explain: bool,
    /// number of snippets of each hit; default: none
    #[schema(maximum = 20)]
    pub(crate) snippets: Option<usize>,
    /// most characters of a snippet; default: 160
    #[schema(minimum = 1, maximum = 10000)]
    pub(crate) snippet_length: Option<usize>,
}

/// One of several queries: a text, a vector or both.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct QueryBody {
    /// id in the answer; default: the number of the query, from 1
    #[serde(rename = "_id")]
    pub(crate) id: Option<String>,
    /// text
    pub(crate) text: Option<String>,
    /// vector, in place of the one that the text would be encoded to
    pub(crate) vector: Option<VectorBody>,
}

/// Rule of a fusion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Rule {
    /// reciprocal rank fusion
    Rrf,
    /// weighted sum of scaled scores
    Weighted,
}

impl Rule {
    /// Name, as `--fusion` takes it.
    fn name(self) -> &'static str {
        match self {
            Self::Rrf => "rrf",
            Self::Weighted => "weighted",
        }
    }
}

/// Fusion of the rankings.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FusionBody {
    /// rule of the fusion
    pub(crate) rule: Option<Rule>,
    /// constant k of the rule rrf
    pub(crate) rrf_k: Option<f32>,
    /// scaling of scores, for the rule weighted: max, min-max, z-score or another name that `splade search --help` lists
    pub(crate) scaling: Option<String>,
    /// weights of the sparse and the BM25 ranking, and of a dense one where there is one
    pub(crate) weights: Option<Vec<f32>>,
    /// number of hits taken from each ranking
    #[schema(minimum = 1)]
    pub(crate) depth: Option<usize>,
}

/// Options of BM25.
#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Bm25Body {
    /// saturation of term frequencies
    pub(crate) k1: Option<f32>,
    /// normalization by length, 0 to 1
    pub(crate) b: Option<f32>,
    /// matching of compounds and their parts
    pub(crate) compounds: Option<bool>,
    /// removal of the stop words of the index's language
    pub(crate) drop_stop_words: Option<bool>,
}

/// Pruning of a vector: an entry is kept if every rule keeps it.
#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PruningBody {
    /// number of entries of largest weight to keep
    #[schema(minimum = 1)]
    pub(crate) max_active_dims: Option<usize>,
    /// least weight of an entry
    pub(crate) min_weight: Option<f32>,
    /// share of the sum of all weights that the largest entries have: 0.9 is 90 %
    pub(crate) mass: Option<f32>,
}

/// Most bytes of the text of a plain request, and most terms of its vector.
const PLAIN_TEXT: usize = 256;
const PLAIN_TERMS: usize = 64;

impl SearchBody {
    /// True for one short query and hits as they are by default, so that one such request takes about as long as another.
    pub(crate) fn is_plain(&self) -> bool {
        let Self { queries, filter, fusion, bm25, count_by, explain, snippets, .. } = self;
        let is_by_default = filter.is_none() && fusion.is_none() && bm25.is_none() && count_by.is_empty();
        let text = self.query.as_ref().map_or(0, String::len);
        let terms = self.vector.as_ref().map_or(0, |vector| vector.indices.len());
        let is_short = text <= PLAIN_TEXT && terms <= PLAIN_TERMS && self.k.unwrap_or(K) <= K;
        is_short && is_by_default && queries.is_none() && !explain && snippets.is_none()
    }

    /// Ranking mode.
    pub(crate) fn mode(&self) -> Mode {
        self.mode.unwrap_or(Mode::Sparse)
    }

    /// Settings of the search in an index.
    ///
    /// # Errors
    /// A setting out of its range, one that the mode does not read, a field that is not typed.
    pub(crate) fn resolve(&self, served: &Served, limits: &Limits) -> Answered<SearchSettings> {
        let mode = self.mode();
        if mode == Mode::Dense && served.dense.is_none() {
            return Err(Problem::invalid("/mode", "the index has no dense vectors, or the server no dense model"));
        }
        let k = within("/k", self.k.unwrap_or(K), limits.k)?;
        let rankings = 2 + usize::from(served.dense.is_some());
        let ranking = self.ranking(served, rankings, limits)?;
        let snippets = self.snippets.unwrap_or_default();
        if snippets > MOST_SNIPPETS {
            return Err(Problem::invalid("/snippets", format!("at most {MOST_SNIPPETS} snippets of a hit")));
        }
        if snippets == 0 && self.snippet_length.is_some() {
            return Err(Problem::invalid("/snippet_length", "there are no snippets: add `snippets`"));
        }
        let snippet_length = self.snippet_length.unwrap_or(SNIPPET_LENGTH);
        Ok(SearchSettings {
            mode,
            k,
            depth: ranking.depth,
            fusion: ranking.fusion,
            options: SearchOptions {
                filter: self.filter()?,
                bm25: ranking.bm25,
                threads: 1,
                ..SearchOptions::default()
            },
            pruning: self.pruning()?,
            detail: match (self.explain, snippets) {
                (true, _) => Detail::Full,
                (false, 0) => Detail::None,
                (false, _) => Detail::Words,
            },
            snippets,
            snippet_length: within("/snippet_length", snippet_length, MOST_CHARACTERS)?,
        })
    }

    /// Refuses to count the values of a field that the index has no type for.
    pub(crate) fn expect_typed(&self, served: &Served) -> Answered<()> {
        let known: Vec<&str> = served.fields().iter().map(|field| field.name.as_str()).collect();
        match self.count_by.iter().position(|field| !known.contains(&field.as_str())) {
            None => Ok(()),
            Some(at) => {
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                let detail = format!("not a typed field of the index, which are: {known}");
                Err(Problem::invalid(format!("/count_by/{at}"), detail))
            }
        }
    }

    fn filter(&self) -> Answered<Option<Filter>> {
        let filter = self.filter.as_deref().map(str::parse).transpose();
        filter.map_err(|error: splade_index::Error| Problem::of(&error.into()).at("/filter"))
    }

    fn pruning(&self) -> Answered<Pruning> {
        let Some(body) = self.pruning else { return Ok(Pruning::default()) };
        if matches!(self.mode(), Mode::Bm25 | Mode::Dense) {
            return Err(Problem::invalid("/pruning", "the mode has no sparse vectors"));
        }
        body.parse("/pruning")
    }

    fn ranking(&self, served: &Served, rankings: usize, limits: &Limits) -> Answered<RankingSettings> {
        let mode = self.mode();
        if self.fusion.is_some() && mode != Mode::Hybrid {
            return Err(Problem::invalid("/fusion", "only the mode hybrid reads it"));
        }
        if self.bm25.is_some() && !matches!(mode, Mode::Bm25 | Mode::Hybrid) {
            return Err(Problem::invalid("/bm25", "only the modes bm25 and hybrid read it"));
        }
        let (tuned, language, depth) = (served.tuned.as_ref(), served.language(), DEPTH.min(limits.k));
        let defaults = Defaults { tuned, language, depth, rankings, untuned: Untuned::Scores };
        let fusion = self.fusion.clone().unwrap_or_default();
        let fusion = fusion.flags(&defaults, limits)?;
        let bm25 = self.bm25.unwrap_or_default().flags(served.language())?;
        // what is left are numbers that go together only in a fusion, such as its constant
        resolve(&[mode], &fusion, &bm25, defaults).map_err(|error| Problem::of(&error).at("/fusion"))
    }
}

impl FusionBody {
    /// The settings as flags of `splade search`.
    fn flags(&self, defaults: &Defaults, limits: &Limits) -> Answered<FusionArgs> {
        let rankings = defaults.rankings;
        // without a rule, the parameter names it
        let is_by_ranks = self.rule.map_or(self.rrf_k.is_some(), |rule| rule == Rule::Rrf);
        if self.scaling.is_some() && is_by_ranks {
            return Err(Problem::invalid("/fusion/scaling", "only the rule weighted reads it"));
        }
        if self.rrf_k.is_some() && !is_by_ranks {
            return Err(Problem::invalid("/fusion/rrf_k", "only the rule rrf reads it"));
        }
        let rrf_k = self.rrf_k.map_or(Ok(Fusion::default()), |k| Fusion::rrf(k, Vec::new()));
        rrf_k.map_err(|error| Problem::invalid("/fusion/rrf_k", error.to_string()))?;
        let scaling = self.scaling.as_deref().map(str::parse::<Scaling>).transpose();
        Ok(FusionArgs {
            fusion: self.rule.map(|rule| rule.name().to_owned()),
            scaling: scaling.map_err(|error| Problem::of(&error.into()).at("/fusion/scaling"))?,
            rrf_k: self.rrf_k,
            weights: self.weights.as_deref().map(|weights| parse_weights(weights, rankings)).transpose()?,
            depth: self.depth.map(|depth| within("/fusion/depth", depth, limits.k)).transpose()?,
        })
    }
}

fn parse_weights(weights: &[f32], rankings: usize) -> Answered<RankingWeights> {
    let invalid = |detail: String| Problem::invalid("/fusion/weights", detail);
    if weights.len() != rankings {
        return Err(invalid(format!("{} weights for {rankings} rankings", weights.len())));
    }
    if !weights.iter().all(|weight| weight.is_finite()) || weights.iter().all(|weight| *weight == 0.0) {
        return Err(invalid("finite weights are needed, one of them not 0".to_owned()));
    }
    Ok(RankingWeights { sparse: weights[0], bm25: weights[1], dense: weights.get(2).copied() })
}

impl Bm25Body {
    /// The options as flags of `splade search`.
    fn flags(self, language: Language) -> Answered<Bm25Args> {
        let usual = Bm25Options::default();
        let check = |k1: f32, b: f32, pointer: &str| match Bm25Options::new(k1, b) {
            Ok(_) => Ok(()),
            Err(error) => Err(Problem::of(&error.into()).at(pointer)),
        };
        check(self.k1.unwrap_or(usual.k1()), usual.b(), "/bm25/k1")?;
        check(usual.k1(), self.b.unwrap_or(usual.b()), "/bm25/b")?;
        if self.drop_stop_words == Some(true) && language == Language::None {
            return Err(Problem::invalid("/bm25/drop_stop_words", "the index has no language, and so no stop words"));
        }
        let switch = |on: Option<bool>| on.map(|on| if on { Switch::On } else { Switch::Off });
        Ok(Bm25Args {
            bm25_k1: self.k1,
            bm25_b: self.b,
            bm25_compounds: switch(self.compounds),
            bm25_drop_stop_words: switch(self.drop_stop_words),
        })
    }
}

impl PruningBody {
    /// The rules, which stand at `pointer` in the body.
    ///
    /// # Errors
    /// A number out of its range.
    pub(crate) fn parse(self, pointer: &str) -> Answered<Pruning> {
        let invalid = |field: &str| {
            let pointer = format!("{pointer}/{field}");
            move |error: splade_core::Error| Problem::of(&error.into()).at(pointer)
        };
        let mut pruning = Pruning::default();
        if let Some(most) = self.max_active_dims {
            pruning = pruning.with_max_active_dims(within(&format!("{pointer}/max_active_dims"), most, usize::MAX)?);
        }
        if let Some(least) = self.min_weight {
            pruning = pruning.with_min_weight(least).map_err(invalid("min_weight"))?;
        }
        match self.mass {
            Some(share) => pruning.with_mass(share).map_err(invalid("mass")),
            None => Ok(pruning),
        }
    }
}

/// A number from 1 to `most`.
fn within(pointer: &str, number: usize, most: usize) -> Answered<usize> {
    match number {
        0 => Err(Problem::invalid(pointer, "at least 1 is needed")),
        number if number > most => Err(Problem::invalid(pointer, format!("at most {most} is allowed"))),
        number => Ok(number),
    }
}
