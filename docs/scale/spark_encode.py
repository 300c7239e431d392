#!/usr/bin/env python3
"""Encodes a Parquet corpus with Apache Spark (3.5 or later): every task runs `splade encode` over its rows.

    spark-submit docs/scale/spark_encode.py --model MODEL --input CORPUS.parquet --output VECTORS

The model, the program and ONNX Runtime's library must be at the same paths on all machines. The corpus has the columns `_id` (or
`id`), `text`, and `title` if there are titles. The output folder has lines of JSON in the order of the input: its files, joined in
the order of their names, are byte for byte the file of one run of `splade encode`.

A task that fails or whose machine is lost is run again by Spark, with the same result: the rows of a task depend on the input
alone, and the vector of a text in fp32 and fp16 on the text alone. An int8 file needs `--batch-tokens 1` here and in the run it
is compared with.
"""

import argparse
import json
import subprocess
import tempfile
import threading

from pyspark import StorageLevel
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

# lines of a frame that a task hands back
FRAME = 1000


def encoder(command):
    """A function for `mapInPandas` that runs `command` with the rows as lines on stdin."""

    def frame_of(places, lines):
        import pandas as pd

        return pd.DataFrame([(*place, line) for place, line in zip(places, lines)], columns=["file", "row", "line"])

    def encode(frames):
        places = []  # of the rows that were written and not read back yet
        broken = []

        def feed():
            try:
                for frame in frames:
                    for row in frame.itertuples(index=False):
                        places.append((row.file, row.row))
                        text = {"_id": row.id, "title": row.title or "", "text": row.text}
                        process.stdin.write(json.dumps(text) + "\n")
            except BrokenPipeError:
                pass  # the exit code has the reason
            except Exception as error:
                broken.append(error)
            finally:
                try:
                    process.stdin.close()
                except BrokenPipeError:
                    pass

        with tempfile.TemporaryFile("w+") as errors:
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, encoding="utf-8")
            thread = threading.Thread(target=feed)
            thread.start()
            try:
                lines = []
                for line in process.stdout:
                    lines.append(line.rstrip("\n"))
                    if len(lines) == FRAME:
                        yield frame_of(places, lines)
                        places[:FRAME], lines = [], []
                thread.join()
                if broken:
                    raise broken[0]
                if process.wait() != 0:
                    errors.seek(0)
                    raise RuntimeError(f"splade ended with exit code {process.returncode}: {errors.read()[-2000:]}")
                if len(lines) != len(places):
                    raise RuntimeError(f"splade returned {len(lines)} vectors for {len(places)} texts")
                if lines:
                    yield frame_of(places, lines)
            finally:
                process.kill()

    return encode


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--input", required=True, help="Parquet file or folder")
    parser.add_argument("--output", required=True, help="folder of the vectors; must not exist")
    parser.add_argument("--splade", default="splade", help="path of the program on every machine")
    parser.add_argument("--partitions", type=int, default=0, help="number of tasks; default: as Spark splits the files")
    parser.add_argument("options", nargs="*", help="options of splade encode, after --; default: --threads 1")
    args = parser.parse_args()

    spark = SparkSession.builder.appName("splade encode").getOrCreate()
    corpus = spark.read.parquet(args.input)
    names = corpus.columns
    rows = corpus.select(
        F.col("_metadata.file_path").alias("file"),
        F.col("_metadata.row_index").alias("row"),
        F.col("_id" if "_id" in names else "id").cast("string").alias("id"),
        (F.col("title") if "title" in names else F.lit("")).alias("title"),
        F.col("text"),
    )
    if args.partitions:
        # by hash, and not in turn, so that a task that is run again has the same rows
        rows = rows.repartition(args.partitions, "file", "row")
    command = [args.splade, "-q", "encode", args.model, "--input", "-", "--role", "document", *(args.options or ["--threads", "1"])]
    vectors = rows.mapInPandas(encoder(command), "file string, row long, line string")
    # kept, since sorting reads its input twice: to find the ranges, and to sort
    vectors = vectors.persist(StorageLevel.DISK_ONLY)
    vectors.orderBy("file", "row").select("line").write.text(args.output)
    print(f"{vectors.count()} vectors in {args.output}")
    spark.stop()


if __name__ == "__main__":
    main()
