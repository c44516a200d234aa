"""``local:cuda``: straight into torch's tensors on the device."""

from __future__ import annotations

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
from seedbed.v1 import Model, Region, TensorDescription
from seedbed_server import engine


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
    """A model's parameters, beside torch.nn.init on tensors of the same shapes."""
    if bench.torch is None:
        return []
    text = (ROOT / "examples" / f"{bench.sizes.model}.json").read_text(encoding="utf-8")
    model = json_format.Parse(text, Model())
    descriptions = [engine.describe(spec) for spec in model.tensors]
    tensors = {each.spec.name: _tensor(bench, each) for each in descriptions}
    peers = [_torch_init(bench, each) for each in descriptions]
    with seedbed.connect("local:cuda") as client:
        works: dict[str, Work] = {
            "local:cuda": lambda: deque(client.init_model(model, out=tensors), maxlen=0),
            "torch.nn.init": lambda: [work() for work in peers],
        }
        timed = {name: partial(bench.gpu.host_seconds, work) for name, work in works.items()}
        case = f"{bench.sizes.model}, {sum(each.byte_count for each in descriptions) / 1e6:.0f} MB"
        rows = compare("a model", case, MILLISECONDS, bench.sizes.runs, timed)
    for each in descriptions:
        bench.check(whole(each), {"a model": bench.gpu.bytes_of(bench.torch, tensors[each.spec.name])})
    return rows


def _tensor(bench: Bench, description: TensorDescription) -> Any:
    region = description.region
    extents = tuple(high - low for low, high in zip(region.start, region.stop, strict=True))
    return bench.gpu.tensor(bench.torch, extents, seedbed.dtypes.name_of(description.spec.dtype))


def _torch_init(bench: Bench, description: TensorDescription) -> Work:
    law = description.law.WhichOneof("law")
    parameters = getattr(description.law, law)
    options = {each.name: getattr(parameters, each.name) for each in parameters.DESCRIPTOR.fields}
    tensor = bench.torch.empty(tuple(description.spec.shape), device=bench.gpu.torch_device)
    return partial(getattr(bench.torch.nn.init, f"{law}_"), tensor, **options)
