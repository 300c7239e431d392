#!/usr/bin/env python3
"""Queries per second of `splade search --queries` by number of threads, and their ratio.

    python3 scripts/bench_threads.py INDEX QUERIES [--threads 1,2] [--mode sparse] [-k 10]

Runs the release binary on the same queries, one number of threads after the other, in rounds, so that a busy moment of the
machine does not fall on one of them. Prints the median of the rounds from `--stats`: reading the queries, searching and
printing a TREC run are in it, opening the index is not.
"""
import argparse
import json
import pathlib
import statistics
import subprocess
import tempfile

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("index")
parser.add_argument("queries")
parser.add_argument("--threads", default="1,2", help="numbers of threads, the first one is the baseline")
parser.add_argument("--mode", default="sparse")
parser.add_argument("-k", default="10")
parser.add_argument("--rounds", type=int, default=5)
parser.add_argument("--binary", default="target/release/splade")
args = parser.parse_args()

counts = args.threads.split(",")
rates = {count: [] for count in counts}
p99 = {count: [] for count in counts}
with tempfile.TemporaryDirectory() as folder:
    stats = pathlib.Path(folder, "stats.json")
    for _ in range(args.rounds):
        for count in counts:
            command = [args.binary, "search", "--index", args.index, "--queries", args.queries, "--mode", args.mode]
            command += ["-k", args.k, "--format", "trec", "--warm", "--threads", count, f"--stats={stats}", "--overwrite"]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            found = json.loads(stats.read_text())
            rates[count].append(found["queries_per_second"])
            p99[count].append(found["search_us"]["p99"])
baseline = statistics.median(rates[counts[0]])
print(f"{found['queries']} queries, mode {args.mode}, k {args.k}, median of {args.rounds} rounds")
for count in counts:
    rate = statistics.median(rates[count])
    ratio = rate / baseline
    print(f"{count:>3} threads: {rate:9.0f} queries/s, {ratio:.2f} times; p99 of a search {statistics.median(p99[count]):.0f} µs")
