"""The command ``diff``: where two files of tensors differ, whoever wrote them."""

import io
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np

from seedbed._files.errors import FileFormatError, FileSizeError
from seedbed.cli._options import (
    FILE,
    bytes_text,
    echo_rows,
    json_option,
    matching,
    plural,
    progress_option,
    shape_text,
    tensors_option,
)
from seedbed.cli._progress import Add, adder, progress
from seedbed.cli._stored import Stored, StoredTensor, read_stored

Array = np.ndarray[Any, Any]

_PIECE = 4 << 20  # bytes read at once from each side
_MAX_TEXT = 40  # characters of a metadata value in the table


@dataclass(frozen=True)
class First:
    """The first element that differs, with its value and bits on both sides; a byte, where NumPy has no such dtype."""

    index: tuple[int, ...]
    values: tuple[Any, Any]
    bits: tuple[str, str]


@dataclass
class Difference:
    """How a tensor differs.

    Attributes:
        name: The tensor's name.
        a: The tensor in A; None if it is missing.
        b: The tensor in B; None if it is missing.
        elements: The number of elements, if dtypes and shapes are equal.
        count: The number of elements that differ.
        first: The first element that differs.
        largest: The largest difference of two numbers; None if there is none.
        nans: The number of differing elements that are NaN on either side.
    """

    name: str
    a: StoredTensor | None
    b: StoredTensor | None
    elements: int = 0
    count: int = 0
    first: First | None = None
    largest: float | int | None = None
    nans: int = 0


@click.command(short_help="Show where two files of tensors differ")
@click.argument("a", type=FILE)
@click.argument("b", type=FILE)
@tensors_option
@json_option
@progress_option
def diff(*, a: Path, b: Path, patterns: tuple[str, ...], as_json: bool, show_progress: bool | None) -> None:
    """Show where A and B differ, whoever wrote them.

    Exit 0 if they are equal, 1 if they differ, 2 if they cannot be compared.

    A and B may each be a .safetensors file, a directory of such files with or without an index, an index, or a .npy
    file, which is compared with the only tensor of the other side.

    Bits are compared: 0.0 and -0.0 differ, and so do NaNs with different bits. For each tensor that differs, the table
    shows how many elements differ, the first of them with both values, and the largest difference of two numbers.
    Tensors whose dtypes or shapes differ are listed, but their elements are not compared. Differences in metadata are
    listed, but do not affect the exit code.

    \b
    Examples:
      seedbed diff before.safetensors after.safetensors
      seedbed diff llama other/model.safetensors.index.json --tensors 'model.layers.[0-3].*'
    """  # noqa: D301
    side_a, side_b = _with_equal_names(*_selected(read_stored(a), read_stored(b), patterns))
    with progress(f"diff {a.name} {b.name}", show_progress) as report:
        differences = _differences(side_a, side_b, adder(report, _bytes_to_compare(side_a, side_b)))
    metadata = _differing_metadata(side_a, side_b)
    if as_json:
        click.echo(json.dumps(_as_json(side_a, side_b, differences, metadata), indent=2))
    else:
        _print(side_a, side_b, differences, metadata)
    if differences:
        raise click.exceptions.Exit(1)


# Selecting tensors.


def _selected(a: Stored, b: Stored, patterns: Sequence[str]) -> tuple[Stored, Stored]:
    """The tensors whose names match any of the patterns; all tensors, if there are no patterns."""
    names = [name for side in (a, b) if side.has_names for name in side.tensors]
    selection = matching(names, patterns, f"{a.path} or {b.path}")
    return _select(a, selection), _select(b, selection)


def _select(side: Stored, names: set[str]) -> Stored:
    if not side.has_names:
        return side
    return replace(side, tensors={name: tensor for name, tensor in side.tensors.items() if name in names})


