#!/usr/bin/env bash
# The live layer: events in, lists out, new items within seconds, and a page to see it all. Without
# EXPORT and DATASET a small made-up world is trained first, once (a few minutes on two cores).
# Run it with `make live`, or from the checkout's root with the virtual environment active.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

export=${EXPORT:-}
dataset=${DATASET:-}
work=work/live

say() { printf '\n== %s\n' "$*"; }

if [ -z "$export" ] && [ -n "$dataset" ] || [ -n "$export" ] && [ -z "$dataset" ]; then
  echo "Name both: make live EXPORT=path/to/export DATASET=path/to/dataset, or neither." >&2
  exit 2
fi
if [ -z "$export" ]; then
  export=$work/export dataset=$work/dataset
  if [ ! -d "$dataset" ]; then
    say "A world of 1000 users and 300 items with words, pictures and sounds"
    python -m data.prepare synthetic --out "$dataset" --users 1000 --items 300 --seed 0
  fi
  if [ ! -d "$export/recommender" ] || [ ! -d "$export/encoder" ]; then
    say "Training and export"
    # A training that was stopped goes on; one that is over is not begun again.
    [ -f "$work/run/metrics.json" ] || mmrec-tf train --dataset "$dataset" --config examples/small.json --out "$work/run"
    mmrec-tf export "$work/run" --out "$export"
  fi
fi

mkdir -p "$work"
# A state belongs to a dataset: another one gets another.
state=$work/state-$(cksum <"$dataset/manifest.json" | cut -d ' ' -f 1).db
say "Serving; the state is $state. Ctrl-C ends it."
exec python -m serving.gateway "$export" --dataset "$dataset" --state "$state" --port "${PORT:-8080}"
