"""Random orthogonal matrices (“Orthogonal” of docs/stream-v1.md), by products of register tiles; the reference's bits.

Each sum of the law is a chain of fused multiply-adds in a fixed order. A register tile is a small matrix of sums that
stays in registers along a section of the chain; it may be stored in between, so sections can be as long as the caches
suit, and the tile's shape suits the processor. The product of a tile is written in LLVM vectors, because the result of
the vectoriser varies between versions and processors. All other functions are compiled as elsewhere.

A block's vectors V are stored as rows of `BLOCK` numbers, whatever the matrix's shape.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from ..constants import ORTHOGONAL_BLOCK as BLOCK
from .numba_fma import fma
from .numba_wide import wide_on

STRIP = 48
"""The width of a strip, the columns of Q that a thread works on at once, is a multiple of this.

It is itself a multiple of the columns of every processor's register tile.
"""

SPARE = 8
"""Numbers after the last block's vectors that may be read: a register tile's columns do not divide a block's."""

_GRAM = 72
"""Columns of the matrix of a block's inner products: `BLOCK` + `SPARE`, a multiple of every register tile's."""

MOST_TILE_ROWS = 8
"""Rows are padded to a multiple of this, which is a multiple of every register tile's rows."""

_ROWS = 64
"""Rows of Q that are processed at once; they stay in the first- and second-level caches."""

# All Intel processors with AVX-512. Unlike in numba_kernels, only the multiply-adds matter here, and doubling their
# number outweighs the lower clocks of the older processors.
_WIDE = frozenset({
    "skylake-avx512", "cascadelake", "cooperlake", "cannonlake", "icelake-client", "tigerlake", "rocketlake",
    "icelake-server", "sapphirerapids", "emeraldrapids", "graniterapids", "graniterapids-d",
})  # fmt: skip
_jit = njit(cache=True, nogil=True, error_model="numpy", pipeline_class=wide_on(_WIDE))

_DOUBLE, _INT = ir.DoubleType(), ir.IntType(64)


def _tile_of(context):
    """The register tile: rows, vectors in a row, and numbers in a vector, such that the registers suffice."""
    triple, _, features = context.codegen().magic_tuple()
    if "+avx512f" in features:
        return 8, 3, 8
    return (4, 6, 2) if triple.startswith(("aarch64", "arm64")) else (4, 3, 4)


@intrinsic
def _tile_rows(_context):
    def generate(context, _builder, _signature, _arguments):
        return _INT(_tile_of(context)[0])

    return types.int64(), generate


@intrinsic
def _tile_columns(_context):
    def generate(context, _builder, _signature, _arguments):
        _, vectors, lanes = _tile_of(context)
        return _INT(vectors * lanes)

    return types.int64(), generate


def _tile_product(a_step, a_row):
    """A function that adds a product to a register tile: C[r, j] ← fma(A[r, t], B[t, j], C[r, j]), for each t in order.

    It takes the addresses of A, B and C, and the strides of the rows of B and C, in numbers.

    Args:
        a_step: The stride of A's columns.
        a_row: The stride of A's rows.
    """

    @intrinsic
    def product(_context, a, b, b_step, c, c_step, count):
        def generate(context, builder, _signature, arguments):
            _emit_product(builder, _tile_of(context), a_step, a_row, *arguments)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 6), generate

    return product


