"""Shared by all measurements: sizes, context, and the comparison of bits."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from google.protobuf import text_format

import seedbed
from benchmarks.measuring import Row
from benchmarks.on_gpu import STAND_INS
from benchmarks.on_gpu.device import Gpu, Work
from seedbed.v1 import Region, TensorDescription
from seedbed_server import engine

MIB, GIB = 1 << 20, 1 << 30
DTYPES = tuple(name for name in seedbed.dtypes.NAMES if name != "bfloat16" or "ml_dtypes" not in STAND_INS)
HALF = "bfloat16" if "bfloat16" in DTYPES else "float16"


@dataclass(frozen=True)
class Sizes:
    """How much is compared and measured; this needs a GPU with 40 GiB."""

    random_cases: int = 800
    large_elements: int = 20_000_000
    launch_bytes: int = 8 * GIB
    runs: int = 11
    output_bytes: int = 4 * GIB
    host_bytes: int = GIB
    socket_bytes: int = 512 * MIB
    latency_runs: int = 200
    streams: tuple[int, ...] = (4, 16)
    stream_seconds: float = 2.0
    cold_starts: int = 2
    warm_starts: int = 5
    models: tuple[str, ...] = ("gpt2-124m", "llama-3.1-8b")


QUICK = Sizes(96, 200_000, 16 * MIB, 2, MIB, 4 * MIB, 4 * MIB, 10, (2,), 0.3, 1, 1, ("resnet-50",))


@dataclass(frozen=True)
class Case:
    """Some elements of a region to write."""

    description: TensorDescription
    first: int
    count: int
    misaligned: int = 0
    """The distance of the destination from an aligned address, in elements."""

    @property
    def dtype(self) -> np.dtype:
        return engine.numpy_dtype(self.description.spec.dtype)

    @property
    def kind(self) -> str:
        return f"{self.description.law.WhichOneof('law')} {seedbed.dtypes.name_of(self.description.spec.dtype)}"

    def __str__(self) -> str:
        spec, region = (
            text_format.MessageToString(each, as_one_line=True, as_utf8=True)
            for each in (self.description.spec, self.description.region)
        )
        return f"{spec}, region {region}, {self.count} elements from {self.first} on, misaligned by {self.misaligned}"


@dataclass
class Bench:
    """The context of the measurements, and what they report besides their rows."""

    gpu: Gpu
    backend: Any
    reference: engine.Backend
    torch: Any
    sizes: Sizes
    notes: list[str] = field(default_factory=list)
    compared: Counter[str] = field(default_factory=Counter)
    """The number of elements whose bits were compared, by law and dtype."""
    mismatches: list[str] = field(default_factory=list)

    def check(self, case: Case, found: dict[str, np.ndarray]) -> None:
        """Compares elements, obtained in one or more ways, with the reference, bit by bit."""
        values = np.empty(case.count, case.dtype)
        self.reference.fill(case.description, case.first, values)
        expected = values.view(f"u{values.itemsize}")
        for way, array in found.items():
            self.compared[case.kind] += case.count
            actual = array.reshape(-1).view(expected.dtype)
            different = np.flatnonzero(actual != expected)
            if len(different):
                first = different[0]
                self.mismatch(
                    f"{way}: {len(different)} of {case.count} elements differ, the first at {first}: "
                    f"{actual[first]:#x} instead of {expected[first]:#x}; {case}"
                )

    def mismatch(self, text: str) -> None:
        self.mismatches.append(text)
        if len(self.mismatches) <= 20:
            say("BITS DIFFER:", text)

    def writing(self, description: TensorDescription, memory: Any) -> Work:
        """Returns the work of writing a whole region to the device's memory."""
        return partial(self.backend.writer(description), 0, description.element_count, memory.ptr, None)

    def peers(self, law: str, dtype: str, count: int) -> dict[str, Work]:
        """The ways of torch and CuPy to sample as many values of the law."""
        works = self.gpu.random_peers(law, dtype, count)
        if self.torch and law in ("uniform", "normal", "trunc_normal", "constant"):
            tensor = self.torch.empty(count, dtype=getattr(self.torch, dtype), device=self.gpu.torch_device)
            options = {"val": 0.5} if law == "constant" else {}
            works["torch"] = partial(getattr(self.torch.nn.init, f"{law}_"), tensor, **options)
        return self.usable(works)

    def usable(self, works: dict[str, Work]) -> dict[str, Work]:
        """The ones that work here; notes report the others."""
        found = {}
        for name, work in works.items():
            try:
                work()
                self.gpu.synchronize()
                found[name] = work
            except Exception as error:  # any error of the peer
                note = f"{name} is skipped where it fails: {type(error).__name__}: {error}"
                if note not in self.notes:
                    self.notes.append(note)
        return found


def described(law: str, dtype: str, shape: tuple[int, ...], region: Region | None = None, **options: Any) -> Any:
    """The description of a scheme."""
    return engine.describe(seedbed.spec(law, shape, dtype=dtype, **options), region)


def whole(description: TensorDescription) -> Case:
    """All elements of a region."""
    return Case(description, 0, description.element_count)


def ratios(name: str, rows: list[Row], ours: str, *theirs: str) -> list[Row]:
    """Our figures divided by those of the best peer, turn by turn; empty if no peer was measured."""
    found = {row.name: row for row in rows}
    best = max((found[each] for each in theirs if each in found), key=lambda row: row.median, default=None)
    if best is None:
        return []
    runs = [one / other for one, other in zip(found[ours].runs, best.runs, strict=True)]
    return [Row(best.table, best.case, name, "", runs)]


def say(*texts: object, sep: str = " ") -> None:
    """Prints and flushes, so that the output survives if the run is killed."""
    print(*texts, sep=sep, flush=True)
