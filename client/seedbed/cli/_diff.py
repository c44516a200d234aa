"""The command diff: where two files of tensors differ, whoever wrote them."""

import fnmatch
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
from seedbed.cli._options import FILE, bytes_text, echo_rows, json_option, plural, progress_option, shape_text
from seedbed.cli._progress import Add, adder, progress
from seedbed.cli._stored import Stored, StoredTensor, read_stored

Array = np.ndarray[Any, Any]

_PIECE = 4 << 20  # bytes that are read at once of each side
_TEXT = 40  # characters of a text in a table


@dataclass(frozen=True)
class First:
    """The first element that differs, and what it is on either side; a byte, where NumPy has no such elements."""

    index: tuple[int, ...]
    values: tuple[Any, Any]
    bits: tuple[str, str]


@dataclass
class Difference:
    """How a tensor differs.

    Attributes:
        name: Its name.
        a: The tensor on the one side; None if it is not there.
        b: The tensor on the other side.
        elements: How many elements there are, if the types and shapes are equal.
        count: How many of them differ.
        first: The first that does.
        largest: The largest difference of two numbers; None if there is none.
        nans: How many differ that are no number on one side, or on both.
    """

    name: str
    a: StoredTensor | None
    b: StoredTensor | None
    elements: int = 0
    count: int = 0
    first: First | None = None
    largest: float | int | None = None
    nans: int = 0


@click.command(short_help="Tell where two files of tensors differ")
@click.argument("a", type=FILE)
@click.argument("b", type=FILE)
@click.option(
    "--tensors", "patterns", multiple=True, metavar="PATTERN",
    help="Only tensors of such names, as in 'model.layers.[0-3].*'; may be repeated.  [default: all]",
)  # fmt: skip
@json_option
@progress_option
def diff(*, a: Path, b: Path, patterns: tuple[str, ...], as_json: bool, show_progress: bool | None) -> None:
    """Tell where A and B differ, whoever wrote them: exit 0 if nowhere, 1 if somewhere, 2 if they cannot be compared.

    Each is a .safetensors file, a directory of them, with an index or without, an index, or a .npy file, which is
    compared with the one tensor of the other.

    What is compared are bits: 0.0 and -0.0 differ, and so do NaNs of other bits. For each tensor that differs it is
    told how many elements do, the first of them with both values, and the largest difference of two numbers. Tensors
    of other types or shapes are told as such, and not compared. Metadata that differ are told, but do not count.

    \b
    Examples:
      seedbed diff before.safetensors after.safetensors
      seedbed diff llama other/model.safetensors.index.json --tensors 'model.layers.[0-3].*'
    """  # noqa: D301
    one, other = _named_alike(*_selected(read_stored(a), read_stored(b), patterns))
    with progress(f"diff {a.name} {b.name}", show_progress) as report:
        differences = _differences(one, other, adder(report, _bytes_in_common(one, other)))
    metadata = _metadata(one, other)
    if as_json:
        click.echo(json.dumps(_as_json(one, other, differences, metadata), indent=2))
    else:
        _tell(one, other, differences, metadata)
    if differences:
        raise click.exceptions.Exit(1)


# What is compared with what.


def _selected(one: Stored, other: Stored, patterns: Sequence[str]) -> tuple[Stored, Stored]:
    """Returns the tensors whose names match any of the patterns; all, if there are none."""
    named = [name for side in (one, other) if side.has_names for name in side.tensors]
    for pattern in patterns:
        if not any(fnmatch.fnmatchcase(name, pattern) for name in named):
            raise click.BadParameter(
                f"no tensor of {one.path} or {other.path} is called {pattern!r}", param_hint="--tensors"
            )
    return _select(one, patterns), _select(other, patterns)


def _select(side: Stored, patterns: Sequence[str]) -> Stored:
    if not patterns or not side.has_names:
        return side
    tensors = {
        name: tensor for name, tensor in side.tensors.items() if any(fnmatch.fnmatchcase(name, p) for p in patterns)
    }
    return replace(side, tensors=tensors)


def _named_alike(one: Stored, other: Stored) -> tuple[Stored, Stored]:
    """Gives the tensor of a file without names the name of the one that it is compared with."""
    if one.has_names and other.has_names:
        return one, other
    for side, its_other in ((one, other), (other, one)):
        if not side.has_names and len(its_other.tensors) != 1:
            count = plural(len(its_other.tensors), "tensor")
            raise FileFormatError(
                f"{side.path} is one tensor without a name, and {its_other.path} has {count}; choose one with --tensors"
            )
    [name] = (one if one.has_names else other).tensors
    return tuple(replace(side, tensors={name: next(iter(side.tensors.values()))}) for side in (one, other))  # type: ignore[return-value]


def _bytes_in_common(one: Stored, other: Stored) -> int:
    return sum(tensor.size for name, tensor in one.tensors.items() if _are_alike(tensor, other.tensors.get(name)))


