#!/usr/bin/env python3
"""Encodes a corpus with Ray: every task runs `splade encode` for one shard.

    python docs/scale/ray_encode.py --model MODEL --input CORPUS.jsonl --shards SHARDS --count 16

The model, the corpus, the program and the folder of the shards must be at the same paths on all machines. When it ends, run
`splade merge SHARDS/*.jsonl --output VECTORS.jsonl`. A task whose machine is lost is run again by Ray; a complete shard stays as it is.
"""

import argparse
import pathlib
import subprocess

import ray


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--input", required=True)
    parser.add_argument("--shards", required=True, help="folder of the shards")
    parser.add_argument("--count", type=int, required=True, help="number of shards")
    parser.add_argument("--cpus", type=int, default=1, help="cores of a task")
    parser.add_argument("--splade", default="splade", help="path of the program on every machine")
    args = parser.parse_args()

    @ray.remote(num_cpus=args.cpus, max_retries=3, retry_exceptions=[subprocess.CalledProcessError])
    def encode(number):
        output = pathlib.Path(args.shards) / f"{number}.jsonl"
        subprocess.run([args.splade, "-q", "encode", args.model, "--input", args.input, "--role", "document", "--threads", str(args.cpus),
                        "--output", output, "--shard", f"{number}/{args.count}"], check=True)
        return number

    ray.init()
    done = ray.get([encode.remote(number) for number in range(args.count)])
    print(f"{len(done)} shards in {args.shards}")


if __name__ == "__main__":
    main()
