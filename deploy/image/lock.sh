#!/bin/sh
# Locks the image's dependencies with uv (pip install uv). Versions that still fit are kept; delete a file to update all.
set -eu
cd "$(dirname "$0")/../.."

lock() {
  uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --custom-compile-command deploy/image/lock.sh \
    --no-emit-package seedbed --no-emit-package seedbed-server - -o "deploy/image/requirements-$1.txt"
}

printf '%s\n' '.[server,traces]' ./server | lock cpu
printf '%s\n' '.[gpu,traces]' ./server | lock gpu
printf '%s\n' hatchling hatch-fancy-pypi-readme | lock build
