#!/usr/bin/env python3
"""Memory of `splade train` over many rows of parquet, up to its first step.

    PYTHON scripts/bench_rows.py --splade target/release/splade --model ../shared/models/splade-tiny

needs a Python with pyarrow. Writes triplets in groups of 100 000 rows, as the files of the Hub have them: a query of 8 words and
two documents of 15 words each, from tests/data/lohelp-nb, no text twice. The training reads and checks all of them, counts
tokens and duplicates, and ends before the first step (`--dry-run`). The number is its largest resident set, with the model.
"""

import argparse
import json
import pathlib
import random
import tempfile

from bench_encode import ROOT, measured


def write_rows(path, rows, group=100_000):
    """Writes triplets, and returns the bytes of their texts."""
    import pyarrow
    import pyarrow.parquet

    random.seed(1)
    lines = (ROOT / "tests/data/lohelp-nb/corpus.jsonl").read_text().splitlines()
    words = [word for line in lines for word in json.loads(line)["text"].split()]

    def text(n):
        start = random.randrange(len(words) - n)
        return " ".join(words[start : start + n])

    names = ["anchor", "positive", "negative"]
    schema = pyarrow.schema([(name, pyarrow.string()) for name in names])
    size = 0
    with pyarrow.parquet.ParquetWriter(path, schema) as writer:
        for start in range(0, rows, group):
            numbers = range(start, min(start + group, rows))
            columns = [[f"{n} {text(8)}" for n in numbers], [f"{n} {text(15)}" for n in numbers], [text(15) for _ in numbers]]
            size += sum(len(cell.encode()) for column in columns for cell in column)
            writer.write_table(pyarrow.table(dict(zip(names, columns)), schema=schema))
    return size


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--splade", type=pathlib.Path, default=ROOT / "target/release/splade")
    parser.add_argument("--model", type=pathlib.Path, required=True, help="folder of the base model")
    parser.add_argument("--rows", type=int, default=1_600_000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        size = write_rows(folder / "rows.parquet", args.rows)
        config = {
            "model": {"base_model": str(args.model.resolve())},
            "training": {"output_dir": str(folder / "out"), "eval_strategy": "no"},
            "datasets": {"rows": {"files": [str(folder / "rows.parquet")]}},
        }
        (folder / "config.yaml").write_text(json.dumps(config))
        _, _, peak = measured([args.splade.resolve(), "-q", "train", folder / "config.yaml", "--dry-run"])
        print(f"{args.rows} rows, {size / 1e6:.0f} MB of text: {peak:.0f} MB")


if __name__ == "__main__":
    main()
