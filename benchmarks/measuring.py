"""Measures competitors in turns, so that a noisy machine affects all of them alike, and holds the results."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import platform
import re
import statistics
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from seedbed_server.engine import usable_cores

Key = TypeVar("Key", bound=Hashable)
Result = TypeVar("Result")
Say = Callable[[str], None]
"""Shows the user what is being measured."""


@dataclass(frozen=True)
class Sizes:
    """How much is measured; published figures use the defaults."""

    engine_runs: int = 9
    engine_elements: int = 1 << 22
    large_elements: int = 1 << 24  # 64 MiB of float32: larger than the caches
    shard_columns: int = 8192
    small_tensors: int = 1000
    orthogonal_rows: int = 1024
    transport_runs: int = 7
    transport_mib: int = 256
    sweep_runs: int = 5
    chunk_sizes: int = 7  # the smallest of transport.CHUNK_KIB
    latency_runs: int = 1000
    first_chunk_runs: int = 50
    process_runs: int = 7
    model: str = "gpt2-124m"
    model_runs: int = 5
    elements_runs: int = 5
    elements_largest: int = 1_000_000_000
    elements_in_memory: int = 100_000_000  # larger tensors are counted and dropped chunk by chunk
    streams_runs: int = 3
    streams_seconds: float = 3.0
    streams_most: int = 256
    memory_gib: float = 20.0
    gpt2_layers: int = 12
    checkpoint_runs: int = 3
    checkpoint_tensors: str = "model.layers.[0-5].*"


QUICK = Sizes(
    engine_runs=2,
    engine_elements=1 << 20,
    large_elements=1 << 22,
    shard_columns=2048,
    orthogonal_rows=256,
    transport_runs=2,
    transport_mib=32,
    sweep_runs=2,
    latency_runs=100,
    first_chunk_runs=10,
    process_runs=1,
    model="resnet-50",
    model_runs=2,
    elements_runs=2,
    elements_largest=100_000_000,
    elements_in_memory=10_000_000,
    streams_runs=1,
    streams_seconds=0.8,
    streams_most=64,
    memory_gib=1.0,
    checkpoint_runs=1,
    checkpoint_tensors="model.layers.0.*",
)

TINY = Sizes(
    engine_runs=1,
    engine_elements=1 << 16,
    large_elements=1 << 16,
    shard_columns=512,
    small_tensors=50,
    orthogonal_rows=64,
    transport_runs=1,
    transport_mib=4,
    sweep_runs=1,
    chunk_sizes=2,
    latency_runs=10,
    first_chunk_runs=2,
    process_runs=1,
    model="resnet-50",
    model_runs=1,
    elements_runs=1,
    elements_largest=1_000_000,
    elements_in_memory=100_000,
    streams_runs=1,
    streams_seconds=0.2,
    streams_most=4,
    memory_gib=0.05,
    gpt2_layers=1,
    checkpoint_runs=1,
    checkpoint_tensors="model.layers.0.self_attn.k_proj.*",
)


class Unit(NamedTuple):
    """A unit, and how to compute a figure in it from the seconds of a run."""

    name: str
    of_seconds: Callable[[float], float]


def rate(name: str, amount: float) -> Unit:
    """The unit of an amount per run, per second."""
    return Unit(name, lambda seconds: amount / seconds)


def gigabytes(count: int) -> Unit:
    """GB/s, for a number of bytes per run."""
    return rate("GB/s", count / 1e9)


SECONDS = Unit("s", lambda seconds: seconds)
MILLISECONDS = Unit("ms", lambda seconds: seconds * 1e3)


@dataclass(frozen=True)
class Row:
    """One competitor's figures in one case, one figure per turn.

    Cases of a table are comparable, and competitors of a case are measured in the same turns. So ratios of two rows are
    computed turn by turn, and a drifting clock speed does not affect them.
    """

    table: str
    case: str
    name: str
    unit: str
    runs: list[float]
    x: float | None = None
    """The number behind the case, such as a size, for plots."""

    @property
    def median(self) -> float:
        return statistics.median(self.runs)

    def as_json(self) -> dict[str, object]:
        return {**vars(self), "median": _rounded(self.median), "runs": [_rounded(run) for run in self.runs]}

    @classmethod
    def from_json(cls, item: dict[str, Any]) -> Row:
        return cls(**{name: value for name, value in item.items() if name != "median"})


@dataclass
class Part:
    """The results of one part of the benchmarks."""

    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What was skipped, and what else a reader should know."""
    series: list[dict[str, Any]] = field(default_factory=list)
    """Memory over time: ``stage``, ``process``, ``seconds``, ``mib``."""

    def as_json(self) -> dict[str, object]:
        return {"notes": self.notes, "rows": [row.as_json() for row in self.rows], "series": self.series}


