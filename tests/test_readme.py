"""The Python in the README runs, in order, in one namespace; its commands exist."""

import re
from pathlib import Path

import ml_dtypes
import pytest
from _helpers.emulation import emulated_cupy

from seedbed.cli import main

README = (Path(__file__).resolve().parent.parent / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def test_the_python_runs(capsys):
    namespace = {}
    with emulated_cupy() as cupy:
        namespace["tensor"] = cupy.empty((4096, 4096), ml_dtypes.bfloat16)
        for block in blocks("python"):
            exec(compile(block, "README.md", "exec"), namespace)
    assert (namespace["tensor"].get()[1024:2048] == namespace["shard"]).all()
    out = capsys.readouterr().out
    assert "uniform {" in out
    assert "spec.uniform" in out


def test_the_commands_exist(capsys):
    lines = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("seedbed ")]
    assert len(lines) > 5
    for line in lines:
        words = line.partition("#")[0].split()[1:]
        command = words[:2] if words[0] in ("get", "describe", "plot") else words[:1]
        assert main([*command, "--help"]) == 0
        usage = capsys.readouterr().out
        for option in re.findall(r"--[a-z-]+", line):
            assert option in usage, f"{option} of: {line}"


def test_the_model_file_is_one(tmp_path, capsys):
    (tmp_path / "m.json").write_text(blocks("json")[0], encoding="utf-8")
    assert main(["describe", "model", str(tmp_path / "m.json")]) == 0
    assert "2 tensors, 8,256 elements" in capsys.readouterr().out


@pytest.mark.parametrize("path", re.findall(r"\]\(([^)#:]+)\)", README))
def test_the_links_lead_somewhere(path):
    assert (Path(__file__).resolve().parent.parent / path).exists()
