"""Proves on a machine with an NVIDIA GPU that its bits are the reference's, and measures: ``python benchmarks/gpu.py``.

Seedbed need not be installed, and of other packages only CuPy, NumPy, grpcio and protobuf; what else is missing gets a
small stand-in, which the output tells. torch is a peer, measured if it is there.

The figures are printed as they come, and written to out/gpu.json. The exit code is 1 if a bit differs, or if a measure
fails, after which the others go on.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import importlib
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
# Not this folder, which Python puts first for a script: its modules have names that others may have, too.
sys.path[:] = [str(ROOT), *(path for path in sys.path if Path(path).resolve() != ROOT / "benchmarks")]

# First, because it puts stand-ins where packages are missing that the others import.
from benchmarks.on_gpu import STAND_INS, bits, engine, host, tensors, wire  # noqa: E402

# isort: split
from benchmarks.aims import Aim  # noqa: E402
from benchmarks.measuring import Figures, Part, Row, machine, to_text  # noqa: E402
from benchmarks.on_gpu.bench import QUICK, Bench, Sizes, say  # noqa: E402
from benchmarks.on_gpu.device import EmulatedGpu, Gpu  # noqa: E402
from seedbed_server.engine import open_backend  # noqa: E402

PARTS: dict[str, tuple[Callable[[Bench], list[Row]], ...]] = {
    "bits": (bits.golden_vectors, bits.random_tensors, bits.large_tensors, bits.many_threads, bits.one_launch),
    "engine": (engine.laws, engine.shards, engine.latency),
    "tensors": (tensors.into_tensors, tensors.a_model, tensors.one_tensor),
    "host": (host.to_the_host,),
    "wire": (wire.one_stream, wire.many_streams, wire.first_chunk),
}
LAWS = ("uniform float32", "normal float32")
AIMS = [
    *(("laws", law, "/ write bandwidth", 0.6) for law in LAWS),
    *(("laws", law, "/ torch", 1) for law in LAWS),
    *(("laws", law, "/ cupy.random", 1) for law in LAWS),
    *(("to the host", law, "fill / copy", 0.85) for law in LAWS),
    *(("to the host", law, "pieces / copy", 0.85) for law in LAWS),
    *(("loopback", law, "seedbed / ceiling", 0.9) for law in LAWS),
    ("streams", "16 streams", "seedbed, slowest / fastest", 0.5),
]
"""The table, the case and the name of a figure, and what it shall reach."""


@dataclass
class Report:
    """What has been found so far, in a file that each measure adds to."""

    path: Path
    about: dict[str, Any]
    bench: Bench
    parts: dict[str, Part] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    """What went wrong, by measure."""

    def save(self) -> dict[str, Any]:
        report = {
            "measured": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            **self.about,
            "sizes": dataclasses.asdict(self.bench.sizes),
            "bits": {"compared": self.bench.compared, "mismatches": self.bench.mismatches},
            "failures": self.failures,
            "parts": {name: part.as_json() for name, part in self.parts.items()},
        }
        figures = Figures(report)
        report["aims"] = [_aim(*aim).as_json(figures) for aim in AIMS]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(to_text(report), encoding="utf-8")
        return report

    def verdict(self) -> str:
        if self.bench.mismatches:
            return f"BITS DIFFER in {len(self.bench.mismatches)} cases"
        if any(measure.__name__ in self.failures for measure in PARTS["bits"]):
            return "NOT ALL BITS COULD BE COMPARED"
        compared = self.bench.compared.total()
        return f"{compared:,} elements compared: all bits equal" if compared else "no bits were compared"


def _aim(table: str, case: str, name: str, bound: float) -> Aim:
    def measured(figures: Figures) -> float | None:
        found = figures.find(table, case, name)
        return None if found is None else found.median

    return Aim(f"{table}, {case}: {name}", bound, measured)


def run_part(name: str, report: Report, deadline: float) -> None:
    """Runs the measures of a part; one that fails is told, and the next one runs."""
    say(f"\n== {name}")
    part = report.parts[name] = Part()
    for measure in PARTS[name]:
        begin = time.perf_counter()
        if begin > deadline:
            report.failures[measure.__name__] = "left out: there was no time left"
            continue
        say(f"-- {measure.__name__}: {(measure.__doc__ or '').splitlines()[0]}")
        rows, report.bench.notes = [], []
        try:
            rows = measure(report.bench)
        except Exception as error:  # told, and noted
            say(traceback.format_exc())
            report.failures[measure.__name__] = f"{type(error).__name__}: {error}"
        part.rows += rows
        part.notes += report.bench.notes
        notes = [*(f"  ({note})" for note in report.bench.notes), f"   {time.perf_counter() - begin:.1f} s"]
        say(*tables(rows), *notes, sep="\n")
        report.save()


def tables(rows: list[Row]) -> Iterator[str]:
    """The rows as text: a line for each case, a column for each name; medians, and how far the runs spread."""
    for title in dict.fromkeys(each.table for each in rows):
        found = {(each.case, each.name): each for each in rows if each.table == title}
        cases, names = (list(dict.fromkeys(keys)) for keys in zip(*found, strict=True))
        lines = [[case, *(_cell(found.get((case, name))) for name in names)] for case in cases]
        yield aligned([[title, *names], *lines])


def _cell(found: Row | None) -> str:
    if found is None:
        return ""
    runs, value = sorted(found.runs), found.median
    told = f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
    most = len(runs) // 10  # those beyond are no measure of how far they spread
    spread = f"±{(runs[-1 - most] - runs[most]) / 2 / value:.0%}" if len(runs) > 1 and value else ""
    return " ".join(filter(None, (told, found.unit, spread)))


def aligned(lines: list[list[str]]) -> str:
    """Columns of equal width."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(str.ljust, ["", *line], [0, *widths])).rstrip() for line in lines)


