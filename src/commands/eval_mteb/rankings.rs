//! Systems of `splade eval-mteb`, and the settings of their rankings.

use std::path::Path;

use anyhow::Result;
use splade_eval::{MTEB_DEPTH, Task};
use splade_index::{HybridSettings, ImpactIndex, Language};

use crate::cli::{EvalMtebArgs, Mode};
use crate::evaluation::{System, fingerprint_of_queries};
use crate::failure::bad_input;
use crate::ranking::{Defaults, RankingSettings, Untuned, expect_stop_words, resolve, warn_of_other_rankings};
use crate::tasks::label;

/// Modes with their stemmers, each once: sparse and dense search have none, BM25 and hybrid search each stemmer in turn.
pub(super) fn systems(args: &EvalMtebArgs, tuned: Option<&Tuned>) -> Result<Vec<System>> {
    let languages = match &args.language[..] {
        [] => vec![tuned.map_or_else(Language::default, |tuned| tuned.language)],
        names => names.iter().map(|name| Ok(name.parse()?)).collect::<Result<Vec<Language>>>()?,
    };
    let mut systems: Vec<System> = Vec::new();
    for mode in &args.modes {
        for language in &languages {
            let language = if matches!(mode, Mode::Sparse | Mode::Dense) { Language::None } else { *language };
            let system = System { mode: *mode, language };
            let is_new = !systems.contains(&system);
            systems.extend(is_new.then_some(system));
        }
    }
    Ok(systems)
}

/// Settings of hybrid search that were chosen for an index, and the stemmer that they were chosen with.
pub(super) struct Tuned {
    language: Language,
    settings: HybridSettings,
}

impl Tuned {
    /// The settings of `--tuned`.
    pub(super) fn read(folder: &Path) -> Result<Self> {
        let index = ImpactIndex::open(folder)?;
        let settings = index.read_hybrid_settings()?.ok_or_else(|| {
            bad_input(
                format!("{}: the index has no settings of hybrid search", folder.display()),
                "run `splade tune --hybrid` on it first",
            )
        })?;
        Ok(Self { language: index.settings().language, settings })
    }

    /// Warns of tasks whose queries chose these settings, so that their scores are too good.
    pub(super) fn warn_of_seen_queries(&self, tasks: &[Task]) {
        let Some(seen) = &self.settings.tuned_on.fingerprint else { return };
        for task in tasks.iter().filter(|task| fingerprint_of_queries(task.relevant_queries()) == *seen) {
            tracing::warn!(
                "{}: the settings of --tuned were chosen on these queries, so the scores with them are too good; take other \
                 queries to tune",
                label(task)
            );
        }
    }

    /// True if a system has BM25 with the stemmer of these settings.
    fn fits(&self, system: System) -> bool {
        matches!(system.mode, Mode::Bm25 | Mode::Hybrid) && system.language == self.language
    }
}

/// Settings of BM25 and hybrid rankings of each system, from the flags and from the index of `--tuned`.
pub(super) fn rankings(systems: &[System], tuned: Option<&Tuned>, args: &EvalMtebArgs) -> Result<Vec<RankingSettings>> {
    if let Some(tuned) = tuned.filter(|tuned| !systems.iter().any(|system| tuned.fits(*system))) {
        let language = tuned.language;
        return Err(bad_input(
            format!(
                "--tuned has no effect: no bm25 or hybrid ranking of this run has the stemmer of the index, {language}"
            ),
            format!("add hybrid to --modes and {language} to --language, or leave --tuned out"),
        ));
    }
    expect_stop_words(&args.bm25, systems.iter().map(|system| system.language))?;
    let rankings = 2 + usize::from(args.dense.dense.is_some());
    if args.modes.contains(&Mode::Hybrid) {
        warn_of_other_rankings(tuned.map(|tuned| &tuned.settings), rankings);
    }
    let of_system = |system: &System| {
        let tuned = tuned.filter(|tuned| tuned.fits(*system)).map(|tuned| &tuned.settings);
        let defaults =
            Defaults { tuned, language: system.language, depth: MTEB_DEPTH, rankings, untuned: Untuned::Scores };
        resolve(&args.modes, &args.fusion, &args.bm25, defaults)
    };
    systems.iter().map(of_system).collect()
}

/// Name of a system in tables and JSON: the mode, and the stemmer if the run has several.
pub(super) fn name_of(system: System, systems: &[System]) -> String {
    let is_alone = systems.iter().filter(|other| other.mode == system.mode).count() == 1;
    let mode = system.mode.name();
    if is_alone { mode.to_owned() } else { format!("{mode} {}", system.language) }
}
