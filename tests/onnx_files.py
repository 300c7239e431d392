"""Compares the ONNX files of a model folder in Python's packages with expected vectors.

    python onnx_files.py onnxruntime MODEL_FOLDER EXPECTED.json
    python onnx_files.py sentence-transformers MODEL_FOLDER EXPECTED.json

The first checks every file with onnx and runs it in onnxruntime. The second encodes with sentence-transformers, which needs
optimum. EXPECTED.json is {"texts": [...], "vectors": {precision: [[...]]}}. Prints a line for each file, and fails at the
first that differs.
"""

import json
import sys
from pathlib import Path

import numpy as np

package, folder, expected = sys.argv[1], Path(sys.argv[2]), json.loads(Path(sys.argv[3]).read_text())
texts = expected["texts"]
SUFFIXES = {"fp32": "", "fp16": "_fp16", "int8": "_int8"}


def near(found, wanted, what):
    found, wanted = np.asarray(found, dtype=np.float64), np.asarray(wanted, dtype=np.float64)
    difference = float(np.abs(found - wanted).max())
    assert difference <= 1e-5, f"{what}: {difference}"
    print(f"{what}: {difference:.1e}")


def alike(found, wanted, what):
    found, wanted = np.asarray(found, dtype=np.float64), np.asarray(wanted, dtype=np.float64)
    cosine = ((found * wanted).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(wanted, axis=1)).min()
    assert cosine > 0.99, f"{what}: cosine {cosine}"
    print(f"{what}: cosine {cosine:.4f}")


def check_sentence_transformers():
    from sentence_transformers import SparseEncoder

    for precision, suffix in SUFFIXES.items():
        name = f"model{suffix}.onnx"
        encoder = SparseEncoder(str(folder), backend="onnx", model_kwargs={"file_name": name})
        found = encoder.encode_document(texts, convert_to_tensor=True, batch_size=1).to_dense().numpy()
        if precision == "int8":
            alike(found, expected["vectors"]["fp32"], f"sentence-transformers {name}")
        else:
            near(found, expected["vectors"][precision], f"sentence-transformers {name}")


if package == "sentence-transformers":
    check_sentence_transformers()
    sys.exit()

import onnx
import onnxruntime
from tokenizers import Tokenizer

transformer = next(path.parent for path in folder.rglob("config.json") if (path.parent / "onnx").is_dir())
tokenizer = Tokenizer.from_file(str(transformer / "tokenizer.json"))
tokenizer.no_padding()
config, settings = (json.loads((transformer / f"{name}.json").read_text()) for name in ["config", "tokenizer_config"])
tokenizer.enable_truncation(min(config["max_position_embeddings"], settings["model_max_length"]))


def inputs(text):
    ids = np.array([tokenizer.encode(text).ids], dtype=np.int64)
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}


for precision, suffix in SUFFIXES.items():
    for stem, output, axes in [
        ("model", "logits", ["batch_size", "sequence_length", None]),
        ("model_splade", "sentence_embedding", ["batch_size", None]),
    ]:
        path = transformer / "onnx" / f"{stem}{suffix}.onnx"
        onnx.checker.check_model(str(path), full_check=True)
        metadata = {entry.key: entry.value for entry in onnx.load(str(path)).metadata_props}
        assert metadata["splade.precision"] == precision, metadata
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        for value in session.get_inputs():
            assert value.type == "tensor(int64)" and value.shape == ["batch_size", "sequence_length"], value
        (value,) = session.get_outputs()
        assert value.name == output and value.type == "tensor(float)", value
        assert [axis if isinstance(axis, str) else None for axis in value.shape] == axes, value
        names = [value.name for value in session.get_inputs()]
        rows = []
        for text in texts:
            feeds = {name: value for name, value in inputs(text).items() if name in names}
            row = session.run(None, feeds)[0][0]
            rows.append(np.log1p(np.maximum(row, 0)).max(axis=0) if output == "logits" else row)
        if precision == "int8":
            # the expected vectors come from the fused output layer, which rounds to 8 bits in another way than the file
            alike(rows, expected["vectors"][precision], f"onnxruntime {path.name}")
        else:
            near(rows, expected["vectors"][precision], f"onnxruntime {path.name}")
