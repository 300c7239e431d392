#!/usr/bin/env bash
# The main task, end to end, on data in the repository: Norwegian text → pretrained network → trained inference-free
# SPLADE model → ONNX file → index → explained hits → evaluation against BM25 on held-out queries.
set -euo pipefail
cd "$(dirname "$0")/.."

splade=target/release/splade
data=tests/data/lohelp-nb
out=demo
if [ -t 1 ]; then bold=$'\e[1m'; plain=$'\e[0m'; else bold=''; plain=''; fi
begun=$SECONDS

step() { printf '\n%s%s%s\n' "$bold" "$1" "$plain"; }
run() { printf '$ splade %s\n' "$*"; "$splade" "$@"; }
search() { printf '\n$ splade search --index %s "%s" -k 2 --explain\n' "$out/help.index" "$1"; "$splade" search --index "$out/help.index" "$1" -k 2 --explain; }

rm -rf "$out"
printf 'The Norwegian help of LibreOffice: %s passages to search, %s held-out queries, training pairs from other pages.\n' \
  "$(wc -l < $data/corpus.jsonl)" "$(wc -l < $data/queries.jsonl)"

step '1. Pretraining: masked-language modelling of a new small network on Norwegian text'
run train configs/demo-pretrain.yaml

step '2. Training: an inference-free SPLADE model, with a table of weights for queries and the network for documents'
run train configs/demo.yaml

step '3. Export: the network as ONNX, compared with the checkpoint in two runtimes'
run export-onnx "$out/model/final"

step '4. Index: the help pages, encoded by ONNX Runtime'
run index "$out/model/final" --input "$data/corpus.jsonl" --index "$out/help.index" --language norwegian

step '5. Search: three queries. No network runs: a query is tokenized, and its weights come from the table'
search 'slå sammen celler i en tabell'
search 'lage innholdsfortegnelse'
search 'passord på dokument'

step '6. Evaluation: sparse, BM25 and hybrid search on held-out queries, with the metrics of MTEB'
run eval-mteb "$out/model/final" --data "$data" --modes sparse,bm25,hybrid --output-dir "$out/results"
printf '\nFor comparison, BM25 with a Norwegian stemmer:\n'
run -q eval-mteb "$out/model/final" --data "$data" --modes bm25 --language norwegian --output-dir "$out/results-stemmed"

minutes=$(( (SECONDS - begun + 30) / 60 ))
step "Done in $minutes minutes. Everything is in $out/:"
cat <<END
  $out/model/final    the model; it also loads in Python: SparseEncoder("$out/model/final")
  $out/help.index     the index; searching it or a copy needs no model and no network connection
  $out/results        mteb's result files
Next:
  $splade search --index $out/help.index "din egen spørring" --explain
  $splade search --index $out/help.index "din egen spørring" --mode hybrid --json
  edit configs/demo.yaml: your files under datasets, your base model as base_model, more steps
  tensorboard --logdir $out/model/runs
END
