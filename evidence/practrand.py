"""PractRand (Doty-Humphrey): runs its tests on words from a pipe, for any time."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import threading
import time
from pathlib import Path
from typing import IO, Any

from evidence.words import SOURCES

INSTALL = (
    "PractRand is not installed: build RNG_test from https://pracrand.sourceforge.net/ (README, “Linux”), "
    "and put it on the PATH or set PRACTRAND to its path"
)

_STAGE = re.compile(r"length= .*\(2\^(?P<log>\d+(?:\.\d+)?) bytes\)")
_COUNT = re.compile(r"no anomalies in (\d+) test result|\.\.\.and (\d+) test result")
_ANOMALY = re.compile(r"^\s+(?P<name>\S.*?)\s+R[=<>]\s*\S+\s+p\s*~?=\s*(?P<p>\S+)\s+(?P<verdict>\S.*?)\s*$")


class NotInstalledError(RuntimeError):
    """The program is missing; the message says how to get it."""


def program() -> str:
    """The path of the program.

    Raises:
        NotInstalledError: The program is missing.
    """
    path = os.environ.get("PRACTRAND") or shutil.which("RNG_test")
    if path is None or not Path(path).is_file():
        raise NotInstalledError(INSTALL)
    return path


def run(source: str, minutes: float, report: Path) -> dict[str, Any]:
    """Tests a source for some time. Results arrive at each power of 2 bytes, and the last ones count.

    Args:
        source: One of `evidence.words.SOURCES`.
        minutes: How long to test; in any case, it waits for the first result, at 2^27 bytes.
        report: The file for PractRand's own report.

    Returns:
        ``bytes`` and ``seconds`` until the last result, ``statistics`` (their number in it), and ``anomalies``:
        PractRand's verdicts on unusual statistics of all results.

    Raises:
        NotInstalledError: The program is missing.
        RuntimeError: The program ended without a result.
    """
    command = [program(), "stdin32", "-tlmin", "128MB", "-tlmax", "64TB"]
    tester = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=False)
    assert tester.stdin is not None
    assert tester.stdout is not None
    feeder = threading.Thread(target=_feed, args=(source, tester.stdin), daemon=True)
    feeder.start()
    begin = time.perf_counter()
    deadline = threading.Timer(minutes * 60, tester.terminate)
    deadline.start()
    lines: list[tuple[float, str]] = []
    with report.open("w", encoding="utf-8") as file:
        for raw in tester.stdout:
            line = raw.decode(errors="replace").rstrip("\n")
            file.write(line + "\n")
            lines.append((time.perf_counter() - begin, line))
    deadline.cancel()
    tester.wait()
    return parsed(lines)


def _feed(source: str, pipe: IO[bytes]) -> None:
    try:
        for words in SOURCES[source].buffers():
            pipe.write(words.astype("<u4", copy=False).data)
    except (BrokenPipeError, ValueError):
        return  # the program has stopped reading


def parsed(lines: list[tuple[float, str]]) -> dict[str, Any]:
    """Parses the report; each line comes with the seconds at which it was printed.

    Raises:
        RuntimeError: The report has no result.

    >>> parsed([(1.0, "length= 128 megabytes (2^27 bytes), time= 1.0 seconds"),
    ...         (1.1, "  Test Name         Raw       Processed     Evaluation"),
    ...         (1.2, "  BCFN(2+1,13-2,T)  R= +36.7  p =  2.5e-18   FAIL !"),
    ...         (1.3, "  ...and 120 test result(s) without anomalies")])["anomalies"]
    [{'log2_bytes': 27.0, 'name': 'BCFN(2+1,13-2,T)', 'p': '2.5e-18', 'verdict': 'FAIL !'}]
    """
    anomalies: list[dict[str, Any]] = []
    log, seconds, statistics = None, 0.0, 0
    unusual = 0
    current = None
    for at, line in lines:
        if stage := _STAGE.search(line):
            current, unusual = float(stage["log"]), 0
        elif current is not None and (found := _ANOMALY.match(line)):
            unusual += 1
            anomalies.append({"log2_bytes": current, **found.groupdict()})
        elif current is not None and (rest := _COUNT.search(line)):
            log, seconds, statistics = current, at, unusual + int(rest[1] or rest[2])
    if log is None:
        raise RuntimeError("PractRand ended without a result: " + " | ".join(line for _, line in lines[-5:]))
    return {"bytes": round(2**log), "seconds": seconds, "statistics": statistics, "anomalies": anomalies}


__all__ = ["INSTALL", "NotInstalledError", "parsed", "program", "run"]
