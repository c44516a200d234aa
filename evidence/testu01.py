"""TestU01's batteries (L'Ecuyer and Simard 2007), called in its shared library.

``python -m evidence.testu01 SOURCE BATTERY FILE`` runs one battery in this process, which the library kills on an
error; `run` starts such a process. The library calls a function that Numba compiles to get the words.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numba import carray, cfunc, types  # type: ignore[attr-defined]

from evidence.words import BUFFER, SOURCES, Words

BATTERIES = {"smallcrush": "bbattery_SmallCrush", "crush": "bbattery_Crush", "bigcrush": "bbattery_BigCrush"}

_HEAD = 4
"""The number of words in `_Feed.memory` before those of the source."""

INSTALL = (
    "TestU01 is not installed: apt-get install libtestu01-0 (Debian's section non-free), "
    "or build https://github.com/umontreal-simul/TestU01-2009 as a shared library and set TESTU01_LIBRARY to its path"
)


class _Generator(ctypes.Structure):
    """``unif01_Gen`` of unif01.h."""

    _fields_ = (
        ("state", ctypes.c_void_p),
        ("param", ctypes.c_void_p),
        ("name", ctypes.c_char_p),
        ("get_u01", ctypes.c_void_p),
        ("get_bits", ctypes.c_void_p),
        ("write", ctypes.c_void_p),
    )


class NotInstalledError(RuntimeError):
    """The library is missing; the message says how to get it."""


def library() -> ctypes.CDLL:
    """Loads the library.

    Raises:
        NotInstalledError: The library is missing.
    """
    path = os.environ.get("TESTU01_LIBRARY") or ctypes.util.find_library("testu01")
    if path is None:
        raise NotInstalledError(INSTALL)
    try:
        return ctypes.CDLL(path)
    except OSError as error:
        raise NotInstalledError(f"{INSTALL} ({error})") from error


def is_installed() -> bool:
    """Whether the library is installed."""
    try:
        library()
    except NotInstalledError:
        return False
    return True


def run(source: str, battery: str, report: Path) -> dict[str, Any]:
    """Runs a battery on a source of words in its own process.

    Args:
        source: One of `evidence.words.SOURCES`.
        battery: One of `BATTERIES`.
        report: The file for TestU01's own report.

    Returns:
        ``words``, ``seconds`` (of CPU time), and ``tests``: the name and the p-value of each statistic.

    Raises:
        NotInstalledError: The library is missing.
        RuntimeError: The battery failed.
    """
    library()
    result = report.with_suffix(".p-values.json")
    command = [sys.executable, "-m", "evidence.testu01", source, battery, str(result)]
    with report.open("w", encoding="utf-8") as file:
        done = subprocess.run(command, stdout=file, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{battery} on {source} ended with {done.returncode}: {done.stderr}; see {report}")
    outcome: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    result.unlink()
    return outcome


class _Feed:
    """Passes the words of a source to the library, one at a time.

    The compiled functions see only ``memory``: the next word's position, the number of words, the words.
    """

    def __init__(self, buffers: Iterator[Words]) -> None:
        self.memory = np.zeros(_HEAD + BUFFER, np.uint32)
        self._buffers = buffers
        self._words_before = 0
        refill = ctypes.CFUNCTYPE(None)(self._refill_or_die)

        @cfunc(types.uint32(types.voidptr))
        def word(state):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
            memory = carray(state, _HEAD + BUFFER, np.uint32)
            if memory[0] == memory[1]:
                refill()
            position = memory[0]
            memory[0] = position + np.uint32(1)
            return memory[_HEAD + position]

        @cfunc(types.uint64(types.voidptr, types.voidptr))
        def bits(_param, state):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
            return np.uint64(word(state))

        @cfunc(types.float64(types.voidptr, types.voidptr))
        def u01(_param, state):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
            return np.float64(word(state)) * 2.0**-32

        @cfunc(types.void(types.voidptr))
        def write(_state):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
            pass

        self._kept_alive = (refill, word, bits, u01, write)
        self.generator = _Generator(self.memory.ctypes.data, None, b"seedbed", u01.address, bits.address, write.address)

    @property
    def words(self) -> int:
        """The number of words that the library has read."""
        return self._words_before + int(self.memory[0])

    def _refill_or_die(self) -> None:
        """Loads the next words. On an error it exits, because the library would continue with old words."""
        try:
            words = next(self._buffers)
            self._words_before += int(self.memory[1])
            self.memory[_HEAD : _HEAD + len(words)] = words
            self.memory[:2] = 0, len(words)
        except BaseException:  # including KeyboardInterrupt
            traceback.print_exc()
            os._exit(1)


def _main(source: str, battery: str, result: str) -> None:
    testu01 = library()
    feed = _Feed(SOURCES[source].buffers())
    begin = time.process_time()
    getattr(testu01, BATTERIES[battery])(ctypes.byref(feed.generator))
    seconds = time.process_time() - begin
    number = ctypes.c_int.in_dll(testu01, "bbattery_NTests").value
    p_values = (ctypes.c_double * number).in_dll(testu01, "bbattery_pVal")
    names = (ctypes.c_char_p * number).in_dll(testu01, "bbattery_TestNames")
    tests = [{"name": (name or b"").decode().strip(), "p": p} for name, p in zip(names, p_values, strict=True)]
    outcome = {"words": feed.words, "seconds": seconds, "tests": tests}
    Path(result).write_text(json.dumps(outcome), encoding="utf-8")


if __name__ == "__main__":
    _main(*sys.argv[1:])
