#!/usr/bin/env python3
"""Compares documents per second of sentence-transformers (PyTorch) and `splade encode`, on equal texts and threads.

    PYTHON scripts/bench_encode.py --splade target/release/splade --model norbert3-xs --lengths 128,mixed

needs a Python with torch, sentence-transformers and safetensors. Each line is measured in a separate process, and one
process runs at a time. Models:

* a folder, such as ../shared/models/splade-tiny: read by SparseEncoder itself;
* norbert3-xs, norbert3-base: made by this script, with the published sizes and random weights. sentence-transformers
  cannot load this family, so its forward pass is written below in PyTorch. It runs in a SparseEncoder, before the
  library's SpladePooling, and is first compared with tests/fixtures. The output bias is lowered until a text has some
  hundred active dimensions, as with a trained model; otherwise both sides would mostly write numbers.

Lengths are in tokens, with special tokens; `mixed` is 1.3 tokens for every word of the texts of tests/data/lohelp-nb.
Both sides must give the same vectors. PyTorch runs with batches of 32, its default, and with smaller ones; the better
one counts. The times do not include loading, nor a first batch in Python. They include tokenization, and for
`splade encode` also reading and writing of JSON lines.
"""

import argparse
import json
import math
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
FIXTURE = ROOT / "tests/fixtures/models/norbert3-tiny"
CORPUS = ROOT / "tests/data/lohelp-nb/corpus.jsonl"
SIZES = {
    "norbert3-xs": dict(hidden_size=192, num_hidden_layers=12, num_attention_heads=3, intermediate_size=512),
    "norbert3-base": dict(hidden_size=768, num_hidden_layers=12, num_attention_heads=12, intermediate_size=2048),
}
PUBLISHED = dict(vocab_size=50000, max_position_embeddings=512, position_bucket_size=32, layer_norm_eps=1e-7)
ACTIVE = 400
MAX_LENGTH = 512


