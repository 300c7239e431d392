#!/usr/bin/env python3
"""Time of a query on one thread, by number of documents: the linear scan that docs/scale.md extends to a billion documents.

    PYTHON scripts/bench_scale.py --model ../shared/models/splade-tiny --base ../shared/data/bench-vectors/base.npz

needs a Python with numpy. Documents are those of bench_index.py, whose header describes `--base`. A query has 8 terms of a vector of
`--base`, drawn at random, so that frequent terms are drawn often, as in questions. The index is read into memory first. Times are of
`splade search --stats`, without the encoding of the query; k is 10.
"""

import argparse
import json
import pathlib
import shutil
import subprocess
import tempfile

from bench_encode import ROOT
from bench_index import write_vectors

QUERIES = 300
TERMS = 8


def write_queries(path, base):
    """Writes vectors of queries as lines of JSON."""
    import numpy as np

    arrays = np.load(base)
    indptr, terms, weights = arrays["indptr"], arrays["terms"], arrays["weights"].astype(np.float32)
    random = np.random.default_rng(2)
    with open(path, "w") as file:
        for query in range(QUERIES):
            row = random.integers(len(indptr) - 1)
            places = np.arange(indptr[row], indptr[row + 1])
            chosen = sorted(random.choice(places, size=min(TERMS, len(places)), replace=False), key=lambda place: terms[place])
            indices, values = [int(terms[place]) for place in chosen], [float(weights[place]) for place in chosen]
            file.write(json.dumps({"_id": f"q{query}", "indices": indices, "values": values}) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--splade", type=pathlib.Path, default=ROOT / "target/release/splade")
    parser.add_argument("--model", type=pathlib.Path, required=True, help="model folder with the vocabulary of the vectors")
    parser.add_argument("--base", type=pathlib.Path, required=True, help="vectors of a trained model")
    parser.add_argument("--documents", default="125000,250000,500000,1000000")
    args = parser.parse_args()
    print(f"{'documents':>9} {'segments':>8} {'GB':>6} {'p50 ms':>7} {'p99 ms':>7} {'mean ms a million':>17}")
    with tempfile.TemporaryDirectory(prefix="splade-bench-scale-") as folder:
        work = pathlib.Path(folder)
        queries = work / "queries.jsonl"
        write_queries(queries, args.base)
        for documents in map(int, args.documents.split(",")):
            vectors, index, stats = work / "vectors.safetensors", work / "index", work / "stats.json"
            write_vectors(vectors, args.base, documents)
            made = subprocess.run([args.splade, "-q", "index", args.model, "--vectors", vectors, "--index", index, "--json"],
                                  check=True, capture_output=True)
            made = json.loads(made.stdout)
            vectors.unlink()
            search = [args.splade, "-q", "search", "--index", index, "--query-vectors", queries, "--threads", "1", "--warm", "--json"]
            subprocess.run([*search, f"--stats={stats}"], check=True, stdout=subprocess.DEVNULL)
            shutil.rmtree(index)
            found = json.loads(stats.read_text())
            latency = found["search_us"]
            print(f"{documents:9} {made['segments']:8} {made['total_bytes'] / 1e9:6.2f} {latency['p50'] / 1e3:7.2f} "
                  f"{latency['p99'] / 1e3:7.2f} {latency['mean'] / 1e3 / documents * 1e6:17.2f}", flush=True)
            stats.unlink()


if __name__ == "__main__":
    main()
