#!/usr/bin/env bash
# Initialises GPT-2 over a socket: starts a server, writes a safetensors file from it, verifies and plots the file.
#
#   examples/demo.sh [SEEDBED]      SEEDBED is the command to use, by default `seedbed`
set -euo pipefail

seedbed=${1:-seedbed}
model=$(dirname "$0")/gpt2-124m.json
out=${OUT:-out}
mkdir -p "$out"
file=$out/gpt2-124m.safetensors
picture=$out/gpt2-124m.png

echo "Starting a server. The first one on this machine compiles its kernels, which takes a few seconds."
log=$(mktemp)
"$seedbed" serve --listen 127.0.0.1:0 >"$log" 2>&1 &
server=$!
stop() {
  kill "$server" 2>/dev/null && wait "$server" || true
  rm -f "$log"
}
trap stop EXIT

# The server prints its address once it is ready; with port 0 it chooses a free one.
for _ in $(seq 300); do
  grep -q 'serving on' "$log" && break
  kill -0 "$server" 2>/dev/null || { cat "$log" >&2; exit 1; }
  sleep 0.2
done
cat "$log"
SEEDBED_TARGET=$(sed -n 's/.*serving on \([^ ,;]*\).*/\1/p' "$log")
export SEEDBED_TARGET

run() {
  printf '\n$ seedbed %s\n' "$*"
  "$seedbed" "$@"
}
run health
run model "$model" --output "$file" --progress
run verify "$file" --progress
run plot file "$file" --output "$picture" --progress

printf '\nWritten by %s:\n' "$SEEDBED_TARGET"
ls -lh "$file" "$picture"
