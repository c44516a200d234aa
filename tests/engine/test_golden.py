"""The golden vectors that freeze stream v1, on all backends.

If one of these tests fails, the code is wrong, not the vector: the bits of a released version never change.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import json_format

from seedbed.v1 import Region, TensorSpec
from seedbed_server import engine

VECTORS = json.loads((Path(__file__).parent / "golden" / "stream_v1.json").read_text(encoding="utf-8"))["tensors"]


FROZEN = [
    (229, "fa04d7f45d80b0391d1915f21b7e282fb0145b43c68b1db64bd2190eea013acf"),  # 1.0.0
]
"""For each release that added vectors: how many there were in all, and their digest. It only grows, as they do."""


def name_of(vector: dict) -> str:
    spec = vector["spec"]
    return f"{spec['name'].split('.')[1]}-{spec['dtype'].removeprefix('DATA_TYPE_').lower()}-{spec.get('shape')}"


@pytest.mark.parametrize("vector", VECTORS, ids=name_of)
def test_golden_vector(vector: dict, backend: engine.Backend) -> None:
    spec = json_format.ParseDict(vector["spec"], TensorSpec())
    region = json_format.ParseDict(vector["region"], Region()) if "region" in vector else None
    description = engine.describe(spec, region)
    out = np.empty(description.element_count, engine.numpy_dtype(description.spec.dtype))
    backend.fill(description, 0, out)
    data = out.view(f"<u{out.itemsize}")
    assert [f"{value:0{2 * out.itemsize}x}" for value in data[:16].tolist()] == vector["bits"]
    assert hashlib.sha256(data.tobytes()).hexdigest() == vector["sha256"]


def test_the_vectors_cover_every_scheme_and_dtype() -> None:
    schemes = {descriptor.name for descriptor in TensorSpec.DESCRIPTOR.oneofs_by_name["scheme"].fields}
    assert {scheme for vector in VECTORS for scheme in vector["spec"]} & schemes == schemes
    assert len({vector["spec"]["dtype"] for vector in VECTORS}) == 5


@pytest.mark.parametrize(("count", "digest"), FROZEN)
def test_released_vectors_stand_for_ever(count: int, digest: str) -> None:
    released = json.dumps(VECTORS[:count], ensure_ascii=False, sort_keys=True)
    assert hashlib.sha256(released.encode()).hexdigest() == digest, "a released vector was changed, moved or removed"