class Figures:
    """The rows of all parts of a report, looked up by table, case and name."""

    def __init__(self, report: dict[str, Any]) -> None:
        self.rows = [Row.from_json(item) for part in report["parts"].values() for item in part["rows"]]
        self.series = [series for part in report["parts"].values() for series in part["series"]]
        self._found = {(row.table, row.case, row.name): row for row in self.rows}

    def find(self, table: str, case: str, name: str) -> Row | None:
        return self._found.get((table, case, name))

    def of(self, table: str) -> list[Row]:
        return [row for row in self.rows if row.table == table]


def in_turns(
    runs: int, competitors: dict[Key, Callable[[], Result]], *, warm_up: bool = True, pause: float = 0.0
) -> dict[Key, list[Result]]:
    """Calls each competitor once per turn. An additional first turn warms up, and is dropped.

    Every second turn goes backwards, so that no competitor always follows the same one.
    """
    results: dict[Key, list[Result]] = {name: [] for name in competitors}
    for turn in range(runs + warm_up):
        for name in list(competitors)[:: -1 if turn % 2 else 1]:
            time.sleep(pause)
            result = competitors[name]()
            if turn >= warm_up:
                results[name].append(result)
    return results


def compare(
    table: str,
    case: str,
    unit: Unit,
    runs: int,
    competitors: dict[str, Callable[[], object]],
    *,
    x: float | None = None,
    pause: float = 0.0,
) -> list[Row]:
    """Times all competitors in turns. If a competitor returns a float, that is its time in seconds."""
    seconds = in_turns(runs, {name: timed(function) for name, function in competitors.items()}, pause=pause)
    return [row(table, case, name, unit, values, x) for name, values in seconds.items()]


def timed(function: Callable[[], object]) -> Callable[[], float]:
    """Times a function, or takes the seconds that it returns."""

    def run() -> float:
        begin = time.perf_counter()
        result = function()
        elapsed = time.perf_counter() - begin
        return result if isinstance(result, float) else elapsed

    return run


def row(table: str, case: str, name: str, unit: Unit, seconds: Sequence[float], x: float | None = None) -> Row:
    """One competitor's row, from the seconds that its runs took."""
    return Row(table, case, name, unit.name, [unit.of_seconds(value) for value in seconds], x)


def ratio(ours: Row | None, theirs: Row | None) -> float | None:
    """The median over the turns of our figure divided by theirs; None if one was not measured."""
    if ours is None or theirs is None:
        return None
    return statistics.median(one / other for one, other in zip(ours.runs, theirs.runs, strict=True))


def percentile(runs: Sequence[float], share: float) -> float:
    """The value that this share of the runs does not exceed."""
    return sorted(runs)[min(len(runs) - 1, int(share * len(runs)))]


def is_installed(package: str) -> bool:
    """Whether a peer that is optional can be measured."""
    return importlib.util.find_spec(package) is not None


def machine() -> dict[str, object]:
    """What the figures were measured on."""
    cpuinfo = _read("/proc/cpuinfo")
    model = re.search(r"model name\s*: (.*)", cpuinfo)
    flags = set(re.findall(r"\b(?:avx2|avx512f|asimd|sve)\b", cpuinfo))
    memory = re.search(r"MemTotal:\s+(\d+) kB", _read("/proc/meminfo"))
    return {
        "cpu": model[1] if model else platform.processor() or platform.machine(),
        "vectors": sorted(flags),
        "cores": usable_cores(),
        "memory_gib": round(int(memory[1]) / (1 << 20), 1) if memory else None,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: version for name in _PACKAGES if (version := _version(name))},
    }


_PACKAGES = ("seedbed", "numpy", "numba", "grpcio", "protobuf", "crc32c", "torch", "jax", "pyarrow")


def to_text(report: dict[str, Any]) -> str:
    """The report as JSON, with each list of numbers on one line."""
    text = json.dumps(report, indent=1, ensure_ascii=False, allow_nan=False)
    return re.sub(r"\[[-+\d.eE,\s]+\]", lambda match: "[" + " ".join(match[0][1:-1].split()) + "]", text) + "\n"


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")


def _read(path: str) -> str:
    return Path(path).read_text(encoding="utf-8") if Path(path).exists() else ""


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
