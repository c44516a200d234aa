"""Measures what many cores bring: ``python benchmarks/many_cores.py``, within five minutes.

Seedbed need not be installed. Only NumPy, Numba, grpcio and protobuf are required. torch is a peer, and is measured if
it is installed. The output says what was skipped, or measured with a stand-in.

It measures the engine and ``local:`` on 1, 2, 4 ... threads, servers with 1, 4, 16 clients, a client with several
connections, files, and small tensors. Each is measured in turns with its peers, so that the ratios are meaningful even
on a busy machine. The figures are printed as they arrive, and written to out/many_cores.json, with a plot beside it.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import datetime
import functools
import inspect
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
# Remove this folder, which Python puts first for a script: the names of its modules may clash with others.
sys.path[:] = [str(ROOT), *(path for path in sys.path if Path(path).resolve() != ROOT / "benchmarks")]

# First, because it installs stand-ins for missing packages that the others import.
from benchmarks.on_gpu import STAND_INS  # noqa: E402

# isort: split
import llvmlite.binding as llvm  # noqa: E402
import numpy as np  # noqa: E402

import seedbed  # noqa: E402
from benchmarks.gpu import tables  # noqa: E402
from benchmarks.measuring import Figures, Part, Row, Unit, compare, gigabytes, in_turns, machine, row, timed  # noqa: E402
from benchmarks.measuring import to_text as as_json  # noqa: E402
from benchmarks.on_gpu import wire  # noqa: E402
from benchmarks.on_gpu.bench import HALF, MIB, say  # noqa: E402
from benchmarks.on_gpu.stand_ins import is_missing  # noqa: E402
from benchmarks.servers import read_line, running, serving  # noqa: E402
from benchmarks.servers import seedbed as our_server  # noqa: E402
from seedbed_server.engine import usable_cores  # noqa: E402

LAWS = (("normal", "float32"), ("uniform", "float32"), ("normal", HALF))
SHM = Path("/dev/shm")
SHARD_BYTES = 256 * MIB
CEILING = "gRPC alone"


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    turns: int = 5
    array_bytes: int = 256 * MIB
    clients: tuple[int, ...] = (1, 4, 16)
    workers: tuple[str, ...] = ("1", "4", "8", "auto")
    stream_turns: int = 3
    stream_seconds: float = 0.8
    connections: tuple[int, ...] = (1, 2, 4)
    checkpoint_turns: int = 3
    checkpoint_bytes: int = 2048 * MIB
    tensor_bytes: int = 64 * MIB
    small_tensors: int = 1000


QUICK = Sizes(turns=3, array_bytes=64 * MIB, stream_turns=1, checkpoint_turns=1, checkpoint_bytes=512 * MIB)
TINY = Sizes(1, MIB, (1, 2), ("2", "auto"), 1, 0.1, (1, 2), 1, 2 * MIB, MIB, 20)


class Process:
    """A worker process (`benchmarks.many_cores_child`) with a number of threads."""

    def __init__(self, stack: contextlib.ExitStack, threads: int) -> None:
        command = [sys.executable, "-m", "benchmarks.many_cores_child", str(threads)]
        self._process = stack.enter_context(running(command))
        read_line(self._process)

    def seconds(self, work: str, *arguments: object) -> float:
        """The seconds that some work takes, as timed by the process itself."""
        self._process.stdin.write(f"{json.dumps([work, *arguments])}\n")
        return float(read_line(self._process))


@dataclass
class Bench:
    """The context of the measurements, and what they report besides their rows."""

    sizes: Sizes
    cores: int
    deadline: float
    stack: contextlib.ExitStack
    left_out: list[str] = field(default_factory=list)

    @functools.cached_property
    def processes(self) -> dict[int, Process]:
        """Worker processes by their number of threads: 1, 2, 4 and so on, and all cores. The first compiles for all."""
        counts = [1 << power for power in range(self.cores.bit_length()) if 1 << power < self.cores]
        return {count: Process(self.stack, count) for count in [*counts, self.cores]}

    @functools.cached_property
    def serves(self) -> bool:
        """Whether the command ``seedbed`` works, as users run it."""
        missing = [*STAND_INS, *filter(is_missing, ("rich", "grpc_health", "grpc_reflection"))]
        if missing:
            self.leave_out(
                f"seedbed's commands, which need {', '.join(missing)}: workers, files; a plain server replaces them"
            )
        return not missing

    @functools.cached_property
    def torch(self) -> bool:
        if is_missing("torch"):
            self.leave_out("torch, which is not installed")
        return not is_missing("torch")

    def has_time(self, what: str) -> bool:
        """Whether there is time to start something; if not, it is recorded as skipped."""
        if time.perf_counter() < self.deadline:
            return True
        self.leave_out(f"{what}: no time left")
        return False

    def leave_out(self, what: str) -> None:
        if what not in self.left_out:
            self.left_out.append(what)
            say(f"SKIPPED: {what}")


# The measurements. Each returns rows: figures, and their ratios turn by turn.


def threads(bench: Bench) -> list[Row]:
    """The engine into warm memory, local: into the caller's array; torch and memset on as many threads."""
    rows = []
    size = bench.sizes.array_bytes
    names = {"engine": "fill", "local:": "through_local", "memset": "memset"}
    names |= {"torch": "through_torch"} if bench.torch else {}
    for law, dtype in LAWS:
        if not bench.has_time(f"threads, {law} {dtype}"):
            break
        competitors = {
            (count, name): partial(process.seconds, work, law, dtype, size)
            for count, process in bench.processes.items()
            for name, work in names.items()
        }
        seconds = in_turns(bench.sizes.turns, competitors)
        found = {
            (count, name): row("threads", _on_threads(f"{law} {dtype}", count), name, gigabytes(size), values, count)
            for (count, name), values in seconds.items()
        }
        rows += found.values()
        for count in bench.processes:
            one, here = found[1, "engine"], {name: found[count, name] for name in names}
            rows += _ratio("engine / 1 thread", here["engine"], one)
            rows += _ratio("engine / memset", here["engine"], here["memset"])
            rows += _ratio("local: / engine", here["local:"], here["engine"])
            if "torch" in here:
                rows += _ratio("engine / torch", here["engine"], here["torch"])
                rows += _ratio("local: / torch", here["local:"], here["torch"])
    return rows


