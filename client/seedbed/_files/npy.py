"""Writes NumPy's ``.npy`` files piece by piece."""

import contextlib
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import ml_dtypes
import numpy as np
from numpy.lib import format as npy_format

from seedbed._files.errors import FileFormatError
from seedbed._files.writing import create_file, refuse_device, set_size, write_at


@contextlib.contextmanager
def create_npy(
    path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]
) -> Iterator[Callable[[int, np.ndarray[Any, Any]], None]]:
    """Creates a ``.npy`` file and yields a function that writes one piece, given its first element and its values.

    Pieces may arrive in any order and from many threads. On success the file replaces ``path``.

    Raises:
        FileFormatError: If the dtype is bfloat16, which the format does not support.
        OSError: If the file cannot be written, or the disk is full.
    """
    _check_npy(dtype)
    refuse_device(path)
    with create_file(path) as file:
        write_npy_header(file, dtype, shape)
        start = file.tell()
        set_size(file, start + math.prod(shape) * dtype.itemsize)

        def write(first: int, values: np.ndarray[Any, Any]) -> None:
            write_at(file, start + first * values.itemsize, values)

        yield write


def write_npy_header(file: IO[bytes], dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    """Writes the header of a ``.npy`` file; the elements follow in row-major order.

    Raises:
        FileFormatError: If the dtype is bfloat16, which the format does not support.
        OSError: If the header cannot be written.
    """
    _check_npy(dtype)
    header = {"descr": npy_format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    npy_format.write_array_header_1_0(file, header)


def _check_npy(dtype: np.dtype[Any]) -> None:
    if dtype == ml_dtypes.bfloat16:
        raise FileFormatError("the .npy format does not support bfloat16; write a .safetensors file, or use float32")
