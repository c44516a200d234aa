"""Atomic writing of files, by many threads at a time.

A file is written beside its destination under a temporary name. It has its full size from the start, and is renamed
once it is complete and synced. If anything goes wrong before that, the temporary file is removed, and an existing file
at the destination is untouched. A killed process leaves its temporary file behind; the next process that writes to the
same destination removes it.
"""

import contextlib
import errno
import glob
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np


@contextlib.contextmanager
def create_file(path: Path) -> Iterator[BinaryIO]:
    """Yields a temporary file beside ``path`` that is renamed to it at the end, or removed on any exception.

    A device or a pipe, such as ``/dev/null``, is written directly.

    Raises:
        OSError: If the file cannot be written, or the disk is full; ``filename`` is ``path``.
    """
    if _is_device(path):
        with path.open("wb") as file:
            yield file
        return
    if not path.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, f"directory {path.parent} does not exist; create it first", str(path))
    path = Path(os.path.realpath(path))  # replaces the target of a symbolic link, not the link
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
            error.filename = str(path)  # the user knows nothing of the temporary name
        raise
    finally:
        temporary.unlink(missing_ok=True)
    _sync_directory(path.parent)


def _is_device(path: Path) -> bool:
    return path.exists() and not path.is_file() and not path.is_dir()


def refuse_device(path: Path) -> None:
    """Refuses a path that does not support random access.

    Raises:
        OSError: If the path is a pipe or a device.
    """
    if _is_device(path):
        raise OSError(
            errno.ESPIPE, "is a pipe or a device, but pieces are written out of order; give a file", str(path)
        )


def _temporary_name(path: Path, unique: str) -> str:
    return f".{path.name[:40]}.{unique}.part"


def _remove_abandoned(path: Path) -> None:
    """Removes the temporary files of processes that were killed while writing to the same path."""
    for temporary in path.parent.glob(_temporary_name(Path(glob.escape(path.name[:40])), "?" * 8)):
        with contextlib.suppress(OSError), temporary.open("r+b") as file:
            if _lock(file, wait=False):
                temporary.unlink()


def _open_locked(path: Path) -> BinaryIO:
    """Creates a file and locks it, so that other processes see that it is in use."""
    while True:
        file = path.open("x+b")
        _lock(file, wait=True)
        if os.fstat(file.fileno()).st_nlink:
            return file
        file.close()  # another process removed it as abandoned just before it was locked


def _lock(file: BinaryIO, *, wait: bool) -> bool:
    """Locks a file until it is closed or its process ends; False if it is locked already, or locks are unsupported.

    Where locks are unsupported, as on some network file systems, no temporary file is ever treated as abandoned.
    """
    try:
        import fcntl  # noqa: PLC0415 - not available on Windows

        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (ImportError, OSError):
        return False
    return True


def _sync_directory(path: Path) -> None:
    # Makes the rename survive a power failure. Not every file system can open directories.
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def set_size(file: BinaryIO, size: int) -> None:
    """Sets the file's size without reserving blocks; fails early if the disk has too little room.

    Reserving the blocks would cost one thread a pass over all pages of a file in memory. If the disk fills up later,
    the write that finds no room fails.
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


def write_at(file: BinaryIO, position: int, values: np.ndarray[Any, Any]) -> None:
    """Writes values at a position, independently of other threads that write to the same file."""
    content = values.view(np.uint8).data
    while content:
        try:
            count = os.pwrite(file.fileno(), content, position)
        except OSError as error:
            raise OSError(error.errno, error.strerror, file.name) from None
        content, position = content[count:], position + count  # a nearly full disk may accept only a part
