#!/usr/bin/env python3
"""Seconds a training step and memory: sentence-transformers (PyTorch) beside `splade train`, on the same rows.

    PYTHON scripts/bench_train.py --splade target/release/splade --model norbert3-xs --length 256

needs a Python with torch, sentence-transformers and safetensors. Every line is a process of its own, which runs alone with
the same number of threads: its largest resident set is its own. Models:

* a folder, such as ../shared/models/splade-tiny;
* norbert3-xs: of the published sizes, with random weights, as in bench_encode.py;
* norbert4-base: of the published sizes, with random weights by the example random_weights of splade-trainer (--no-torch: the
  code of its family is on the Hub alone);
* demo: a new BERT of the width and depth of configs/demo-pretrain.yaml over the terms of splade-tiny.

Each becomes an inference-free SPLADE model: queries by a table, documents by the network. Rows are triplets: queries of 12
tokens, documents of exactly --length tokens, special ones counted, from tests/data/lohelp-nb. Dropout is off on both sides,
weights are in f32. A step is encoding, SpladeLoss, backward pass, clipping and AdamW. On the PyTorch side it is a plain loop
over the library's modules and loss, without the Trainer, which costs more. On our side the time is `train_runtime` of log.jsonl,
less that of a run of one step. Loading and the first step are left out on both. Both sides print the loss of the first step, which must agree.

`--device cuda` trains on an NVIDIA device on both sides, `--bf16` in mixed precision, with torch's autocast there; the memory is
still that of the process on the CPU.
"""

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

from bench_encode import ROOT, SIZES, check_norbert3, make_norbert3, measured, modules_of, texts_of

TINY = ROOT / "../shared/models/splade-tiny"
LENGTHS = {"norbert3-xs": 256, "norbert4-base": 512, "demo": 96}
NORBERT4 = ROOT / "tests/fixtures/models/norbert4-tiny"
NORBERT4_BASE = dict(
    hidden_size=640, num_layers=24, num_attention_heads=10, query_key_head_size=64, value_head_size=64,
    intermediate_size=1664, vocab_size=51200, local_global_ratio=4, local_window_length=256, global_window_length=8192,
    max_sequence_length=16384,
)  # fmt: skip
LEARNING_RATE, DOCUMENT_WEIGHT = 2e-5, 3e-3


def make_model(name, folder):
    """A folder that both sides can load, with dropout off."""
    folder.mkdir(parents=True, exist_ok=True)
    if name in SIZES:
        check_norbert3()
        make_norbert3(name, folder)
    elif name == "norbert4-base":
        for file in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
            if (NORBERT4 / file).is_file():
                shutil.copy(NORBERT4 / file, folder)
        config = json.loads((NORBERT4 / "config.json").read_text()) | NORBERT4_BASE
        (folder / "config.json").write_text(json.dumps(config, indent=2))
        if not (folder / "model.safetensors").is_file():
            # of the whole workspace: the features of the program, whose dependencies are built already
            subprocess.run("cargo build --release -q --workspace --example random_weights".split(), check=True, cwd=ROOT)
            subprocess.run([ROOT / "target/release/examples/random_weights", folder], check=True)
            mix_residuals(folder / "model.safetensors")
    elif name == "demo":
        import torch
        from transformers import AutoTokenizer, BertConfig, BertForMaskedLM

        torch.manual_seed(0)
        sizes = dict(hidden_size=256, num_hidden_layers=4, num_attention_heads=4, intermediate_size=1024)
        BertForMaskedLM(BertConfig(vocab_size=30522, **sizes)).save_pretrained(folder)
        AutoTokenizer.from_pretrained(TINY).save_pretrained(folder)
    else:
        for file in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
            (folder / file).write_bytes((pathlib.Path(name) / file).read_bytes())
    config = json.loads((folder / "config.json").read_text())
    config |= {key: 0.0 for key in config if key.endswith(("dropout", "dropout_prob"))}
    (folder / "config.json").write_text(json.dumps(config, indent=2))


def mix_residuals(path):
    """Sets the weights with which NorBERT4's layers mix the embeddings in to 0.3. A new model has 1: no gradient goes through
    a layer, and after one step so little that it underflows, which makes products several times slower."""
    from safetensors.numpy import load_file, save_file

    weights = load_file(path)
    for name in weights:
        if name.endswith("lambdas"):
            weights[name][:] = 0.3
    save_file(weights, path)


def write_rows(folder, length, batch, steps, path):
    """Triplets for so many steps, one a line."""
    documents = list(texts_of(folder, length, 2 * batch * steps))
    queries = list(texts_of(folder, 12, batch * steps))
    with open(path, "w") as file:
        for number, query in enumerate(queries):
            positive, negative = documents[2 * number : 2 * number + 2]
            # texts that occur twice would be kept out of a batch
            row = {"anchor": f"{number} {query}", "positive": positive, "negative": negative}
            print(json.dumps(row), file=file)


