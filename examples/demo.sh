#!/usr/bin/env bash
# The whole chain on a planted world, small enough for two cores: make a dataset, train, compare
# with popularity, the id-only twin and the ceiling, export, serve, ask over gRPC, and a report.
# Run it with `make demo`, or from the checkout's root with the virtual environment active.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

work=${1:-work/demo}
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null || true' EXIT

say() { printf '\n== %s\n' "$*"; }
free_port() { python -c 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])'; }

rm -rf "$work/toy" "$work/run" "$work/export"
mkdir -p "$work"

say "A world of 2000 users and 500 items with words, pictures and sounds"
python -m data.prepare synthetic --out "$work/toy" --users 2000 --items 500 --seed 0

say "Training both stages and the id-only twin"
mmrec-tf train --dataset "$work/toy" --config examples/small.json --out "$work/run" --twin

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

say "Ten items for user u42, over gRPC: place, item, score, probability of a click, and the modality
   and the item of the history that weighed most"
python -m serving.client recommend --address "localhost:$port" --user u42 --k 10

say "Five items like the item i7"
python -m serving.client similar --address "localhost:$port" --item i7 --k 5

say "Five items for some words, which lie where pictures and sounds do"
python -m serving.client search --address "localhost:$port" --text "an owl in the pine forest" --k 5

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
python -m serving.client recommend --address "localhost:$port" --user u42 --k 3

say "What was trained, as a page with pictures: open it in a browser"
printf '%s\n' "$work/run/report.html"
