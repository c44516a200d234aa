#!/bin/sh
# Numba loads compiled kernels only from a writable directory, and writes new ones there if the processor is not the one
# that built the image. The image's root may be read-only, so this script copies the kernels to a writable place: /tmp
# if it is a tmpfs, else /dev/shm, which every container has. Set NUMBA_CACHE_DIR to keep them elsewhere.
set -eu

copied() {
  [ -O "$1" ] && return  # by this container, before a restart
  rm -rf "$1.partial" && mkdir -m 700 "$1.partial" && cp -r /opt/seedbed/kernels/. "$1.partial" && mv -T "$1.partial" "$1"
} 2>/dev/null

if [ -z "${NUMBA_CACHE_DIR:-}" ]; then
  for place in /tmp /dev/shm; do
    copied "$place/seedbed-kernels" && NUMBA_CACHE_DIR=$place/seedbed-kernels && break
  done
  if [ -z "${NUMBA_CACHE_DIR:-}" ]; then
    echo "neither /tmp nor /dev/shm is writable; mount a tmpfs at /tmp (--tmpfs /tmp), or set NUMBA_CACHE_DIR" >&2
    exit 1
  fi
fi
export NUMBA_CACHE_DIR CUPY_CACHE_DIR="${CUPY_CACHE_DIR:-$NUMBA_CACHE_DIR/cupy}"
exec seedbed "$@"
