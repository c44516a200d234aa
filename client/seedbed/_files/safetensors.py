"""Writes safetensors files piece by piece, and reads them without loading the tensors."""

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

# The dtypes that Seedbed samples, by their safetensors names.
SAFETENSORS_DTYPES: dict[np.dtype[Any], str] = {
    np.dtype(np.float32): "F32",
    np.dtype(np.float16): "F16",
    np.dtype(ml_dtypes.bfloat16): "BF16",
    np.dtype(np.float64): "F64",
    np.dtype(np.complex64): "C64",
}
# All dtypes of the format whose elements are whole bytes.
ELEMENT_TYPES: dict[str, np.dtype[Any]] = {
    **{name: dtype for dtype, name in SAFETENSORS_DTYPES.items()},
    "BOOL": np.dtype(np.bool_),
    **{f"{kind}{bits}": np.dtype(f"{kind.lower()}{bits // 8}") for kind in "UI" for bits in (8, 16, 32, 64)},
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
}

Layout = Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]]
"""The dtype and shape of each tensor, by name."""

_METADATA_KEY = "__metadata__"
_MAX_HEADER_BYTES = 100_000_000  # the official reader refuses longer headers
_DATA_ALIGNMENT = 64
_MAX_COUNT = 2**63 - 1  # the maximum of a position or a dimension


@dataclass(frozen=True)
class TensorEntry:
    """One tensor in the header of a safetensors file.

    Attributes:
        dtype: The dtype by its safetensors name, such as ``"F32"``.
        shape: The dimensions.
        start: The position of the first byte in the file.
        stop: One past the position of the last byte.
    """

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


@dataclass(frozen=True)
class SafetensorsFile:
    """The checked header of a safetensors file; tensors are mapped on demand."""

    path: Path
    metadata: dict[str, str]
    tensors: dict[str, TensorEntry]

    def open_tensor(self, name: str) -> np.ndarray[Any, Any]:
        """A read-only view of a tensor's data, which is paged in as it is read.

        Raises:
            KeyError: If there is no tensor of that name.
            FileFormatError: If Seedbed does not support the tensor's dtype.
        """
        entry = self.tensors[name]
        dtype = ELEMENT_TYPES.get(entry.dtype)
        if dtype not in SAFETENSORS_DTYPES:
            raise FileFormatError(f"{self.path}: tensor {name!r} has dtype {entry.dtype}, which is not supported")
        try:
            if 0 in entry.shape:  # the system cannot map zero bytes
                return np.empty(entry.shape, dtype)
            return np.memmap(self.path, dtype, "r", entry.start, entry.shape)
        except ValueError as error:  # NumPy limits the number of dimensions
            raise FileFormatError(f"{self.path}: tensor {name!r} cannot be a NumPy array: {error}") from error


@contextlib.contextmanager
def create_safetensors(
    path: Path, tensors: Layout, metadata: Mapping[str, str]
) -> Iterator[Callable[[str, int, np.ndarray[Any, Any]], None]]:
    """Creates a safetensors file and yields a function that writes one piece.

    The function takes the tensor's name, the piece's first element and its values. Pieces may arrive in any order and
    from many threads. They are written directly, which is faster than through a memory map, where every page faults.
    On success the file replaces ``path``.

    Args:
        path: The file to create.
        tensors: The dtype and shape of each tensor, by name.
        metadata: The strings to keep in the header.

    Raises:
        FileFormatError: If a tensor has a name that the format reserves, or the header is longer than the format
            allows.
        OSError: If the file cannot be written, or the disk is full.
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
        FileFormatError: If it is not a safetensors file.
        FileSizeError: If it is truncated, or has extra bytes.
        OSError: If it cannot be read.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        prefix = file.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
        if not 2 <= length <= _MAX_HEADER_BYTES:
            raise FileFormatError(f"{path}: not a safetensors file")
        header = file.read(length)
    if len(header) < length:
        raise FileFormatError(f"{path}: not a safetensors file, or truncated within its header")
    try:
        metadata, tensors = _parse_header(header)
    except ValueError as error:
        raise FileFormatError(f"{path}: not a safetensors file: its header is malformed: {error}") from error
    _check_extents(path, tensors, 8 + length, size)
    return SafetensorsFile(path, metadata, tensors)


def _parse_header(header: bytes) -> tuple[dict[str, str], dict[str, TensorEntry]]:
    fields = strict_json.loads(header)
    if not isinstance(fields, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004 - the file is wrong, not a Python type
    metadata = fields.pop(_METADATA_KEY, None)
    metadata = {} if metadata is None else metadata  # the official reader accepts null, too
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError(f"{_METADATA_KEY} is not an object of strings")
    return metadata, {name: _entry(name, value, 8 + len(header)) for name, value in fields.items()}


def _entry(name: str, value: object, data_start: int) -> TensorEntry:
    match value:
        case {"dtype": str(dtype), "shape": [*shape], "data_offsets": [begin, end]}:
            pass
        case _:
            raise ValueError(f"tensor {name!r}: expected dtype, shape and two data_offsets")
    if not all(map(_is_count, [*shape, begin, end])) or end < begin:
        raise ValueError(
            f"tensor {name!r}: invalid shape or data_offsets: {_abbreviated(shape)}, {_abbreviated([begin, end])}"
        )
    element = ELEMENT_TYPES.get(dtype)
    if element is not None and end - begin != math.prod(shape) * element.itemsize:
        raise ValueError(
            f"tensor {name!r}: shape and data_offsets disagree: {dtype} {_abbreviated(shape)} in {end - begin} bytes"
        )
    return TensorEntry(dtype, tuple(shape), data_start + begin, data_start + end)


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value <= _MAX_COUNT  # not isinstance: a bool is an int, too


def _abbreviated(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}…"


def _check_extents(path: Path, tensors: Mapping[str, TensorEntry], data_start: int, size: int) -> None:
    end = data_start
    for name, entry in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].stop)):
        if entry.start != end:
            raise FileFormatError(
                f"{path}: the data of tensor {name!r} overlaps another tensor's, or there is a gap before it"
            )
        end = entry.stop
    if size < end:
        raise FileSizeError(f"{path}: truncated: {size} of {end} bytes")
    if size > end:
        raise FileSizeError(f"{path}: too long: {size - end} bytes after the last tensor")


def _safetensors_header(tensors: Layout, metadata: Mapping[str, str]) -> tuple[bytes, dict[str, TensorEntry]]:
    if _METADATA_KEY in tensors:
        raise FileFormatError(f"safetensors reserves the name {_METADATA_KEY!r}; give the tensor another name")
    fields: dict[str, Any] = {_METADATA_KEY: dict(metadata)}
    offset = 0
    # Wide dtypes come first, so that every tensor is aligned to its own element size.
    for name, (dtype, shape) in sorted(tensors.items(), key=lambda item: -item[1][0].itemsize):
        end = offset + math.prod(shape) * dtype.itemsize
        fields[name] = {"dtype": SAFETENSORS_DTYPES[dtype], "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % _DATA_ALIGNMENT)
    if len(text) > _MAX_HEADER_BYTES:
        raise FileFormatError(f"the header would have {len(text)} bytes; safetensors allows {_MAX_HEADER_BYTES}")
    del fields[_METADATA_KEY]
    entries = {name: _entry(name, value, 8 + len(text)) for name, value in fields.items()}
    return struct.pack("<Q", len(text)) + text, entries