def norbert3(config):
    """Forward pass of the family, with the parameter names of its checkpoints."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    D, H, I = config["hidden_size"], config["num_attention_heads"], config["intermediate_size"]
    d, eps = D // H, config["layer_norm_eps"]
    buckets, longest = config["position_bucket_size"], config["max_position_embeddings"]

    def row(offset):
        middle = buckets // 2
        if abs(offset) <= middle:
            return buckets - 1 + offset
        share = math.log(min(abs(offset), longest - 1) / middle) / math.log((longest - 1) / middle)
        return buckets - 1 + int(math.copysign(math.ceil(share * (middle - 1)) + middle, offset))

    def plain_norm(x):
        return F.layer_norm(x, x.shape[-1:], eps=eps)

    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.in_proj_qk, self.in_proj_v, self.out_proj = nn.Linear(D, 2 * D), nn.Linear(D, D), nn.Linear(D, D)
            self.post_layer_norm = nn.LayerNorm(D, eps)

        def forward(self, x, relative, rows, bias):
            B, T, _ = x.shape
            h = plain_norm(x)
            query, key = self.in_proj_qk(h).chunk(2, -1)
            query, key, value = (t.view(B, T, H, d).transpose(1, 2) for t in (query, key, self.in_proj_v(h)))
            positions = self.in_proj_qk(relative).view(-1, H, 2 * d).permute(1, 2, 0)
            rows = rows[:T, :T].expand(B, H, T, T)
            scores = query @ key.transpose(-1, -2)
            scores = scores + torch.gather(query @ positions[:, d:], 3, rows)
            of_keys = torch.gather(key @ positions[:, :d], 3, rows.transpose(-1, -2))
            scores = scores + of_keys.transpose(-1, -2)
            attended = torch.softmax(scores / math.sqrt(3 * d) + bias, -1) @ value
            return self.post_layer_norm(self.out_proj(attended.transpose(1, 2).reshape(B, T, D)))

    class FeedForward(nn.Module):
        def __init__(self):
            super().__init__()
            self.mlp = nn.ModuleDict({"1": nn.Linear(D, 2 * I, bias=False), "4": nn.Linear(I, D, bias=False)})

        def forward(self, x):
            value, gate = self.mlp["1"](plain_norm(x)).chunk(2, -1)
            return self.mlp["4"](plain_norm(value * F.gelu(gate, approximate="tanh")))

    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention, self.mlp = Attention(), FeedForward()

        def forward(self, x, relative, rows, bias):
            x = x + self.attention(x, relative, rows, bias)
            return x + self.mlp(x)

    class Norbert3(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Module()
            self.embedding.word_embedding = nn.Embedding(config["vocab_size"], D)
            self.embedding.relative_embedding = nn.Parameter(torch.randn(2 * buckets - 1, D) * 0.02)
            self.embedding.relative_layer_norm = nn.LayerNorm(D, eps)
            self.transformer = nn.Module()
            self.transformer.layers = nn.ModuleList(Layer() for _ in range(config["num_hidden_layers"]))
            self.classifier = nn.Module()
            self.classifier.nonlinearity = nn.ModuleDict({"1": nn.Linear(D, D), "5": nn.Linear(D, config["vocab_size"])})
            table = [[row(i - j) for j in range(longest)] for i in range(longest)]
            self.register_buffer("rows", torch.tensor(table), persistent=False)

        def forward(self, ids, mask):
            x = plain_norm(self.embedding.word_embedding(ids))
            relative = self.embedding.relative_layer_norm(self.embedding.relative_embedding)
            bias = (1.0 - mask[:, None, None, :].float()) * torch.finfo(torch.float32).min
            for layer in self.transformer.layers:
                x = layer(x, relative, self.rows, bias)
            head = self.classifier.nonlinearity
            logits = head["5"](plain_norm(F.gelu(head["1"](plain_norm(x)))))
            # the original has -inf, which gives NaN when the pooling multiplies it by a mask of 0
            logits[:, :, :107] = -1e4
            return logits

    return Norbert3().eval()


def load_norbert3(folder):
    from safetensors.torch import load_file

    model = norbert3(json.loads((folder / "config.json").read_text()))
    weights = {k: v for k, v in load_file(folder / "model.safetensors").items() if "position_indices" not in k}
    tied = weights["embedding.word_embedding.weight"]
    weights.setdefault("classifier.nonlinearity.5.weight", tied)
    model.load_state_dict(weights)
    return model


def check_norbert3():
    """Compares the forward pass in PyTorch with the output of the original code."""
    import torch
    from safetensors.torch import load_file

    expected = load_file(FIXTURE / "expected.safetensors")
    with torch.inference_mode():
        logits = load_norbert3(FIXTURE)(expected["input_ids"], expected["attention_mask"])
        logits = logits.masked_fill(expected["attention_mask"][:, :, None] == 0, -1e4)
        difference = (logits.relu().log1p().amax(1) - expected["splade"]).abs().max().item()
    assert difference < 1e-4, difference


def make_norbert3(name, folder):
    """Makes a model folder with the published sizes, random weights and the tokenizer of the fixture."""
    import shutil

    import torch
    from safetensors.torch import save_file

    config = json.loads((FIXTURE / "config.json").read_text()) | PUBLISHED | SIZES[name]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    for file in ("tokenizer.json", "special_tokens_map.json"):
        shutil.copy(FIXTURE / file, folder)
    settings = json.loads((FIXTURE / "tokenizer_config.json").read_text()) | {"model_max_length": MAX_LENGTH}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1))
    torch.manual_seed(0)
    model = norbert3(config)
    with torch.inference_mode():
        largest = model(torch.randint(5, 400, (1, 128)), torch.ones(1, 128)).amax(1)[0]
        model.classifier.nonlinearity["5"].bias -= largest.topk(ACTIVE).values[-1]
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "model.safetensors")


def modules_of(folder, length):
    """Returns the network of a folder and its pooling as modules of sentence-transformers."""
    from sentence_transformers.sparse_encoder.modules import MLMTransformer, SpladePooling

    if "NorbertForMaskedLM" not in (folder / "config.json").read_text():
        return [MLMTransformer(str(folder), max_seq_length=length), SpladePooling("max")]
    from sentence_transformers.base.modules.module import Module
    from transformers import PreTrainedTokenizerFast

    class Logits(Module):
        def __init__(self):
            super().__init__()
            special = json.loads((folder / "special_tokens_map.json").read_text())
            self.tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), **special)
            self.model = load_norbert3(folder)
            self.max_seq_length = length

        def preprocess(self, texts, prompt=None, **_):
            return dict(self.tokenizer(texts, padding=True, truncation=True, max_length=length, return_tensors="pt"))

        def forward(self, features, **_):
            logits = self.model(features["input_ids"], features["attention_mask"])
            return features | {"token_embeddings": logits}

        def save(self, *_, **__):
            raise NotImplementedError

    return [Logits(), SpladePooling("max")]


def sparse_encoder(folder):
    from sentence_transformers import SparseEncoder

    if "NorbertForMaskedLM" not in (folder / "config.json").read_text():
        return SparseEncoder(str(folder), device="cpu")
    return SparseEncoder(modules=modules_of(folder, MAX_LENGTH), device="cpu")


def worker(folder, texts, threads, batch):
    """Encodes the texts in this process and prints the time in seconds."""
    import torch

    torch.set_num_threads(threads)
    encoder = sparse_encoder(folder)
    texts = [json.loads(line)["text"] for line in open(texts)]
    encoder.encode(texts[:batch], batch_size=batch)
    start = time.perf_counter()
    vectors = encoder.encode(texts, batch_size=batch)
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "sums": torch.sparse.sum(vectors, 1).to_dense().tolist()}))


def measured(command):
    """Runs a command. Returns its output and its largest resident set in MB.

    On Linux the maximum after the end includes the process before it became the new program, here Python with torch.
    Therefore it is read while the program runs.
    """
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    status_file, marks = pathlib.Path(f"/proc/{process.pid}/status"), [0]

    def watch():
        while process.returncode is None:
            try:
                marks.append(int(re.search(r"VmHWM:\s+(\d+)", status_file.read_text())[1]))
            except (OSError, TypeError):
                return
            time.sleep(0.02)

    watcher = threading.Thread(target=watch, daemon=True)
    if status_file.exists():
        time.sleep(0.02)  # until the process is the new program
        watcher.start()
    out, err = process.stdout.read(), process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = status
    if status != 0:
        sys.exit(f"{' '.join(map(str, command))}\n{err[-2000:]}")
    unit = 1 if sys.platform == "darwin" else 1024
    return out, err, (marks[-1] * 1024 if len(marks) > 1 else usage.ru_maxrss * unit) / 1e6


def texts_of(folder, length, count):
    """Yields `count` texts of `length` tokens each, cut from the corpus between tokens."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    lines = [json.loads(line) for line in open(CORPUS)]
    words = [f"{line.get('title', '')} {line['text']}".split() for line in lines]
    stream, at = [word for text in words for word in text], 0
    for number in range(count):
        tokens = length or min(MAX_LENGTH, 2 + round(1.3 * len(words[number * 7 % len(words)])))
        text = " ".join((stream * 2)[at : at + tokens])
        at = (at + tokens) % len(stream)
        offsets = [o for o in tokenizer.encode(text, add_special_tokens=False).offsets if o[1] > o[0]]
        yield text[: offsets[max(tokens - 2, 1) - 1][1]] if len(offsets) > tokens - 2 else text


