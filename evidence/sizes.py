"""The sizes of the tests."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Sizes:
    """The sizes; published figures use the defaults."""

    words: int = 1 << 32
    """Words for float32's functions, the quantile's shape and the rounding; a power of 2 up to 2^32 (all words)."""
    pairs: int = 1 << 28
    """Random pairs of words for float32 normals."""
    draws: int = 1 << 26
    """Random draws for float64 normals."""
    quantiles: int = 1 << 26
    """Random draws for the first truncated normal; a 16th for the others."""
    sample: int = 20_000
    """Inputs at which each reference, and each function of expressions, is compared with mpmath."""
    tensors: int = 5_000
    """Shapes whose scheme's parameters are compared with mpmath."""
    elements: int = 1_000_000_000
    """Elements of each law for moments, Anderson and Darling, and χ²."""
    matrices: int = 100_000
    """Orthogonal matrices."""
    seed: int = 1
    """The seed of the served elements whose distributions are tested; not a size, but useful to repeat a test."""
    peers: int = 1_000_000
    """Elements that each peer samples in each case."""


TINY = Sizes(
    words=1 << 16,
    pairs=1 << 14,
    draws=1 << 14,
    quantiles=1 << 14,
    sample=20,
    tensors=20,
    elements=1 << 18,
    matrices=200,
    peers=1 << 14,
)


def changed(sizes: Sizes, changes: Iterable[str]) -> Sizes:
    """The sizes with changes such as ``words=65536``.

    Raises:
        ValueError: There is no such size, or it is not a positive number.

    >>> changed(Sizes(), ["words=65536"]).words
    65536
    """
    values = {}
    for change in changes:
        name, _, text = change.partition("=")
        if name not in vars(sizes):
            raise ValueError(f"no size {name!r}; use one of {', '.join(vars(sizes))}")
        if not text.isdecimal() or int(text) == 0:
            raise ValueError(f"{name}: {text!r} is not a positive whole number; pass one, such as {name}=65536")
        values[name] = int(text)
    found = dataclasses.replace(sizes, **values)
    if found.words & (found.words - 1) or not 1 << 8 <= found.words <= 1 << 32:
        raise ValueError(f"words: {found.words} is not a power of 2 from 2^8 to 2^32; pass one, such as words=65536")
    return found