def _emit_product(builder, tile, a_step, a_row, a, b, b_step, c, c_step, count):
    rows, vectors, lanes = tile
    vector = ir.VectorType(_DOUBLE, lanes)
    fused = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(vector, [vector] * 3), f"llvm.fma.v{lanes}f64"
    )
    a, b, c = (builder.inttoptr(each, _DOUBLE.as_pointer()) for each in (a, b, c))

    def vectors_at(begin):
        return [builder.bitcast(builder.gep(begin, [_INT(lanes * j)]), vector.as_pointer()) for j in range(vectors)]

    def everywhere(number):
        first = builder.insert_element(ir.Constant(vector, ir.Undefined), number, ir.IntType(32)(0))
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), lanes), None)
        return builder.shuffle_vector(first, ir.Constant(vector, ir.Undefined), zeros)

    c_places = [vectors_at(builder.gep(c, [builder.mul(c_step, _INT(r))])) for r in range(rows)]
    loaded = [[builder.load(place, align=8) for place in row] for row in c_places]
    before, body, after = builder.block, builder.append_basic_block("sum"), builder.append_basic_block("summed")
    builder.cbranch(builder.icmp_signed(">", count, _INT(0)), body, after)

    builder.position_at_end(body)
    t = builder.phi(_INT)
    sums = [[builder.phi(vector) for _ in row] for row in loaded]
    row_of_b = builder.gep(b, [builder.mul(t, b_step)])
    factors = [builder.load(place, align=8) for place in vectors_at(row_of_b)]
    column_of_a = builder.gep(a, [builder.mul(t, _INT(a_step))])
    added = []
    for r in range(rows):
        scalar = everywhere(builder.load(builder.gep(column_of_a, [_INT(r * a_row)])))
        added.append([builder.call(fused, (scalar, factors[j], sums[r][j])) for j in range(vectors)])
    following = builder.add(t, _INT(1))
    builder.cbranch(builder.icmp_signed("<", following, count), body, after)
    t.add_incoming(_INT(0), before)
    t.add_incoming(following, body)

    builder.position_at_end(after)
    for r in range(rows):
        for j in range(vectors):
            sums[r][j].add_incoming(loaded[r][j], before)
            sums[r][j].add_incoming(added[r][j], body)
            result = builder.phi(vector)
            result.add_incoming(loaded[r][j], before)
            result.add_incoming(added[r][j], body)
            added[r][j] = result
    for r in range(rows):
        for j in range(vectors):
            builder.store(added[r][j], c_places[r][j], align=8)


_product_of_columns = _tile_product(BLOCK, 1)
_product_of_rows = _tile_product(1, BLOCK)


@_jit
def _add_inner(a, b, b_step, columns, count, c, c_step):
    """C ← C + AᵀB, for the addresses of A, of ``count`` rows of a block, B and C."""
    for j in range(0, columns, _tile_columns()):
        for p in range(0, BLOCK, _tile_rows()):
            _product_of_columns(a + 8 * p, b + 8 * j, b_step, c + 8 * (p * c_step + j), c_step, count)


@_jit
def _add_outer(a, rows, b, c, columns):
    """C ← C + AB, for the addresses of A, of ``rows`` rows of a block, B and C, strips of ``columns`` columns."""
    for j in range(0, columns, _tile_columns()):
        for i in range(0, rows, _tile_rows()):
            _product_of_rows(a + 8 * BLOCK * i, b + 8 * j, columns, c + 8 * (columns * i + j), columns, BLOCK)


@_jit
def _reflectors(v, width, tau, negative):
    """Replaces Gaussians by the vectors of reflections; sets their factors and the columns of Q that change sign."""
    sigma = np.zeros(width)
    for i in range(len(v)):
        row = v[i]
        for p in range(min(i, width)):
            sigma[p] = fma(row[p], row[p], sigma[p])
    divisor = np.ones(width)
    for p in range(width):
        first = v[p, p]
        beta = first
        if sigma[p] != 0:
            beta = -np.copysign(np.sqrt(fma(first, first, sigma[p])), first)
            tau[p] = (beta - first) / beta
            divisor[p] = first - beta
        else:
            tau[p] = 0
            v[p + 1 :, p] = 0
        negative[p] = beta < 0
        v[p, p], v[p, p + 1 :] = 1, 0
    for i in range(1, len(v)):
        row = v[i]
        for p in range(min(i, width)):
            row[p] /= divisor[p]


@_jit
def _factor(gram, tau, factor):
    """Computes the transpose of T from the inner products of the vectors."""
    factor[:] = 0
    for k in range(len(tau)):
        column = factor[k]
        for q in range(k):
            product = gram[q, k]
            row = factor[q]
            for p in range(q + 1):
                column[p] = fma(row[p], product, column[p])
        for p in range(k):
            column[p] = -tau[k] * column[p]
        column[k] = -tau[k]