def streams(bench: Bench) -> list[Row]:
    """One to many client processes over loopback: servers with one and with several processes; gRPC alone."""
    rows = []
    with contextlib.ExitStack() as stack:
        targets = _targets(bench, stack, bench.sizes.workers)
        for count in bench.sizes.clients:
            if not bench.has_time(f"streams, {count} clients"):
                break
            competitors = {name: partial(_pull, bench, name, target, count) for name, target in targets.items()}
            shared = in_turns(bench.sizes.stream_turns, competitors, warm_up=False)
            case = f"{count} client{'s' if count > 1 else ''}"
            found = {
                name: Row("streams", case, name, "GB/s", [total for total, _ in values], count)
                for name, values in shared.items()
            }
            rows += found.values()
            for name in [each for each in found if each != CEILING]:
                rows += _ratio(f"{name} / {CEILING}", found[name], found[CEILING])
            for name, values in shared.items():
                rows.append(Row("fairness", case, name, "", [share for _, share in values], count))
    return rows


def _targets(bench: Bench, stack: contextlib.ExitStack, workers: Sequence[str]) -> dict[str, str]:
    """Starts servers with the default and with other numbers of workers, and gRPC alone, and returns their targets."""
    ceiling = stack.enter_context(serving(partial(wire.child, "serve_ceiling")))
    if not bench.serves:
        plain = stack.enter_context(serving(partial(wire.child, "serve_seedbed_on_cpu")))
        return {"plain server": plain.tcp, CEILING: ceiling.tcp}
    targets = {"by default": stack.enter_context(serving(our_server)).tcp}
    for count in workers:
        if target := _with_workers(bench, stack, count):
            targets[f"--workers {count}"] = target
    return {**targets, CEILING: ceiling.tcp}