def _with_equal_names(a: Stored, b: Stored) -> tuple[Stored, Stored]:
    """Gives the tensor of a .npy file, which has no name, the name of the tensor that it is compared with."""
    if a.has_names and b.has_names:
        return a, b
    for side, opposite in ((a, b), (b, a)):
        if not side.has_names and len(opposite.tensors) != 1:
            count = plural(len(opposite.tensors), "tensor")
            raise FileFormatError(
                f"{side.path} is one tensor without a name, and {opposite.path} has {count}; choose one with --tensors"
            )
    [name] = (a if a.has_names else b).tensors
    return tuple(replace(side, tensors={name: next(iter(side.tensors.values()))}) for side in (a, b))  # type: ignore[return-value]


def _bytes_to_compare(a: Stored, b: Stored) -> int:
    return sum(tensor.size for name, tensor in a.tensors.items() if _are_comparable(tensor, b.tensors.get(name)))


def _are_comparable(a: StoredTensor, b: StoredTensor | None) -> bool:
    return b is not None and (a.kind, a.shape, a.size) == (b.kind, b.shape, b.size)


def _differing_metadata(a: Stored, b: Stored) -> dict[str, tuple[list[str], list[str]]]:
    """The metadata values of both sides, by key, where they differ."""
    if not (a.has_names and b.has_names):
        return {}  # a .npy file has no metadata
    keys = sorted({*a.metadata, *b.metadata})
    pairs = {key: (a.metadata.get(key, []), b.metadata.get(key, [])) for key in keys}
    return {key: values for key, values in pairs.items() if values[0] != values[1]}


# Comparing.


def _differences(a: Stored, b: Stored, add: Add) -> list[Difference]:
    results = (_compare(name, a.tensors.get(name), b.tensors.get(name), add) for name in {**a.tensors, **b.tensors})
    return [difference for difference in results if difference is not None]


