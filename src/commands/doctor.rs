//! `splade doctor`: what this machine has and lacks.

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::{Value, json};
use splade_encode::{OnnxRuntimeInfo, load_onnx_runtime, onnx_runtime_info};

use crate::cli::DoctorArgs;
use crate::console::{Facts, size};
use crate::encoders::{LIBRARY_HINT, onnx_runtime_candidates};
use crate::hub;
use crate::outputs::say;

pub(crate) fn run(args: &DoctorArgs) -> Result<()> {
    let mut findings = Findings { facts: Facts::default(), json: json!({}) };
    program(&mut findings);
    onnx_runtime(&mut findings);
    devices(&mut findings);
    processor(&mut findings);
    memory(&mut findings);
    models(&mut findings);
    self_test(&mut findings);
    if args.json {
        return say(format_args!("{:#}", findings.json));
    }
    say(findings.facts.to_string().trim_end())
}

/// Findings as text and as JSON.
struct Findings {
    facts: Facts,
    json: Value,
}

impl Findings {
    /// Adds advice about something that is missing.
    fn hint(&mut self, hint: &str) {
        self.facts.add("", format_args!("hint: {hint}"));
        match self.json["hints"].as_array_mut() {
            Some(hints) => hints.push(hint.into()),
            None => self.json["hints"] = json!([hint]),
        }
    }
}

/// Version and features of the program.
fn program(findings: &mut Findings) {
    let backends = if cfg!(feature = "train") { vec!["onnx", "candle"] } else { vec!["onnx"] };
    let features = [
        ("train", cfg!(feature = "train")),
        ("serve", cfg!(feature = "serve")),
        ("onnx-cuda", cfg!(feature = "onnx-cuda")),
        ("cuda", cfg!(feature = "cuda")),
        ("coreml", cfg!(feature = "coreml")),
        ("metal", cfg!(feature = "metal")),
    ];
    let features: Vec<&str> = features.iter().filter(|(_, on)| *on).map(|(name, _)| *name).collect();
    findings.json["version"] = env!("CARGO_PKG_VERSION").into();
    findings.json["backends"] = json!(backends);
    findings.json["features"] = json!(features);
    findings.json["optimized"] = (!cfg!(debug_assertions)).into();
    let build = if cfg!(debug_assertions) { ", built without optimization" } else { "" };
    findings.facts.add("splade", format_args!("{}{build}", env!("CARGO_PKG_VERSION")));
    findings.facts.add("backends", backends.join(", "));
    findings.facts.add("cargo features", if features.is_empty() { "none".to_owned() } else { features.join(", ") });
}

/// Library of ONNX Runtime: path, version, execution providers.
fn onnx_runtime(findings: &mut Findings) {
    let candidates = onnx_runtime_candidates();
    let loaded = load_onnx_runtime(&candidates);
    let info = onnx_runtime_info();
    findings.json["onnx_runtime"] = json!(loaded.as_ref().ok());
    findings.json["onnx_runtime_error"] = json!(loaded.as_ref().err().map(ToString::to_string));
    match &loaded {
        Ok(path) => {
            let (path, info) = (path.to_path_buf(), info.as_ref());
            let version = info.and_then(|info| version(info, &path));
            findings.json["onnx_runtime_version"] = json!(version);
            findings.json["onnx_runtime_build"] = json!(info.map(|info| &info.build));
            findings.json["providers"] = json!(info.map(|info| &info.providers));
            let version = version.map(|version| format!("{version}, ")).unwrap_or_default();
            findings.facts.add("ONNX Runtime", format_args!("{version}{}", path.display()));
            findings.facts.add("providers", info.map(|info| info.providers.join(", ")).unwrap_or_default());
        }
        Err(error) => {
            // the label has the name of the library
            let message = match error {
                splade_encode::Error::Library(message) => message.clone(),
                other => other.to_string(),
            };
            findings.facts.add("ONNX Runtime", message);
            findings.hint(LIBRARY_HINT);
        }
    }
    let found = loaded.ok();
    let others: Vec<&PathBuf> = candidates.iter().filter(|path| found != Some(path.as_path())).collect();
    findings.json["onnx_runtime_candidates"] = json!(candidates);
    for path in others {
        findings.facts.add("", format_args!("also looked at {}", path.display()));
    }
}