def _are_alike(a: StoredTensor, b: StoredTensor | None) -> bool:
    return b is not None and (a.kind, a.shape, a.size) == (b.kind, b.shape, b.size)


def _metadata(one: Stored, other: Stored) -> dict[str, tuple[list[str], list[str]]]:
    """Returns the texts of either side, by key, where they differ."""
    if not (one.has_names and other.has_names):
        return {}  # a .npy file can have none
    keys = sorted({*one.metadata, *other.metadata})
    both = {key: (one.metadata.get(key, []), other.metadata.get(key, [])) for key in keys}
    return {key: (a, b) for key, (a, b) in both.items() if a != b}


# Comparing.


def _differences(one: Stored, other: Stored, add: Add) -> list[Difference]:
    found = (
        _compare(name, one.tensors.get(name), other.tensors.get(name), add) for name in {**one.tensors, **other.tensors}
    )
    return [difference for difference in found if difference is not None]


def _compare(name: str, a: StoredTensor | None, b: StoredTensor | None, add: Add) -> Difference | None:
    if a is None or b is None or not _are_alike(a, b):
        return Difference(name, a, b)
    difference = Difference(name, a, b, a.size // a.dtype.itemsize)
    for first, values in _pairs(a, b):
        _count(difference, first, *values)
        add(values[0].nbytes)
    return difference if difference.count else None


def _pairs(a: StoredTensor, b: StoredTensor) -> Iterator[tuple[int, tuple[Array, Array]]]:
    """Yields what is at the same place in both, piece by piece, with the index of its first element."""
    room = bytearray(min(_PIECE, a.size)), bytearray(min(_PIECE, a.size))
    with a.path.open("rb", buffering=0) as file_a, b.path.open("rb", buffering=0) as file_b:
        for begin in range(0, a.size, _PIECE):
            size = min(_PIECE, a.size - begin)
            yield (
                begin // a.dtype.itemsize,
                (
                    _read(file_a, a, begin, memoryview(room[0])[:size]),
                    _read(file_b, b, begin, memoryview(room[1])[:size]),
                ),
            )


def _read(file: io.FileIO, tensor: StoredTensor, begin: int, room: memoryview) -> Array:
    """Reads a piece, for it would be a crash if a file that is mapped were cut short."""
    file.seek(tensor.start + begin)
    filled = 0
    while filled < len(room):
        count = file.readinto(room[filled:])
        if not count:
            raise FileSizeError(f"{tensor.path}: cut short while it was read")
        filled += count
    values = np.frombuffer(room, tensor.dtype)
    return values.astype(tensor.dtype.newbyteorder("="), copy=False)


def _count(difference: Difference, first: int, a: Array, b: Array) -> None:
    """Adds what differs in a piece."""
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
    """The index of the element at a position; NumPy's own knows no more than 64 dimensions."""
    index: list[int] = []
    for size in reversed(shape):
        position, rest = divmod(position, size)
        index.append(rest)
    return tuple(reversed(index))


def _differ(a: Array, b: Array) -> Array:
    """Tells of each element whether its bits differ."""
    size = a.itemsize
    if size > 8:
        words = a.view(np.uint64).reshape(-1, size // 8) != b.view(np.uint64).reshape(-1, size // 8)
        return np.asarray(words.any(axis=1))
    return np.asarray(a.view(f"u{size}") != b.view(f"u{size}"))


def _bits(values: Array) -> str:
    """The bits of the first, in hexadecimal."""
    return f"0x{int.from_bytes(values[:1].tobytes(), 'little'):0{2 * values.itemsize}x}"


def _largest(a: Array, b: Array) -> tuple[float | int | None, int]:
    """Returns the largest difference of two numbers, and how many pairs have one that is none."""
    if a.dtype.kind in "biu":
        return _largest_of_integers(a, b), 0
    if a.dtype.kind == "c":
        parts = f"f{a.itemsize // 2}"
        apart = _distances(a.view(parts), b.view(parts)).reshape(-1, 2)
        with np.errstate(all="ignore"):
            distances = np.hypot(apart[:, 0], apart[:, 1])
        distances[np.isnan(apart).any(axis=1)] = np.nan
    else:
        distances = _distances(a, b)
    numbers = distances[~np.isnan(distances)]
    return (float(numbers.max()) if numbers.size else None), distances.size - numbers.size


def _distances(a: Array, b: Array) -> Array:
    with np.errstate(all="ignore"):
        a, b = a.astype(np.float64), b.astype(np.float64)
        return np.where(a == b, 0.0, np.abs(a - b))  # of an infinity and itself, as part of a complex number


def _largest_of_integers(a: Array, b: Array) -> int:
    wide = np.int64 if a.dtype.kind == "i" else np.uint64
    a, b = a.astype(wide), b.astype(wide)
    words = a.view(np.uint64), b.view(np.uint64)  # a difference of two int64 takes 64 bits
    return int(np.where(a > b, words[0] - words[1], words[1] - words[0]).max())


# Telling.


def _tell(
    one: Stored, other: Stored, differences: Sequence[Difference], metadata: dict[str, tuple[list[str], list[str]]]
) -> None:
    tensors = plural(len({*one.tensors, *other.tensors}), "tensor")
    if differences:
        echo_rows([("tensor", "differs", "first at", "A", "B", "by up to"), *map(_row, differences)])
        verb = "differs" if len(differences) == 1 else "differ"
        click.echo(f"\n{len(differences):,} of {tensors} {verb}; A is {one.path}, B is {other.path}")
    else:
        size = bytes_text(sum(tensor.size for tensor in one.tensors.values()))
        click.echo(f"{one.path} and {other.path}: {tensors}, {size}, equal bit for bit")
    if metadata:
        click.echo()
        rows = ((_plain(key), *_texts(a, b)) for key, (a, b) in metadata.items())
        echo_rows([("metadata, which do not count", "A", "B"), *rows])


def _row(difference: Difference) -> tuple[str, ...]:
    name, a, b = _plain(difference.name), difference.a, difference.b
    if a is None or b is None:
        return name, f"only in {'B' if a is None else 'A'}", "", _kind(a), _kind(b), ""
    if difference.first is None:
        what = [*(["dtype"] if a.kind != b.kind else []), *(["shape"] if a.shape != b.shape else [])]
        return name, " and ".join(what or ["size"]), "", _kind(a), _kind(b), ""
    first = difference.first
    index = f"[{', '.join(map(str, first.index))}]"
    values = [f"{value!s} ({bits})" for value, bits in zip(first.values, first.bits, strict=True)]
    unit = "" if a.kind == a.dtype.name else " bytes"
    return name, f"{difference.count:,} of {difference.elements:,}{unit}", index, *values, _largest_text(difference)


def _kind(tensor: StoredTensor | None) -> str:
    return "" if tensor is None else f"{shape_text(tensor.shape)} {tensor.kind}"


def _largest_text(difference: Difference) -> str:
    largest = difference.largest
    numbers = [] if largest is None else [f"{largest:,}" if isinstance(largest, int) else f"{largest:.6g}"]
    nans = [f"{difference.nans:,} NaN"] if difference.nans else []
    return " and ".join(numbers + nans)


def _texts(a: Sequence[str], b: Sequence[str]) -> tuple[str, str]:
    """The texts of both sides, in short, from where they begin to differ."""
    texts = " | ".join(map(_plain, a)), " | ".join(map(_plain, b))
    pairs = enumerate(zip(*texts, strict=False))
    same = next((index for index, (one, other) in pairs if one != other), min(map(len, texts)))
    begin = same - _TEXT // 2 if same > _TEXT // 2 and max(map(len, texts)) > _TEXT else 0
    return _excerpt(texts[0], begin), _excerpt(texts[1], begin)


def _excerpt(text: str, begin: int) -> str:
    rest = text[begin:]
    return f"{'…' if begin else ''}{rest if len(rest) <= _TEXT else rest[:_TEXT] + '…'}" or "-"


def _plain(text: str) -> str:
    """A text of a file on one line, with nothing in it that a terminal would obey."""
    return text if text.isprintable() else repr(text)[1:-1]


def _as_json(
    one: Stored, other: Stored, differences: Sequence[Difference], metadata: dict[str, tuple[list[str], list[str]]]
) -> dict[str, Any]:
    return {
        "a": str(one.path),
        "b": str(other.path),
        "equal": not differences,
        "tensors": len({*one.tensors, *other.tensors}),
        "differences": list(map(_difference_as_json, differences)),
        "metadata": {key: {"a": a, "b": b} for key, (a, b) in metadata.items()},
    }


def _difference_as_json(difference: Difference) -> dict[str, Any]:
    sides = {
        side: None if tensor is None else {"dtype": tensor.kind, "shape": list(tensor.shape)}
        for side, tensor in (("a", difference.a), ("b", difference.b))
    }
    told: dict[str, Any] = {"tensor": difference.name, **sides}
    if difference.first is None:
        return told
    first = {"index": list(difference.first.index)}
    for side, value, bits in zip("ab", difference.first.values, difference.first.bits, strict=True):
        first |= {side: _value_as_json(value), f"{side}_bits": bits}  # type: ignore[dict-item]
    return told | {
        "elements": difference.elements,
        "differing": difference.count,
        "first": first,
        "largest_difference": _value_as_json(difference.largest),
        "nans": difference.nans,
    }


def _value_as_json(value: Any) -> Any:  # noqa: ANN401 - of any element type
    """A number, or as a text what JSON has no number for, by the names that the contract's JSON has."""
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
