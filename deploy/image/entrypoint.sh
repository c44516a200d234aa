#!/bin/sh
# Numba takes compiled kernels from a directory only if it may write there, too, and it does when the processor is not
# the one that the image was built on. Here the image's root may be read-only, so the kernels are copied to where one may
# write: /tmp if there is a tmpfs, else /dev/shm, which every container has. Set NUMBA_CACHE_DIR to keep them elsewhere.
set -eu

copied() {
  [ -O "$1" ] && return  # by this container, before it was restarted
  rm -rf "$1.partial" && mkdir -m 700 "$1.partial" && cp -r /opt/seedbed/kernels/. "$1.partial" && mv -T "$1.partial" "$1"
} 2>/dev/null

if [ -z "${NUMBA_CACHE_DIR:-}" ]; then
  for place in /tmp /dev/shm; do
    copied "$place/seedbed-kernels" && NUMBA_CACHE_DIR=$place/seedbed-kernels && break
  done
  if [ -z "${NUMBA_CACHE_DIR:-}" ]; then
    echo "neither /tmp nor /dev/shm can be written; mount a tmpfs at /tmp (--tmpfs /tmp), or set NUMBA_CACHE_DIR" >&2
    exit 1
  fi
fi
export NUMBA_CACHE_DIR CUPY_CACHE_DIR="${CUPY_CACHE_DIR:-$NUMBA_CACHE_DIR/cupy}"
exec seedbed "$@"