/// Version of a library by the branch in its build information (`rel-1.24.1`), else by the name of its file.
fn version(info: &OnnxRuntimeInfo, path: &Path) -> Option<String> {
    let name = path.file_name()?.to_string_lossy();
    let words = info.build.split([',', ' ']).filter_map(|word| word.trim().strip_prefix("git-branch=rel-"));
    let numbered = |text: &str| {
        let start = text.find(|character: char| character.is_ascii_digit())?;
        let end = text[start..].find(|character: char| !character.is_ascii_digit() && character != '.');
        let number = text[start..].split_at(end.unwrap_or(text.len() - start)).0.trim_end_matches('.');
        (number.matches('.').count() == 2).then(|| number.to_owned())
    };
    words.map(ToOwned::to_owned).chain([name.into_owned()]).find_map(|text| numbered(&text))
}

/// Devices on which Candle and ONNX Runtime can run.
fn devices(findings: &mut Findings) {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    findings.json["threads"] = threads.into();
    findings.facts.add("threads", threads);
    let mut found = vec!["cpu"];
    let providers = onnx_runtime_info().map(|info| info.providers).unwrap_or_default();
    let has = |name: &str| providers.contains(&name);
    if (cfg!(feature = "onnx-cuda") && has("CUDA")) || candle_has("cuda") {
        found.push("cuda");
    }
    if cfg!(feature = "coreml") && has("CoreML") {
        found.push("coreml");
    }
    if candle_has("metal") {
        found.push("metal");
    }
    findings.json["devices"] = json!(found);
    findings.facts.add("devices", found.join(", "));
    if has("CUDA") && !cfg!(feature = "onnx-cuda") {
        findings.hint("the library has the CUDA provider: build with --features onnx-cuda to use it");
    }
    if has("CoreML") && !cfg!(feature = "coreml") {
        findings.hint("the library has the CoreML provider: build with --features coreml to use it");
    }
    if cfg!(feature = "onnx-cuda") && !found.contains(&"cuda") {
        findings.hint("built for CUDA, but no CUDA device can be used");
    }
}

#[cfg(feature = "train")]
fn candle_has(device: &str) -> bool {
    splade_trainer::device(device).is_ok()
}

#[cfg(not(feature = "train"))]
fn candle_has(_: &str) -> bool {
    false
}

/// Instruction sets that make matrix products fast.
fn processor(findings: &mut Findings) {
    let features = instruction_sets();
    let found: Vec<&str> = features.iter().filter(|(_, found)| *found).map(|(name, _)| *name).collect();
    findings.json["processor"] = json!({"architecture": std::env::consts::ARCH, "features": found});
    let shown =
        if found.is_empty() { "none of the instruction sets that make it fast".to_owned() } else { found.join(" ") };
    findings.facts.add("processor", format_args!("{}: {shown}", std::env::consts::ARCH));
    let lacks = |names: &[&str]| {
        features.iter().any(|(name, _)| names.contains(name)) && !names.iter().any(|name| found.contains(name))
    };
    if lacks(&["avx2", "neon"]) {
        findings.hint("no avx2 or neon: matrix products are several times slower");
    } else if lacks(&["avx512vnni", "avxvnni", "dotprod"]) {
        findings.hint("no instructions for products of 8-bit integers: int8 files gain less");
    }
}

#[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
fn instruction_sets() -> Vec<(&'static str, bool)> {
    use std::arch::is_x86_feature_detected;
    vec![
        ("avx2", is_x86_feature_detected!("avx2")),
        ("fma", is_x86_feature_detected!("fma")),
        ("f16c", is_x86_feature_detected!("f16c")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
        ("avx512vnni", is_x86_feature_detected!("avx512vnni")),
        ("avxvnni", is_x86_feature_detected!("avxvnni")),
    ]
}

#[cfg(target_arch = "aarch64")]
fn instruction_sets() -> Vec<(&'static str, bool)> {
    use std::arch::is_aarch64_feature_detected;
    vec![
        ("neon", is_aarch64_feature_detected!("neon")),
        ("fp16", is_aarch64_feature_detected!("fp16")),
        ("dotprod", is_aarch64_feature_detected!("dotprod")),
        ("i8mm", is_aarch64_feature_detected!("i8mm")),
    ]
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "x86", target_arch = "aarch64")))]
fn instruction_sets() -> Vec<(&'static str, bool)> {
    Vec::new()
}

/// Memory, on Linux only.
fn memory(findings: &mut Findings) {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let (total, free) = (meminfo(&text, "MemTotal:"), meminfo(&text, "MemAvailable:"));
    // a container may be allowed less than the machine has
    let limits = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let limit = limits.iter().find_map(|path| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok());
    let limit = limit.filter(|limit| total.is_some_and(|total| *limit < total));
    findings.json["memory"] = json!({"total_bytes": total, "available_bytes": free, "limit_bytes": limit});
    let Some(total) = total else { return };
    let free = free.map(|free| format!(", {} free", size(free))).unwrap_or_default();
    let limit = limit.map(|limit| format!(", {} allowed here", size(limit))).unwrap_or_default();
    findings.facts.add("memory", format_args!("{}{free}{limit}", size(total)));
}

