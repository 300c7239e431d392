"""Prints the README's table of sparse, BM25 and hybrid rankings: nDCG@10 on data folders.

    python3 scripts/hybrid_table.py --splade target/release/splade --model MODEL --data DATA

MODEL is a model folder, DATA a folder with the data folders of SETS in BEIR layout. Columns: the sparse ranking; BM25 without
and with a stemmer; with compounds too, which the default options split in Norwegian, Danish and Swedish; the same without stop
words; BM25 with tuned k1, b and compounds; reciprocal rank fusion of the sparse ranking and the untuned BM25; the sum of their
z-scores, the default of hybrid search; the tuned hybrid.
Tuned scores are held out by five-fold cross-validation on the same queries. The last column is the difference of the tuned
hybrid and the better side (sparse, tuned BM25), with the standard error of the paired differences.
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
    "nb-nn": "norwegian",
    "cranfield": "english",
    "cisi": "english",
    "scifact-sub": "english",
}
COLUMNS = ["data", "sparse", "BM25", "stemmed", "compounds", "no stop words", "tuned BM25", "RRF", "z-scores", "tuned hybrid",
           "above the better side"]


class Program:
    """The program with one model and one data folder; results go to a temporary folder."""

    def __init__(self, splade: str, model: str, data: Path, folder: Path):
        self.splade, self.model, self.data, self.folder = splade, model, data, folder

    def run(self, *args: object) -> str:
        return subprocess.run([self.splade, "-q", *map(str, args)], check=True, capture_output=True, text=True).stdout

    def bm25(self, language: str, *options: str) -> float:
        """nDCG@10 of BM25 with a stemmer."""
        output = self.run("eval-mteb", self.model, "--data", self.data, "--modes", "bm25", "--json", "--overwrite",
                          "--output-dir", self.folder / "results", "--language", language, *options)
        return json.loads(output)["tasks"][0]["scores"]["bm25"]["ndcg_at_10"]

    def tune(self, language: str) -> dict:
        """Report of `tune --hybrid`."""
        index = self.folder / "index"
        self.run("index", self.model, "--input", self.data / "corpus.jsonl", "--index", index, "--language", language)
        return json.loads(self.run("tune", "--hybrid", "--index", index, "--queries", self.data / "queries.jsonl",
                                   "--qrels", self.data / "qrels" / "test.tsv", "--model", self.model, "--json"))


def row(program: Program, language: str) -> list[str]:
    tuned = program.tune(language)
    scores, above = tuned["scores"], tuned["above_best_side"]
    cells = [
        scores["sparse"],
        program.bm25("none"),
        program.bm25(language, "--bm25-compounds", "off"),
        scores["bm25"],
        program.bm25(language, "--bm25-drop-stop-words", "on"),
        scores["bm25_tuned_held_out"],
        scores["rrf"],
        scores["hybrid_untuned"],
        scores["hybrid_held_out"],
    ]
    difference = f"{above['mean']:+.3f} ± {above['standard_error']:.3f}"
    return [f"`{program.data.name}`", *(f"{cell:.3f}" for cell in cells), difference]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--splade", default="target/release/splade")
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", nargs="*", default=list(SETS))
    args = parser.parse_args()
    print("| " + " | ".join(COLUMNS) + " |")
    print("|---|" + "--:|" * (len(COLUMNS) - 1))
    for name in args.sets:
        with tempfile.TemporaryDirectory() as folder:
            program = Program(args.splade, args.model, args.data / name, Path(folder))
            print("| " + " | ".join(row(program, SETS[name])) + " |", flush=True)


if __name__ == "__main__":
    main()
