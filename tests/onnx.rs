//! ONNX files of another checkpoint, of other tools, or with inputs that are not supported.
#![cfg(feature = "train")]

mod util;

use std::io::{Read, Write};
use std::path::Path;

use splade_export::ModelProto;
use util::{Place, Ran, fixture, names, ours, setup};

/// Checkpoint of an inference-free model.
const WEIGHTS: &str = "model/document_0_Transformer/model.safetensors";
const ONNX: &str = "model/document_0_Transformer/onnx";
const POOLED: &str = "model/document_0_Transformer/onnx/model_splade.onnx";

/// A model with its ONNX files, and two texts.
fn place() -> Place {
    let place = setup();
    place.copy(&fixture("inference-free/model"), "model");
    place.write("t.jsonl", "{\"_id\": \"1\", \"text\": \"blåbær i skogen\"}\n{\"_id\": \"2\", \"text\": \"båt\"}\n");
    place.ok(&["export-onnx", "model"]);
    place
}

/// Multiplies every float of the checkpoint by 1.25.
fn retrain(place: &Place) {
    let mut bytes = std::fs::read(place.path(WEIGHTS)).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    assert!(String::from_utf8_lossy(&bytes[8..8 + header]).contains("F32"));
    for number in bytes[8 + header..].as_chunks_mut::<4>().0 {
        *number = (1.25 * f32::from_le_bytes(*number)).to_le_bytes();
    }
    place.write(WEIGHTS, bytes);
}

/// Changes an ONNX file.
fn edit(path: &Path, change: impl FnOnce(&mut ModelProto)) {
    let mut model = splade_export::read(path).unwrap();
    change(&mut model);
    splade_export::write(model, path).unwrap();
}

/// Removes the metadata of a file, as if another tool had written it.
fn without_metadata(path: &Path) {
    edit(path, |model| model.metadata_props.clear());
}

fn encode(place: &Place, more: &[&str]) -> Ran {
    place.run(&[&["-v", "encode", "model", "--input", "t.jsonl", "--role", "document"], more].concat())
}

#[test]
fn weights_replaced_after_an_export_are_detected() {
    let place = place();
    let before = encode(&place, &["--backend", "onnx"]).done();
    retrain(&place);
    let candle = encode(&place, &["--backend", "candle"]).done();
    assert_ne!(before, candle);

    let auto = encode(&place, &[]);
    let warning = "not exported from the checkpoint beside it";
    assert!(auto.stderr.contains(warning) && auto.stderr.contains("runs in Candle instead"), "{}", auto.stderr);
    assert_eq!(auto.done(), candle, "by default the checkpoint runs");
    encode(&place, &["--backend", "onnx"]).fails(2, warning, "run `splade export-onnx model --overwrite`");

    let verify = place.run(&["verify", "model"]);
    assert_eq!(verify.code, Some(1), "{}", verify.stderr);
    assert!(verify.stderr.contains("not exported from this checkpoint"), "{}", verify.stderr);
    let inspected = place.json(&["inspect", "model", "--json"]);
    assert_eq!(inspected["onnx"][0]["checkpoint"]["relation"], "other", "{inspected:#}");

    place.ok(&["export-onnx", "model", "--overwrite"]);
    let again = encode(&place, &["--backend", "onnx"]);
    assert!(!again.stderr.contains("warning"), "{}", again.stderr);
    assert_ne!(again.done(), before);
    let inspected = place.json(&["inspect", "model", "--json"]);
    assert_eq!(inspected["onnx"][0]["checkpoint"]["relation"], "same");
}

#[test]
fn no_index_holds_vectors_of_two_checkpoints() {
    let place = place();
    place.write("u.jsonl", "{\"_id\": \"3\", \"text\": \"blåbær i skogen\"}\n");
    let index = |input: &str, more: &[&str]| {
        place.run(&[&["index", "model", "--input", input, "--index", "i.index"], more].concat())
    };
    retrain(&place);
    index("t.jsonl", &["--backend", "onnx"]).fails(2, "not exported from the checkpoint", "export-onnx");
    assert!(!place.path("i.index").exists());
    index("t.jsonl", &["-q"]).done();
    index("u.jsonl", &["--append", "--backend", "onnx"]).fails(2, "not exported from the checkpoint", "export-onnx");
    place.ok(&["export-onnx", "model", "--overwrite"]);
    index("u.jsonl", &["--append"]).done();
    let query = "blåbær i skogen båt fisk fjord og hav isbre bok kjøpte en torsk norge 17. mai";
    let found = place.json(&["search", "--index", "i.index", query, "--json"]);
    let hits = found["hits"].as_array().unwrap();
    let score = |id: &str| hits.iter().find(|hit| hit["_id"] == id).map(|hit| hit["score"].as_f64().unwrap());
    let (first, appended) = (score("1").expect("a hit"), score("3").expect("a hit"));
    assert!((first - appended).abs() <= 1e-3 * first, "{found:#}");
}

