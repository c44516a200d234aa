"""The work of a training job: recording a model, filling its modules, writing checkpoints, using several servers."""

from __future__ import annotations

import contextlib
import fnmatch
import io
import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
import transformers
from google.protobuf import json_format

import seedbed
import seedbed.torch
from benchmarks.measuring import MILLISECONDS, Part, Row, Say, Sizes, compare, gigabytes
from benchmarks.servers import ROOT, serving
from benchmarks.servers import seedbed as our_server
from seedbed.cli import main as command
from seedbed.v1 import Model, TensorSpec

LLAMA = ROOT / "examples" / "llama-3.1-8b.json"
MEMORY = Path("/dev/shm")


def measure(sizes: Sizes, say: Say) -> Part:
    torch.set_num_threads(2)
    part = Part()
    say("recording")
    part.rows += _record(sizes)
    say("filling a module")
    part.rows += _fill(sizes)
    say("checkpoints")
    part.rows += _checkpoint(sizes, part.notes)
    if MEMORY.is_dir():
        part.rows += _checkpoint_in_memory(sizes)
    else:
        part.notes.append("checkpoints in memory are skipped: there is no /dev/shm")
    say("several servers")
    part.rows += _replicas(sizes)
    return part


def _gpt2(layers: int) -> torch.nn.Module:
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(n_layer=layers))


def _llama() -> torch.nn.Module:
    rope = {
        "rope_type": "llama3",
        "rope_theta": 500000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    config = transformers.LlamaConfig(
        vocab_size=128256,
        intermediate_size=14336,
        num_key_value_heads=8,
        max_position_embeddings=131072,
        rope_parameters=rope,
        dtype="bfloat16",
    )
    return transformers.AutoModelForCausalLM.from_config(config)


def _record(sizes: Sizes) -> list[Row]:
    """Records the laws of a model's parameters; Llama has 8 billion elements."""
    builds = {"GPT-2": partial(_gpt2, sizes.gpt2_layers), "Llama 3.1 8B": _llama}
    competitors: dict[str, Callable[[], object]] = {
        name: partial(seedbed.torch.record, build) for name, build in builds.items()
    }
    return compare("record", "seedbed.torch.record", MILLISECONDS, sizes.model_runs, competitors)


def _fill(sizes: Sizes) -> list[Row]:
    """Builds and fills GPT-2 in torch's memory; the peer is transformers' own construction."""
    build = partial(_gpt2, sizes.gpt2_layers)
    model = seedbed.torch.record(build)

    def fill(client: seedbed.Client) -> None:
        seedbed.torch.init_module(seedbed.torch.on_meta(build), client, model=model)

    with serving(our_server) as server, seedbed.connect(server.tcp) as tcp, seedbed.connect("local:") as local:
        competitors: dict[str, Callable[[], object]] = {
            "local:": lambda: fill(local),
            "TCP": lambda: fill(tcp),
            "transformers alone": build,
        }
        return compare("module", f"GPT-2, {sizes.gpt2_layers} layers", MILLISECONDS, sizes.model_runs, competitors)


def _checkpoint(sizes: Sizes, notes: list[str]) -> list[Row]:
    """Some layers of Llama in bfloat16, in files on disk; the peer is a plain file with as many bytes."""
    _, byte_count = _layers(sizes)
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(serving(our_server))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "checkpoint"
        write = _writing(folder, sizes)
        competitors: dict[str, Callable[[], float]] = {"a file, written and synced": lambda: _plain(folder, byte_count)}
        for name, target in {"local:": "local:", "TCP": server.tcp}.items():
            competitors[f"write {name}"] = partial(_written, folder, [*write, "--target", target])
            competitors[f"verify {name}"] = partial(_verified, folder, [*write, "--target", target], target)
        case = f"{sizes.checkpoint_tensors} of Llama 3.1 8B, {byte_count / 1e9:.2g} GB"
        rows = compare("checkpoint", case, gigabytes(byte_count), sizes.checkpoint_runs, competitors)
    slower = min(row.median for row in rows if row.name.startswith("write"))
    notes.append(f"at the slower rate of writing, all 16.06 GB of Llama 3.1 8B would take {16.06 / slower:.0f} s")
    return rows


def _checkpoint_in_memory(sizes: Sizes) -> list[Row]:
    """The same layers in files in memory; the peers are the engine on all threads, and a plain file."""
    tensors, byte_count = _layers(sizes)
    with tempfile.TemporaryDirectory(dir=MEMORY) as parent, seedbed.connect("local:") as client:
        folder = Path(parent) / "checkpoint"
        write = _writing(folder, sizes)
        competitors: dict[str, Callable[[], object]] = {
            "engine": lambda: client.visit(tensors, lambda _tensor, _first, _values: None),
            "a file, written": lambda: _plain(folder, byte_count),
            "write local:": lambda: _written(folder, write),
            "verify local:": lambda: _verified(folder, write, "local:"),
        }
        return compare(
            "checkpoint in memory", "Llama 3.1 8B", gigabytes(byte_count), sizes.checkpoint_runs, competitors
        )


def _layers(sizes: Sizes) -> tuple[list[TensorSpec], int]:
    """Some tensors of Llama, and their number of bytes."""
    model = json_format.Parse(LLAMA.read_text(encoding="utf-8"), Model())
    tensors = [spec for spec in model.tensors if fnmatch.fnmatchcase(spec.name, sizes.checkpoint_tensors)]
    return tensors, sum(2 * math.prod(spec.shape) for spec in tensors)


def _writing(folder: Path, sizes: Sizes) -> list[str]:
    write = ["model", str(LLAMA), "-o", str(folder), "--max-shard-size", "500MB"]
    return [*write, "--tensors", sizes.checkpoint_tensors]


def _plain(folder: Path, byte_count: int) -> float:
    """Writes 1 MiB at a time, one after another, and returns the seconds."""
    piece = np.ones(1 << 20, np.uint8).data
    begin = time.perf_counter()
    with tempfile.NamedTemporaryFile(dir=folder.parent) as file:
        for _ in range(byte_count >> 20):
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    return time.perf_counter() - begin


def _written(folder: Path, write: list[str]) -> float:
    shutil.rmtree(folder, ignore_errors=True)
    return _timed(write)


def _verified(folder: Path, write: list[str], target: str) -> float:
    if not folder.exists():
        _timed(write)
    return _timed(["verify", str(folder), "--target", target])


def _timed(arguments: list[str]) -> float:
    begin = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        code = command(arguments)
    assert code == 0, arguments
    return time.perf_counter() - begin


def _replicas(sizes: Sizes) -> list[Row]:
    """One large tensor from one server, and from two at once that share this machine's cores."""
    out = np.zeros((1024, sizes.transport_mib << 8), np.float32)
    spec = seedbed.spec("trunc_normal", out.shape)
    with contextlib.ExitStack() as stack:
        one, other = (stack.enter_context(serving(our_server)).tcp for _ in range(2))
        competitors: dict[str, Callable[[], object]] = {
            name: partial(stack.enter_context(seedbed.connect(target)).init, spec, out=out)
            for name, target in {"one server": one, "two servers": f"{one},{other}"}.items()
        }
        return compare("replicas", "trunc_normal float32", gigabytes(out.nbytes), sizes.transport_runs, competitors)
