//! Findings of `splade verify`: table, JSON and verdict.

use std::path::Path;

use anyhow::{Result, bail};
use serde_json::{Value, json};
use splade_export::parity::{Finding, Limits, Place};

use crate::console::Table;
use crate::outputs::say;

/// The stages, in the order in which a text passes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    Tokenization,
    QueryVectors,
    DocumentVectors,
    PaddedBatch,
    Reference,
    Scores,
    Ranking,
}

impl Stage {
    fn name(self) -> &'static str {
        match self {
            Self::Tokenization => "tokenization",
            Self::QueryVectors => "query vectors",
            Self::DocumentVectors => "document vectors",
            Self::PaddedBatch => "padded batch",
            Self::Reference => "reference",
            Self::Scores => "scores",
            Self::Ranking => "ranking",
        }
    }
}

/// Result of a comparison.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Outcome {
    /// differences, and their limits
    Compared(Finding, Limits),
    /// not possible here, with the reason; not a disagreement
    Skipped(String),
    /// no result, with the reason
    Failed(String),
    /// another file of the folder overrides a part of this one
    Overridden(String),
}

impl Outcome {
    fn status(&self) -> &'static str {
        match self {
            Self::Compared(finding, limits) if finding.within(*limits) => "ok",
            Self::Compared(..) => "differs",
            Self::Skipped(_) => "skipped",
            Self::Failed(_) => "failed",
            Self::Overridden(_) => "overridden",
        }
    }
}

/// A backend at a stage.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct StageResult {
    pub(super) stage: Stage,
    pub(super) backend: String,
    /// the file it reads, relative to the model folder
    pub(super) file: String,
    pub(super) outcome: Outcome,
}

/// All findings about a model.
pub(super) struct VerifyReport<'m> {
    pub(super) model: &'m Path,
    /// ids of the texts
    pub(super) texts: Vec<&'m str>,
    /// names the terms
    pub(super) token: &'m dyn Fn(u32) -> String,
    pub(super) rows: Vec<StageResult>,
}

impl VerifyReport<'_> {
    /// Prints the comparisons as a table, and below it all other rows.
    pub(super) fn print(&self) -> Result<()> {
        let mut table = Table::new(["stage", "backend", "file", "compared", "difference", "allowed", "", "largest at"]);
        for row in &self.rows {
            if let Outcome::Compared(finding, limits) = &row.outcome {
                table.row([
                    row.stage.name().to_owned(),
                    row.backend.clone(),
                    row.file.clone(),
                    finding.compared.to_string(),
                    number(finding.difference),
                    number(limits.difference),
                    row.outcome.status().to_owned(),
                    finding.place.as_ref().map(|place| self.place(row.stage, place)).unwrap_or_default(),
                ]);
            }
        }
        say(table.to_string().trim_end())?;
        for row in &self.rows {
            if let Outcome::Skipped(reason) | Outcome::Failed(reason) | Outcome::Overridden(reason) = &row.outcome {
                say(format_args!("{}: {} on {}: {reason}", row.outcome.status(), row.backend, row.file))?;
            }
        }
        Ok(())
    }

    /// All findings as JSON.
    pub(super) fn json(&self) -> Value {
        let rows: Vec<Value> = self.rows.iter().map(|row| self.row_json(row)).collect();
        json!({
            "model": self.model,
            "texts": self.texts.len(),
            "agrees": self.disagreements().next().is_none(),
            "stages": rows,
        })
    }

    fn row_json(&self, row: &StageResult) -> Value {
        let mut value = json!({"stage": row.stage.name(), "backend": row.backend, "file": row.file});
        value["status"] = row.outcome.status().into();
        match &row.outcome {
            Outcome::Compared(finding, limits) => {
                value["compared"] = finding.compared.into();
                value["difference"] = finding.difference.into();
                value["allowed"] = limits.difference.into();
                if !matches!(row.stage, Stage::Tokenization | Stage::Scores | Stage::Ranking) {
                    value["cosine"] = finding.cosine.into();
                    value["least_cosine"] = limits.cosine.into();
                }
                if let Some(place) = &finding.place {
                    value["largest_at"] = self.place_json(row.stage, place);
                }
            }
            Outcome::Skipped(reason) | Outcome::Failed(reason) | Outcome::Overridden(reason) => {
                value["reason"] = reason.as_str().into()
            }
        }
        value
    }

    fn place_json(&self, stage: Stage, place: &Place) -> Value {
        let mut value = json!({"text": self.text(place.text), "expected": place.expected, "found": place.found});
        if let Some(document) = place.document {
            value["document"] = self.text(document).into();
        }
        if let Some(at) = place.at {
            if stage == Stage::Tokenization {
                value["position"] = at.into();
            } else {
                value["dim"] = at.into();
                value["token"] = (self.token)(at).into();
            }
        }
        value
    }

    /// Fails with the first disagreement, if there is one.
    pub(super) fn verdict(&self) -> Result<()> {
        let mut disagreements = self.disagreements();
        let Some(row) = disagreements.next() else { return Ok(()) };
        let more = match disagreements.count() {
            0 => String::new(),
            more => format!(" (and {more} more)"),
        };
        let finding = match &row.outcome {
            Outcome::Compared(finding, limits) if finding.difference <= limits.difference => {
                format!("has a vector with a cosine of {:.4}, less than {}", finding.cosine, limits.cosine)
            }
            Outcome::Compared(finding, limits) => {
                let place = finding.place.as_ref().map(|place| self.place(row.stage, place)).unwrap_or_default();
                let (difference, allowed) = (number(finding.difference), number(limits.difference));
                format!("differs by {difference}, more than {allowed} allows, at {place}")
            }
            Outcome::Skipped(reason) | Outcome::Failed(reason) | Outcome::Overridden(reason) => {
                format!("failed: {reason}")
            }
        };
        bail!("{}: {}: {} on {} {finding}{more}", self.model.display(), row.stage.name(), row.backend, row.file)
    }

    fn disagreements(&self) -> impl Iterator<Item = &StageResult> {
        self.rows.iter().filter(|row| matches!(row.outcome.status(), "differs" | "failed"))
    }

    fn place(&self, stage: Stage, place: &Place) -> String {
        let text = self.text(place.text);
        match (place.document, place.at) {
            (Some(document), _) => format!("{text} × {}", self.text(document)),
            (None, Some(at)) if stage == Stage::Tokenization => format!("{text}, token {at}"),
            (None, Some(at)) => format!("{text}, {}", (self.token)(at)),
            (None, None) => text.to_owned(),
        }
    }

    fn text(&self, text: usize) -> &str {
        self.texts.get(text).copied().unwrap_or_default()
    }
}