#[test]
fn files_that_state_no_checkpoint_are_compared_by_their_tensors() {
    let place = place();
    for name in names(&place.path(ONNX)) {
        without_metadata(&place.path(ONNX).join(name));
    }
    let ran = encode(&place, &["--backend", "onnx"]);
    assert!(ran.stderr.contains("the file does not state where its output layer begins"), "{}", ran.stderr);
    ran.done();
    let inspected = place.json(&["inspect", "model", "--json"]);
    assert_eq!(inspected["onnx"][0]["checkpoint"]["relation"], "alike", "{:#}", inspected["onnx"][0]["checkpoint"]);
    retrain(&place);
    encode(&place, &["--backend", "onnx"]).fails(2, "tensors with equal names differ", "export-onnx");
    // without a checkpoint there is nothing to compare with
    std::fs::remove_file(place.path(WEIGHTS)).unwrap();
    encode(&place, &["--backend", "onnx"]).done();
}

/// Multiplies every float of a torch checkpoint by 1.25. Torch stores each tensor as an entry `data/N` of a zip file.
fn retrain_torch(path: &Path) {
    let mut archive = zip::ZipArchive::new(std::fs::File::open(path).unwrap()).unwrap();
    let mut changed = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let stored = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    let mut n_changed = 0;
    for at in 0..archive.len() {
        let mut entry = archive.by_index(at).unwrap();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        let name = entry.name().unwrap().into_owned();
        if name.contains("/data/") {
            for number in bytes.as_chunks_mut::<4>().0 {
                *number = (1.25 * f32::from_le_bytes(*number)).to_le_bytes();
            }
            n_changed += 1;
        }
        changed.start_file(name, stored).unwrap();
        changed.write_all(&bytes).unwrap();
    }
    assert!(n_changed > 10, "{n_changed}");
    std::fs::write(path, changed.finish().unwrap().into_inner()).unwrap();
}

#[test]
fn files_beside_a_torch_checkpoint_are_compared_with_it() {
    let place = setup();
    place.copy(&ours("fixtures/models/norbert3-tiny"), "model");
    std::fs::remove_file(place.path("model/model.safetensors")).unwrap();
    place.write("t.jsonl", "{\"_id\": \"1\", \"text\": \"blåbær i skogen\"}\n");
    place.ok(&["export-onnx", "model", "--no-verify"]);
    let relation = || place.json(&["inspect", "model", "--json"])["onnx"][0]["checkpoint"]["relation"].clone();
    let warning = "not exported from the checkpoint beside it";
    assert_eq!(relation(), "same");
    let published = std::fs::read(place.path("model/pytorch_model.bin")).unwrap();
    retrain_torch(&place.path("model/pytorch_model.bin"));
    assert_eq!(relation(), "other");
    encode(&place, &["--backend", "onnx"]).fails(2, warning, "export-onnx");

    place.write("model/pytorch_model.bin", published);
    for name in names(&place.path("model/onnx")) {
        without_metadata(&place.path("model/onnx").join(name));
    }
    assert_eq!(relation(), "alike");
    encode(&place, &["--backend", "onnx"]).done();
    retrain_torch(&place.path("model/pytorch_model.bin"));
    assert_eq!(relation(), "other");
    encode(&place, &["--backend", "onnx"]).fails(2, warning, "export-onnx");
    let candle = encode(&place, &["--backend", "candle"]).done();
    assert_eq!(encode(&place, &[]).done(), candle, "by default the checkpoint runs");
    assert!(place.run(&["verify", "model"]).stderr.contains("not exported from this checkpoint"));
}

