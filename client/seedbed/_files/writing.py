"""Files that take their names only when they are complete, written by many threads at a time.

A file under construction lies beside its destination under a temporary name, has its full size from the start, and
takes the final name only when it is complete and synced. If anything goes wrong before, nothing is left behind, and a
file that already has the name is untouched. A killed process leaves its temporary file; the next process that writes
to the same destination removes it.
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


def refuse_device(path: Path) -> None:
    """Refuses what cannot be written at any place.

    Raises:
        OSError: the path is a pipe or a device.
    """
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


def set_size(file: BinaryIO, size: int) -> None:
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


def write_at(file: BinaryIO, position: int, values: np.ndarray[Any, Any]) -> None:
    """Writes values at a place, with no word to other threads that do the same."""
    content = values.view(np.uint8).data
    while content:
        try:
            count = os.pwrite(file.fileno(), content, position)
        except OSError as error:
            raise OSError(error.errno, error.strerror, file.name) from None
        content, position = content[count:], position + count  # a disk that is about to be full takes a part
