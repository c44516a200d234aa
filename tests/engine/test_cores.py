"""How many cores there are to use."""

import os

import pytest

from seedbed import _cores
from seedbed_server import engine

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


@pytest.mark.parametrize(
    ("text", "allowed"),
    [("max 100000", 1000), ("100000 100000", 1), ("150000 100000", 2), ("10000 100000", 1), ("", 1000), ("x y", 1000)],
)
def test_a_container_may_have_fewer_than_the_machine(tmp_path, monkeypatch, text, allowed):
    limit = tmp_path / "cpu.max"
    limit.write_text(text + "\n")
    monkeypatch.setattr(_cores, "_CPU_LIMIT", limit)
    assert engine.usable_cores() == min(CORES, allowed)
    assert engine.open_backend("numpy").threads == min(CORES, allowed)


def test_there_may_be_no_control_groups(tmp_path, monkeypatch):
    monkeypatch.setattr(_cores, "_CPU_LIMIT", tmp_path / "none")
    assert engine.usable_cores() == CORES
