#!/usr/bin/env python3
"""Exact search of `splade` beside the approximate search of Seismic, same vectors and queries, one thread, same run.

    PYTHON scripts/bench_seismic.py --model ../shared/models/splade-tiny --vectors DIR

needs a Python with numpy and pyseismic-lsr. DIR has `docs.bin` and `queries.bin` in the form of index/benches/search.rs, such as
../shared/tools/make_sparse_vectors.py writes. Seismic is built with the settings that its authors give for 95 % and more, then
searched with growing effort. A line of the table is a setting of its search, with the share of our exact hits that it found.

The time of a query is the mean over all queries, with all vectors of queries in memory: of `splade search --stats` for ours, of
`batch_search` with one thread for Seismic's, both after a first pass over all queries.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import time

from bench_encode import ROOT

# terms of a query that are looked at, and the factor of the heap: less effort first
EFFORTS = [(3, 0.9), (5, 0.9), (8, 0.9), (8, 0.8), (12, 0.8), (12, 0.7), (20, 0.7), (20, 0.5), (64, 0.0)]


def read(path):
    """Offsets, terms and weights of a file of vectors."""
    import numpy as np

    data = np.memmap(path, np.uint8, "r")
    rows, dims = (int(number) for number in np.frombuffer(data[4:12], "<u4"))
    starts = np.frombuffer(data[16 : 16 + 8 * (rows + 1)], "<u8").astype(np.int64)
    at, count = 16 + 8 * (rows + 1), int(starts[-1])
    terms = np.frombuffer(data[at : at + 2 * count], "<u2")
    weights = np.frombuffer(data[at + 2 * count : at + 6 * count], "<f4")
    return dims, starts, terms, weights


def write_csr(path, vectors):
    import numpy as np

    dims, starts, terms, weights = vectors
    with open(path, "wb") as file:
        np.array([len(starts) - 1, dims, len(terms)], "<i8").tofile(file)
        starts.astype("<i8").tofile(file)
        terms.astype("<i4").tofile(file)
        weights.tofile(file)


def write_seismic(path, vectors):
    """Number of rows, then each row's length, terms and weights."""
    import numpy as np

    _, starts, terms, weights = vectors
    with open(path, "wb") as file:
        np.array([len(starts) - 1], "<u4").tofile(file)
        for start, end in zip(starts, starts[1:]):
            np.array([end - start], "<u4").tofile(file)
            terms[start:end].astype("<u4").tofile(file)
            weights[start:end].tofile(file)


def ours(args, folder, documents, queries):
    """Hits by query and microseconds a query of `splade search`."""
    write_csr(folder / "docs.csr", documents)
    with open(folder / "queries.jsonl", "w") as file:
        _, starts, terms, weights = queries
        for row, (start, end) in enumerate(zip(starts, starts[1:])):
            vector = {str(term): float(weight) for term, weight in zip(terms[start:end], weights[start:end])}
            file.write(json.dumps({"_id": str(row), "vector": vector}) + "\n")
    index, stats = folder / "index", folder / "stats.json"
    started = time.perf_counter()
    subprocess.run([args.splade, "-q", "index", args.model, "--vectors", folder / "docs.csr", "--index", index], check=True,
                   stdout=subprocess.DEVNULL)
    built = time.perf_counter() - started
    command = [args.splade, "-q", "search", "--index", index, "--query-vectors", folder / "queries.jsonl", "-k", str(args.k), "--warm",
               "--threads", "1", f"--stats={stats}", "--json", "--overwrite"]
    for _ in range(2):
        lines = subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True).stdout.splitlines()
    hits = {}
    for answer in map(json.loads, lines):
        hits[int(answer["query_id"])] = {int(hit["_id"]) for hit in answer["hits"]}
    size = sum(path.stat().st_size for path in index.rglob("*") if path.is_file())
    print(f"splade, exact: {json.loads(stats.read_text())['search_us']['mean']:.0f} us a query; built in {built:.0f} s, {size / 1e6:.0f} MB")
    return hits


def seismic(args, folder, documents, queries, truth):
    from seismic import SeismicIndexRaw

    for name, vectors in (("docs", documents), ("queries", queries)):
        write_seismic(folder / f"{name}.bin", vectors)
    started = time.perf_counter()
    index = SeismicIndexRaw.build(str(folder / "docs.bin"), n_postings=args.postings, centroid_fraction=0.1, summary_energy=0.4)
    built = time.perf_counter() - started
    index.save(str(folder / "seismic"))
    size = sum(path.stat().st_size for path in folder.glob("seismic*"))
    print(f"Seismic: built in {built:.0f} s, {size / 1e6:.0f} MB")
    for cut, factor in EFFORTS:
        for _ in range(2):
            started = time.perf_counter()
            found = index.batch_search(str(folder / "queries.bin"), k=args.k, query_cut=cut, heap_factor=factor, n_knn=0, sorted=True,
                                       num_threads=1)
            spent = time.perf_counter() - started
        right = sum(len({document for _, document in hits} & truth[row]) for row, hits in enumerate(found))
        share = right / sum(map(len, truth.values()))
        print(f"Seismic, {cut} terms, factor {factor}: {spent / len(found) * 1e6:.0f} us a query, {share:.1%} of the exact hits", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--vectors", required=True, type=pathlib.Path)
    parser.add_argument("--splade", default=ROOT / "target/release/splade")
    parser.add_argument("--postings", type=int, default=6000, help="postings a term that Seismic keeps")
    parser.add_argument("-k", type=int, default=10)
    args = parser.parse_args()
    documents, queries = read(args.vectors / "docs.bin"), read(args.vectors / "queries.bin")
    print(f"{len(documents[1]) - 1} documents, {len(queries[1]) - 1} queries, k {args.k}, one thread")
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        truth = ours(args, folder, documents, queries)
        seismic(args, folder, documents, queries, truth)


if __name__ == "__main__":
    sys.exit(main())