def tell_summary(report: Report) -> None:
    say("\n== summary")
    reached = {True: "yes", False: "NO", None: "not measured"}
    aims = [[aim["what"], aim["aim"], str(aim["measured"]), reached[aim["reached"]]] for aim in report.save()["aims"]]
    say(aligned([["aim", "", "measured", "reached"], *aims]))
    say("compared:", ", ".join(f"{count:,} {kind}" for kind, count in sorted(report.bench.compared.items())))
    for name, error in report.failures.items():
        say(f"FAILED: {name}: {error}")
    say(report.verdict())
    say(f"written: {report.path}")


def open_bench(sizes: Sizes, emulated: bool) -> Bench:
    """Opens the GPU, without the comparison of a few bits that `open_backend` begins with: we want to tell more.

    Raises:
        NoDevice: It cannot be used; says what to do.
    """
    from seedbed_server.engine.backends.cuda_device import CudaDevice  # noqa: PLC0415 - the emulated CuPy comes first
    from seedbed_server.engine.backends.cupy import CupyBackend  # noqa: PLC0415

    reference = open_backend("numpy")
    backend = CupyBackend(CudaDevice(), lambda: reference)
    gpu = (EmulatedGpu if emulated else Gpu)(backend.cuda)
    return Bench(gpu, backend, reference, _torch(gpu.torch_device), sizes)


def _torch(device: str) -> Any:
    """torch, if it can be used on the device."""
    try:
        torch = importlib.import_module("torch")
        torch.empty(1, device=device)
    except Exception as error:  # whatever it is, it is not ours
        say(f"torch is left out: {error}")
        return None
    return torch


def emulate() -> None:
    """Puts the emulated CuPy of the tests before the real one, here and in the processes to come."""
    sys.path.insert(0, str(ROOT / "tests"))
    emulation = importlib.import_module("_helpers.emulation")
    sys.path.insert(0, str(emulation.FOLDER))
    os.environ["PYTHONPATH"] = os.pathsep.join([str(emulation.FOLDER), os.environ.get("PYTHONPATH", "")])
    os.environ["CUPY_CACHE_DIR"] = str(emulation.CACHE)


def parsed(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out"), help="the folder of gpu.json (default: out)")
    parser.add_argument("--quick", action="store_true", help="small sizes, whose figures mean little")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="these parts (default: all)")
    parser.add_argument("--emulated", action="store_true", help="a dry run without a GPU, on the tests' emulated one")
    parser.add_argument("--minutes", type=float, default=8, help="no measure begins later (default: 8)")
    return parser.parse_args(arguments)


def main(arguments: argparse.Namespace) -> int:
    deadline = time.perf_counter() + 60 * arguments.minutes
    sys.stdout.reconfigure(encoding="utf-8")
    if arguments.emulated:
        emulate()
    for package, what in STAND_INS.items():
        say(f"{package} is missing; in its place: {what}")
    bench = open_bench(QUICK if arguments.quick else Sizes(), arguments.emulated)
    about = {"gpu": bench.backend.device, "emulated": arguments.emulated, "stand_ins": STAND_INS, "machine": machine()}
    say(to_text(about))
    report = Report(arguments.out / "gpu.json", about, bench)
    for name in arguments.only:
        run_part(name, report, deadline)
        if bench.mismatches:
            break  # how fast wrong bits are made is of no interest
    tell_summary(report)
    return int(bool(bench.mismatches or report.failures))


if __name__ == "__main__":
    sys.exit(main(parsed(sys.argv[1:])))
