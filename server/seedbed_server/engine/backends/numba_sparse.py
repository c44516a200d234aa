"""The mask of sparse and the permutation (“Sparse” of docs/stream-v1.md), vectorised, with the bits of the reference.

A panel has up to `PANEL` slots; each holds the column and the row of one element. The Feistel network runs over all
slots in 32-bit lanes, so keys are stored by round, in one row of a table for each. Keys are expensive and depend only
on the column. Therefore elements are grouped into rectangles, which have the same columns in every row. A wide
rectangle is cut into strips that fit into a panel, whose keys serve all rows; a panel holds many rows of a narrow one.
Small rectangles share a panel.

Cycle walking would stall a whole vector for a single lane. If many slots are outside the rows, the whole panel is
computed again; if few are, they move with their keys to a second panel and continue there.

Numba invalidates cached machine code only when the file of the function itself changes. From numba_kernels come only
the decorators and Philox, which is frozen. Numba inlines everything that an ``_inline`` function calls, so call only
small functions there.
"""

from __future__ import annotations

import numpy as np

from ..constants import FEISTEL_ROUNDS, MURMUR_M
from .numba_kernels import _LOW, _MULTIPLIER0, _inline, _jit, _merged, _rounds

u16, u32, u64 = np.uint16, np.uint32, np.uint64

_MIX0, _MIX1 = map(u32, MURMUR_M)

PANEL = 352
"""Slots of a panel; their keys, 22 KiB, stay in the first-level cache. (Not a power of two: see numba_kernels.)"""

_LANES = 32
"""Slots are padded to a multiple of this: a remainder would be computed one by one."""

_FEW = 1 / 8
"""Above this fraction of slots, computing the whole panel again is cheaper than moving slots with their keys."""

# The rows of the table, of PANEL words each: first the keys, then the halves of the slots' positions.
_HALVES = FEISTEL_ROUNDS
_WALKERS = _HALVES + 2  # the second panel
_SLOTS = _WALKERS + FEISTEL_ROUNDS + 2  # the walkers' slots in the first panel
_STAYING = _SLOTS + 1
TABLE = (_STAYING + 1) * PANEL
"""Words of the table."""


@_inline
def _at(row, slot):
    """The index of a slot in a row of the table; unsigned, so LLVM need not handle negative indices."""
    return u64(row * PANEL) + u64(slot)


@_inline
def _low_bits(bits):
    return (bits + u64(1)) >> u64(1)


@_inline
def _split(number, bits):
    """The low and the high half of a number."""
    low_bits = _low_bits(bits)
    return u32(number & ((u64(1) << low_bits) - u64(1))), u32(number >> low_bits)


@_inline
def _is_below(low, high, limit):
    """Whether a number, given by its halves, is below a limit, given likewise."""
    return (high < limit[1]) | ((high == limit[1]) & (low < limit[0]))


# Panels.


