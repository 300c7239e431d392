#!/usr/bin/env bash
# Sends generated requests to a running `splade serve`, made by schemathesis from its description: valid ones, broken ones, and
# values at the limits. Fails on an answer of 500 and on one that the description does not allow.
#
#     scripts/test_openapi.sh [PROGRAM [EXAMPLES]]
#
# Sets up a virtual environment in .schemathesis/ by itself. PROGRAM is the splade to test, default target/release/splade.
set -euo pipefail
cd "$(dirname "$0")/.."
program=$(realpath "${1:-target/release/splade}")
examples=${2:-100}
venv=.schemathesis
if [ ! -x $venv/bin/schemathesis ]; then
  "${PYTHON:-python3}" -m venv $venv
  $venv/bin/pip install --quiet 'schemathesis==4.32.5' || {
    rm -rf $venv
    echo 'test_openapi: SKIPPED: schemathesis cannot be installed from PyPI'
    exit 0
  }
fi

work=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null || true; rm -rf "$work"' EXIT
export ORT_DYLIB_PATH=${ORT_DYLIB_PATH:-$(ls "$PWD"/.onnxruntime/libonnxruntime.so* 2>/dev/null | head -n 1)}
model=tests/fixtures/sparse-encoder/inference-free/model
"$program" -q index "$model" --input tests/data/toy/corpus.jsonl --index "$work/toy.index" --language norwegian > "$work/index.log"
"$program" serve --index "$work/toy.index" --model "$model" --writable --port 0 --max-batch 8 2> "$work/log" &
server=$!
for _ in $(seq 200); do
  address=$(sed -n 's/.* on \(http:[^ ]*\).*/\1/p' "$work/log")
  [ -z "$address" ] || break
  sleep 0.1
done
[ -n "$address" ] || { cat "$work/log"; exit 1; }
# a schema says less than the server checks, such as the language of filters: valid requests may get 422
$venv/bin/schemathesis run "$address/openapi.json" --max-examples "$examples" --generation-deterministic \
  --checks not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,response_schema_conformance,negative_data_rejection,unsupported_method
kill -TERM "$server"
wait "$server"
server=
"$program" index --check "$work/toy.index"
if grep -iE 'panic|error' "$work/log"; then
  echo 'test_openapi: the server logged an error'
  exit 1
fi
