#!/usr/bin/env bash
# The whole chain on a planted world, small enough for two cores: make a dataset, train, compare
# with popularity, the id-only twin and the ceiling, export, serve, ask over gRPC by titles, and a
# report. It takes some minutes; without a terminal, a line a minute says how far it is.
# Run it with `make demo`, or from the checkout's root with the virtual environment active.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

work=${1:-work/demo}
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null || true' EXIT

say() { printf '\n== %s\n' "$*"; }
# Columns of the client, by number, as people read them: titles instead of ids.
list() { awk -F '\t' -v columns="$1" 'BEGIN { n = split(columns, at, " ") }
  { line = ""; for (i = 1; i <= n; i++) line = line sprintf(i == 2 ? "%-30s  " : "%-7s  ", $at[i])
    sub(/ +$/, "", line); print line }'; }
free_port() { python -c 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])'; }

rm -rf "$work/toy" "$work/run" "$work/export"
mkdir -p "$work"

say "A world of 2000 users and 500 items with words, pictures and sounds"
python -m data.prepare synthetic --out "$work/toy" --users 2000 --items 500 --seed 0

say "Training both stages and the id-only twin"
mmrec-tf train --dataset "$work/toy" --config examples/small.json --out "$work/run" --twin
echo "(In this world retrieval knows all there is to know; in that of examples/context.md ranking adds much.)"

say "How good: beside popularity, the twin and the best that the planted truth allows"
mmrec-tf evaluate "$work/run" --split test

say "Export, checked in a process of its own"
mmrec-tf export "$work/run" --out "$work/export"

port=$(free_port)
rest_port=$(free_port)
say "Serving on localhost:$port"
python -m serving.local_server "$work/export" --port "$port" --rest-port "$rest_port" &
server=$!
for _ in $(seq 120); do
  if (exec 3<>"/dev/tcp/localhost/$port") 2>/dev/null; then break; fi
  kill -0 "$server" 2>/dev/null || { echo "The server ended before it answered." >&2; exit 1; }
  sleep 0.5
done

say "The export's example requests, replayed"
python -m serving.check "$work/export" --address "localhost:$port"

named() { python -m serving.client "$@" --address "localhost:$port" --dataset "$work/toy"; }
title=$(python -c 'import json, sys; print(json.load(open(sys.argv[1]))["i7"]["title"])' \
  "$work/toy/names.json")

say "Ten items for user u42, over gRPC: place, title, id, probability of a click, and the modality
   and the item of the history that weighed most"
named recommend --user u42 --k 10 | list "1 7 2 4 5 8"

say "Five items like \"$title\" (i7): place, title, id, cosine"
named similar --item i7 --k 5 | list "1 4 2 3"

say "Five items for the words \"an owl in the pine forest\", which lie where pictures and sounds do"
named search --text "an owl in the pine forest" --k 5 | list "1 4 2 3"

say "The first item of u42 is withdrawn: a new version without training, which the server swaps in"
python -m serving.client recommend --address "localhost:$port" --user u42 --k 1 |
  cut -f 2 >"$work/withdrawn.txt"
mmrec-tf export "$work/run" --out "$work/export" --only-index --dataset "$work/toy" \
  --unavailable "$work/withdrawn.txt"
for _ in $(seq 60); do
  status=$(python -m serving.client status --address "localhost:$port")
  if grep -q "^recommender/2.AVAILABLE" <<<"$status"; then break; fi
  sleep 0.5
done
printf '%s\n' "$status"
named recommend --user u42 --k 3 | list "1 7 2 4 5 8"

say "What was trained, as a page with pictures: open it in a browser"
realpath "$work/run/report.html"
