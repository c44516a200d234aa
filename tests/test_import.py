"""`import seedbed` brings nothing along that a trainer does not have, and so is quick."""

import json
import subprocess
import sys


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return done.stdout


def test_import_is_thin():
    modules = set(json.loads(run_python("import seedbed, json, sys; print(json.dumps(sorted(sys.modules)))")))
    heavy = {"grpc", "google.rpc", "numba", "torch", "jax", "scipy", "click", "rich", "matplotlib", "asyncio"}
    heavy |= {"safetensors", "seedbed_server", "seedbed.aio", "seedbed.cli"}
    assert "seedbed" in modules
    assert not heavy & modules


def test_what_is_imported_late_is_there_all_the_same():
    out = run_python(
        "import seedbed; print(seedbed.__version__, seedbed.aio.connect.__module__, hasattr(seedbed, 'x'))"
    )
    version, module, other = out.split()
    assert version.count(".") == 2
    assert (module, other) == ("seedbed.aio", "False")


def test_all_that_is_promised_is_there():
    assert run_python("from seedbed import *; print(Client.__name__, SeedbedError.__name__, aio.connect.__name__)")