@_jit
def prepare(v, width, tau, negative, factor):
    """Replaces a block's Gaussians by its vectors, and computes the transpose of its T.

    Args:
        v: Rows of `BLOCK` numbers; in the last block only ``width`` are used, and the others are 0.
        width: The number of vectors.
        tau: Output: the factors of the reflections.
        negative: Output: which columns of Q change sign.
        factor: Output: the transpose of T, a `BLOCK` × `BLOCK` matrix.
    """
    _reflectors(v, width, tau, negative)
    gram = np.zeros((BLOCK, _GRAM))
    for row in range(0, len(v), _ROWS):
        rows = v.ctypes.data + 8 * BLOCK * row
        _add_inner(rows, rows, BLOCK, _GRAM, min(_ROWS, len(v) - row), gram.ctypes.data, _GRAM)
    _factor(gram, tau, factor)


@_jit
def begin(block, v, strip, first, width, products):
    """Sets a strip of the identity, and its inner products with the vectors of the last block that changes it."""
    strip[:] = 0
    for j in range(width):
        strip[first + j, j] = 1
    products[:] = 0
    row, columns = BLOCK * block, strip.shape[1]
    count = first + width - row  # below, the strip is 0
    _add_inner(v, strip.ctypes.data + 8 * columns * row, columns, columns, count, products.ctypes.data, columns)


@_jit
def unfold(last, first, v, begins, factors, strip, rows, products, scaled):
    """Reflects a strip by the blocks ``last``, …, ``first + 1``; ``products`` are its products with the next block.

    Each row is loaded once, for the reflection by one block and for its products with the next.
    """
    q, w, u, columns = strip.ctypes.data, products.ctypes.data, scaled.ctypes.data, strip.shape[1]
    for block in range(last, first, -1):
        scaled[:] = 0
        _add_inner(factors[block].ctypes.data, w, columns, columns, BLOCK, u, columns)
        products[:] = 0
        begin, mine = BLOCK * block, v + 8 * begins[block]
        if block > 0:
            other = v + 8 * begins[block - 1]
            _add_inner(other, q + 8 * columns * (begin - BLOCK), columns, columns, BLOCK, w, columns)
        for row in range(begin, rows, _ROWS):
            count, here = min(_ROWS, rows - row), q + 8 * columns * row
            _add_outer(mine + 8 * BLOCK * (row - begin), count, u, here, columns)
            if block > 0:
                _add_inner(other + 8 * BLOCK * (row - begin + BLOCK), here, columns, columns, count, w, columns)


# Matrices of a single block: padding a few columns to a block would multiply the size. Q is computed in place.


@_jit
def reflectors(v, tau, negative):
    _reflectors(v, v.shape[1], tau, negative)


@_jit
def add_gram(v, gram):
    for i in range(len(v)):
        row = v[i]
        for p in range(len(row)):
            factor, sums = row[p], gram[p]
            for j in range(len(row)):
                sums[j] = fma(factor, row[j], sums[j])


@_jit
def scaled_identity(top, gram, tau):
    """T Vᵀ of the identity: ``top`` is the first rows of V."""
    n = len(tau)
    factor, scaled = np.zeros((n, n)), np.zeros((n, n))
    _factor(gram, tau, factor)
    for p in range(n):
        for q in range(n):
            for j in range(n):
                scaled[p, j] = fma(factor[q, p], top[j, q], scaled[p, j])
    return scaled


@_jit
def unfold_rows(v, first, scaled):
    """Replaces rows of V, which begin with row ``first``, by those of Q."""
    n = v.shape[1]
    sums = np.empty(n)
    for i in range(len(v)):
        row = v[i]
        for j in range(n):
            sums[j] = 1.0 if first + i == j else 0.0
        for p in range(n):
            factor, addends = row[p], scaled[p]
            for j in range(n):
                sums[j] = fma(factor, addends[j], sums[j])
        for j in range(n):
            row[j] = sums[j]
