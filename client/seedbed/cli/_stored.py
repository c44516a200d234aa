"""Finds tensors in files from any writer: a safetensors file, a directory or an index of several, or a .npy file."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy_format

from seedbed._files import strict_json
from seedbed._files.errors import FileFormatError, FileSizeError
from seedbed._files.safetensors import ELEMENT_TYPES, SafetensorsFile, read_safetensors

INDEX_SUFFIX = ".safetensors.index.json"
NO_NAME = "array"  # the name of the tensor in a .npy file, which has none

_BYTE = np.dtype(np.uint8)
_NPY_KINDS = "biufc"
_NPY_ITEM_SIZES = (1, 2, 4, 8, 16)
_READERS = {1: npy_format.read_array_header_1_0, 2: npy_format.read_array_header_2_0}


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file.

    Attributes:
        path: The file.
        kind: The name of the element type.
        dtype: The dtype to compare by: that of the elements, or bytes where NumPy has no such dtype.
        shape: The dimensions.
        start: The position of the first byte in the file.
        size: The number of bytes.
    """

    path: Path
    kind: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    start: int
    size: int


@dataclass(frozen=True)
class Stored:
    """All tensors of a file or a directory.

    Attributes:
        path: The file or directory.
        tensors: The tensors by name.
        metadata: The distinct values in the metadata of all files, sorted, by key.
        has_names: Whether the tensors have names; in a .npy file they have none.
    """

    path: Path
    tensors: dict[str, StoredTensor]
    metadata: dict[str, list[str]]
    has_names: bool = True


def read_stored(path: Path) -> Stored:
    """Finds the tensors of a file or a directory by reading only headers.

    Raises:
        FileFormatError: If the format is unknown, or the files contradict each other.
        OSError: If a file cannot be read.
    """
    if path.is_dir():
        return _read_directory(path)
    if path.name.endswith(INDEX_SUFFIX):
        return _read_index(path, path)
    if path.suffix == ".npy":
        return Stored(path, {NO_NAME: _read_npy(path)}, {}, has_names=False)
    return _join(path, [read_safetensors(path)])


def _read_directory(folder: Path) -> Stored:
    indexes = sorted(folder.glob(f"*{INDEX_SUFFIX}"))
    single_files = (folder / _single_file_name(index) for index in indexes)
    candidates = [*indexes, *(path for path in single_files if path.exists())]
    if len(candidates) > 1:
        raise FileFormatError(f"{folder}: holds {' and '.join(path.name for path in candidates)}; give one of them")
    if indexes:
        return _read_index(folder, indexes[0])
    paths = sorted(folder.glob("*.safetensors"))
    if not paths:
        raise FileFormatError(f"{folder}: holds no .safetensors files")
    return _join(folder, map(read_safetensors, paths))


def _single_file_name(index: Path) -> str:
    return index.name.removesuffix(".index.json")


def _read_index(path: Path, index: Path) -> Stored:
    weight_map = _weight_map(index)
    stored = _join(path, [read_safetensors(index.parent / name) for name in sorted(set(weight_map.values()))])
    for name, file in weight_map.items():
        if name not in stored.tensors or stored.tensors[name].path.name != file:
            raise FileFormatError(f"{index}: tensor {name!r} is not in {file}")
    for name, tensor in stored.tensors.items():
        if name not in weight_map:
            raise FileFormatError(f"{index}: tensor {name!r} of {tensor.path.name} is missing")
    return stored


def _weight_map(index: Path) -> dict[str, str]:
    match strict_json.load(index):
        case {"weight_map": dict(weight_map)} if all(map(_is_file_name, weight_map.values())):
            return weight_map
    raise FileFormatError(f"{index}: not an index: its weight_map must name a file in its directory for each tensor")


def _is_file_name(value: object) -> bool:
    return isinstance(value, str) and value not in ("", ".", "..") and not set(value) & {"/", "\\", "\0"}


def _join(path: Path, files: Iterable[SafetensorsFile]) -> Stored:
    stored = Stored(path, {}, {})
    for file in files:
        for name, entry in file.tensors.items():
            if name in stored.tensors:
                both = f"{stored.tensors[name].path.name} and {file.path.name}"
                raise FileFormatError(f"{path}: tensor {name!r} is in {both}; give one of them")
            dtype = ELEMENT_TYPES.get(entry.dtype)
            kind = entry.dtype if dtype is None else dtype.name
            stored.tensors[name] = StoredTensor(
                file.path, kind, dtype or _BYTE, entry.shape, entry.start, entry.stop - entry.start
            )
        for key, value in file.metadata.items():
            values = stored.metadata.setdefault(key, [])
            values[:] = sorted({*values, value})
    return stored


def _read_npy(path: Path) -> StoredTensor:
    with path.open("rb") as file:
        try:
            version, _ = npy_format.read_magic(file)
            shape, is_fortran, dtype = _READERS[version](file)
        except OSError:
            raise
        except Exception as error:  # NumPy evaluates the header as Python, which can raise anything
            raise FileFormatError(f"{path}: not a .npy file, or its header is malformed") from error
        start = file.tell()
        size = file.seek(0, 2) - start
    if dtype.kind not in _NPY_KINDS or dtype.itemsize not in _NPY_ITEM_SIZES or dtype.char in "gG":
        raise FileFormatError(f"{path}: dtype {dtype} is not supported; only numbers of a portable size are")
    if min(shape, default=0) < 0:
        raise FileFormatError(f"{path}: not a .npy file: its shape is {shape}")
    if is_fortran and len(shape) > 1:
        raise FileFormatError(f"{path}: stored in Fortran order; save it again with numpy.ascontiguousarray")
    expected = int(np.prod(shape, dtype=object)) * dtype.itemsize
    if size != expected:
        raise FileSizeError(f"{path}: {'truncated' if size < expected else 'too long'}: {size} of {expected} bytes")
    return StoredTensor(path, dtype.name, dtype, tuple(shape), start, size)