#[test]
fn texts_run_apart_with_a_warning_where_padding_changes_vectors() {
    let place = place();
    without_metadata(&place.path(POOLED));
    let warning = "texts of different lengths run apart";
    let ran = encode(&place, &["--backend", "onnx"]);
    assert!(!ran.stderr.contains(warning), "{}", ran.stderr);
    // the number that is added to the attention scores of padding
    let mut n_changed = 0;
    edit(&place.path(POOLED), |model| {
        for tensor in &mut model.graph.as_mut().unwrap().initializer {
            if tensor.raw_data == (-10_000.0_f32).to_le_bytes() {
                tensor.raw_data = (-1.0_f32).to_le_bytes().to_vec();
                n_changed += 1;
            }
        }
    });
    assert_eq!(n_changed, 1);
    let ran = encode(&place, &["--backend", "onnx"]);
    assert!(ran.stderr.contains(warning), "{}", ran.stderr);
    let together = ran.done();
    assert_eq!(together.lines().count(), 2);
    let texts = std::fs::read_to_string(place.path("t.jsonl")).unwrap();
    for (text, vector) in texts.lines().zip(together.lines()) {
        place.write("t.jsonl", text);
        assert_eq!(encode(&place, &["--backend", "onnx"]).done().trim_end(), vector);
    }
}

#[test]
fn a_file_that_cannot_be_run_is_refused_at_load_and_auto_takes_the_checkpoint() {
    let place = place();
    let candle = encode(&place, &["--backend", "candle"]).done();
    edit(&place.path(POOLED), |model| {
        let graph = model.graph.as_mut().unwrap();
        let mut positions = graph.input[0].clone();
        positions.name = "position_ids".to_owned();
        graph.input.push(positions);
    });
    let why = "input position_ids is not one of input_ids, attention_mask, token_type_ids";
    encode(&place, &["--backend", "onnx"]).fails(2, why, "use --backend candle");
    let auto = encode(&place, &[]);
    assert!(auto.stderr.contains(why) && auto.stderr.contains("runs in Candle instead"), "{}", auto.stderr);
    assert_eq!(auto.done(), candle);
}

#[test]
fn verbose_output_says_how_the_output_layer_runs() {
    let place = place();
    let ran = encode(&place, &["--backend", "onnx"]);
    let line = ran.stderr.lines().find(|line| line.contains("output layer: ")).unwrap_or_default();
    assert_eq!(line.contains("fused"), splade_encode::OnnxNetwork::can_split(), "{}", ran.stderr);
    let inspected = place.json(&["inspect", "model", "--json"]);
    let pooled = inspected["onnx"].as_array().unwrap().iter().find(|file| file["path"] == POOLED).unwrap();
    assert_eq!(pooled["output_layer"]["fused"], splade_encode::OnnxNetwork::can_split());
    let logits = inspected["onnx"].as_array().unwrap().iter().find(|file| file["path"] != POOLED).unwrap();
    assert_eq!(logits["output_layer"]["fused"], false);
    assert!(place.ok(&["inspect", "model"]).contains("exported from this checkpoint"));
}

#[test]
fn an_export_that_fails_leaves_nothing_behind() {
    let place = setup();
    place.copy(&ours("fixtures/models/bert-tiny"), "model");
    // without ONNX Runtime, the int8 file, which is the last, cannot be compared
    place.write("none.so", "not a library");
    let args = ["export-onnx", "model", "--precision", "fp32,int8"];
    let ran = util::finish(place.command(&args).env("ORT_DYLIB_PATH", place.path("none.so")).spawn().unwrap());
    ran.fails(2, "it can be compared in ONNX Runtime only", "--no-verify");
    assert!(!names(&place.path("model")).contains(&"onnx".to_owned()), "{:?}", names(&place.path("model")));
}

/// The table beside a bare network is the layout of OpenSearch, which this program reads too.
#[test]
fn the_query_table_is_written_for_other_tools() {
    let place = place();
    let export = ["export-onnx", "model", "--output", "out", "--head", "logits", "--no-verify"];
    place.ok(&[&export[..], &["--idf"]].concat());
    assert_eq!(names(&place.path("out")), ["idf.json", "model.onnx"]);
    place.copy(&place.path("model/document_0_Transformer"), "bare");
    place.copy(&place.path("out/idf.json"), "bare/idf.json");
    let queries = |model: &str| place.ok(&["encode", model, "--input", "t.jsonl", "--role", "query"]);
    assert_eq!(queries("bare"), queries("model"));
    place.run(&[&export[..], &["--idf"]].concat()).fails(2, "exists already", "--overwrite");
    std::fs::remove_file(place.path("out/model.onnx")).unwrap();
    place.run(&[&export[..], &["--idf"]].concat()).fails(2, "out/idf.json: exists already", "--overwrite");
    place.copy(&fixture("splade/model"), "regular");
    let regular = ["export-onnx", "regular", "--output", "none", "--no-verify", "--idf"];
    place.run(&regular).fails(2, "--idf: the model has no query table", "leave it out");
    assert!(!place.path("none").exists());
}
