"""safetensors files: written piece by piece, read without loading them."""

import contextlib
import json
import math
import os
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from seedbed._files import strict_json
from seedbed._files.errors import FileFormatError, FileSizeError
from seedbed._files.writing import create_file, refuse_device, set_size, write_at

# The names that safetensors has for our types.
SAFETENSORS_DTYPES: dict[np.dtype[Any], str] = {
    np.dtype(np.float32): "F32",
    np.dtype(np.float16): "F16",
    np.dtype(ml_dtypes.bfloat16): "BF16",
    np.dtype(np.float64): "F64",
    np.dtype(np.complex64): "C64",
}
# All types of the format whose elements are whole bytes.
ELEMENT_TYPES: dict[str, np.dtype[Any]] = {
    **{name: dtype for dtype, name in SAFETENSORS_DTYPES.items()},
    "BOOL": np.dtype(np.bool_),
    **{f"{kind}{bits}": np.dtype(f"{kind.lower()}{bits // 8}") for kind in "UI" for bits in (8, 16, 32, 64)},
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
}

Layout = Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]]
"""Type and shape of each tensor, by name."""

_METADATA_KEY = "__metadata__"
_MAX_HEADER_BYTES = 100_000_000  # the official reader refuses longer ones
_DATA_ALIGNMENT = 64
_MAX_COUNT = 2**63 - 1  # of a position, or of elements in a dimension


@dataclass(frozen=True)
class TensorEntry:
    """One tensor of a safetensors file, as the file's header describes it.

    Attributes:
        dtype: safetensors' name of the type, such as ``"F32"``.
        shape: the dimensions.
        start: position of the first byte in the file.
        stop: one past the position of the last byte.
    """

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


@dataclass(frozen=True)
class SafetensorsFile:
    """The header of a safetensors file, checked; the tensors are mapped on demand."""

    path: Path
    metadata: dict[str, str]
    tensors: dict[str, TensorEntry]

    def open_tensor(self, name: str) -> np.ndarray[Any, Any]:
        """Returns a read-only view of a tensor's data, which is paged in as it is read.

        Raises:
            KeyError: there is no tensor of that name.
            FileFormatError: the tensor's type is none of Seedbed's.
        """
        entry = self.tensors[name]
        dtype = ELEMENT_TYPES.get(entry.dtype)
        if dtype not in SAFETENSORS_DTYPES:
            raise FileFormatError(f"{self.path}: tensor {name!r} has type {entry.dtype}, which Seedbed does not make")
        try:
            if 0 in entry.shape:  # an empty map is an error to the system
                return np.empty(entry.shape, dtype)
            return np.memmap(self.path, dtype, "r", entry.start, entry.shape)
        except ValueError as error:  # of more dimensions than arrays have
            raise FileFormatError(f"{self.path}: tensor {name!r} is no array of NumPy's: {error}") from error


@contextlib.contextmanager
def create_safetensors(
    path: Path, tensors: Layout, metadata: Mapping[str, str]
) -> Iterator[Callable[[str, int, np.ndarray[Any, Any]], None]]:
    """Creates a safetensors file and yields a function that writes a piece: tensor's name, first element, values.

    Pieces may come in any order and from many threads. No memory is needed but theirs, and writing is faster than
    through a memory map, whose every page faults. On success the file replaces ``path``.

    Args:
        path: where the file shall be.
        tensors: type and shape of each tensor, by name.
        metadata: strings to keep in the header.

    Raises:
        FileFormatError: a tensor bears a name that the format reserves; the header is longer than the format allows.
        OSError: the file cannot be written; the disk is full.
    """
    refuse_device(path)
    header, entries = _safetensors_header(tensors, metadata)
    with create_file(path) as file:
        file.write(header)
        set_size(file, max((entry.stop for entry in entries.values()), default=len(header)))

        def write(name: str, first: int, values: np.ndarray[Any, Any]) -> None:
            write_at(file, entries[name].start + first * values.itemsize, values)

        yield write