/// Formats a difference: `0`, `12` or `1.5e-6`.
fn number(value: f32) -> String {
    if value.fract() == 0.0 && value.abs() < 1e6 { format!("{value}") } else { format!("{value:.1e}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(stage: Stage, outcome: Outcome) -> StageResult {
        StageResult { stage, backend: "onnx runtime".to_owned(), file: "onnx/model.onnx".to_owned(), outcome }
    }

    fn compared(difference: f32, at: Option<u32>, document: Option<usize>) -> Outcome {
        let place = Place { text: 0, document, at, expected: 1.0, found: 1.0 + difference };
        let place = (difference != 0.0).then_some(place);
        let limits = Limits { difference: 1e-4, cosine: 0.9 };
        Outcome::Compared(Finding { compared: 2, difference, place, cosine: 1.0 }, limits)
    }

    fn report(rows: Vec<StageResult>) -> VerifyReport<'static> {
        VerifyReport { model: Path::new("m"), texts: vec!["a", "b"], token: &|dim| format!("t{dim}"), rows }
    }

    #[test]
    fn the_first_disagreement_is_named() {
        let skipped = row(Stage::Scores, Outcome::Skipped("no".to_owned()));
        assert!(report(vec![row(Stage::DocumentVectors, compared(5e-5, Some(7), None)), skipped]).verdict().is_ok());
        let unlike = match compared(5e-5, Some(7), None) {
            Outcome::Compared(finding, limits) => Outcome::Compared(Finding { cosine: 0.5, ..finding }, limits),
            other => other,
        };
        let cases = [
            (Stage::DocumentVectors, compared(0.25, Some(7), None), "document vectors", "2.5e-1", "at a, t7"),
            (Stage::Tokenization, compared(3.0, Some(7), None), "tokenization", "differs by 3,", "at a, token 7"),
            (Stage::Scores, compared(0.25, None, Some(1)), "scores", "1.0e-4 allows", "at a × b"),
            (Stage::DocumentVectors, Outcome::Failed("it is broken".to_owned()), "document", "it is broken", ""),
            (Stage::PaddedBatch, unlike, "padded batch", "cosine of 0.5000", "less than 0.9"),
            (Stage::Ranking, compared(f32::NAN, Some(1), None), "ranking", "NaN", "at a, t1"),
        ];
        for (stage, outcome, wanted, number, place) in cases {
            let found = report(vec![row(stage, outcome)]);
            let error = found.verdict().unwrap_err().to_string();
            assert!(error.starts_with("m: ") && error.contains("onnx runtime on onnx/model.onnx"), "{error}");
            assert!([wanted, number, place].iter().all(|word| error.contains(word)), "{error}");
            assert_eq!(found.json()["agrees"], false);
        }
    }
}
