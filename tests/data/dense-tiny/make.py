"""Makes the dense model of the tests: a random BERT with pooling, prompts and an ONNX file, and the vectors that
sentence-transformers computes with it, for each pooling and without a normalization.

    python tests/data/dense-tiny/make.py

Written with torch 2.15, transformers 5.24 and sentence-transformers 6.2. Weights are random, so no licence applies to them.
The tokenizer is that of tests/fixtures/models/bert-tiny.
"""

import json
import shutil
import tempfile
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.models import Normalize, Pooling, Transformer
from transformers import AutoTokenizer, BertConfig, BertModel

HERE = Path(__file__).resolve().parent
TOKENIZER = HERE.parents[1] / "fixtures/models/bert-tiny"
MAX_LENGTH = 24
POOLINGS = ["cls", "mean", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]
TEXTS = [
    "Oslo er hovedstaden i Norge.",
    "torsk",
    "",
    "Sognefjorden er landets lengste og dypeste fjord, og den er lengre enn alle andre fjorder i landet. " * 3,
    "Skreien er torsk som vandrer fra Barentshavet til Lofoten for å gyte.",
]


class Hidden(torch.nn.Module):
    """The network with positional arguments, as the exporter calls it."""

    def __init__(self, bert):
        super().__init__()
        self.bert = bert

    def forward(self, input_ids, attention_mask, token_type_ids):
        output = self.bert(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)
        return output.last_hidden_state


def make_network(folder):
    torch.manual_seed(7)
    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER)
    # a large range: vectors of texts would be almost equal otherwise
    config = BertConfig(
        vocab_size=400, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=64, initializer_range=0.4, attn_implementation="eager",
    )
    BertModel(config, add_pooling_layer=False).eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def sentence_transformer(folder, pooling, *more):
    modules = [Transformer(str(folder), max_seq_length=MAX_LENGTH), Pooling(32, pooling_mode=pooling), *more]
    prompts = {"query": "hva er ", "document": "tekst: "}
    return SentenceTransformer(modules=modules, prompts=prompts, device="cpu")


def export(bert, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    names = ["input_ids", "attention_mask", "token_type_ids"]
    inputs = tuple(torch.ones(2, 7, dtype=torch.long) for _ in names)
    axes = {name: {0: "batch", 1: "sequence"} for name in [*names, "last_hidden_state"]}
    with torch.no_grad():
        torch.onnx.export(
            Hidden(bert), inputs, str(path), input_names=names, output_names=["last_hidden_state"], dynamic_axes=axes,
            opset_version=17, dynamo=False,
        )


def main():
    model_folder = HERE / "model"
    shutil.rmtree(model_folder, ignore_errors=True)
    golden = {"texts": TEXTS, "poolings": {}}
    with tempfile.TemporaryDirectory() as folder:
        make_network(folder)
        for pooling in POOLINGS:
            model = sentence_transformer(folder, pooling)
            golden["poolings"][pooling] = {
                "queries": model.encode_query(TEXTS).tolist(),
                "documents": model.encode_document(TEXTS).tolist(),
            }
        model = sentence_transformer(folder, "mean", Normalize())
        model.save(str(model_folder))
        export(model[0].auto_model.eval(), model_folder / "onnx/model.onnx")
    # the ONNX file has the weights
    (model_folder / "model.safetensors").unlink()
    (model_folder / "README.md").unlink(missing_ok=True)
    (HERE / "golden.json").write_text(json.dumps(golden) + "\n")


if __name__ == "__main__":
    main()