def read_safetensors(path: Path) -> SafetensorsFile:
    """Reads and checks the header of a safetensors file.

    Raises:
        FileFormatError: it is not a safetensors file.
        FileSizeError: it is cut short, or too long.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        prefix = file.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
        if not 2 <= length <= _MAX_HEADER_BYTES:
            raise FileFormatError(f"{path}: not a safetensors file")
        header = file.read(length)
    if len(header) < length:
        raise FileFormatError(f"{path}: not a safetensors file, or cut short within its header")
    try:
        metadata, tensors = _parse_header(header)
    except ValueError as error:
        raise FileFormatError(f"{path}: not a safetensors file: its header is malformed: {error}") from error
    _check_extents(path, tensors, 8 + length, size)
    return SafetensorsFile(path, metadata, tensors)


def _parse_header(header: bytes) -> tuple[dict[str, str], dict[str, TensorEntry]]:
    fields = strict_json.loads(header)
    if not isinstance(fields, dict):
        raise ValueError("it is no object, {…}")  # noqa: TRY004 - of the file, not of a type
    metadata = fields.pop(_METADATA_KEY, None)
    metadata = {} if metadata is None else metadata  # the official reader takes null, too
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError(f"{_METADATA_KEY} is no object of texts")
    return metadata, {name: _entry(name, value, 8 + len(header)) for name, value in fields.items()}


def _entry(name: str, value: object, data_start: int) -> TensorEntry:
    match value:
        case {"dtype": str(dtype), "shape": [*shape], "data_offsets": [begin, end]}:
            pass
        case _:
            raise ValueError(f"tensor {name!r}: expected dtype, shape and two data_offsets")
    if not all(map(_is_count, [*shape, begin, end])) or end < begin:
        raise ValueError(f"tensor {name!r}: no extent: shape {_short(shape)}, data_offsets {_short([begin, end])}")
    element = ELEMENT_TYPES.get(dtype)
    if element is not None and end - begin != math.prod(shape) * element.itemsize:
        raise ValueError(f"tensor {name!r}: extent and shape disagree: {dtype} {_short(shape)} in {end - begin} bytes")
    return TensorEntry(dtype, tuple(shape), data_start + begin, data_start + end)


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value <= _MAX_COUNT  # true is an int, too


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}…"


def _check_extents(path: Path, tensors: Mapping[str, TensorEntry], data_start: int, size: int) -> None:
    end = data_start
    for name, entry in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].stop)):
        if entry.start != end:
            raise FileFormatError(f"{path}: the data of tensor {name!r} overlaps another's or leaves a gap before it")
        end = entry.stop
    if size < end:
        raise FileSizeError(f"{path}: cut short: {size} bytes of {end}")
    if size > end:
        raise FileSizeError(f"{path}: {size - end} bytes too long: they belong to no tensor")


def _safetensors_header(tensors: Layout, metadata: Mapping[str, str]) -> tuple[bytes, dict[str, TensorEntry]]:
    if _METADATA_KEY in tensors:
        raise FileFormatError(
            f"a tensor in a safetensors file cannot be called {_METADATA_KEY!r}; give it another name"
        )
    fields: dict[str, Any] = {_METADATA_KEY: dict(metadata)}
    offset = 0
    # Wide types first, so that every tensor is aligned to its own element size.
    for name, (dtype, shape) in sorted(tensors.items(), key=lambda item: -item[1][0].itemsize):
        end = offset + math.prod(shape) * dtype.itemsize
        fields[name] = {"dtype": SAFETENSORS_DTYPES[dtype], "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % _DATA_ALIGNMENT)
    if len(text) > _MAX_HEADER_BYTES:
        raise FileFormatError(f"the header would have {len(text)} bytes, safetensors allows {_MAX_HEADER_BYTES}")
    del fields[_METADATA_KEY]
    entries = {name: _entry(name, value, 8 + len(text)) for name, value in fields.items()}
    return struct.pack("<Q", len(text)) + text, entries
