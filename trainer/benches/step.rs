//! Measures training: one optimizer step (encode, loss, backward, clip, AdamW) of a BERT with 4 layers of width 256 and
//! 12 000 terms, for retrieval (32 triplets, texts of up to 96 tokens) and for masked-language modelling (64 pieces of
//! 64 tokens); and one forward and backward pass: recorded as a training does, through Candle's graph with our operations, and
//! with Candle's own.
//!
//! Weights are new and texts are drawn at random, which costs what real ones cost as long as document vectors are dense:
//! after some hundred steps they are sparse, and the backward pass of the head is cheaper than here. It leaves out
//! reading data, evaluation and checkpoints. All threads work; compare the lines of one run.
//!
//! `cargo bench -p splade-trainer --bench step`. The throughput line is examples (or pieces) a second.

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::{Device, Tensor, Var};
use divan::Bencher;
use divan::counter::ItemsCount;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Map, Value, json};
use splade_core::TokenBatch;
use splade_trainer::data::{Batch, DataSet, Example, Material, Piece};
use splade_trainer::model::{BertConfig, Candle, Pool, Tape, TransformerConfig, Weights, splade};
use splade_trainer::{Session, TrainConfig, Trainee};

const TERMS: usize = 12_000;
const TRIPLETS: usize = 32;
const TOKENS: usize = 96;
const PIECES: usize = 64;
const PIECE_TOKENS: usize = 64;
const SPECIAL: [&str; 5] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];

fn main() {
    divan::main();
}

/// A tokenizer whose words are `w5`, `w6`, …
fn tokenizer() -> Value {
    let words = (SPECIAL.len()..TERMS).map(|id| format!("w{id}"));
    let vocabulary: Map<String, Value> =
        SPECIAL.iter().map(|token| (*token).to_owned()).chain(words).zip((0..).map(Value::from)).collect();
    let special = |(id, token): (u32, &str)| {
        json!({"id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
               "special": true})
    };
    let added: Vec<Value> = (0..).zip(SPECIAL).map(special).collect();
    let frame = |token: &str| json!({"SpecialToken": {"id": token, "type_id": 0}});
    let ids = |token: &str, id: u32| json!({"id": token, "ids": [id], "tokens": [token]});
    json!({
        "added_tokens": added,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [frame("[CLS]"), {"Sequence": {"id": "A", "type_id": 0}}, frame("[SEP]")],
            "pair": [frame("[CLS]"), {"Sequence": {"id": "A", "type_id": 0}}, frame("[SEP]")],
            "special_tokens": {"[CLS]": ids("[CLS]", 2), "[SEP]": ids("[SEP]", 3)},
        },
        "model": {"type": "WordLevel", "unk_token": "[UNK]", "vocab": vocabulary},
    })
}

fn random_ids(rng: &mut ChaCha8Rng, counts: std::ops::Range<usize>) -> Vec<u32> {
    let count = rng.random_range(counts);
    (0..count).map(|_| rng.random_range(SPECIAL.len() as u32..TERMS as u32)).collect()
}

fn text(rng: &mut ChaCha8Rng, words: std::ops::Range<usize>) -> String {
    random_ids(rng, words).iter().map(|id| format!("w{id} ")).collect()
}

fn session(objective: &str, material: Material) -> Session {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("tokenizer.json");
    std::fs::write(&path, tokenizer().to_string()).expect("a disk with room");
    let value = json!({
        "model": {
            "architecture": if objective == "mlm" { "splade" } else { "inference-free-splade" },
            "init": {"architecture": "bert", "hidden_size": 256, "layers": 4, "heads": 4, "intermediate_size": 1024,
                     "vocab_size": TERMS, "tokenizer": path},
        },
        "training": {"objective": objective, "output_dir": folder.path(), "max_seq_length": TOKENS, "eval_strategy": "no"},
        "datasets": {"drawn": {"files": ["nowhere"]}},
    });
    let (config, _) = TrainConfig::from_value(&value).expect("a sound config");
    let trainee = Trainee::new(&config, || Ok(Vec::new()), &Device::Cpu).expect("a new model");
    Session::new(&config, trainee, material, 1_000_000).expect("a sound config")
}

