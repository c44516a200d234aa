"""``local:cuda``: directly into torch tensors on the device."""

from __future__ import annotations

import importlib
import itertools
from collections import deque
from functools import partial
from typing import Any

from google.protobuf import json_format

import seedbed
from benchmarks.measuring import MILLISECONDS, Row, compare
from benchmarks.on_gpu import ROOT
from benchmarks.on_gpu.bench import HALF, Bench, described, whole
from benchmarks.on_gpu.device import Work
from benchmarks.on_gpu.engine import MICROSECONDS
from seedbed.v1 import Model, Region, TensorDescription
from seedbed_server import engine

_COMPARED_BYTES = 600 << 20


def into_tensors(bench: Bench) -> list[Row]:
    """The bits of whole tensors and of shards."""
    if bench.torch is None:
        return []
    laws, regions = ("uniform", "normal", "trunc_normal", "orthogonal"), (None, Region(start=[10, 1], stop=[40, 30]))
    with seedbed.connect("local:cuda") as client:
        for law, dtype, region in itertools.product(laws, ("float32", HALF), regions):
            description = described(law, dtype, (64, 48), region, name="tensor", seed=3)
            tensor = _tensor(bench, description)
            client.init(description.spec, region=region, out=tensor)
            bench.check(whole(description), {"local:cuda": bench.gpu.bytes_of(bench.torch, tensor)})
    return []


def a_model(bench: Bench) -> list[Row]:
    """A model's parameters, requested in every way; torch.nn.init in the same tensors."""
    if bench.torch is None:
        return []
    return [row for name in bench.sizes.models for row in _one_model(bench, name)]


def one_tensor(bench: Bench) -> list[Row]:
    """A tensor of 1 KiB through the client, until it is complete; `latency` measures the engine alone."""
    with seedbed.connect("local:cuda") as client:
        spec = seedbed.spec("normal", (256,), name="small")
        array = client.init(spec)
        works: dict[str, Work] = {
            "new array": lambda: client.init(spec),
            "CuPy's array": lambda: client.init(spec, out=array),
        }
        if bench.torch is not None:
            tensor = _tensor(bench, engine.describe(spec))
            works["torch's tensor"] = lambda: client.init(spec, out=tensor)
            works |= {f"{name}, alone": work for name, work in bench.peers("normal", "float32", 256).items()}
        timed = {name: partial(bench.gpu.host_seconds, work) for name, work in works.items()}
        return compare("one tensor", "normal float32, 1 KiB", MICROSECONDS, bench.sizes.latency_runs, timed)


def _one_model(bench: Bench, name: str) -> list[Row]:
    text = (ROOT / "examples" / f"{name}.json").read_text(encoding="utf-8")
    model = json_format.Parse(text, Model())
    descriptions = [engine.describe(spec) for spec in model.tensors]
    tensors = {each.spec.name: _tensor(bench, each) for each in descriptions}
    peers = [_torch_init(bench, each, tensors[each.spec.name]) for each in descriptions]
    module = _module(bench, tensors)
    with seedbed.connect("local:cuda") as client:

        def into_tensors() -> None:
            deque(client.init_model(model, out=tensors), maxlen=0)

        works: dict[str, Work] = {
            "new arrays": lambda: deque(client.init_model(model), maxlen=0),
            "tensors": into_tensors,
            "torch.nn.init": lambda: [work() for work in peers],
        }
        if module is not None:
            works["init_module"] = lambda: seedbed.torch.init_module(module, client, model=model)  # type: ignore[attr-defined]
        timed = {way: partial(bench.gpu.host_seconds, work) for way, work in bench.usable(works).items()}
        case = f"{name}, {sum(each.byte_count for each in descriptions) / 1e6:.0f} MB"
        rows = compare("a model", case, MILLISECONDS, bench.sizes.runs, timed)
        into_tensors()
        bench.gpu.synchronize()
    byte_count = 0
    for each in sorted(descriptions, key=lambda each: each.byte_count):  # as many as the reference can sample soon
        byte_count += each.byte_count
        if byte_count <= _COMPARED_BYTES:
            bench.check(whole(each), {"a model": bench.gpu.bytes_of(bench.torch, tensors[each.spec.name])})
    return rows


def _module(bench: Bench, tensors: dict[str, Any]) -> Any:
    """A module with these parameters; None if they are not torch tensors."""
    if not all(isinstance(tensor, bench.torch.Tensor) for tensor in tensors.values()):
        return None
    importlib.import_module("seedbed.torch")
    root = bench.torch.nn.Module()
    for name, tensor in tensors.items():
        owner, (*path, last) = root, name.split(".")
        for step in path:
            if not hasattr(owner, step):
                owner.add_module(step, bench.torch.nn.Module())
            owner = getattr(owner, step)
        owner.register_parameter(last, bench.torch.nn.Parameter(tensor, requires_grad=False))
    return root


def _tensor(bench: Bench, description: TensorDescription) -> Any:
    region = description.region
    extents = tuple(high - low for low, high in zip(region.start, region.stop, strict=True))
    return bench.gpu.tensor(bench.torch, extents, seedbed.dtypes.name_of(description.spec.dtype))


def _torch_init(bench: Bench, description: TensorDescription, tensor: Any) -> Work:
    law = description.law.WhichOneof("law")
    parameters = getattr(description.law, law)
    options = {each.name: getattr(parameters, each.name) for each in parameters.DESCRIPTOR.fields}
    if not isinstance(tensor, bench.torch.Tensor):
        tensor = bench.torch.empty(tuple(description.spec.shape), device=bench.gpu.torch_device)
    return partial(getattr(bench.torch.nn.init, f"{law}_"), tensor, **options)
