#!/usr/bin/env python3
"""Push rate and time of a query of a search engine, beside the program's own index of the same vectors.

    PYTHON scripts/bench_engines.py --model ../shared/models/splade-tiny --base ../shared/data/bench-vectors/base.npz \\
        --start opensearch-v3 -- --shards 2 --replicas 0

needs a Python with numpy. Documents are those of bench_index.py, whose header describes `--base`. A query has 8 words of a vector of
`--base`, drawn at random; the weight of a word is its inverse document frequency, so that queries need no network. `--start` starts
an engine of `make test-engines`, which sets it up: three nodes of OpenSearch, two with data, or a server in Python before Qdrant's
engine or Milvus Lite, or PostgreSQL. Without it, `--url` names a running engine, and `--to` its kind. Arguments after `--` are those
of push-index.

The rate is that of push-index, from its first request to the end of its last one, against the whole of `splade index`. The time of a
query is what one more query adds to a run of `splade search`, one query at a time: its vector, the request and the answer with the
ids of 10 documents. `splade index` and push-index take all cores. Differences are those of the verification after the push.
"""

import argparse
import contextlib
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

from bench_encode import ROOT
from bench_index import write_vectors

WORDS = 8
# queries to the own index, whose time is too short to be measured with fewer
OWN_QUERIES = 2000
REPEATS = 3
START_SECONDS_MAX = 120


def splade(program, *args):
    """Seconds and stdout of a run."""
    start = time.monotonic()
    done = subprocess.run([program, "--quiet", *map(str, args)], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"bench: splade {args[0]}: {done.stderr.strip()}")
    return time.monotonic() - start, done.stdout


def write_model(folder, model, base):
    """Copies a model and gives it a table of query weights, the inverse document frequencies in `base`. Returns its vocabulary."""
    import numpy as np

    shutil.copytree(model, folder)
    vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    documents = len(base["indptr"]) - 1
    frequencies = np.bincount(base["terms"], minlength=len(vocabulary))
    weights = np.log(1 + (documents - frequencies + 0.5) / (frequencies + 0.5))
    (folder / "idf.json").write_text(json.dumps({token: float(weights[number]) for token, number in vocabulary.items()}))
    return {number: token for token, number in vocabulary.items()}


def query_texts(base, vocabulary, count):
    import numpy as np

    random = np.random.default_rng(2)
    indptr, terms = base["indptr"], base["terms"]
    texts = []
    while len(texts) < count:
        row = random.integers(len(indptr) - 1)
        tokens = [vocabulary[int(term)] for term in terms[indptr[row] : indptr[row + 1]]]
        words = [token for token in tokens if re.fullmatch("[a-z]{2,}", token)]
        if len(words) >= WORDS:
            texts.append(" ".join(random.choice(words, size=WORDS, replace=False)))
    return texts


