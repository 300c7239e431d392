#!/usr/bin/env python3
"""Queries per second and latencies of `splade serve` on loopback, beside `splade search` with the same queries and threads.

    PYTHON scripts/bench_serve.py --index wiki.index --queries queries.jsonl

needs wrk (Debian's package) on the PATH, and nothing from PyPI. wrk sends the queries one after the other on every connection, for
some seconds; before, all queries are sent once, so that the index is in the cache of the system. wrk runs on the same machine and
takes a part of its processor, which the column of one thread of `splade search` does not pay. `splade search --stats` is run before
and after the server; the mean is shown. Compare the lines of one run with each other.
"""

import argparse
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).parent.parent

SCRIPT = """
local bodies, at = {}, 0
for line in io.lines(os.getenv("BODIES")) do bodies[#bodies + 1] = line end
request = function()
  at = at % #bodies + 1
  return wrk.format("POST", "/v1/search", {["content-type"] = "application/json"}, bodies[at])
end
done = function(summary, latency)
  local errors = summary.errors
  io.write(string.format("RESULT %d %d %d %f %f\\n", summary.requests, errors.status + errors.read + errors.write + errors.connect
    + errors.timeout, summary.duration, latency:percentile(50), latency:percentile(99)))
end
"""


def search_rate(program, index, queries, mode, k, threads, folder):
    """Queries per second of `splade search`, with their answers as JSON."""
    stats = folder / "stats.json"
    command = [program, "-q", "search", "--index", index, "--queries", queries, "--mode", mode, "-k", str(k), "--json", "--warm",
               "--threads", str(threads), f"--stats={stats}", "--overwrite"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return json.loads(stats.read_text())["queries_per_second"]


def load(address, bodies, script, connections, seconds):
    """Requests per second, and the 50th and 99th percentile of the latency in ms, under load."""
    command = ["wrk", "-t", "1", "-c", str(connections), "-d", f"{seconds}s", "--latency", "-s", script, address]
    ran = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, "BODIES": str(bodies)})
    requests, errors, microseconds, p50, p99 = map(float, re.search(r"RESULT (.*)", ran.stdout).group(1).split())
    if errors:
        sys.exit(f"bench_serve: {errors:.0f} of {requests:.0f} requests failed")
    return requests / microseconds * 1e6, p50 / 1e3, p99 / 1e3


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--index", required=True)
    parser.add_argument("--queries", required=True, help="lines of {\"_id\": …, \"text\": …}")
    parser.add_argument("--splade", default=ROOT / "target/release/splade")
    parser.add_argument("--modes", default="sparse,bm25,hybrid")
    parser.add_argument("--connections", default="1,2,16,64")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--seconds", type=int, default=8)
    parser.add_argument("-k", type=int, default=10)
    args = parser.parse_args()
    texts = [json.loads(line)["text"] for line in open(args.queries)]
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        script = folder / "load.lua"
        script.write_text(SCRIPT)
        command = [args.splade, "serve", "--index", args.index, "--port", "0", "--threads", str(args.threads)]
        server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        address = re.search(r"http://\S+", server.stderr.readline()).group(0)
        print(f"{len(texts)} queries, k {args.k}, {args.threads} threads\n")
        print("mode    connections  queries/s  p50 ms  p99 ms  of splade search")
        for mode in args.modes.split(","):
            bodies = folder / "bodies.jsonl"
            bodies.write_text("".join(json.dumps({"query": text, "mode": mode, "k": args.k}) + "\n" for text in texts))
            search = [args.splade, args.index, args.queries, mode, args.k, args.threads, folder]
            rates = [search_rate(*search)]
            load(address, bodies, script, 2, 2)
            rows = [(count, *load(address, bodies, script, count, args.seconds)) for count in map(int, args.connections.split(","))]
            rates.append(search_rate(*search))
            rate = sum(rates) / 2
            print(f"{mode:7} search       {rate:9.0f}                        1.00  ({min(rates):.0f} to {max(rates):.0f})")
            for count, found, p50, p99 in rows:
                print(f"{mode:7} {count:11}  {found:9.0f}  {p50:6.2f}  {p99:6.2f}  {found / rate:16.2f}", flush=True)
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
