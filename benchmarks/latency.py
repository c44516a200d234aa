"""Latency: of a first chunk, a small tensor, a description, a model, an import, a server's start."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Iterable
from functools import partial

import numpy as np
import torch
from google.protobuf import json_format

import seedbed
from benchmarks.measuring import MILLISECONDS, SECONDS, Part, Row, Say, Sizes, compare, is_installed
from benchmarks.peers import Ceiling, Tutorial
from benchmarks.servers import ROOT, Server, peer, run_python, seconds_until, serving
from benchmarks.servers import seedbed as our_server
from seedbed.v1 import Law, Model

HUGE = seedbed.spec("normal", (100, 1 << 28))  # 100 GiB
SMALL = seedbed.spec("normal", (256,))  # 1 KiB
PAUSE = 0.02  # after a cancelled stream, until messages in flight have arrived
IMPORT = """
import sys, time
begin = time.perf_counter()
import {package}
print(time.perf_counter() - begin)
unwanted = {{"numba", "torch", "jax"}} & set(sys.modules)
assert {package!r} != "seedbed" or not unwanted, f"seedbed imports {{unwanted}}"
"""


def measure(sizes: Sizes, say: Say) -> Part:
    torch.set_num_threads(1)
    part = Part()
    with contextlib.ExitStack() as stack:
        ours = stack.enter_context(serving(our_server))
        ceiling = stack.enter_context(serving(peer("ceiling")))
        tutorial = stack.enter_context(serving(peer("tutorial")))
        say("first chunk")
        part.rows += _first_chunk(ours, ceiling, sizes)
        say("round trips")
        part.rows += _small_tensor(ours, ceiling, tutorial, sizes)
        part.rows += _describe(ours, ceiling, sizes)
        say("a model")
        part.rows += _model(ours, sizes)
    say("imports")
    part.rows += _imports(sizes, part.notes)
    say("starts")
    part.rows += _starts(sizes)
    return part


def _first_chunk(ours: Server, ceiling: Server, sizes: Sizes) -> list[Row]:
    """The first chunk of a tensor larger than memory, over an existing and over a new connection."""
    rows = []
    with seedbed.connect(ours.tcp) as client, Ceiling(ceiling.tcp) as peer_client:
        warm: dict[str, Callable[[], object]] = {
            "seedbed TCP": lambda: _first(client.iter_chunks(HUGE)),
            "ceiling TCP": lambda: _first(peer_client.messages(100 << 30)),
        }
        case = "first chunk of 100 GiB"
        rows += compare("latency", case, MILLISECONDS, sizes.first_chunk_runs, warm, pause=PAUSE)
    cold: dict[str, Callable[[], object]] = {
        "seedbed TCP": lambda: _first_of_new(lambda: seedbed.connect(ours.tcp), lambda c: c.iter_chunks(HUGE)),
        "ceiling TCP": lambda: _first_of_new(lambda: Ceiling(ceiling.tcp), lambda c: c.messages(100 << 30)),
    }
    case = "first chunk of 100 GiB, connecting first"
    rows += compare("latency", case, MILLISECONDS, sizes.first_chunk_runs, cold, pause=PAUSE)
    return rows


def _first(chunks: Generator[object, None, None]) -> float:
    begin = time.perf_counter()
    with contextlib.closing(chunks):
        next(chunks)
        return time.perf_counter() - begin


def _first_of_new(connect: Callable[[], contextlib.AbstractContextManager], chunks: Callable) -> float:
    begin = time.perf_counter()
    with connect() as client, contextlib.closing(chunks(client)) as messages:
        next(messages)
        return time.perf_counter() - begin


def _small_tensor(ours: Server, ceiling: Server, tutorial: Server, sizes: Sizes) -> list[Row]:
    out = np.zeros(256, np.float32)
    with contextlib.ExitStack() as stack:
        competitors: dict[str, Callable[[], object]] = {
            f"seedbed {name}": partial(stack.enter_context(seedbed.connect(target)).init, SMALL, out=out)
            for name, target in {"TCP": ours.tcp, "Unix": ours.unix, "local:": "local:"}.items()
        }
        for name, target in {"TCP": ceiling.tcp, "Unix": ceiling.unix}.items():
            competitors[f"ceiling {name}"] = partial(stack.enter_context(Ceiling(target)).fill, out)
        competitors["tutorial TCP"] = partial(stack.enter_context(Tutorial(tutorial.tcp)).fill, SMALL, out)
        return compare("latency", "1 KiB tensor", MILLISECONDS, sizes.latency_runs, competitors)


def _describe(ours: Server, ceiling: Server, sizes: Sizes) -> list[Row]:
    with contextlib.ExitStack() as stack:
        competitors: dict[str, Callable[[], object]] = {
            f"seedbed {name}": partial(stack.enter_context(seedbed.connect(target)).describe, SMALL)
            for name, target in {"TCP": ours.tcp, "Unix": ours.unix, "local:": "local:"}.items()
        }
        for name, target in {"TCP": ceiling.tcp, "Unix": ceiling.unix}.items():
            competitors[f"ceiling {name}"] = stack.enter_context(Ceiling(target)).echo
        return compare("latency", "describe (peers: echo)", MILLISECONDS, sizes.latency_runs, competitors)


def _model(ours: Server, sizes: Sizes) -> list[Row]:
    """All tensors of a model in one request, in a request each, and by torch's own initialisers."""
    text = (ROOT / "examples" / f"{sizes.model}.json").read_text(encoding="utf-8")
    model = json_format.Parse(text, Model())
    arrays = {spec.name: np.zeros(tuple(spec.shape), seedbed.dtypes.numpy_dtype(spec.dtype)) for spec in model.tensors}
    with seedbed.connect(ours.tcp) as client:
        tensors = [(client.describe(spec).law, torch.from_numpy(arrays[spec.name])) for spec in model.tensors]
        competitors: dict[str, Callable[[], object]] = {
            "one InitModel": lambda: _consume(client.init_model(model, out=arrays)),
            "a request each": lambda: _consume(client.init(spec, out=arrays[spec.name]) for spec in model.tensors),
            "torch, no server": lambda: _consume(_torch_init(law, tensor) for law, tensor in tensors),
        }
        size = sum(array.nbytes for array in arrays.values()) / 1e6
        case = f"{sizes.model}, {len(tensors)} tensors, {size:.0f} MB"
        return compare("model", case, SECONDS, sizes.model_runs, competitors)


