"""The cache of orthogonal matrices: each piece of a tensor needs its whole matrix."""

import tracemalloc

import numpy as np

from seedbed_server.engine.backends.base import never
from seedbed_server.engine.backends.cpu import _kept_bytes, _MatrixCache

KIB = 128  # float64s


def kept(cache, *sizes):
    """Requests matrices of these sizes in KiB; returns the sizes of those in the cache."""
    for size in sizes:
        assert cache.get(size, lambda size=size: np.zeros(size * KIB), never).nbytes == size << 10
    return list(cache._matrices)


def test_the_latest_are_kept_up_to_a_number_of_bytes():
    cache = _MatrixCache(most_bytes=12 << 10)
    assert kept(cache, 1, 2, 3, 4) == [1, 2, 3, 4]
    assert kept(cache, 5) == [4, 5]
    assert kept(cache, 4, 6) == [4, 6]  # 4 was used after 5
    assert cache._bytes == sum(map(_kept_bytes, cache._matrices.values()))


def test_a_matrix_over_the_limit_is_kept_alone():
    cache = _MatrixCache(most_bytes=10 << 10)
    assert kept(cache, 1, 20) == [20]
    assert kept(cache, 3) == [3]
    assert cache._bytes == _kept_bytes(cache._matrices[3]) > 3 << 10


def test_many_small_ones_are_bounded_too():
    """With its key and entry, each takes half a KiB more than its 8 bytes."""
    cache = _MatrixCache(most_bytes=1 << 20)
    tracemalloc.start()
    try:
        for seed in range(20_000):
            cache.get((seed, "name", (1, 1), 1.0), lambda: np.zeros((1, 1)), never)
        assert tracemalloc.get_traced_memory()[0] < 1 << 20
    finally:
        tracemalloc.stop()
    assert len(cache._matrices) > 1000
    assert cache._bytes <= 1 << 20
