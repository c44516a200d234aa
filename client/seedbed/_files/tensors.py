"""Tensor files: written atomically, by many threads at a time, read without loading them.

A file under construction lies beside its destination under a temporary name, has its full size from the start, and
takes the final name only when it is complete and synced. Whatever goes wrong before, nothing is left behind, and a file
that bore the name already is untouched. A killed process leaves its temporary file; the next that writes to the same
destination removes it.
"""

import contextlib
import errno
import glob
import json
import math
import os
import secrets
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO

import ml_dtypes
import numpy as np
from numpy.lib import format as npy_format

from seedbed._files import strict_json

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


class FileFormatError(ValueError):
    """A file is not, or cannot be, what its name says."""


class FileSizeError(FileFormatError):
    """A safetensors file is shorter or longer than its header says."""


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
def create_npy(
    path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]
) -> Iterator[Callable[[int, np.ndarray[Any, Any]], None]]:
    """Creates a ``.npy`` file and yields a function that writes a piece: its first element, its values.

    Pieces may come in any order and from many threads. On success the file replaces ``path``.

    Raises:
        FileFormatError: the type is bfloat16, which the format has no name for.
        OSError: the file cannot be written; the disk is full.
    """
    _check_npy(dtype)
    _refuse_device(path)
    with create_file(path) as file:
        write_npy_header(file, dtype, shape)
        start = file.tell()
        _set_size(file, start + math.prod(shape) * dtype.itemsize)

        def write(first: int, values: np.ndarray[Any, Any]) -> None:
            _write_at(file, start + first * values.itemsize, values)

        yield write


def write_npy_header(file: IO[bytes], dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    """Writes what a ``.npy`` file begins with; the elements follow, in row-major order.

    Raises:
        FileFormatError: the type is bfloat16, which the format has no name for.
        OSError: it cannot be written.
    """
    _check_npy(dtype)
    header = {"descr": npy_format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    npy_format.write_array_header_1_0(file, header)


def _check_npy(dtype: np.dtype[Any]) -> None:
    if dtype == ml_dtypes.bfloat16:
        raise FileFormatError("the .npy format has no bfloat16; write a .safetensors file, or ask for float32")


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
    _refuse_device(path)
    header, entries = _safetensors_header(tensors, metadata)
    with create_file(path) as file:
        file.write(header)
        _set_size(file, max((entry.stop for entry in entries.values()), default=len(header)))

        def write(name: str, first: int, values: np.ndarray[Any, Any]) -> None:
            _write_at(file, entries[name].start + first * values.itemsize, values)

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


@contextlib.contextmanager
def create_file(path: Path) -> Iterator[BinaryIO]:
    """Yields a new file beside ``path`` that takes its name in the end, or vanishes on any exception.

    A device or a pipe of that name, such as ``/dev/null``, is written itself.

    Raises:
        OSError: the file cannot be written, or the disk is full; ``filename`` is ``path``.
    """
    if _is_device(path):
        with path.open("wb") as file:
            yield file
        return
    if not path.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, f"there is no directory {path.parent}; make it first", str(path))
    path = Path(os.path.realpath(path))  # through a symbolic link, so that the link stays one
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    _remove_abandoned(path)
    temporary = path.with_name(_temporary_name(path, secrets.token_hex(4)))
    try:
        with _open_locked(temporary) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        if error.filename == str(temporary):
            error.filename = str(path)  # the user never asked for the temporary name
        raise
    finally:
        temporary.unlink(missing_ok=True)
    _sync_directory(path.parent)


def _is_device(path: Path) -> bool:
    return path.exists() and not path.is_file() and not path.is_dir()


def _refuse_device(path: Path) -> None:
    if _is_device(path):
        raise OSError(
            errno.ESPIPE, "is a pipe or a device, and pieces are written in any order; give a file", str(path)
        )


def _temporary_name(path: Path, unique: str) -> str:
    return f".{path.name[:40]}.{unique}.part"


def _remove_abandoned(path: Path) -> None:
    """Removes the temporary files of processes that were killed while they wrote to the same path."""
    for temporary in path.parent.glob(_temporary_name(Path(glob.escape(path.name[:40])), "?" * 8)):
        with contextlib.suppress(OSError), temporary.open("r+b") as file:
            if _lock(file, wait=False):
                temporary.unlink()


def _open_locked(path: Path) -> BinaryIO:
    """Creates a file whose lock tells others that it is in use."""
    while True:
        file = path.open("x+b")
        _lock(file, wait=True)
        if os.fstat(file.fileno()).st_nlink:
            return file
        file.close()  # another process took it for abandoned in the moment before it was locked


def _lock(file: BinaryIO, *, wait: bool) -> bool:
    """Locks a file until it is closed, if only by its process's death; False if another has it, or there are no locks.

    Where there are none, as on some network file systems, no file is ever taken for abandoned.
    """
    try:
        import fcntl  # noqa: PLC0415 - Windows has none

        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (ImportError, OSError):
        return False
    return True


def _sync_directory(path: Path) -> None:
    # Makes the new name itself survive a power cut; not every file system lets directories be opened.
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _set_size(file: BinaryIO, size: int) -> None:
    """Gives the file its full size, of which no block is on the disk yet; tells now if they cannot have room.

    To reserve them would cost a pass of one thread over all pages of a file in memory. Whatever takes the room
    meanwhile, the write that finds none fails.
    """
    file.flush()
    if hasattr(os, "fstatvfs"):
        room = os.fstatvfs(file.fileno())
        if room.f_blocks and size > room.f_bfree * room.f_frsize:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), file.name)
    try:
        file.truncate(size)
    except OSError as error:
        raise OSError(error.errno, error.strerror, file.name) from None


def _write_at(file: BinaryIO, position: int, values: np.ndarray[Any, Any]) -> None:
    """Writes values at a place, with no word to other threads that do the same."""
    content = values.view(np.uint8).data
    while content:
        try:
            count = os.pwrite(file.fileno(), content, position)
        except OSError as error:
            raise OSError(error.errno, error.strerror, file.name) from None
        content, position = content[count:], position + count  # a disk that is about to be full takes a part