fn steps(bencher: Bencher<'_, '_>, mut session: Session, rows: usize) {
    let batch = [Batch { data_set: 0, rows: (0..rows).collect() }];
    let mut step = 0;
    bencher.counter(ItemsCount::new(rows)).bench_local(|| {
        step += 1;
        session.step(step, &batch).expect("a loss that is finite")
    });
}

#[divan::bench(sample_count = 20, sample_size = 1)]
fn retrieval_step(bencher: Bencher<'_, '_>) {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let examples = (0..TRIPLETS).map(|_| Example {
        anchor: text(&mut rng, 4..12),
        positive: text(&mut rng, 20..TOKENS),
        negatives: vec![text(&mut rng, 20..TOKENS)],
        labels: Vec::new(),
    });
    let set = DataSet { name: "drawn".into(), examples: examples.collect(), ..DataSet::default() };
    steps(bencher, session("retrieval", Material::Examples(vec![set])), TRIPLETS);
}

#[divan::bench(sample_count = 20, sample_size = 1)]
fn mlm_step(bencher: Bencher<'_, '_>) {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let words = PIECE_TOKENS - 2;
    let piece =
        |_| Piece { ids: [vec![2], random_ids(&mut rng, words..words + 1), vec![3]].concat(), begins: Vec::new() };
    let pieces = (0..PIECES).map(piece).collect();
    steps(bencher, session("mlm", Material::Pieces(pieces)), PIECES);
}

/// Ways through network and pooling.
#[derive(Debug, Clone, Copy)]
enum Way {
    Recorded,
    Fused,
    Plain,
}

/// Forward and backward through network and pooling, without loss and optimizer.
fn passes(bencher: Bencher<'_, '_>, way: Way) {
    let config = TransformerConfig::Bert(BertConfig {
        vocab_size: TERMS,
        hidden_size: 256,
        num_hidden_layers: 4,
        num_attention_heads: 4,
        intermediate_size: 1024,
        ..BertConfig::default()
    });
    let weights = Weights::new(&config, 1).expect("a sound config");
    let variables: BTreeMap<&String, Var> = weights
        .tensors()
        .iter()
        .map(|(name, tensor)| (name, Var::from_tensor(tensor).expect("memory for the model")))
        .collect();
    let parameters: BTreeMap<String, Tensor> =
        variables.iter().map(|(name, variable)| ((*name).clone(), variable.as_tensor().clone())).collect();
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let texts: Vec<Vec<u32>> = (0..TRIPLETS).map(|_| random_ids(&mut rng, 20..TOKENS)).collect();
    let batch = TokenBatch::new(&texts, 0);
    let (recorded, pool) = (Arc::new(parameters.clone()), Arc::<Pool>::default());
    let through_candle = |a: Candle| -> splade_trainer::Result<Tensor> {
        let inputs = a.batch(&batch)?;
        splade(&a, &config.forward(&a, &inputs)?.head, &inputs.mask, Default::default())
    };
    let pass = || -> splade_trainer::Result<()> {
        let vectors = match way {
            Way::Recorded => {
                let a = Tape::new(&recorded, &pool, &batch, 1);
                let inputs = a.inputs();
                let vectors = splade(&a, &config.forward(&a, &inputs)?.head, &inputs.mask, Default::default())?;
                a.attach(&vectors)?
            }
            Way::Fused => through_candle(Candle::new(&parameters, &Device::Cpu))?,
            Way::Plain => through_candle(Candle::new(&parameters, &Device::Cpu).plain())?,
        };
        vectors.sum_all()?.backward()?;
        Ok(())
    };
    bencher.counter(ItemsCount::new(TRIPLETS)).bench_local(|| pass().expect("memory for a pass"));
}

#[divan::bench(sample_count = 10, sample_size = 1)]
fn pass_recorded(bencher: Bencher<'_, '_>) {
    passes(bencher, Way::Recorded);
}

#[divan::bench(sample_count = 10, sample_size = 1)]
fn pass_fused(bencher: Bencher<'_, '_>) {
    passes(bencher, Way::Fused);
}

#[divan::bench(sample_count = 10, sample_size = 1)]
fn pass_plain(bencher: Bencher<'_, '_>) {
    passes(bencher, Way::Plain);
}
