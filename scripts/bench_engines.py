#!/usr/bin/env python3
"""Push rate and time of a query of a search engine, beside the program's own index of the same vectors.

    PYTHON scripts/bench_engines.py --model ../shared/models/splade-tiny --base ../shared/data/bench-vectors/base.npz \\
        --queries tests/data/toy/queries.jsonl --to opensearch --start v3

needs a Python with numpy. Vectors are made as in bench_index.py. `--start` starts three OpenSearch nodes of `make test-engines`, two
with data; without it, `--url` names a running engine. Other arguments after `--` are those of push-index, such as `--shards 3`.

The rate is that of push-index, from its first request to the end of its last one, against the whole of `splade index`. The time of a
query is what one more query adds to a run of `splade search`, one query at a time: the encoding, the request and the answer with ids.
"""

import argparse
import contextlib
import json
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

from bench_encode import ROOT
from bench_index import write_vectors

REPEATS = 20


def splade(program, *args):
    """Seconds and stdout of a run."""
    start = time.monotonic()
    done = subprocess.run([program, "--quiet", *map(str, args)], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"bench: splade {args[0]}: {done.stderr.strip()}")
    return time.monotonic() - start, done.stdout


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
        for _ in range(120):
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


def query_seconds(program, queries, folder, *search):
    """Seconds that one more query adds."""
    lines = queries.read_text().splitlines(keepends=True)
    many = folder / "many.jsonl"
    with open(many, "w") as file:
        for repeat in range(REPEATS):
            for line in lines:
                query = json.loads(line)
                file.write(json.dumps({"_id": f"{query['_id']}-{repeat}", "text": query["text"]}) + "\n")
    common = ["-k", 10, "--format", "trec"]
    once = min(splade(program, "search", *search, "--queries", queries, *common)[0] for _ in range(3))
    all_of_them = min(splade(program, "search", *search, "--queries", many, *common)[0] for _ in range(3))
    return (all_of_them - once) / ((REPEATS - 1) * len(lines))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=pathlib.Path, required=True)
    parser.add_argument("--base", type=pathlib.Path, required=True)
    parser.add_argument("--queries", type=pathlib.Path, required=True)
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--to", required=True, metavar="ENGINE")
    parser.add_argument("--url")
    parser.add_argument("--start", metavar="VERSION", help="v2 or v3: the OpenSearch of make test-engines")
    parser.add_argument("--program", default=ROOT / "target" / "release" / "splade", type=pathlib.Path)
    parser.add_argument("push", nargs="*", help="arguments of push-index, after --")
    args = parser.parse_args()
    if (args.url is None) == (args.start is None):
        sys.exit("bench: give --url or --start")
    folder = pathlib.Path(tempfile.mkdtemp(prefix="splade-bench-engines-"))
    try:
        weights = write_vectors(folder / "v.safetensors", args.base, args.documents)
        own = folder / "own.index"
        index_s, _ = splade(args.program, "index", args.model, "--vectors", folder / "v.safetensors", "--index", own)
        own_s = query_seconds(args.program, args.queries, folder, "--index", own, "--threads", 1)
        with opensearch(args.start, folder) if args.start else contextlib.nullcontext(args.url) as url:
            at = ["--url", url, "--collection", "splade-bench", "--model", args.model]
            _, pushed = splade(args.program, "push-index", folder / "v.safetensors", "--to", args.to, *at, "--overwrite", "--no-verify", "--json", *args.push)
            engine_s = query_seconds(args.program, args.queries, folder, "--engine", args.to, *at)
        rate, own_rate = json.loads(pushed)["push"]["documents_per_second"], args.documents / index_s
        print(f"{args.documents} documents, {weights / args.documents:.0f} weights each")
        print(f"documents a second: {args.to} {rate:.0f}, own index {own_rate:.0f}, ratio {rate / own_rate:.3f}")
        print(f"ms a query, top 10: {args.to} {engine_s * 1e3:.2f}, own index {own_s * 1e3:.2f}, ratio {engine_s / own_s:.1f}")
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
