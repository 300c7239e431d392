"""Prints the README's table of sparse, BM25 and hybrid rankings: nDCG@10 on data folders.

    python3 scripts/hybrid_table.py --splade target/release/splade --model MODEL --data DATA

MODEL is a model folder, DATA a folder with the data folders of SETS in BEIR layout. Columns: the sparse ranking; BM25 without
and with a stemmer; with compounds too; BM25 tuned; reciprocal rank fusion of the sparse ranking and the untuned BM25; the tuned
hybrid. Tuned scores are held out by five-fold cross-validation on the same queries. The last column is the difference of the
tuned hybrid and the better side (sparse, tuned BM25), with the standard error of the paired differences.
"""

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

SETS = {
    "lohelp-nb": "norwegian",
    "lohelp-nn": "norwegian",
    "lohelp-da": "danish",
    "lohelp-sv": "swedish",
    "lovdata": "norwegian",
    "norquad-wiki": "norwegian",
    "cranfield": "english",
}


def run(splade: str, *args: object) -> str:
    return subprocess.run([splade, "-q", *map(str, args)], check=True, capture_output=True, text=True).stdout


def bm25(splade: str, model: str, data: Path, folder: Path, *options: str) -> float:
    output = run(splade, "eval-mteb", model, "--data", data, "--modes", "bm25", "--json", "--overwrite",
                 "--output-dir", folder / "results", *options)
    return json.loads(output)["tasks"][0]["scores"]["bm25"]["ndcg_at_10"]


def row(splade: str, model: str, data: Path, language: str, folder: Path) -> str:
    index = folder / "index"
    run(splade, "index", model, "--input", data / "corpus.jsonl", "--index", index, "--language", language, "--overwrite")
    tuned = json.loads(run(splade, "tune", "--hybrid", "--index", index, "--queries", data / "queries.jsonl",
                           "--qrels", data / "qrels" / "test.tsv", "--json"))
    scores, above = tuned["scores"], tuned["above_best_side"]
    cells = [
        scores["sparse"],
        bm25(splade, model, data, folder, "--language", "none"),
        bm25(splade, model, data, folder, "--language", language, "--bm25-compounds", "off"),
        scores["bm25"],
        scores["bm25_tuned_held_out"],
        scores["rrf"],
        scores["hybrid_held_out"],
    ]
    difference = f"{above['mean']:+.3f} ± {above['standard_error']:.3f}"
    return " | ".join([f"`{data.name}`", *(f"{cell:.3f}" for cell in cells), difference])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--splade", default="target/release/splade")
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", nargs="*", default=list(SETS))
    args = parser.parse_args()
    print("| data | sparse | BM25 | stemmed | and compounds | tuned | RRF | tuned hybrid | above the best side |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|--:|")
    for name in args.sets:
        with tempfile.TemporaryDirectory() as folder:
            print(f"| {row(args.splade, args.model, args.data / name, SETS[name], Path(folder))} |", flush=True)


if __name__ == "__main__":
    main()