def _consume(iterable: Iterable[object]) -> None:
    for _ in iterable:
        pass


def _torch_init(law: Law, tensor: torch.Tensor) -> None:
    match law.WhichOneof("law"):
        case "normal":
            tensor.normal_(law.normal.mean, law.normal.std)
        case "uniform":
            tensor.uniform_(law.uniform.a, law.uniform.b)
        case "constant":
            tensor.fill_(law.constant.val)
        case other:
            raise ValueError(f"the model has a tensor with the law {other}, which this benchmark does not support")


def _imports(sizes: Sizes, notes: list[str]) -> list[Row]:
    """Times imports in fresh processes."""
    packages = ["seedbed", "numpy", "grpc", "torch"]
    if is_installed("jax"):
        packages.append("jax")
    else:
        notes.append("jax is skipped: it is not installed")
    competitors: dict[str, Callable[[], object]] = {
        package: lambda package=package: float(run_python(IMPORT.format(package=package))) for package in packages
    }
    return compare("import", "import in a fresh process", SECONDS, sizes.process_runs, competitors)


def _starts(sizes: Sizes) -> list[Row]:
    """From the start of a process to its first response; the first turn fills the cache of compiled kernels."""

    def ask_ours(target: str) -> None:
        with seedbed.connect(target) as client:
            client.init(SMALL)

    def ask_ceiling(target: str) -> None:
        with Ceiling(target) as client:
            client.echo()

    competitors: dict[str, Callable[[], object]] = {
        "seedbed serve": lambda: seconds_until(our_server, ask_ours),
        "ceiling": lambda: seconds_until(peer("ceiling"), ask_ceiling),
    }
    return compare("start", "to the first response", SECONDS, sizes.process_runs, competitors)
