"""Who imports whom: the rules of pyproject.toml hold, and each of them notices an import that breaks it."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from _helpers.command import ROOT

LINT = Path(sys.executable).with_name("lint-imports")
UPWARD = "The client's rooms import downwards"
CYCLE = "No two modules import each other"
PLANTED = {
    "upwards between rooms": ("client/seedbed/_ask/regions.py", "import seedbed._receive.retry", UPWARD),
    "upwards within a function": ("client/seedbed/errors.py", "def late():\n    from seedbed import dtypes", UPWARD),
    "a module that is in no room": ("client/seedbed/stray.py", "import math", UPWARD),
    "a cycle within a room": ("client/seedbed/_receive/retry.py", "import seedbed._receive.attempts", CYCLE),
    "a cycle in the engine": (
        "server/seedbed_server/engine/errors.py",
        "import seedbed_server.engine.spec",
        CYCLE,
    ),
    "the front door from within": (
        "client/seedbed/_wire/targets.py",
        "import seedbed",
        "Only what users could write themselves imports the front door",
    ),
    "the server from the client": (
        "client/seedbed/_inside/engine.py",
        "import seedbed_server.engine",
        "The client does without the server",
    ),
    "the client's private rooms from the server": (
        "server/seedbed_server/service/signals.py",
        "import seedbed._ask.regions",
        "The server takes of the client the contract and what both share",
    ),
    "the service from the engine": (
        "server/seedbed_server/engine/errors.py",
        "import seedbed_server.service",
        "The service is above the engine",
    ),
}


def lint(folder: Path) -> str:
    """What import-linter prints about the packages in a folder, with the rules of this checkout."""
    paths = os.pathsep.join([str(folder / "client"), str(folder / "server")])
    command = [LINT, "--no-cache", "--config", ROOT / "pyproject.toml"]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, check=False, cwd=folder
    )
    assert (done.returncode == 0) == (" BROKEN" not in done.stdout), done.stdout + done.stderr
    return done.stdout


def test_the_rules_hold():
    report = lint(ROOT)
    assert " KEPT" in report
    assert " BROKEN" not in report, report


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_import_is_found(tmp_path, name):
    place, line, rule = PLANTED[name]
    for folder in ("client", "server"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__", "node_modules"))
    path = tmp_path / place
    path.write_text((path.read_text() if path.exists() else "") + f"\n{line}\n")
    assert f"{rule} BROKEN" in lint(tmp_path)


def test_the_page_draws_the_rules():
    page = (ROOT / "docs" / "architecture.md").read_text()
    rules = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    rooms = page.partition("| room |")[2].partition("\n\n")[0]
    rows = [re.findall(r"`(\w+)`", row.split("|")[1]) for row in rooms.splitlines()[2:]]
    layers = [re.split(r" \| ", layer) for layer in rules[0]["layers"]]
    assert [sorted(row) for row in rows] == [sorted(layer) for layer in layers]


def test_the_page_names_files_that_exist():
    page = (ROOT / "docs" / "architecture.md").read_text()
    paths = re.findall(r"`((?:client|server|proto|docs|tests|evidence)/[\w./-]+)`", page)
    assert len(paths) > 12
    assert [path for path in paths if not (ROOT / path).exists()] == []
