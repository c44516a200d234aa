"""The aims for the figures."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.measuring import Figures, Row, ratio

Measured = Callable[[Figures], float | None]


@dataclass(frozen=True)
class Aim:
    """A bound for one figure, or for the ratio of two."""

    what: str
    bound: float
    measured: Measured
    unit: str = "×"
    at_most: bool = False

    def as_json(self, figures: Figures) -> dict[str, object]:
        """The aim, the figure, and whether it is reached; None if not measured."""
        value = self.measured(figures)
        reached = None if value is None else (value <= self.bound if self.at_most else value >= self.bound)
        return {
            "what": self.what,
            "aim": f"{'<' if self.at_most else '≥'} {self.bound:g} {self.unit}".strip(),
            "reached": reached,
            "measured": None if value is None else float(f"{value:.4g}"),
        }


def _ratio(table: str, case: str, ours: str, theirs: str) -> Measured:
    return lambda figures: ratio(figures.find(table, case, ours), figures.find(table, case, theirs))


def _median(table: str, case: str, name: str, unit: float = 1.0) -> Measured:
    def measured(figures: Figures) -> float | None:
        row = figures.find(table, case, name)
        return None if row is None else row.median * unit

    return measured


def _worst(table: str, part_of_case: str, name: str) -> Measured:
    """The highest median among these cases."""

    def measured(figures: Figures) -> float | None:
        return max((row.median for row in _rows(figures, table, part_of_case, name)), default=None)

    return measured


def _shard(scheme: str) -> Measured:
    def measured(figures: Figures) -> float | None:
        columns = next(iter(_rows(figures, "shards", scheme, "columns")), None)
        return columns and ratio(columns, figures.find("shards", columns.case, "rows"))

    return measured


def _boxes(name: str) -> Measured:
    """A tensor in 64 boxes, relative to the scheme alone."""

    def measured(figures: Figures) -> float | None:
        boxes = next(iter(_rows(figures, "parts", "normal", name)), None)
        return boxes and ratio(boxes, figures.find("parts", boxes.case, "the scheme alone"))

    return measured


def _threads(law: str) -> Measured:
    """Two threads relative to one, in a large array, because a chunk is not always worth two threads."""

    def measured(figures: Figures) -> float | None:
        two = next(iter(_rows(figures, "large arrays", f"{law} ", _TWO)), None)
        return two and ratio(two, figures.find("large arrays", two.case, _NUMBA))

    return measured


def _rows(figures: Figures, table: str, part_of_case: str, name: str) -> list[Row]:
    return [row for row in figures.of(table) if row.name == name and part_of_case in row.case]


def _checkpoint_written(figures: Figures) -> float | None:
    """The time of writing, relative to the engine's plus a plain file's."""
    names = ("write local:", "engine", "a file, written")
    rows = [figures.find("checkpoint in memory", "Llama 3.1 8B", name) for name in names]
    runs = zip(*(row.runs for row in rows if row), strict=True)
    return statistics.median(1 / ours / (1 / made + 1 / plain) for ours, made, plain in runs) if all(rows) else None


def _streams_total(figures: Figures) -> float | None:
    many = figures.find("streams", "64 streams", "seedbed TCP")
    return ratio(many, figures.find("streams", "1 stream", "seedbed TCP"))


_NUMBA, _TWO = "seedbed numba", "seedbed numba, 2 threads"
_TCP, _CEILING, _PLAIN = "seedbed TCP", "ceiling TCP", "ceiling TCP, plain client"
_F32 = "normal float32"

AIMS = (
    Aim("engine, 1 thread, uniform float32 / torch", 6, _ratio("laws", "uniform float32", _NUMBA, "torch")),
    Aim("engine, 1 thread, normal float32 / torch", 3.5, _ratio("laws", _F32, _NUMBA, "torch")),
    Aim("engine, 1 thread, trunc_normal float32 / torch", 2, _ratio("laws", "trunc_normal float32", _NUMBA, "torch")),
    Aim("engine, 1 thread, normal bfloat16 / torch", 4, _ratio("laws", "normal bfloat16", _NUMBA, "torch")),
    Aim("engine, 1 thread, constant float32 / memset", 0.9, _ratio("laws", "constant float32", _NUMBA, "memset")),
    Aim("engine, uniform float32, 2 threads / 1", 1.7, _threads("uniform")),
    Aim("engine, normal float32, 2 threads / 1", 1.7, _threads("normal")),
    Aim("engine, trunc_normal float32, 2 threads / 1", 1.7, _threads("trunc_normal")),
    Aim("column shard / contiguous, uniform, per element", 0.6, _shard("uniform")),
    Aim("column shard / contiguous, normal, per element", 0.6, _shard("normal")),
    Aim("normal in 64 row blocks / alone", 0.8, _boxes("64 row blocks")),
    Aim("normal in 8 × 8 boxes / alone", 0.8, _boxes("8 × 8 boxes")),
    Aim("log of a uniform, 1 thread", 20, _median("expressions", "log of a uniform float32", _NUMBA), "M/s"),
    Aim("local:, tensors of equal shapes", 50, _worst("small tensors", "equal", "seedbed local:"), "µs each", True),
    Aim("local:, of different shapes", 50, _worst("small tensors", "different", "seedbed local:"), "µs each", True),
    Aim("numpy backend, 1 thread, normal float32", 25, _median("laws", _F32, "seedbed numpy"), "M/s"),
    Aim("loopback TCP, uniform float32 / ceiling", 0.85, _ratio("transport", "uniform float32", _TCP, _CEILING)),
    Aim("loopback TCP, normal float32 / ceiling", 0.75, _ratio("transport", _F32, _TCP, _CEILING)),
    Aim("uniform over TCP / ceiling, plain client", 0.85, _ratio("transport", "uniform float32", _TCP, _PLAIN)),
    Aim("normal over TCP / ceiling, plain client", 0.75, _ratio("transport", _F32, _TCP, _PLAIN)),
    Aim("normal over TCP / local torch, 1 thread", 1, _ratio("transport", _F32, _TCP, "torch, no server")),
    Aim("normal over TCP / tutorial server", 1.5, _ratio("transport", _F32, _TCP, "tutorial TCP")),
    Aim("normal over TCP / Flight + NumPy", 3, _ratio("transport", _F32, _TCP, "Flight + NumPy TCP")),
    Aim("first chunk of 100 GiB", 10, _median("latency", "first chunk of 100 GiB", _TCP), "ms", True),
    Aim("1 KiB tensor, round trip, median", 1, _median("latency", "1 KiB tensor", _TCP), "ms", True),
    Aim("server memory above idle, one huge tensor", 64, _median("memory above idle", "one tensor", "seedbed server"),
        "MiB", True),
    Aim("64 streams / 1 stream, total throughput", 0.9, _streams_total),
    Aim("64 streams, slowest / fastest", 0.5, _median("fairness", "64 streams", _TCP)),
    Aim("normal over TLS / plain", 0.65, _ratio("operation", _F32, "TLS", "plain")),
    Aim("normal with tokens / plain", 0.98, _ratio("operation", _F32, "tokens", "plain")),
    Aim("normal with metrics / plain", 0.98, _ratio("operation", _F32, "metrics", "plain")),
    Aim("checkpoint in memory written, time / engine + file", 1.2, _checkpoint_written, at_most=True),
    Aim("checkpoint in memory verified, time / engine", 1.3,
        _ratio("checkpoint in memory", "Llama 3.1 8B", "engine", "verify local:"), at_most=True),
    Aim("recording Llama 3.1 8B", 0.5, _median("record", "seedbed.torch.record", "Llama 3.1 8B", 1e-3), "s", True),
    Aim("import seedbed", 0.25, _median("import", "import in a fresh process", "seedbed"), "s", True),
    Aim("seedbed serve, until it responds", 2, _median("start", "to the first response", "seedbed serve"), "s", True),
)  # fmt: skip


def judged(figures: Figures) -> list[dict[str, object]]:
    """Every aim with its figure."""
    return [aim.as_json(figures) for aim in AIMS]