@_jit
def _draw_keys(table, columns, seed, stream):
    for number in range(FEISTEL_ROUNDS // 4):
        for j in range(len(columns)):
            block = u64(FEISTEL_ROUNDS // 4) * columns[j] + u64(number)
            words = _rounds((block & _LOW) * _MULTIPLIER0, block >> u64(32), stream, seed)
            table[_at(4 * number, j)], table[_at(4 * number + 1, j)] = u32(words[0]), u32(words[1])
            table[_at(4 * number + 2, j)], table[_at(4 * number + 3, j)] = u32(words[2]), u32(words[3])


@_inline
def _mixed(half, key):
    h = u32(half ^ key)
    h = u32(u32(h ^ u32(h >> u32(16))) * _MIX0)
    h = u32(u32(h ^ u32(h >> u32(13))) * _MIX1)
    return u32(h ^ u32(h >> u32(16)))


@_jit
def _feistel(keys, halves, count, mask):
    """Four rounds for all slots, then the next four: all sixteen for one vector would be bound by latency."""
    count = (count + _LANES - 1) // _LANES * _LANES
    for step in range(0, FEISTEL_ROUNDS, 4):
        for j in range(count):
            low, high = halves[_at(0, j)], halves[_at(1, j)]
            low = u32(low ^ u32(_mixed(high, keys[_at(step, j)]) & mask[0]))
            high = u32(high ^ u32(_mixed(low, keys[_at(step + 1, j)]) & mask[1]))
            low = u32(low ^ u32(_mixed(high, keys[_at(step + 2, j)]) & mask[0]))
            high = u32(high ^ u32(_mixed(low, keys[_at(step + 3, j)]) & mask[1]))
            halves[_at(0, j)], halves[_at(1, j)] = low, high


@_jit
def _permute(table, rows_of_slots, row, rows, bits):
    """Permutes each slot's row, ``row + rows_of_slots``."""
    count = len(rows_of_slots)
    mask, limit = _split((u64(1) << bits) - u64(1), bits), _split(rows, bits)
    for j in range(count):
        table[_at(_HALVES, j)], table[_at(_HALVES + 1, j)] = _split(row + rows_of_slots[j], bits)
    halves, others = table[_HALVES * PANEL :], table[(_WALKERS + _HALVES) * PANEL :]
    _feistel(table, halves, count, mask)
    outside = 1 - float(rows) / float(u64(1) << bits)
    expected = outside
    while expected > _FEW:
        for j in range(2 * PANEL):
            others[u64(j)] = halves[u64(j)]
        _feistel(table, others, count, mask)
        _replace_outside(halves, others, count, limit)
        expected *= outside
    if outside:
        _walk(table, count, mask, limit)


@_merged
def _replace_outside(halves, others, count, limit):
    for j in range(count):
        low, high = halves[_at(0, j)], halves[_at(1, j)]
        is_inside = _is_below(low, high, limit)
        halves[_at(0, j)] = low if is_inside else others[_at(0, j)]
        halves[_at(1, j)] = high if is_inside else others[_at(1, j)]


@_merged
def _walk(table, count, mask, limit):
    """Permutes the slots that are outside again until none is."""
    walkers = table[_WALKERS * PANEL :]
    own = walkers[_HALVES * PANEL :]
    found = _outside(table[_HALVES * PANEL :], count, limit, table[_SLOTS * PANEL :])
    _move(table, table[_SLOTS * PANEL :], found, walkers)
    while found:
        _feistel(walkers, own, found, mask)
        for i in range(found):
            slot = table[_at(_SLOTS, i)]
            table[_at(_HALVES, slot)], table[_at(_HALVES + 1, slot)] = own[_at(0, i)], own[_at(1, i)]
        found = _outside(own, found, limit, table[_STAYING * PANEL :])
        _move(walkers, table[_STAYING * PANEL :], found, walkers)
        for i in range(found):
            table[_at(_SLOTS, i)] = table[_at(_SLOTS, table[_at(_STAYING, i)])]


@_jit
def _outside(halves, count, limit, which):
    """Finds the slots whose numbers are not below a limit."""
    found = 0
    for j in range(count):
        which[u64(found)] = j
        found += 0 if _is_below(halves[_at(0, j)], halves[_at(1, j)], limit) else 1
    return found


@_jit
def _move(panel, slots, count, to):
    """Moves some slots to the front of a panel, possibly the same one."""
    for i in range(count):
        for row in range(_HALVES + 2):
            to[_at(row, i)] = panel[_at(row, slots[u64(i)])]


# Elements. A law is five unsigned integers: the tensor's rows, the zeros of each column, the bits of the network's
# positions, the tensor's seed, and the mask's stream.


@_jit
def mask(law, columns, starts, lengths, out, itemsize):
    """Sets the masked elements to 0.

    Args:
        law: See above; at least one row of each column is not 0.
        columns: The tensor's columns.
        starts: The first element of each run.
        lengths: The elements of each run.
        out: The bytes of all runs' elements.
        itemsize: Bytes of an element.
    """
    table = np.empty(TABLE, np.uint32)
    slots = np.empty(PANEL, np.uint64), np.empty(PANEL, np.uint64)
    run, taken, begin, waiting = 0, 0, 0, 0
    while run < len(starts):
        row, column = divmod(starts[run] + taken, columns)
        width, height, step, run, taken = _rectangle(starts, lengths, run, taken, columns)
        size = width * height
        if waiting + size > PANEL:
            _mask_panel(law, table, slots[0][:waiting], slots[1][:waiting], out[begin * itemsize :], itemsize)
            begin, waiting = begin + waiting, 0
        if size <= PANEL:
            _set_slots(slots[0][waiting:], slots[1][waiting:], column, row, width, height, step)
            waiting += size
        else:
            _mask_rectangle(law, table, slots, column, row, width, height, step, out[begin * itemsize :], itemsize)
            begin += size
    _mask_panel(law, table, slots[0][:waiting], slots[1][:waiting], out[begin * itemsize :], itemsize)


@_merged
def _rectangle(starts, lengths, run, taken, columns):
    """The next rectangle: elements with the same columns in every row, and rows at equal distances.

    Returns:
        Its numbers of columns and rows, the distance of its rows, and the start of the next rectangle.
    """
    column, rest = (starts[run] + taken) % columns, lengths[run] - taken
    width = min(rest, columns - column)
    if taken == 0 and width == rest:
        height, jump = _alike(starts[run:], lengths[run:], columns)
        return width, height, jump // columns, run + height, 0
    height = max(rest // columns, 1) if column == 0 else 1
    taken += width * height
    return (width, height, 1, run + 1, 0) if taken == lengths[run] else (width, height, 1, run, taken)


@_merged
def _alike(starts, lengths, columns):
    """The number of leading runs that have the same columns, and their distance."""
    if len(starts) == 1 or (starts[1] - starts[0]) % columns != 0:
        return 1, 0
    jump, count = starts[1] - starts[0], 1
    while count < len(starts) and lengths[count] == lengths[0] and starts[count] - starts[count - 1] == jump:
        count += 1
    return count, jump


@_merged
def _set_slots(columns, rows, column, row, width, height, step):
    """Assigns slots to the elements of a rectangle."""
    for i in range(height):
        for j in range(width):
            columns[i * width + j], rows[i * width + j] = u64(column + j), u64(row + i * step)


@_merged
def _mask_panel(law, table, columns, rows, out, itemsize):
    _draw_keys(table, columns, law[3], law[4])
    _mask_rows(law, table, rows, u64(0), out, itemsize)


@_merged
def _mask_rectangle(law, table, slots, column, row, width, height, step, out, itemsize):
    """Masks a rectangle that does not fit into one panel."""
    strip, together = -(-width // -(-width // PANEL)), max(PANEL // width, 1)
    for first in range(0, width, strip):
        some = min(strip, width - first)
        _set_slots(slots[0], slots[1], column + first, row, some, together, step)
        _draw_keys(table, slots[0][: together * some], law[3], law[4])
        for i in range(0, height, together):
            rows = slots[1][: some * min(together, height - i)]
            _mask_rows(law, table, rows, u64(i * step), out[(i * width + first) * itemsize :], itemsize)


@_merged
def _mask_rows(law, table, rows, row, out, itemsize):
    """Masks the elements of the first slots, whose rows are ``row + rows``."""
    _permute(table, rows, row, law[0], law[2])
    halves, limit, size = table[_HALVES * PANEL :], _split(law[1], law[2]), len(rows) * itemsize
    if itemsize == 2:
        _zero_below(halves, limit, out[:size].view(u16), u16(0))
    elif itemsize == 4:
        _zero_below(halves, limit, out[:size].view(u32), u32(0))
    else:
        _zero_below(halves, limit, out[:size].view(u64), u64(0))


@_jit
def _zero_below(halves, limit, out, zero):
    """``zero`` has the elements' type: Numba would turn u64 and a literal into floats."""
    for j in range(len(out)):
        out[j] = zero if _is_below(halves[_at(0, j)], halves[_at(1, j)], limit) else out[j]


@_jit
def places(law, indices, out):
    """The image of each index under the permutation of a law's first column."""
    table = np.empty(TABLE, np.uint32)
    _draw_keys(table, np.zeros(PANEL, np.uint64), law[3], law[4])
    for begin in range(0, len(indices), PANEL):
        target = out[begin : begin + PANEL]
        _permute(table, indices[begin : begin + PANEL], u64(0), law[0], law[2])
        for j in range(len(target)):
            target[j] = (u64(table[_at(_HALVES + 1, j)]) << _low_bits(law[2])) | u64(table[_at(_HALVES, j)])