def _compare(name: str, a: StoredTensor | None, b: StoredTensor | None, add: Add) -> Difference | None:
    if a is None or b is None or not _are_comparable(a, b):
        return Difference(name, a, b)
    difference = Difference(name, a, b, a.size // a.dtype.itemsize)
    for first, values in _pairs(a, b):
        _count(difference, first, *values)
        add(values[0].nbytes)
    return difference if difference.count else None


def _pairs(a: StoredTensor, b: StoredTensor) -> Iterator[tuple[int, tuple[Array, Array]]]:
    """Yields the pieces of both tensors in parallel, with the position of their first element."""
    buffers = bytearray(min(_PIECE, a.size)), bytearray(min(_PIECE, a.size))
    with a.path.open("rb", buffering=0) as file_a, b.path.open("rb", buffering=0) as file_b:
        for begin in range(0, a.size, _PIECE):
            size = min(_PIECE, a.size - begin)
            yield (
                begin // a.dtype.itemsize,
                (
                    _read(file_a, a, begin, memoryview(buffers[0])[:size]),
                    _read(file_b, b, begin, memoryview(buffers[1])[:size]),
                ),
            )


def _read(file: io.FileIO, tensor: StoredTensor, begin: int, buffer: memoryview) -> Array:
    """Reads a piece. A mapped file would crash the process if it were truncated meanwhile."""
    file.seek(tensor.start + begin)
    filled = 0
    while filled < len(buffer):
        count = file.readinto(buffer[filled:])
        if not count:
            raise FileSizeError(f"{tensor.path}: truncated while it was read")
        filled += count
    values = np.frombuffer(buffer, tensor.dtype)
    return values.astype(tensor.dtype.newbyteorder("="), copy=False)


def _count(difference: Difference, first: int, a: Array, b: Array) -> None:
    """Adds a piece's differences to those of its tensor."""
    if np.array_equal(a.view(np.uint8) if a.nbytes % 8 else a.view(np.uint64),
                      b.view(np.uint8) if b.nbytes % 8 else b.view(np.uint64)):  # fmt: skip
        return
    places = np.flatnonzero(_differ(a, b))
    a, b = a[places], b[places]
    if difference.first is None and difference.a:
        shape = difference.a.shape if difference.a.kind == a.dtype.name else (difference.elements,)
        difference.first = First(_index(first + int(places[0]), shape), (a[0], b[0]), (_bits(a), _bits(b)))
    difference.count += len(places)
    largest, nans = _largest(a, b)
    difference.nans += nans
    if largest is not None:
        difference.largest = largest if difference.largest is None else max(difference.largest, largest)


def _index(position: int, shape: Sequence[int]) -> tuple[int, ...]:
    """The index of the element at a position; NumPy's unravel_index supports at most 64 dimensions."""
    index: list[int] = []
    for size in reversed(shape):
        position, remainder = divmod(position, size)
        index.append(remainder)
    return tuple(reversed(index))


def _differ(a: Array, b: Array) -> Array:
    """Whether the bits differ, for each element."""
    size = a.itemsize
    if size > 8:
        words = a.view(np.uint64).reshape(-1, size // 8) != b.view(np.uint64).reshape(-1, size // 8)
        return np.asarray(words.any(axis=1))
    return np.asarray(a.view(f"u{size}") != b.view(f"u{size}"))


def _bits(values: Array) -> str:
    """The bits of the first element, in hexadecimal."""
    return f"0x{int.from_bytes(values[:1].tobytes(), 'little'):0{2 * values.itemsize}x}"


def _largest(a: Array, b: Array) -> tuple[float | int | None, int]:
    """The largest difference of two numbers, and the number of pairs with a NaN."""
    if a.dtype.kind in "biu":
        return _largest_of_integers(a, b), 0
    if a.dtype.kind == "c":
        parts = f"f{a.itemsize // 2}"
        components = _distances(a.view(parts), b.view(parts)).reshape(-1, 2)
        with np.errstate(all="ignore"):
            distances = np.hypot(components[:, 0], components[:, 1])
        distances[np.isnan(components).any(axis=1)] = np.nan
    else:
        distances = _distances(a, b)
    numbers = distances[~np.isnan(distances)]
    return (float(numbers.max()) if numbers.size else None), distances.size - numbers.size


def _distances(a: Array, b: Array) -> Array:
    with np.errstate(all="ignore"):
        a, b = a.astype(np.float64), b.astype(np.float64)
        return np.where(a == b, 0.0, np.abs(a - b))  # equal infinities, in one component of a complex number


def _largest_of_integers(a: Array, b: Array) -> int:
    wide = np.int64 if a.dtype.kind == "i" else np.uint64
    a, b = a.astype(wide), b.astype(wide)
    words = a.view(np.uint64), b.view(np.uint64)  # the difference of two int64 needs 64 bits
    return int(np.where(a > b, words[0] - words[1], words[1] - words[0]).max())


# Printing.


def _print(
    a: Stored, b: Stored, differences: Sequence[Difference], metadata: dict[str, tuple[list[str], list[str]]]
) -> None:
    tensors = plural(len({*a.tensors, *b.tensors}), "tensor")
    if differences:
        echo_rows([("tensor", "differs", "first at", "A", "B", "by up to"), *map(_row, differences)])
        verb = "differs" if len(differences) == 1 else "differ"
        click.echo(f"\n{len(differences):,} of {tensors} {verb}; A is {a.path}, B is {b.path}")
    else:
        size = bytes_text(sum(tensor.size for tensor in a.tensors.values()))
        click.echo(f"{a.path} and {b.path}: {tensors}, {size}, equal bit for bit")
    if metadata:
        click.echo()
        rows = ((_printable(key), *_excerpts(*values)) for key, values in metadata.items())
        echo_rows([("metadata (informational)", "A", "B"), *rows])


def _row(difference: Difference) -> tuple[str, ...]:
    name, a, b = _printable(difference.name), difference.a, difference.b
    if a is None or b is None:
        return name, f"only in {'B' if a is None else 'A'}", "", _kind_text(a), _kind_text(b), ""
    if difference.first is None:
        aspects = [*(["dtype"] if a.kind != b.kind else []), *(["shape"] if a.shape != b.shape else [])]
        return name, " and ".join(aspects or ["size"]), "", _kind_text(a), _kind_text(b), ""
    first = difference.first
    index = f"[{', '.join(map(str, first.index))}]"
    values = [f"{value!s} ({bits})" for value, bits in zip(first.values, first.bits, strict=True)]
    unit = "" if a.kind == a.dtype.name else " bytes"
    return name, f"{difference.count:,} of {difference.elements:,}{unit}", index, *values, _largest_text(difference)


def _kind_text(tensor: StoredTensor | None) -> str:
    return "" if tensor is None else f"{shape_text(tensor.shape)} {tensor.kind}"


def _largest_text(difference: Difference) -> str:
    largest = difference.largest
    numbers = [] if largest is None else [f"{largest:,}" if isinstance(largest, int) else f"{largest:.6g}"]
    nans = [f"{difference.nans:,} NaN"] if difference.nans else []
    return " and ".join(numbers + nans)


def _excerpts(a: Sequence[str], b: Sequence[str]) -> tuple[str, str]:
    """Excerpts of the metadata values of both sides, from where they begin to differ."""
    text_a, text_b = " | ".join(map(_printable, a)), " | ".join(map(_printable, b))
    longest = max(len(text_a), len(text_b))
    pairs = enumerate(zip(text_a, text_b, strict=False))
    common = next((index for index, (x, y) in pairs if x != y), min(len(text_a), len(text_b)))
    begin = common - _MAX_TEXT // 2 if common > _MAX_TEXT // 2 and longest > _MAX_TEXT else 0
    return _excerpt(text_a, begin), _excerpt(text_b, begin)


def _excerpt(text: str, begin: int) -> str:
    tail = text[begin:]
    return f"{'…' if begin else ''}{tail if len(tail) <= _MAX_TEXT else tail[:_MAX_TEXT] + '…'}" or "-"


def _printable(text: str) -> str:
    """A text on one line, with control characters escaped, so that the terminal does not interpret them."""
    return text if text.isprintable() else repr(text)[1:-1]


def _as_json(
    a: Stored, b: Stored, differences: Sequence[Difference], metadata: dict[str, tuple[list[str], list[str]]]
) -> dict[str, Any]:
    return {
        "a": str(a.path),
        "b": str(b.path),
        "equal": not differences,
        "tensors": len({*a.tensors, *b.tensors}),
        "differences": list(map(_difference_as_json, differences)),
        "metadata": {key: {"a": values[0], "b": values[1]} for key, values in metadata.items()},
    }


def _difference_as_json(difference: Difference) -> dict[str, Any]:
    sides = {
        side: None if tensor is None else {"dtype": tensor.kind, "shape": list(tensor.shape)}
        for side, tensor in (("a", difference.a), ("b", difference.b))
    }
    fields: dict[str, Any] = {"tensor": difference.name, **sides}
    if difference.first is None:
        return fields
    first = {"index": list(difference.first.index)}
    for side, value, bits in zip("ab", difference.first.values, difference.first.bits, strict=True):
        first |= {side: _value_as_json(value), f"{side}_bits": bits}  # type: ignore[dict-item]
    return fields | {
        "elements": difference.elements,
        "differing": difference.count,
        "first": first,
        "largest_difference": _value_as_json(difference.largest),
        "nans": difference.nans,
    }


def _value_as_json(value: Any) -> Any:  # noqa: ANN401 - of any element type
    """A number; non-finite ones are strings, with the names of protobuf's JSON."""
    if value is None or isinstance(value, int):
        return value
    if isinstance(value, (np.bool_, np.integer)):
        return value.item()
    if isinstance(value, np.complexfloating):
        return [_value_as_json(float(value.real)), _value_as_json(float(value.imag))]
    number = float(value)
    if math.isfinite(number):
        return number
    return "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"
