"""The number of usable cores."""

import os

import pytest

from seedbed.common import cores
from seedbed_server import engine

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


@pytest.mark.parametrize(
    ("text", "allowed"),
    [("max 100000", 1000), ("100000 100000", 1), ("150000 100000", 2), ("10000 100000", 1), ("", 1000), ("x y", 1000)],
)
def test_a_container_may_have_fewer_cores_than_the_machine(tmp_path, monkeypatch, text, allowed):
    limit = tmp_path / "cpu.max"
    limit.write_text(text + "\n")
    monkeypatch.setattr(cores, "_CPU_LIMIT", limit)
    assert engine.usable_cores() == min(CORES, allowed)
    assert engine.open_backend("numpy").threads == min(CORES, allowed)


@pytest.mark.parametrize(
    ("ranks", "share"), [("1", CORES), ("2", max(1, CORES // 2)), ("1000", 1), ("0", CORES), ("x", CORES), ("", CORES)]
)
def test_ranks_on_one_machine_divide_its_cores(monkeypatch, ranks, share):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", ranks)
    assert cores.cores_of_rank() == share
    assert engine.open_backend("numpy", threads=3).threads == 3


def test_ranks_that_are_bound_to_cores_keep_them(monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setattr(cores.os, "cpu_count", lambda: 2 * CORES)
    assert cores.cores_of_rank() == CORES


def test_control_groups_may_be_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(cores, "_CPU_LIMIT", tmp_path / "none")
    assert engine.usable_cores() == CORES
