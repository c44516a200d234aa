"""What one extra promises, tried where only that extra is installed: ``python -I smoke.py EXTRA TARGET GOLDEN FOLDER``.

``TARGET`` is a running server, ``GOLDEN`` the file of golden vectors, and ``FOLDER`` a place for files. It is check.py
that runs it.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from google.protobuf import json_format

import seedbed
from seedbed.v1 import Region, TensorSpec

SEEDBED = str(Path(sys.executable).with_name("seedbed"))
SPEC: dict[str, Any] = {"shape": (64, 32), "seed": 7, "name": "w"}


class Smoke:
    """One method for each extra."""

    def __init__(self, target: str, golden: Path, folder: Path) -> None:
        self._target = target
        self._golden = golden
        self._folder = folder

    def thin(self) -> None:
        """The client alone gets a tensor from a server, and names the command that installs what is missing."""
        assert importlib.util.find_spec("seedbed_server") is None
        with seedbed.connect(self._target) as client:
            assert client.ones((3,)).tolist() == [1, 1, 1]
            assert client.server_info().version == seedbed.__version__ == importlib.metadata.version("seedbed")
        assert "pip install 'seedbed[server]'" in refusal("local:")
        assert "pip install 'seedbed[cli]'" in run("--help", code=2).stderr

    def server(self) -> None:
        """A server of this environment serves all golden vectors over a socket."""
        assert importlib.metadata.version("seedbed-server") == seedbed.__version__
        with Served("serve", "--listen", "127.0.0.1:0", pattern=r"serving on ([^;]+);") as target:
            self._check_golden(target)

    def traces(self) -> None:
        """The server starts with traces, whose collector is away."""
        options = ("--listen", "127.0.0.1:0", "--backend", "numpy", "--traces", "http://127.0.0.1:1")
        with Served("serve", *options, pattern=r"serving on ([^;]+);") as target, seedbed.connect(target) as client:
            client.ones((3,))

    def cli(self) -> None:
        """The command line, for a server elsewhere."""
        assert "seedbed serve" in run("--help").stdout
        assert "pip install 'seedbed[server]'" in run("serve", code=2).stderr
        assert seedbed.__version__ in run("--version").stdout
        assert "normal" in run("describe", "kaiming_normal", "--shape", "4,4", "--target", self._target).stdout

    def plot(self) -> None:
        """A picture."""
        picture = self._folder / "w.png"
        run("plot", "normal", "--shape", "64,64", "--target", self._target, "-o", picture)
        assert picture.read_bytes().startswith(b"\x89PNG")

    def safetensors(self) -> None:
        """The official reader gets from our file what the server serves."""
        from safetensors.numpy import load_file

        with seedbed.connect(self._target) as client:
            expected = client.kaiming_normal(**SPEC)
        assert (load_file(self._folder / "w.safetensors")["w"] == expected).all()

    def explore(self) -> None:
        """The page."""
        options = ("--no-browser", "--listen", "127.0.0.1:0", "--target", self._target)
        with (
            Served("explore", *options, pattern=r"(http://\S+)") as address,
            urllib.request.urlopen(address, timeout=30) as page,
        ):
            assert b"<title>Seedbed explore</title>" in page.read()

    def torch(self) -> None:
        """A module is filled, and verified."""
        import torch

        import seedbed.torch

        def make() -> torch.nn.Module:
            return torch.nn.Sequential(torch.nn.Embedding(10, 8), torch.nn.Linear(8, 4))

        with seedbed.connect(self._target) as client:
            module = seedbed.torch.build(make, client, seed=7)
            seedbed.torch.verify_module(module, client, model=seedbed.torch.record(make, seed=7))

    def jax(self) -> None:
        """A tree of arrays."""
        import jax

        import seedbed.jax

        sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        with seedbed.connect(self._target) as client:
            tree = seedbed.jax.init_tree(client, {"w": seedbed.spec("kaiming_normal", **SPEC)}, sharding)
            assert (tree["w"] == client.kaiming_normal(**SPEC)).all()

    def keras(self) -> None:
        """A model is filled; Keras itself runs on JAX here."""
        import keras

        import seedbed.keras

        def make() -> keras.Model:
            return keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])

        with seedbed.connect(self._target) as client:
            model = seedbed.keras.build(make, client, seed=7)
        assert model.layers[0].kernel.shape == (8, 4)

    def _check_golden(self, target: str) -> None:
        vectors = json.loads(self._golden.read_text(encoding="utf-8"))["tensors"]
        with seedbed.connect(target) as client:
            for vector in vectors:
                spec = json_format.ParseDict(vector["spec"], TensorSpec())
                region = json_format.ParseDict(vector["region"], Region()) if "region" in vector else None
                values = client.init(spec, region)
                assert hashlib.sha256(values.tobytes()).hexdigest() == vector["sha256"], vector
        print(f"{len(vectors)} golden vectors")


class Served:
    """A command that serves until the block ends; gives the address that its first line names."""

    def __init__(self, *arguments: str, pattern: str) -> None:
        self._process = subprocess.Popen([SEEDBED, *arguments], stdout=subprocess.PIPE, text=True)
        self._pattern = pattern

    def __enter__(self) -> str:
        assert self._process.stdout
        line = self._process.stdout.readline()
        found = re.search(self._pattern, line)
        if not found:
            self._process.kill()
            raise AssertionError(f"did not start: {line!r}")
        return found[1]

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(60)


def refusal(target: str) -> str:
    """Why a target is refused; empty if it is not."""
    try:
        seedbed.connect(target)
    except seedbed.InvalidRequest as error:
        return str(error)
    return ""


def run(*arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Runs the command ``seedbed``."""
    command = [SEEDBED, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == code, f"{command} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done


def main(extra: str, target: str, golden: str, folder: str) -> None:
    """Tries one extra."""
    assert shutil.which(SEEDBED), "the command is not installed"
    smoke = Smoke(target, Path(golden), Path(folder))
    attempt: Callable[[], None] = getattr(smoke, extra)
    attempt()


if __name__ == "__main__":
    main(*sys.argv[1:])
