#!/usr/bin/env python3
"""The Python half of tests/proof.rs, for a Python with torch, transformers, sentence-transformers and tokenizers.

    proof.py make SHARED FOLDER     makes FOLDER/base, a NorBERT3-xs with random weights; FOLDER/task, a small evaluation
                                    set in BEIR layout; and FOLDER/documents.jsonl and queries.jsonl, 20 texts each
    proof.py compare MODEL FOLDER   loads MODEL with SparseEncoder and compares its vectors of these texts with those in
                                    FOLDER/document-vectors.jsonl and query-vectors.jsonl

The sizes and the forward pass are those of scripts/bench_encode.py, which is first compared with the original code. The
base model has 50 000 terms of a tokenizer that is trained here, and the dropout of the published model. transformers has
no NorBERT3 of its own: as on the Hub, the network is a Python file in the model folder. The published file is not in
this repository. Here it is a wrapper around the forward pass of bench_encode.py, under the same names.
"""

import gzip
import inspect
import itertools
import json
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))
import bench_encode

TOLERANCE = 1e-4
TEXTS = 20
TASK, TASK_QUERIES, TASK_DOCUMENTS = "lohelp-sv", 60, 100

CONFIGURATION = """from transformers import PretrainedConfig


class NorbertConfig(PretrainedConfig):
    pass
"""

MODELING = """import math

from transformers import PreTrainedModel
from transformers.modeling_outputs import MaskedLMOutput

from .configuration_norbert import NorbertConfig


{norbert3}

class NorbertForMaskedLM(PreTrainedModel):
    config_class = NorbertConfig
    _tied_weights_keys = {{"classifier.nonlinearity.5.weight": "embedding.word_embedding.weight"}}

    def __init__(self, config):
        super().__init__(config)
        network = norbert3(config.to_dict())
        self.embedding, self.transformer, self.classifier = network.embedding, network.transformer, network.classifier
        # the pass over these modules; a buffer would not be filled by from_pretrained
        self.whole_pass, self.rows = type(network).forward, None
        self.post_init()

    def _init_weights(self, module):
        pass

    def forward(self, input_ids, attention_mask=None, **_):
        if self.rows is None:
            self.rows = norbert3(self.config.to_dict()).rows
        return MaskedLMOutput(logits=self.whole_pass(self, input_ids, attention_mask))
"""


def read_rows(path):
    """Rows of a .jsonl or .jsonl.gz file."""
    opened = gzip.open(path, "rt") if path.suffix == ".gz" else open(path)
    with opened as file:
        for line in file:
            yield json.loads(line)


def write_rows(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def train_tokenizer(texts, folder, n_terms):
    """Replaces the terms of the folder's tokenizer by those of the texts; special tokens keep their ids."""
    from tokenizers import Tokenizer
    from tokenizers.trainers import WordPieceTrainer

    path = str(folder / "tokenizer.json")
    special = [token["content"] for token in json.loads((folder / "tokenizer.json").read_text())["added_tokens"]]
    tokenizer = Tokenizer.from_file(path)
    trainer = WordPieceTrainer(
        vocab_size=n_terms, special_tokens=special, continuing_subword_prefix="", show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    assert tokenizer.get_vocab_size() == n_terms, tokenizer.get_vocab_size()
    tokenizer.save(path)


def make_base(shared, folder):
    """Makes the base model, with the files that transformers loads."""
    bench_encode.check_norbert3()
    bench_encode.make_norbert3("norbert3-xs", folder)
    path = folder / "config.json"
    config = json.loads(path.read_text()) | {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
    path.write_text(json.dumps(config, indent=2))
    train_tokenizer(
        (row["text"] for row in read_rows(shared / "data/norwegian-text/train.jsonl.gz")), folder, config["vocab_size"]
    )
    (folder / "configuration_norbert.py").write_text(CONFIGURATION)
    source = inspect.getsource(bench_encode.norbert3)
    (folder / "modeling_norbert.py").write_text(MODELING.format(norbert3=source))


def make_task(data, folder):
    """Takes the first queries, the documents that are judged for them, and some others. Returns queries and documents."""
    queries = list(itertools.islice(read_rows(data / "queries.jsonl"), TASK_QUERIES))
    header, *judgements = (data / "qrels/test.tsv").read_text().splitlines()
    kept = {query["_id"] for query in queries}
    judgements = [line for line in judgements if line.split("\t")[0] in kept]
    judged = {line.split("\t")[1] for line in judgements}
    corpus = list(read_rows(data / "corpus.jsonl"))
    others = itertools.islice((row for row in corpus if row["_id"] not in judged), TASK_DOCUMENTS)
    documents = [row for row in corpus if row["_id"] in judged] + list(others)
    write_rows(folder / "queries.jsonl", queries)
    write_rows(folder / "corpus.jsonl", documents)
    (folder / "qrels").mkdir()
    (folder / "qrels/test.tsv").write_text("\n".join([header, *judgements, ""]))
    return queries, documents


def make(shared, folder):
    make_base(shared, folder / "base")
    queries, documents = make_task(shared / "data" / TASK, folder / "task")
    for name, rows in (("queries", queries), ("documents", documents)):
        write_rows(folder / f"{name}.jsonl", [{"_id": row["_id"], "text": row["text"]} for row in rows[:TEXTS]])


def compare_side(name, vectors, folder):
    """Compares the vectors of one side. Returns the largest difference, relative to the largest weight of its vector."""
    import torch

    rows = list(read_rows(folder / f"{name}-vectors.jsonl"))
    assert len(rows) == len(vectors) == TEXTS, (len(rows), len(vectors))
    worst, active = 0.0, 0
    for expected, row in zip(vectors.to_dense(), rows, strict=True):
        found = torch.zeros_like(expected)
        found[torch.tensor(row["indices"])] = torch.tensor(row["values"])
        assert expected.max() > 0, f"an empty vector: {row['_id']}"
        worst = max(worst, ((found - expected).abs().max() / expected.max()).item())
        active += len(row["indices"])
    print(f"{TEXTS} {name} vectors, {active / TEXTS:.0f} active dims each: largest relative difference {worst:.1e}")
    assert worst <= TOLERANCE, worst


def compare(model, folder):
    from sentence_transformers import SparseEncoder

    encoder = SparseEncoder(str(model), device="cpu", trust_remote_code=True)
    texts = {name: [row["text"] for row in read_rows(folder / name)] for name in ("documents.jsonl", "queries.jsonl")}
    compare_side("document", encoder.encode_document(texts["documents.jsonl"]), folder)
    compare_side("query", encoder.encode_query(texts["queries.jsonl"]), folder)


if __name__ == "__main__":
    command, first, second = sys.argv[1:]
    {"make": make, "compare": compare}[command](pathlib.Path(first), pathlib.Path(second))
