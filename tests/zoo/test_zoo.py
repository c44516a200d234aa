"""Models of libraries that nobody here wrote: all of them right, but for those that are listed with their reasons.

It needs the environment that ``make test-zoo`` sets up (requirements.txt), and some minutes for each package;
``ZOO_EVERY=5`` takes every fifth model alone.
"""

import os
from pathlib import Path

import pytest

pytest.importorskip("torchtitan", reason="make test-zoo sets the environment up")

from tests.zoo import zoo

HERE = Path(__file__).parent
EVERY = int(os.environ.get("ZOO_EVERY") or 1)
JOBS = max(1, min(8, (os.cpu_count() or 2)))


def listed(package):
    """The models of a package that are not expected to be right, with what becomes of them."""
    lines = (HERE / "exceptions.txt").read_text(encoding="utf-8").splitlines()
    rows = [line.split(maxsplit=2) for line in lines if line and not line.startswith("#")]
    return {name: reason for of, name, reason in rows if of == package}


@pytest.mark.slow
@pytest.mark.parametrize("package", zoo.PACKAGES)
def test_every_model_is_right_or_listed(package):
    builders = zoo.chosen(package)[::EVERY]
    outcomes = {outcome.name: outcome.outcome for outcome in zoo.run(builders, JOBS)}
    exceptions = listed(package)
    assert len(outcomes) == len(builders)
    too_large = [name for name, what in outcomes.items() if what.startswith("too large: ")]
    too_slow = [name for name, what in outcomes.items() if what.startswith("failed: takes more than ")]
    assert len(too_large) < 0.4 * len(builders)
    assert len(too_slow) < 2 + 0.01 * len(builders), too_slow
    for name in too_large + too_slow:
        del outcomes[name]
    assert {name: what for name, what in outcomes.items() if what != "right" and name not in exceptions} == {}
    assert [name for name, what in outcomes.items() if what == "right" and name in exceptions] == []


def test_what_is_listed_exists():
    for package in zoo.PACKAGES:
        assert listed(package).keys() <= {builder.name for builder in zoo.chosen(package)}
