//! Typed fields of a new index: those of `--fields`, else those of the first documents.

use std::path::Path;

use anyhow::Result;
use serde_json::{Map, Value};
use splade_files::read_documents;
use splade_index::{FieldSpec, ImpactIndex};

use crate::cli::IndexArgs;
use crate::failure::bad_input;

/// Number of documents whose fields are read.
const SAMPLE: usize = 1000;

/// Value of `--fields` for an index without typed fields.
const NONE: &str = "none";

/// Typed fields of a new index.
///
/// # Errors
/// A declaration that cannot be read, an input that cannot be read.
pub(super) fn typed_fields(args: &IndexArgs) -> Result<Vec<FieldSpec>> {
    match (args.fields.as_deref(), args.input.as_deref()) {
        (Some(declared), _) => declared_fields(declared),
        (None, Some(input)) => first_fields(input),
        (None, None) => Ok(Vec::new()),
    }
}

/// Refuses `--fields` if the index has others.
pub(super) fn expect_same(index: &ImpactIndex, args: &IndexArgs) -> Result<()> {
    let Some(declared) = args.fields.as_deref() else { return Ok(()) };
    let kinds = |fields: &[FieldSpec]| fields.iter().map(FieldSpec::to_string).collect::<Vec<_>>();
    let (old, new) = (kinds(&index.settings().fields), kinds(&declared_fields(declared)?));
    if old == new {
        return Ok(());
    }
    let show = |fields: &[String]| if fields.is_empty() { NONE.to_owned() } else { fields.join(",") };
    Err(bad_input(
        format!("{}: made with the fields {}, not {}", args.index().display(), show(&old), show(&new)),
        "leave --fields out, or make the index anew",
    ))
}

fn declared_fields(declared: &str) -> Result<Vec<FieldSpec>> {
    if declared == NONE {
        return Ok(Vec::new());
    }
    Ok(FieldSpec::parse_list(declared)?)
}

/// Fields of the first documents of a file. The documents of stdin can be read only once, so it has none.
fn first_fields(input: &Path) -> Result<Vec<FieldSpec>> {
    if input == Path::new("-") {
        tracing::info!("no fields are read from stdin; --fields declares them for filters such as year:[2020 TO *]");
        return Ok(Vec::new());
    }
    let documents = read_documents(input)?.take(SAMPLE).map(|document| Ok(document?.fields));
    let documents = documents.collect::<Result<Vec<Map<String, Value>>>>()?;
    let fields = FieldSpec::infer(&documents);
    if !fields.is_empty() {
        let shown: Vec<String> = fields.iter().map(FieldSpec::to_string).collect();
        tracing::info!(
            "fields read from the first {} documents: {}; --fields declares others, or none",
            documents.len(),
            shown.join(",")
        );
    }
    Ok(fields)
}
