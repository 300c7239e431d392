//! `splade export-onnx`: checkpoint → ONNX files → proof that they agree with it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::json;
use splade_export::parity::{Backend, CandleOnnx, OnnxRuntime, Reference, Report, compare};
use splade_export::{Head, Options, export, write};
use splade_index::{HEAD_MODE_KEY, ModelDir, OnnxModel, OnnxOptions, POOLING_KEY, TokenBatch, load_onnx_runtime};
use splade_trainer::model::{TransformerConfig, Weights};

use super::interrupt;
use crate::cli::{ExportOnnxArgs, HeadChoice};
use crate::console::Table;
use crate::encoders::{onnx_runtime_candidates, use_threads, with_head_mode};
use crate::hub::{self, Wants};
use crate::outputs::{refuse_existing, say};
use crate::texts::built_in;

pub(crate) fn run(args: &ExportOnnxArgs) -> Result<()> {
    use_threads(args.threads);
    let place = hub::locate(&args.model, Wants::CHECKPOINT)?;
    // what lies in the Hub's cache is not ours to write beside
    let root = if args.output.is_some() { place.folder } else { place.into_writable()? };
    let model = with_head_mode(ModelDir::open(&root)?, args.mlm_head)?;
    let config = TransformerConfig::of(&model)?;
    let folder = args.output.clone().unwrap_or_else(|| model.onnx_dir());
    let heads: Vec<Head> = [(HeadChoice::Logits, Head::Logits), (HeadChoice::Splade, Head::Splade(model.pooling()))]
        .into_iter()
        .filter(|(choice, _)| args.head.is_none_or(|wanted| wanted == *choice))
        .map(|(_, head)| head)
        .collect();
    for head in &heads {
        refuse_existing(&folder.join(head.file_name()), args.overwrite)?;
    }
    let weights = Weights::read(&model.weights_path()?, &config)?;
    std::fs::create_dir_all(&folder).map_err(splade_index::Error::io(&folder))?;
    let batches = if args.no_verify { Vec::new() } else { batches(&model)? };
    let mut reports = Vec::new();
    for head in heads {
        interrupt::check()?;
        let path = folder.join(head.file_name());
        let options = Options { opset: args.opset, screened: false, metadata: metadata(&model, head)? };
        // beside its place until it is proved, so that a file that disagrees is never found by anyone
        let aside = tempfile::Builder::new().prefix(".splade-").tempdir_in(&folder)?;
        let unproved = aside.path().join(head.file_name());
        write(export(&config, &weights, head, &options)?, &unproved)?;
        if !args.no_verify {
            let mut report = verify(&unproved, head, &config, &weights, &batches, args)?;
            report.file = path.clone();
            report.check()?;
            reports.push(report);
        }
        interrupt::check()?;
        for entry in std::fs::read_dir(aside.path())? {
            let entry = entry?;
            std::fs::rename(entry.path(), folder.join(entry.file_name()))?;
        }
        tracing::info!("{}: {:.1} MB", path.display(), std::fs::metadata(&path)?.len() as f64 / 1e6);
    }
    print(&reports, args)
}

fn metadata(model: &ModelDir, head: Head) -> Result<BTreeMap<String, String>> {
    let mut metadata = BTreeMap::from([
        ("splade.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
        ("splade.max_length".to_owned(), model.max_length().to_string()),
    ]);
    if let Some(choice) = model.head_choice() {
        metadata.insert(HEAD_MODE_KEY.to_owned(), choice.mode.to_string());
    }
    if let Head::Splade(pooling) = head {
        let pooling = serde_json::to_value((pooling.strategy, pooling.activation))?;
        metadata.insert(POOLING_KEY.to_owned(), pooling.to_string());
    }
    Ok(metadata)
}

/// The built-in texts, one by one and some of them padded to the longest.
fn batches(model: &ModelDir) -> Result<Vec<TokenBatch>> {
    // no need for more tokens than the longest text that is usual
    let vocabulary = model.vocabulary(Some(model.max_length().min(256)))?;
    let pad = model.pad_id(&vocabulary)?;
    let texts: Vec<String> = built_in(vocabulary.max_length()).into_iter().map(|(_, text)| text).collect();
    let mut ids = vocabulary.tokenize_all(&texts)?;
    // a tokenizer without special tokens makes nothing of nothing
    ids.retain(|ids| !ids.is_empty());
    let mut batches: Vec<TokenBatch> = ids.iter().map(|ids| TokenBatch::new(&[ids], pad)).collect();
    // logits of all of them would be batch × tokens × vocabulary floats
    let padded: Vec<&Vec<u32>> = ids.iter().rev().step_by(3).collect();
    batches.push(TokenBatch::new(&padded, pad));
    Ok(batches)
}

fn verify(
    file: &Path,
    head: Head,
    config: &TransformerConfig,
    weights: &Weights,
    batches: &[TokenBatch],
    args: &ExportOnnxArgs,
) -> Result<Report> {
    let candle_onnx = CandleOnnx::read(file)?;
    let mut runtimes: Vec<&dyn Backend> = vec![&candle_onnx];
    let onnx_runtime = match load_onnx_runtime(&onnx_runtime_candidates()) {
        Ok(_) => {
            Some(OnnxRuntime::new(OnnxModel::open(file, &OnnxOptions { threads: args.threads, ..Default::default() })?))
        }
        Err(error) => {
            tracing::warn!("the file is not compared in ONNX Runtime: {error}");
            None
        }
    };
    runtimes.splice(0..0, onnx_runtime.as_ref().map(|runtime| runtime as &dyn Backend));
    Ok(compare(file, head, &Reference::new(config, weights, head), &runtimes, batches)?)
}

fn print(reports: &[Report], args: &ExportOnnxArgs) -> Result<()> {
    if args.json {
        let reports: Vec<_> = reports
            .iter()
            .map(|report| {
                let runtimes: Vec<_> = report
                    .agreements
                    .iter()
                    .map(|a| {
                        json!({"runtime": a.backend, "vectors": a.vectors, "difference": a.difference,
                               "cosine": a.cosine, "same_top": a.same_top})
                    })
                    .collect();
                json!({"file": report.file, "tolerance": report.tolerance, "runtimes": runtimes})
            })
            .collect();
        return say(format_args!("{:#}", json!({"files": reports})));
    }
    if reports.is_empty() {
        return Ok(());
    }
    let mut table = Table::new(["file", "runtime", "vectors", "difference", "allowed", "cosine", "same top 10"]);
    for report in reports {
        let name = report.file.file_name().map(PathBuf::from).unwrap_or_default();
        for agreement in &report.agreements {
            table.row([
                name.display().to_string(),
                agreement.backend.clone(),
                agreement.vectors.to_string(),
                format!("{:.1e}", agreement.difference),
                format!("{:.0e}", report.tolerance),
                format!("{:.7}", agreement.cosine),
                format!("{}/{}", agreement.same_top, agreement.vectors),
            ]);
        }
    }
    say(table.to_string().trim_end())
}
