"""The thin client at both ends of the versions it allows: trainers pin protobuf, grpcio and NumPy as they need."""

import hashlib
import json
import subprocess
import sys
import venv
from pathlib import Path

import pytest

import seedbed

ROOT = Path(__file__).resolve().parent.parent

OLDEST = [
    "crc32c==2.4.*",
    "googleapis-common-protos==1.62.*",
    "grpcio==1.60.*",
    "ml_dtypes==0.3.*",
    "numpy==1.24.*" if sys.version_info < (3, 12) else "numpy==1.26.*",
    "protobuf==4.25.*",
]
NEWEST = ["crc32c", "googleapis-common-protos", "grpcio", "ml_dtypes", "numpy", "protobuf>=7,<8"]

# Both are run where only the client is installed.
EXCHANGE = """
import asyncio, hashlib, json, sys
import numpy as np, seedbed

target = sys.argv[1]
specs = [
    seedbed.spec("normal", (700, 701), seed=7, name="large"),
    seedbed.spec("uniform", (33, 5), name="small", dtype="bfloat16"),
    seedbed.spec("kaiming_normal", (4, 5), mode="fan_out", nonlinearity="relu", dtype="float64"),
    seedbed.spec("zeros", (0, 2)),
]

async def with_coroutines():
    async with seedbed.aio.connect(target) as client:
        arrays = [array async for _, array in client.init_model(specs)]
        await client.describe(specs[0])
        return arrays + [await client.init(specs[1], region=np.s_[1:, 2:3])]

def refusal(call):
    try:
        call()
    except seedbed.InvalidRequest as error:
        return [error.field, str(error)]

with seedbed.connect(target) as client:
    arrays = [array for _, array in client.init_model(specs)]
    out = np.zeros((5, 33), arrays[1].dtype).T[1:, 2:3]
    arrays.append(client.init(specs[1], region=np.s_[1:, 2:3], out=out))
    again = asyncio.run(with_coroutines())
    assert all(a.dtype == b.dtype and (a == b).all() for a, b in zip(arrays, again)), "aio differs"
    refusals = [
        refusal(lambda: client.uniform((3,), 2.0, 1.0)),
        refusal(lambda: client.uniform((3,), True)),
        refusal(lambda: client.ones((1,) * 33)) if np.__version__ < "2" else ["spec.shape", ""],
    ]
    gain = client.calculate_gain("leaky_relu", 0.2)
    version = client.server_info().version
with seedbed.connect("local:") as client:
    local = client.init(specs[0])
digests = [hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest() for array in arrays]
print(json.dumps({"digests": digests, "refusals": refusals, "gain": gain, "version": version,
                  "local": hashlib.sha256(local.tobytes()).hexdigest(), "own": seedbed.__version__}))
"""


def install(folder: Path, requirements: list[str]) -> Path:
    """A virtual environment with these packages: the client's, and not the server's."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--only-binary", ":all:", *requirements], check=True, timeout=600)
    subprocess.run([*pip, "--no-deps", ROOT, ROOT / "server"], check=True, timeout=600)
    return python


NO_WHEELS = pytest.mark.skipif(sys.version_info >= (3, 13), reason="the oldest packages have none for this Python")


@pytest.mark.nightly
@pytest.mark.parametrize(
    "requirements", [pytest.param(OLDEST, id="oldest", marks=NO_WHEELS), pytest.param(NEWEST, id="newest")]
)
def test_the_client_works_with_the(requirements, server, tmp_path):
    python = install(tmp_path / "venv", requirements)
    # -I: nothing of the environment that runs the tests is seen; -W error: nothing is deprecated either.
    command = [python, "-I", "-W", "error::DeprecationWarning:seedbed", "-c", EXCHANGE, server]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)

    specs = [
        seedbed.spec("normal", (700, 701), seed=7, name="large"),
        seedbed.spec("uniform", (33, 5), name="small", dtype="bfloat16"),
        seedbed.spec("kaiming_normal", (4, 5), mode="fan_out", nonlinearity="relu", dtype="float64"),
        seedbed.spec("zeros", (0, 2)),
    ]
    with seedbed.connect("local:") as client:
        arrays = [client.init(spec) for spec in specs]
        arrays.append(arrays[1][1:, 2:3])
        assert report["digests"] == [hashlib.sha256(array.tobytes()).hexdigest() for array in arrays]
        assert report["gain"] == client.calculate_gain("leaky_relu", 0.2)
        with pytest.raises(seedbed.InvalidRequest) as caught:
            client.uniform((3,), 2.0, 1.0)
    assert report["refusals"][0] == [caught.value.field, str(caught.value)]
    assert report["refusals"][1] == ["spec.uniform.a", "spec.uniform.a: a True not a valid number"]
    assert report["refusals"][2][0] == "spec.shape"
    assert report["local"] == report["digests"][0], "the reference backend needs no more than the client"
    assert report["version"] == report["own"] == seedbed.__version__
