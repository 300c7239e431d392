"""Whether Python's packages take an exported model folder: onnx checks every file, onnxruntime runs it, and where
optimum is there, sentence-transformers encodes with it. Prints a line for each thing found; fails where one disagrees.

python onnx_files.py MODEL_FOLDER EXPECTED.json, where EXPECTED.json is {"texts": [...], "vectors": {precision: [[...]]}}
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from tokenizers import Tokenizer

folder, expected = Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text())
texts = expected["texts"]
transformer = next(path.parent for path in folder.rglob("config.json") if (path.parent / "onnx").is_dir())
tokenizer = Tokenizer.from_file(str(transformer / "tokenizer.json"))
tokenizer.no_padding()
config, settings = (json.loads((transformer / f"{name}.json").read_text()) for name in ["config", "tokenizer_config"])
tokenizer.enable_truncation(min(config["max_position_embeddings"], settings["model_max_length"]))
SUFFIXES = {"fp32": "", "fp16": "_fp16", "int8": "_int8"}


def inputs(text):
    ids = np.array([tokenizer.encode(text).ids], dtype=np.int64)
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}


def near(found, wanted, what, precision):
    found, wanted = np.asarray(found, dtype=np.float64), np.asarray(wanted, dtype=np.float64)
    difference = float(np.abs(found - wanted).max())
    # int8 shares one activation scale in a batch, and these texts run alone
    assert difference <= (0.05 if precision == "int8" else 1e-5), f"{what}: {difference}"
    print(f"{what}: {difference:.1e}")


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
        # the two files quantise the head differently: a scale for the batch, a scale for each text
        if output == "sentence_embedding" or precision != "int8":
            near(rows, expected["vectors"][precision], f"onnxruntime {path.name}", precision)

try:
    import optimum.onnxruntime  # noqa: F401
    from sentence_transformers import SparseEncoder
except Exception as error:
    print(f"skipped: sentence-transformers cannot run ONNX here: {error}".splitlines()[0])
    sys.exit()

for precision, suffix in SUFFIXES.items():
    encoder = SparseEncoder(str(folder), backend="onnx", model_kwargs={"file_name": f"model{suffix}.onnx"})
    found = encoder.encode_document(texts, convert_to_tensor=True, batch_size=1).to_dense().numpy()
    if precision == "int8":
        wanted = np.asarray(expected["vectors"]["fp32"])
        cosine = ((found * wanted).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(wanted, axis=1)).min()
        assert cosine > 0.99, cosine
        print(f"sentence-transformers model{suffix}.onnx: cosine {cosine:.4f}")
    else:
        near(found, expected["vectors"][precision], f"sentence-transformers model{suffix}.onnx", precision)
