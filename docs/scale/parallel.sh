#!/bin/bash
# Indexes a corpus with GNU parallel, on this machine or on others, and merges the shards:
#   docs/scale/parallel.sh MODEL CORPUS SHARDS INDEX N [OPTIONS OF PARALLEL]
# for instance with --sshloginfile HOSTS --workdir "$PWD", where all hosts share the folder. Run it again after a failure: complete
# shards stay as they are, interrupted ones go on.
set -euo pipefail
model=$1 corpus=$2 shards=$3 index=$4 n=$5
mkdir -p "$shards"
seq 0 $((n - 1)) | parallel --halt soon,fail=1 --retries 3 "${@:6}" \
    splade -q index "$model" --input "$corpus" --index "$shards/{}.index" --shard "{}/$n"
seq -f "$shards/%g.index" 0 $((n - 1)) | xargs splade merge --index "$index"
