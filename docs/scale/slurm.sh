#!/bin/bash
# Encodes a corpus as a Slurm array: each task takes one shard. Submit it with
#   sbatch --array=0-15 docs/scale/slurm.sh MODEL CORPUS SHARDS
# and, when the array has ended,
#   splade merge SHARDS/*.jsonl --output VECTORS.jsonl
#
# A task that is requeued, or an array that is submitted again, leaves complete shards as they are.
#SBATCH --job-name=splade
#SBATCH --cpus-per-task=4
#SBATCH --mem=4G
#SBATCH --requeue
#SBATCH --output=splade-%A_%a.log
set -euo pipefail
model=$1 corpus=$2 shards=$3
shard=$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT
exec splade encode "$model" --input "$corpus" --role document --threads "${SLURM_CPUS_PER_TASK:-0}" \
    --output "$shards/$SLURM_ARRAY_TASK_ID.jsonl" --shard "$shard"
