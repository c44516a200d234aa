#!/bin/sh
# Numba loads compiled kernels only from a directory that it can write to, because it compiles new ones there on a
# processor other than the one that built the image. The image's root may be read-only, so the kernels are copied to /tmp
# if that is writable, or else to /dev/shm, which every container has. Set NUMBA_CACHE_DIR to use another directory.
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