def query_seconds(program, texts, folder, *search):
    """Seconds that one more query adds."""

    def seconds(count):
        queries = folder / "queries.jsonl"
        queries.write_text("".join(json.dumps({"_id": f"q{at}", "text": text}) + "\n" for at, text in enumerate(texts[:count])))
        runs = (splade(program, "search", *search, "--queries", queries, "-k", 10, "--format", "trec") for _ in range(REPEATS))
        return min(took for took, _ in runs)

    few = len(texts) // 5
    return (seconds(len(texts)) - seconds(few)) / (len(texts) - few)


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@contextlib.contextmanager
def opensearch(version, folder):
    """Address of a cluster of three nodes, of which two have data."""
    jars = ROOT / ".engines" / "opensearch" / version
    ports = free_ports(6)
    seeds = ",".join(f"127.0.0.1:{port}" for port in ports[3:])
    nodes = []
    try:
        for node in range(3):
            settings = {
                "path.home": folder / f"node{node}", "node.name": node, "transport.type": "netty4", "http.type": "netty4",
                "http.port": ports[node], "transport.port": ports[3 + node], "discovery.seed_hosts": seeds,
                "node.roles": "cluster_manager" if node == 0 else "cluster_manager,data",
                "cluster.initial_cluster_manager_nodes": "0,1,2",
                "cluster.routing.allocation.disk.threshold_enabled": "false",
            }
            java = [jars / "java", "-Xms256m" if node == 0 else "-Xms1g", "-Xmx512m" if node == 0 else "-Xmx1g", "-cp", f"{jars}/*",
                    ROOT / "tests/engines/opensearch/OneNode.java", *(f"{name}={value}" for name, value in settings.items())]
            nodes.append(subprocess.Popen(java, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        url = f"http://127.0.0.1:{ports[0]}"
        for _ in range(START_SECONDS_MAX):
            time.sleep(1)
            with contextlib.suppress(OSError):
                with urllib.request.urlopen(f"{url}/_cluster/health", timeout=5) as answer:
                    if json.load(answer)["number_of_nodes"] == 3:
                        break
        else:
            sys.exit("bench: the cluster does not start")
        yield url
    finally:
        for node in nodes:
            node.kill()
            node.wait()


@contextlib.contextmanager
def server(engine, script, folder):
    """Address of an engine that a script of tests/engines runs until its input ends."""
    data = folder / engine
    if engine != "postgres":
        data.mkdir()
    # run by root, PostgreSQL has a user of its own
    folder.chmod(0o755)
    command = [ROOT / ".engines" / engine / "venv/bin/python", ROOT / "tests/engines" / engine / script, data]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        address = process.stdout.readline().strip()
        if not address:
            sys.exit(f"bench: {engine} does not start")
        yield f"http://127.0.0.1:{address}" if address.isdigit() else address
    finally:
        process.stdin.close()
        process.wait()


# engines that can be started: their kind, and what starts them
STARTS = {
    "opensearch-v2": ("opensearch", lambda folder: opensearch("v2", folder)),
    "opensearch-v3": ("opensearch", lambda folder: opensearch("v3", folder)),
    "postgres": ("postgres", lambda folder: server("postgres", "server.py", folder)),
    "milvus": ("milvus", lambda folder: server("milvus", "bridge.py", folder)),
    "qdrant": ("qdrant", lambda folder: server("qdrant", "bridge.py", folder)),
}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=pathlib.Path, required=True, help="model folder with the vocabulary of the vectors")
    parser.add_argument("--base", type=pathlib.Path, required=True, help="vectors of a trained model")
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=200, help="number of queries to the engine")
    parser.add_argument("--start", choices=STARTS, help="engine of make test-engines to start")
    parser.add_argument("--to", metavar="ENGINE", help="kind of the running engine")
    parser.add_argument("--url", help="address of the running engine")
    parser.add_argument("--splade", default=ROOT / "target/release/splade", type=pathlib.Path)
    parser.add_argument("push", nargs="*", help="arguments of push-index, after --")
    args = parser.parse_args()
    if [args.start is None] * 2 != [args.to is not None, args.url is not None]:
        parser.error("give --start, or --to and --url")
    if args.queries < 10:
        parser.error("--queries: at least 10, so that two numbers of queries can be compared")
    return args


def main():
    import numpy as np

    args = arguments()
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost"
    base = np.load(args.base)
    base = {"indptr": base["indptr"], "terms": base["terms"]}
    with tempfile.TemporaryDirectory(prefix="splade-bench-engines-") as folder:
        folder = pathlib.Path(folder)
        texts = query_texts(base, write_model(folder / "model", args.model, base), max(OWN_QUERIES, args.queries))
        vectors, own = folder / "v.safetensors", folder / "own.index"
        weights = write_vectors(vectors, args.base, args.documents)
        index_s, _ = splade(args.splade, "index", folder / "model", "--vectors", vectors, "--index", own)
        own_s = query_seconds(args.splade, texts, folder, "--index", own, "--threads", 1)
        to, start = STARTS[args.start] if args.start else (args.to, lambda _: contextlib.nullcontext(args.url))
        with start(folder) as url:
            at = ["--url", url, "--collection", "splade_bench"]
            model = ["--model", folder / "model"]
            _, pushed = splade(args.splade, "push-index", vectors, "--to", to, *at, *model, "--overwrite", "--json", *args.push)
            pushed = json.loads(pushed)
            engine_s = query_seconds(args.splade, texts[: args.queries], folder, "--engine", to, *at, *model, "--concurrency", 1)
        rate, own_rate, verified = pushed["push"]["documents_per_second"], args.documents / index_s, pushed["verification"]
        print(f"{args.documents} documents, {weights / args.documents:.0f} weights each")
        print(f"documents a second: {args.start or to} {rate:.0f}, own index {own_rate:.0f}, ratio {rate / own_rate:.3f}")
        print(f"ms a query, top 10: {args.start or to} {engine_s * 1e3:.2f}, own index {own_s * 1e3:.3f}, ratio {engine_s / own_s:.0f}")
        print(f"largest difference of scores: {verified['largest_difference']:.1e}, relative {verified['largest_relative_difference']:.1e}; "
              f"{verified['queries_in_another_order']} of {verified['queries']} rankings in another order")


if __name__ == "__main__":
    main()