def ours(splade, folder, texts, threads, precision, extra):
    """Runs `splade encode` twice. Returns the better speed in documents per second, MB, and the sum of each vector."""
    best, memory, sums = 0.0, 0.0, []
    for _ in range(2):
        with tempfile.NamedTemporaryFile() as output:
            command = [splade, "encode", folder, "--input", texts, "--role", "document", "--backend", "onnx"]
            command += ["--threads", threads, "--max-length", MAX_LENGTH, "--precision", precision]
            command += ["--output", output.name, "--overwrite", *extra]
            _, err, peak = measured([str(part) for part in command])
            sums = [sum(json.loads(line)["values"]) for line in open(output.name)]
        best = max(best, float(re.search(r"\(([\d.]+) per second\)", err).group(1)))
        memory = max(memory, peak)
    return best, memory, sums


def growth(splade, folder, count, threads, precision, extra):
    """Encodes `count` short texts and prints the resident set after each eighth of them."""
    with tempfile.TemporaryDirectory() as work:
        texts, vectors = pathlib.Path(work) / "texts.jsonl", pathlib.Path(work) / "vectors.jsonl"
        words = [word for line in open(CORPUS) for word in json.loads(line)["text"].split()]
        with open(texts, "w") as file:
            for number in range(count):
                start = number * 11 % (len(words) - 40)
                text = " ".join(words[start : start + 1 + number * 7 % 16])
                print(json.dumps({"_id": str(number), "text": text}), file=file)
        command = [splade, "encode", folder, "--input", texts, "--role", "document", "--backend", "onnx"]
        command += ["--threads", threads, "--precision", precision, *extra]
        process = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        start = time.perf_counter()
        for done, _ in enumerate(process.stdout, 1):
            if done % (count // 8) == 0:
                status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
                memory = int(re.search(r"VmRSS:\s+(\d+)", status).group(1)) / 1000
                print(f"{done:8} documents  {memory:6.0f} MB  {done / (time.perf_counter() - start):6.0f} a second")
                sys.stdout.flush()
        if process.wait() != 0:
            sys.exit("splade encode failed")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--splade", default=ROOT / "target/release/splade")
    parser.add_argument("--model", action="append", help="a model folder, norbert3-xs or norbert3-base")
    parser.add_argument("--lengths", default="32,128,256,mixed")
    parser.add_argument("--tokens", type=int, default=1 << 15, help="tokens of all texts together")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--batches", default="32,8", help="batch sizes for PyTorch")
    parser.add_argument("--precisions", default="fp32,int8")
    parser.add_argument("--no-torch", action="store_true", help="measure `splade encode` alone")
    growth_help = "encode N short texts and print the resident set as it grows, on Linux"
    parser.add_argument("--growth", type=int, metavar="N", help=growth_help)
    parser.add_argument("--work", type=pathlib.Path, default=pathlib.Path(tempfile.gettempdir()) / "splade-bench")
    parser.add_argument("--worker", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("extra", nargs="*", help="further arguments for `splade encode`, after --")
    args = parser.parse_args()
    if args.worker:
        folder, texts, threads, batch = args.worker
        return worker(pathlib.Path(folder), texts, int(threads), int(batch))

    args.work.mkdir(parents=True, exist_ok=True)
    print(f"{'model':14} {'tokens':>6}  {'':22} {'documents/s':>11} {'x default':>9} {'x best':>7} {'MB':>6}")
    for name in args.model or ["../shared/models/splade-tiny", *SIZES]:
        folder = args.work / pathlib.Path(name).name
        if not (folder / "config.json").exists():
            if name in SIZES:
                check_norbert3()
                make_norbert3(name, folder)
            else:
                subprocess.run(["cp", "-r", name, folder], check=True)
                subprocess.run(["chmod", "-R", "u+w", folder], check=True)
        if not (folder / "onnx").exists():
            command = [args.splade, "export-onnx", folder, "--head", "splade", "--no-verify", "--precision", args.precisions]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        if args.growth:
            for precision in args.precisions.split(","):
                print(f"{folder.name}, {precision}")
                growth(args.splade, folder, args.growth, args.threads, precision, args.extra)
            continue
        for length in args.lengths.split(","):
            count = max(8, args.tokens // (100 if length == "mixed" else int(length)))
            texts = args.work / f"texts-{length}.jsonl"
            with open(texts, "w") as file:
                for number, text in enumerate(texts_of(folder, 0 if length == "mixed" else int(length), count)):
                    print(json.dumps({"_id": str(number), "text": text}), file=file)

            def line(what, rate, torch, memory):
                ratios = [f"{rate / torch[0]:.1f}", f"{rate / max(torch):.1f}"] if torch else ["", ""]
                print(f"{folder.name:14} {length:>6}  {what:22} {rate:11.1f} {ratios[0]:>9} {ratios[1]:>7} {memory:6.0f}")
                sys.stdout.flush()

            torch = []
            for batch in [] if args.no_torch else args.batches.split(","):
                command = [sys.executable, __file__, "--worker", folder, texts, args.threads, batch]
                out, _, memory = measured([str(part) for part in command])
                result = json.loads(out.splitlines()[-1])
                torch.append(count / result["seconds"])
                expected = result["sums"]
                line(f"PyTorch, batches of {batch}", torch[-1], [], memory)
            for precision in args.precisions.split(","):
                rate, memory, sums = ours(args.splade, folder, texts, args.threads, precision, args.extra)
                # both sides must give the same vectors
                close = 1e-3 if precision == "fp32" else 0.2
                for one, other in zip(sums, expected, strict=True) if torch else []:
                    assert abs(one - other) <= close * max(one, other), (one, other)
                line(f"splade, {precision}", rate, torch, memory)


if __name__ == "__main__":
    main()