/// A line of `/proc/meminfo` in bytes.
fn meminfo(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

/// Address and cache of the Hub.
fn models(findings: &mut Findings) {
    let (cache, endpoint) = (hub::cache_dir(), hub::endpoint());
    let cached = std::fs::read_dir(&cache).into_iter().flatten().flatten();
    let cached = cached.filter(|entry| entry.file_name().to_string_lossy().starts_with("models--")).count();
    findings.json["hub"] = json!({
        "cache": cache, "cached_models": cached, "endpoint": endpoint, "token": hub::has_token(),
        "offline": hub::is_offline(),
    });
    let models = match cached {
        0 => "no model in it".to_owned(),
        1 => "1 model in it".to_owned(),
        many => format!("{many} models in it"),
    };
    findings.facts.add("Hub cache", format_args!("{}, {models}", cache.display()));
    let token = if hub::has_token() { "a token" } else { "no token" };
    let offline = if hub::is_offline() { ", not used: offline" } else { "" };
    findings.facts.add("Hub", format_args!("{endpoint}, {token}{offline}"));
    if !hub::has_token() {
        findings.hint("private and gated models need HF_TOKEN, or `hf auth login` once");
    }
}

/// Exports a small network and runs it in ONNX Runtime: that the library loads does not show that it computes.
#[cfg(feature = "train")]
fn self_test(findings: &mut Findings) {
    if onnx_runtime_info().is_none() {
        findings.json["self_test"] = Value::Null;
        return;
    }
    match exported_and_run() {
        Ok(difference) => {
            findings.json["self_test"] = json!({"ok": true, "difference": difference});
            findings.facts.add(
                "self-test",
                format_args!("a new network exported; ONNX Runtime differs from Candle by {difference:.0e}"),
            );
        }
        Err(error) => {
            findings.json["self_test"] = json!({"ok": false, "error": format!("{error:#}")});
            findings.facts.add("self-test", format_args!("failed: {error:#}"));
            findings
                .hint("this ONNX Runtime does not work correctly: install another version, or use --backend candle");
        }
    }
}

#[cfg(not(feature = "train"))]
fn self_test(findings: &mut Findings) {
    findings.json["self_test"] = Value::Null;
}

#[cfg(feature = "train")]
fn exported_and_run() -> Result<f32> {
    use splade_core::{SpladePooling, TokenBatch};
    use splade_encode::{OnnxModel, OnnxOptions};
    use splade_export::parity::{OnnxRuntime, Reference, compare};
    use splade_export::{Head, Options, SPLADE_FILE, export, write};
    use splade_trainer::model::{BertConfig, TransformerConfig, Weights};
    let config = TransformerConfig::Bert(BertConfig {
        vocab_size: 64,
        hidden_size: 32,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        intermediate_size: 64,
        max_position_embeddings: 16,
        ..BertConfig::default()
    });
    let weights = Weights::new(&config, 7)?;
    let head = Head::Splade(SpladePooling::default());
    let folder = tempfile::tempdir()?;
    let file = folder.path().join(SPLADE_FILE);
    write(export(&config, &weights, head, &Options::default())?, &file)?;
    let runtime = OnnxRuntime::new(OnnxModel::open(&file, &OnnxOptions::default())?);
    let batch = TokenBatch::new(&[vec![1, 5, 9, 2], vec![3]], 0);
    let report = compare(&file, head, &Reference::new(&config, &weights, head), &[&runtime], &[batch])?;
    report.check()?;
    Ok(report.agreements.iter().map(|agreement| agreement.difference).fold(0.0, f32::max))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_from_the_build_or_the_name() {
        let cases = [
            ("ORT Build Info: git-branch=rel-1.24.1, git-commit-id=26250ae", "libonnxruntime.so", Some("1.24.1")),
            ("ORT Build Info: git-branch=main", "libonnxruntime.so.1.32.0", Some("1.32.0")),
            ("", "libonnxruntime.1.24.1.dylib", Some("1.24.1")),
            ("", "onnxruntime.dll", None),
        ];
        for (build, name, expected) in cases {
            let info = OnnxRuntimeInfo { build: build.to_owned(), providers: Vec::new() };
            assert_eq!(version(&info, Path::new(name)).as_deref(), expected, "{build} {name}");
        }
    }

    #[test]
    fn memory_is_read_from_linux() {
        let text = "MemTotal:       16000000 kB\nMemFree:  1 kB\nMemAvailable:    8000000 kB\n";
        assert_eq!(meminfo(text, "MemAvailable:"), Some(8_192_000_000));
        assert_eq!(meminfo(text, "Nothing:"), None);
    }
}