def _with_workers(bench: Bench, stack: contextlib.ExitStack, workers: str) -> str | None:
    """Starts a server with a number of workers, and returns its target; None if that fails."""
    if workers.isdecimal() and int(workers) > bench.cores:
        bench.leave_out(f"--workers {workers}, more than there are cores")
        return None
    with tempfile.TemporaryFile("w+") as log:
        try:
            return stack.enter_context(serving(partial(_our_server, workers), stderr=log)).tcp
        except RuntimeError:
            log.seek(0)
            bench.leave_out(f"--workers {workers}: {(log.read().strip() or 'it does not serve').splitlines()[-1]}")
    return None


def _our_server(workers: str, arguments: list[str]) -> list[str]:
    return our_server([*arguments[:2], "--workers", workers])  # only its port: workers cannot share a Unix socket


def _pull(bench: Bench, name: str, target: str, count: int) -> tuple[float, float]:
    """The GB/s of several clients together, and the slowest one's bytes divided by the fastest one's."""
    kind = "pull_ceiling" if name == CEILING else "pull_seedbed"
    received = wire.concurrently(kind, target, count, bench.sizes.stream_seconds)
    return max(1, sum(received)) / bench.sizes.stream_seconds / 1e9, min(received) / max(1, *received)


def connections(bench: Bench) -> list[Row]:
    """One client with one or more connections, into its array; gRPC alone on one connection."""
    counts = bench.sizes.connections
    if "connections" not in inspect.signature(seedbed.connect).parameters:
        bench.leave_out("several connections of one client: this seedbed.connect does not support them")
        counts = (1,)
    out = np.ones(bench.sizes.array_bytes // 4, np.float32)
    spec = seedbed.spec("normal", out.shape)
    several = [each for each in bench.sizes.workers if each.isdecimal() and 1 < int(each) <= bench.cores]
    with contextlib.ExitStack() as stack:
        targets = _targets(bench, stack, several[:1])
        ceiling = stack.enter_context(wire.peers.Ceiling(targets.pop(CEILING)))
        competitors: dict[str, Callable[[], object]] = {CEILING: partial(ceiling.fill, out)}
        for name, target in targets.items():
            for count in counts:
                options: dict[str, Any] = {"connections": count} if len(counts) > 1 else {}
                client = stack.enter_context(seedbed.connect(target, **options))
                competitors[f"{name}, {count}"] = partial(client.init, spec, out=out)
        rows = compare("connections", "normal float32", gigabytes(out.nbytes), bench.sizes.turns, competitors)
    found = {each.name: each for each in rows}
    ratios = [_ratio(f"{name} / {CEILING}", found[name], found[CEILING]) for name in competitors if name != CEILING]
    return [*rows, *(each for group in ratios for each in group)]


def files(bench: Bench) -> list[Row]:
    """A checkpoint of 16-bit normals, written to memory and verified; the engine and a plain write."""
    if not bench.serves:
        return []
    if not SHM.is_dir():
        bench.leave_out("files: there is no /dev/shm")
        return []
    most = min(bench.sizes.checkpoint_bytes, bench.cores * SHARD_BYTES, shutil.disk_usage(SHM).free // 4)
    count = most // bench.sizes.tensor_bytes
    if count == 0:
        bench.leave_out("files: /dev/shm is too small")
        return []
    process, size = bench.processes[bench.cores], bench.sizes.tensor_bytes
    with tempfile.TemporaryDirectory(dir=SHM) as directory:
        model, folder = Path(directory, "model.json"), Path(directory, "checkpoint")
        model.write_text(_model_text(count, size // 2), encoding="utf-8")
        write = ["model", str(model), "-o", str(folder), "--max-shard-size", str(SHARD_BYTES)]

        def written() -> float:
            shutil.rmtree(folder, ignore_errors=True)
            return process.seconds("command", *write)

        competitors: dict[str, Callable[[], object]] = {
            "engine": partial(process.seconds, "fill_again", "normal", HALF, size, count),
            "plain write": partial(process.seconds, "write_plainly", f"{directory}/plain", count * size),
            "seedbed model": written,
            "seedbed verify": partial(process.seconds, "command", "verify", str(folder)),
        }
        seconds = _forwards(bench.sizes.checkpoint_turns, competitors)
    seconds["engine + plain write"] = [
        sum(pair) for pair in zip(*(seconds[name] for name in PEERS_OF_FILES), strict=True)
    ]
    case = f"{count} normals, {HALF}, {count * size / 1e9:.3g} GB"
    found = {name: row("files", case, name, gigabytes(count * size), values) for name, values in seconds.items()}
    peer = found["engine + plain write"]
    return [
        *found.values(),
        *_ratio("model / engine + write", found["seedbed model"], peer),
        *_ratio("verify / engine", found["seedbed verify"], found["engine"]),
    ]


PEERS_OF_FILES = ("engine", "plain write")


def _forwards(turns: int, competitors: dict[str, Callable[[], object]]) -> dict[str, list[float]]:
    """Like `in_turns`, but always in this order, because files are written before they are verified."""
    seconds: dict[str, list[float]] = {name: [] for name in competitors}
    for turn in range(turns + 1):
        for name, run in competitors.items():
            taken = timed(run)()
            if turn:  # the first one warms up
                seconds[name].append(taken)
    return seconds


def _model_text(count: int, elements: int) -> str:
    dtype = f"DATA_TYPE_{HALF.upper()}"
    tensors = [
        {"name": f"layers.{index}.weight", "shape": [elements], "dtype": dtype, "normal": {"std": 0.02}}
        for index in range(count)
    ]
    return json.dumps({"name": "many-cores", "tensors": tensors})


def small_tensors(bench: Bench) -> list[Row]:
    """A thousand tensors of a thousand elements through local:; the engine alone, and torch."""
    count, process = bench.sizes.small_tensors, bench.processes[bench.cores]
    works = {"local:": "small_tensors", "engine": "small_tensors_of_engine"}
    works |= {"torch": "small_tensors_of_torch"} if bench.torch else {}
    competitors: dict[str, Callable[[], object]] = {
        name: partial(process.seconds, work, count) for name, work in works.items()
    }
    unit = Unit("µs a tensor", lambda seconds: seconds / count * 1e6)
    rows = compare("small tensors", f"{count} normals of 1,000 elements", unit, bench.sizes.turns, competitors)
    ours = rows[0]
    return [*rows, *(ratio for other in rows[1:] for ratio in _ratio(f"local: / {other.name}", ours, other))]


MEASURES = {each.__name__: each for each in (threads, small_tensors, files, connections, streams)}


def _on_threads(case: str, count: int) -> str:
    return f"{case}, {count} thread{'s' if count > 1 else ''}"


def _ratio(name: str, ours: Row, theirs: Row) -> list[Row]:
    """Our figures divided by theirs, turn by turn."""
    runs = [one / other for one, other in zip(ours.runs, theirs.runs, strict=True)]
    return [Row(ours.table, ours.case, name, "", runs, ours.x)]


# The plot.


def draw(figures: Figures, path: Path) -> None:
    """Plots how the engine, ``local:``, servers and their peers scale."""
    import matplotlib as mpl  # noqa: PLC0415 - may be missing
    from matplotlib.figure import Figure  # noqa: PLC0415

    from benchmarks import plots  # noqa: PLC0415

    with mpl.rc_context(plots.STYLE):
        figure = Figure(figsize=(12, 4.2), layout="constrained", facecolor="white")
        shown = [("threads", f"{law} {dtype}", ("engine", "local:", "torch", "memset")) for law, dtype in LAWS]
        servers = dict.fromkeys(each.name for each in figures.of("streams") if each.unit)
        panels = [*shown, ("streams", "a server's clients", tuple(servers))]
        for axes, (table, title, names) in zip(figure.subplots(1, len(panels)), panels, strict=True):
            rows = [each for each in figures.of(table) if table == "streams" or each.case.startswith(title)]
            _scaling(axes, rows, names)
            axes.set_title(title)
            axes.set_xlabel("threads" if table == "threads" else "clients")
            axes.set_ylabel("GB/s")
        figure.savefig(path, metadata={"Date": None})


def _scaling(axes: Any, rows: list[Row], names: Sequence[str]) -> None:
    from benchmarks import plots  # noqa: PLC0415 - needs matplotlib

    colors = {"engine": plots.OURS, "local:": plots.OURS_TOO, "torch": plots.PEER, "memset": plots.CEILING}
    colors |= {"by default": plots.OURS, "plain server": plots.OURS, CEILING: plots.CEILING}
    others = iter((plots.OURS_TOO, plots.PEER, plots.PEER_TOO, plots.PEER_THREE))
    for name in names:
        here = [each for each in rows if each.name == name]
        if not here:
            continue
        color = colors.get(name) or next(others)
        axes.plot([each.x for each in here], [each.median for each in here], "o-", color=color, label=name)
    axes.set_xscale("log", base=2)
    axes.set_xticks(sorted({each.x for each in rows}))
    axes.set_yscale("log", base=2)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")
    axes.grid()
    if rows:
        axes.legend()


# The report.


@dataclass
class Report:
    """The results so far; each measurement saves them to the file."""

    path: Path
    about: dict[str, Any]
    bench: Bench
    parts: dict[str, Part] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def run(self, name: str) -> None:
        """Runs a measurement. A failure is reported, and the next measurement runs."""
        if not self.bench.has_time(name):
            return
        begin = time.perf_counter()
        measure = MEASURES[name]
        say(f"\n== {name}: {(measure.__doc__ or '').splitlines()[0]}")
        try:
            self.parts[name] = Part(rows=measure(self.bench))
            say(*tables(self.parts[name].rows), sep="\n")
        except Exception as error:  # reported, and recorded
            say(traceback.format_exc())
            self.failures[name] = f"{type(error).__name__}: {error}"
        say(f"   {time.perf_counter() - begin:.1f} s")
        self.save()

    def save(self) -> dict[str, Any]:
        report = {
            **self.about,
            "sizes": dataclasses.asdict(self.bench.sizes),
            "left_out": self.bench.left_out,
            "failures": self.failures,
            "parts": {name: part.as_json() for name, part in self.parts.items()},
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(as_json(report), encoding="utf-8")
        return report

    def picture(self) -> None:
        if is_missing("matplotlib"):
            self.bench.leave_out("the plot: matplotlib is missing")
        elif self.parts:
            draw(Figures(self.save()), self.path.with_suffix(".svg"))
            say(f"written: {self.path.with_suffix('.svg')}")


def about() -> dict[str, Any]:
    """The machine and the commit of the figures."""
    return {
        "measured": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "processor": llvm.get_host_cpu_name(),
        "stand_ins": STAND_INS,
        "machine": machine(),
    }


def _commit() -> str | None:
    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def set_environment() -> None:
    """Makes child processes use this checkout and the CPU engine."""
    paths = [str(ROOT / "client"), str(ROOT / "server"), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)
    os.environ["SEEDBED_BACKEND"] = "numba"
    for name in ("SEEDBED_THREADS", "SEEDBED_WORKERS", "SEEDBED_TARGET"):
        os.environ.pop(name, None)


def parsed(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out"), help="the folder of many_cores.json (default: out)")
    parser.add_argument("--seconds", type=float, default=240, help="start nothing later (default: 240)")
    parser.add_argument(
        "--quick", dest="sizes", action="store_const", const=QUICK, default=Sizes(), help="smaller sizes"
    )
    parser.add_argument("--tiny", dest="sizes", action="store_const", const=TINY, help="smallest sizes, for the tests")
    parser.add_argument("--only", nargs="+", choices=MEASURES, default=MEASURES, help="run only these (default: all)")
    return parser.parse_args(arguments)


def main(arguments: argparse.Namespace) -> int:
    deadline = time.perf_counter() + arguments.seconds
    sys.stdout.reconfigure(encoding="utf-8")
    for package, what in STAND_INS.items():
        say(f"{package} is missing, replaced by: {what}")
    described = about()
    say(as_json(described))
    set_environment()
    with contextlib.ExitStack() as stack:
        bench = Bench(arguments.sizes, usable_cores(), deadline, stack)
        report = Report(arguments.out / "many_cores.json", described, bench)
        for name in arguments.only:
            report.run(name)
    report.picture()
    report.save()
    for what in report.bench.left_out:
        say(f"skipped: {what}")
    for name, error in report.failures.items():
        say(f"FAILED: {name}: {error}")
    say(f"written: {report.path}")
    return int(bool(report.failures))


if __name__ == "__main__":
    sys.exit(main(parsed(sys.argv[1:])))