def worker(folder, rows, threads, batch, length, device, bf16):
    """Trains on the rows in this process; prints the seconds of each step and the first loss."""
    import torch
    from sentence_transformers import SparseEncoder
    from sentence_transformers.base.modules import Router
    from sentence_transformers.sparse_encoder.losses import SparseMultipleNegativesRankingLoss, SpladeLoss
    from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding

    torch.set_num_threads(threads)
    documents = modules_of(folder, length)
    terms = json.loads((folder / "config.json").read_text())["vocab_size"]
    table = SparseStaticEmbedding(tokenizer=documents[0].tokenizer, weight=torch.ones(terms))
    router = Router.for_query_document(query_modules=[table], document_modules=documents)
    model = SparseEncoder(modules=[router], device=device).train()
    ranking = SparseMultipleNegativesRankingLoss(model)
    loss = SpladeLoss(model, ranking, document_regularizer_weight=DOCUMENT_WEIGHT, query_regularizer_weight=0.0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.01, fused=True)
    rows = [json.loads(line) for line in open(rows)]
    seconds, first = [], None
    for start in range(0, len(rows), batch):
        begun = time.perf_counter()
        columns = {key: [row[key] for row in rows[start : start + batch]] for key in rows[0]}
        features = [
            model.preprocess(texts, task="query" if key == "anchor" else "document") for key, texts in columns.items()
        ]
        features = [{key: to_device(value, device) for key, value in feature.items()} for feature in features]
        with torch.autocast(device, torch.bfloat16, enabled=bf16):
            parts = loss(features, None)
        sum(parts.values()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begun)
        first = first or parts["base_loss"].item()
    print(json.dumps({"seconds": seconds, "loss": first}))


def to_device(value, device):
    return value.to(device) if hasattr(value, "to") else value


def ours(splade, folder, rows, threads, batch, length, steps, work, extra):
    """Trains with `splade train`: seconds a step, MB, and the first ranking loss."""
    output = work / "output"
    config = {
        "model": {"base_model": str(folder)},
        "training": {
            "output_dir": str(output),
            "max_steps": steps,
            "per_device_train_batch_size": batch,
            "max_seq_length": length,
            "learning_rate": LEARNING_RATE,
            "query_learning_rate": LEARNING_RATE,
            "logging_steps": 1,
            "eval_strategy": "no",
            "save_strategy": "no",
            "shuffle": False,
            "report_to": "none",
        },
        "loss": {"document_regularizer_weight": DOCUMENT_WEIGHT},
        "datasets": {"rows": {"files": [str(rows)]}},
    }
    path = work / "config.yaml"
    runtimes = []
    for n_steps in (1, steps):
        config["training"]["max_steps"] = n_steps
        path.write_text(json.dumps(config))  # JSON is YAML
        command = [splade, "train", path, "--threads", threads, "--overwrite", *extra]
        _, err, peak = measured([str(part) for part in command])
        log = [json.loads(line) for line in open(output / "log.jsonl")]
        runtimes.append(next(line["train_runtime"] for line in log if "train_runtime" in line))
    said = [line for line in err.splitlines() if "for weights and optimizer" in line]
    return (runtimes[1] - runtimes[0]) / (steps - 1), peak, log[0]["base_loss"], said


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--splade", default=ROOT / "target/release/splade")
    parser.add_argument("--model", action="append", help="a model folder, norbert3-xs, norbert4-base or demo")
    parser.add_argument("--length", type=int, help="tokens of a document; default: 256, 512 for norbert4-base, 96 for demo, 128 for a folder")
    parser.add_argument("--batch", type=int, default=16, help="triplets a step")
    parser.add_argument("--steps", type=int, default=5, help="two or more")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--no-torch", action="store_true", help="measure `splade train` alone")
    parser.add_argument("--work", type=pathlib.Path, default=pathlib.Path(tempfile.gettempdir()) / "splade-bench-train")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--bf16", action="store_true", help="mixed precision")
    parser.add_argument("--worker", nargs=7, help=argparse.SUPPRESS)
    parser.add_argument("extra", nargs="*", help="further arguments for `splade train`, after --")
    args = parser.parse_args()
    if args.worker:
        folder, rows, threads, batch, length, device, bf16 = args.worker
        return worker(pathlib.Path(folder), rows, int(threads), int(batch), int(length), device, bf16 == "True")
    precision = f"training.bf16={str(args.bf16).lower()}"
    args.extra = ["--set", f"hardware.device={args.device}", "--set", precision, *args.extra]

    print(f"{'model':14} {'tokens':>6}  {'':9} {'s/step':>7} {'MB':>6}  {'first loss':>10}")
    for name in args.model or [TINY, "norbert3-xs", "demo"]:
        length = args.length or LENGTHS.get(str(name), 128)
        folder = args.work / pathlib.Path(name).name
        if not (folder / "model.safetensors").exists():
            make_model(str(name), folder)
        rows = args.work / "rows.jsonl"
        write_rows(folder, length, args.batch, args.steps, rows)

        def line(what, seconds, memory, loss):
            print(f"{folder.name:14} {length:6}  {what:9} {seconds:7.2f} {memory:6.0f}  {loss:10.4f}", flush=True)

        common = [args.threads, args.batch, length]
        seconds, memory, loss, said = ours(args.splade, folder, rows, *common, args.steps, args.work, args.extra)
        line("splade", seconds, memory, loss)
        print(*said, sep="\n")
        if args.no_torch:
            continue
        command = [sys.executable, __file__, "--worker", folder, rows, *common, args.device, args.bf16]
        out, _, torch_memory = measured([str(part) for part in command])
        result = json.loads(out.splitlines()[-1])
        later = result["seconds"][1:]
        torch_seconds = sum(later) / len(later)
        line("PyTorch", torch_seconds, torch_memory, result["loss"])
        print(f"{'':23}{torch_seconds / seconds:.1f} x the steps a second, 1/{torch_memory / memory:.1f} of the memory")
        assert abs(loss - result["loss"]) <= (1e-2 if args.bf16 else 1e-3) * abs(loss), "the two sides compute different losses"


if __name__ == "__main__":
    main()
