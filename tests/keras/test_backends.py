"""The other backend, real models, and JAX's distributions: in other processes, since a process has one backend."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.nightly

HERE = Path(__file__).parent


def run(*command, **variables):
    done = subprocess.run(
        [sys.executable, *map(str, command)], capture_output=True, text=True, timeout=240, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", **variables},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_torch_does_what_jax_does():
    out = run("-m", "pytest", "--no-header", "-p", "no:xdist", HERE / "test_keras.py", KERAS_BACKEND="torch")
    assert "[100%]" in out
    assert "skipped" not in out


APPLICATIONS = """
import collections, json
import keras
import seedbed.keras

names = ["ConvNeXtTiny", "DenseNet121", "EfficientNetB0", "MobileNetV3Small", "ResNet50", "VGG16"]
found = {}
for name in names:
    model = seedbed.keras.record(lambda: getattr(keras.applications, name)(weights=None), seed=7)
    found[name] = [len(model.tensors), dict(collections.Counter(each.WhichOneof("scheme") for each in model.tensors))]
print(json.dumps(found))
"""


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_real_models_are_recorded_in_no_time_and_memory(backend):
    found = json.loads(run("-c", APPLICATIONS, KERAS_BACKEND=backend).splitlines()[-1])
    assert found == {
        "ConvNeXtTiny": [182, {"variance_scaling": 59, "zeros": 82, "ones": 23, "constant": 18}],
        "DenseNet121": [606, {"variance_scaling": 121, "zeros": 243, "ones": 242}],
        "EfficientNetB0": [313, {"variance_scaling": 82, "zeros": 132, "ones": 99}],
        "MobileNetV3Small": [210, {"variance_scaling": 54, "zeros": 88, "ones": 68}],
        "ResNet50": [320, {"variance_scaling": 54, "zeros": 160, "ones": 106}],
        "VGG16": [32, {"variance_scaling": 16, "zeros": 16}],
    }


DISTRIBUTED = """
import hashlib, sys
import jax, keras
import numpy as np
import seedbed, seedbed.keras

def make():
    return keras.Sequential([keras.Input((16,)), keras.layers.Dense(64), keras.layers.Dense(32)])

def report(how, model, received):
    hashed = hashlib.sha256()
    for weight in model.weights:
        hashed.update(np.asarray(weight.value).tobytes())
    shards = sum(
        math_size for weight in model.weights
        for math_size in {str(each.index): each.data.nbytes for each in weight.value.addressable_shards}.values()
    )
    print(how, hashed.hexdigest()[:16], received == shards, model.weights[0].value.sharding.is_fully_replicated)

devices = keras.distribution.list_devices()
mesh = keras.distribution.DeviceMesh((2, 4), ["data", "model"], devices)
layout = keras.distribution.LayoutMap(mesh)
layout[".*dense.*kernel"] = (None, "model")
for how, distribution in {
    "none": None,
    "data": keras.distribution.DataParallel(devices=devices, auto_shard_dataset=False),
    "model": keras.distribution.ModelParallel(layout_map=layout, batch_dim_name="data", auto_shard_dataset=False),
}.items():
    keras.distribution.set_distribution(distribution)
    received = []
    with seedbed.connect("local:") as client:
        model = seedbed.keras.build(make, client, seed=7, progress=lambda done, _: received.append(done))
        report(how, model, received[-1])
        seedbed.keras.init_model(model, client, seedbed.keras.record(make, seed=7))
        report(how, model, received[-1])
"""


def test_a_distribution_changes_no_weight():
    flags = "--xla_force_host_platform_device_count=8"
    lines = [line.split() for line in run("-c", DISTRIBUTED, KERAS_BACKEND="jax", XLA_FLAGS=flags).splitlines()]
    assert [how for how, *_ in lines] == ["none", "none", "data", "data", "model", "model"]
    assert len({digest for _, digest, *_ in lines}) == 1
    assert all(is_equal == "True" for _, _, is_equal, _ in lines)
    assert [replicated for *_, replicated in lines] == ["True"] * 4 + ["False"] * 2
