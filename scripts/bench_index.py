#!/usr/bin/env python3
"""Documents per second and memory of `splade index --vectors`, from the start of the command to its end.

    PYTHON scripts/bench_index.py --model ../shared/models/splade-tiny --base ../shared/data/bench-vectors/base.npz

needs a Python with numpy. `--base` has vectors of a trained model as an `.npz` with the arrays indptr, terms and weights. Each
document has the terms of one of them, drawn at random, and its weights times log-normal noise; so posting lists have the lengths
of the trained model, and no two documents the same weights. It has no text.

The times include the reading of the vectors, all commits and the last merge. The memory is the largest anonymous one, which
excludes the pages of files that the system may drop (Linux only). It is read every 2 ms.
"""

import argparse
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

from bench_encode import ROOT

ROWS = 50_000


def write_vectors(path, base, documents):
    """Writes a CSR matrix as safetensors. Returns its number of weights."""
    import numpy as np

    arrays = np.load(base)
    indptr, terms, weights = arrays["indptr"], arrays["terms"].astype(np.int32), arrays["weights"].astype(np.float32)
    random = np.random.default_rng(1)
    rows = random.integers(len(indptr) - 1, size=documents)
    starts = np.concatenate([[0], np.cumsum(np.diff(indptr)[rows])])
    count = int(starts[-1])
    header, end = {}, 0
    for name, dtype, numbers, width in [("indptr", "I64", documents + 1, 8), ("indices", "I32", count, 4), ("data", "F32", count, 4)]:
        header[name] = {"dtype": dtype, "shape": [numbers], "data_offsets": [end, end + numbers * width]}
        end += numbers * width
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    at = 8 + len(text)
    np.memmap(path, np.int64, "r+", at, (documents + 1,))[:] = starts
    indices = np.memmap(path, np.int32, "r+", at + header["indices"]["data_offsets"][0], (count,))
    data = np.memmap(path, np.float32, "r+", at + header["data"]["data_offsets"][0], (count,))
    for first in range(0, documents, ROWS):
        chosen = rows[first : first + ROWS]
        places = np.concatenate([np.arange(indptr[row], indptr[row + 1]) for row in chosen])
        part = slice(starts[first], starts[first + len(chosen)])
        indices[part] = terms[places]
        data[part] = weights[places] * random.lognormal(sigma=0.25, size=len(places)).astype(np.float32)
    return count


def anonymous(command):
    """Runs a command. Returns its output, its seconds and its largest anonymous memory in MB."""
    start = time.perf_counter()
    process = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, text=True)
    status, largest = pathlib.Path(f"/proc/{process.pid}/status"), 0
    while process.poll() is None:
        found = re.search(r"RssAnon:\s+(\d+)", status.read_text())
        largest = max(largest, int(found[1]) if found else 0)
        time.sleep(0.002)
    seconds = time.perf_counter() - start
    if process.returncode != 0:
        sys.exit("splade index failed")
    return process.stdout.read(), seconds, largest * 1024 / 1e6


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--splade", type=pathlib.Path, default=ROOT / "target/release/splade")
    parser.add_argument("--model", type=pathlib.Path, required=True, help="model folder with the vocabulary of the vectors")
    parser.add_argument("--base", type=pathlib.Path, required=True, help="vectors of a trained model")
    parser.add_argument("--documents", default="100000,2000000")
    parser.add_argument("--work", type=pathlib.Path, default=pathlib.Path(tempfile.gettempdir()) / "splade-bench-index")
    parser.add_argument("extra", nargs="*", help="further arguments for `splade index`, after --")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    print(f"{'documents':>9} {'a second':>9} {'seconds':>8} {'MB':>6} {'segments':>8} {'bytes a weight':>14}")
    for documents in map(int, args.documents.split(",")):
        vectors, index = args.work / f"{documents}.safetensors", args.work / f"{documents}.index"
        if not vectors.exists():
            write_vectors(vectors, args.base, documents)
        command = [args.splade, "-q", "index", args.model, "--vectors", vectors, "--index", index, "--overwrite", "--json"]
        out, seconds, memory = anonymous(command + args.extra)
        stats = json.loads(out)
        assert stats["documents"] == documents, stats
        shutil.rmtree(index)
        size = stats["vector_bytes"] / stats["postings"]
        print(f"{documents:9} {documents / seconds:9.0f} {seconds:8.2f} {memory:6.0f} {stats['segments']:8} {size:14.2f}")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
