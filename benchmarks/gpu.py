"""Compares the bits of an NVIDIA GPU with the reference, and measures its speed: ``python benchmarks/gpu.py``.

Seedbed need not be installed. Only CuPy, NumPy, grpcio and protobuf are required; small stand-ins replace other missing
packages, and the output says so. torch is a peer, and is measured if it is installed.

The figures are printed as they arrive, and written to out/gpu.json. The exit code is 1 if a bit differs or a
measurement fails; the other measurements still run.
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
# Remove this folder, which Python puts first for a script: the names of its modules may clash with others.
sys.path[:] = [str(ROOT), *(path for path in sys.path if Path(path).resolve() != ROOT / "benchmarks")]

# First, because it installs stand-ins for missing packages that the others import.
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
"""The table, the case and the name of a figure, and its aim."""


@dataclass
class Report:
    """The results so far; each measurement saves them to the file."""

    path: Path
    about: dict[str, Any]
    bench: Bench
    parts: dict[str, Part] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    """The errors, by measurement."""

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
    """Runs the measurements of a part. A failure is reported, and the next measurement runs."""
    say(f"\n== {name}")
    part = report.parts[name] = Part()
    for measure in PARTS[name]:
        begin = time.perf_counter()
        if begin > deadline:
            report.failures[measure.__name__] = "skipped: no time left"
            continue
        say(f"-- {measure.__name__}: {(measure.__doc__ or '').splitlines()[0]}")
        rows, report.bench.notes = [], []
        try:
            rows = measure(report.bench)
        except Exception as error:  # reported, and recorded
            say(traceback.format_exc())
            report.failures[measure.__name__] = f"{type(error).__name__}: {error}"
        part.rows += rows
        part.notes += report.bench.notes
        notes = [*(f"  ({note})" for note in report.bench.notes), f"   {time.perf_counter() - begin:.1f} s"]
        say(*tables(rows), *notes, sep="\n")
        report.save()


def tables(rows: list[Row]) -> Iterator[str]:
    """Formats rows as text, with a line per case and a column per name: medians, and the spread of the runs."""
    for title in dict.fromkeys(each.table for each in rows):
        found = {(each.case, each.name): each for each in rows if each.table == title}
        cases, names = (list(dict.fromkeys(keys)) for keys in zip(*found, strict=True))
        lines = [[case, *(_cell(found.get((case, name))) for name in names)] for case in cases]
        yield aligned([[title, *names], *lines])


def _cell(found: Row | None) -> str:
    if found is None:
        return ""
    runs, value = sorted(found.runs), found.median
    text = f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
    most = len(runs) // 10  # ignore outliers
    spread = f"±{(runs[-1 - most] - runs[most]) / 2 / value:.0%}" if len(runs) > 1 and value else ""
    return " ".join(filter(None, (text, found.unit, spread)))


def aligned(lines: list[list[str]]) -> str:
    """Columns of equal width."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(str.ljust, ["", *line], [0, *widths])).rstrip() for line in lines)


def print_summary(report: Report) -> None:
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
    """Opens the GPU without the short self-test of `open_backend`: this script reports more.

    Raises:
        NoDevice: The GPU is unusable; the message has the remedy.
    """
    from seedbed_server.engine.backends.cuda_device import CudaDevice  # noqa: PLC0415 - the emulated CuPy comes first
    from seedbed_server.engine.backends.cupy import CupyBackend  # noqa: PLC0415

    reference = open_backend("numpy")
    backend = CupyBackend(CudaDevice(), lambda: reference)
    gpu = (EmulatedGpu if emulated else Gpu)(backend.cuda)
    return Bench(gpu, backend, reference, _torch(gpu.torch_device), sizes)


def _torch(device: str) -> Any:
    """Imports torch, if it works on the device."""
    try:
        torch = importlib.import_module("torch")
        torch.empty(1, device=device)
    except Exception as error:  # any error of torch's
        say(f"torch is skipped: {error}")
        return None
    return torch


def emulate() -> None:
    """Puts the emulated CuPy of the tests before the real one, here and in child processes."""
    sys.path.insert(0, str(ROOT / "tests"))
    emulation = importlib.import_module("_helpers.emulation")
    sys.path.insert(0, str(emulation.FOLDER))
    os.environ["PYTHONPATH"] = os.pathsep.join([str(emulation.FOLDER), os.environ.get("PYTHONPATH", "")])
    os.environ["CUPY_CACHE_DIR"] = str(emulation.CACHE)


def parsed(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out"), help="the folder of gpu.json (default: out)")
    parser.add_argument("--quick", action="store_true", help="small sizes; the figures mean little")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="run only these parts (default: all)")
    parser.add_argument("--emulated", action="store_true", help="a dry run without a GPU, on the tests' emulated one")
    parser.add_argument("--minutes", type=float, default=8, help="start no measurement later (default: 8)")
    return parser.parse_args(arguments)


def main(arguments: argparse.Namespace) -> int:
    deadline = time.perf_counter() + 60 * arguments.minutes
    sys.stdout.reconfigure(encoding="utf-8")
    if arguments.emulated:
        emulate()
    for package, what in STAND_INS.items():
        say(f"{package} is missing, replaced by: {what}")
    bench = open_bench(QUICK if arguments.quick else Sizes(), arguments.emulated)
    about = {"gpu": bench.backend.device, "emulated": arguments.emulated, "stand_ins": STAND_INS, "machine": machine()}
    say(to_text(about))
    report = Report(arguments.out / "gpu.json", about, bench)
    for name in arguments.only:
        run_part(name, report, deadline)
        if bench.mismatches:
            break  # the speed of wrong bits is of no interest
    print_summary(report)
    return int(bool(bench.mismatches or report.failures))


if __name__ == "__main__":
    sys.exit(main(parsed(sys.argv[1:])))
