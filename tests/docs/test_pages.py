"""Every block of code and every command on the pages runs, and prints what the page says; see runner.py."""

import subprocess
import sys
from pathlib import Path

import pytest
from pages import DOCS, blocks

RUNNER = Path(__file__).with_name("runner.py")
INSTALLS = "tutorial.md"
FAST = ["index.md", "coming-from.md", "howto/files.md", "howto/numpy.md", "howto/recipes.md"]
SLOW = [
    "coming-from-trainers.md",
    "howto/clusters.md",
    "howto/jax.md",
    "howto/keras.md",
    "howto/pytorch.md",
    "howto/sharded-pytorch.md",
    "howto/torchtitan.md",
    "howto/trainers.md",
    "howto/transformers.md",
]
OTHERS = ["experiment.md"]  # its commands take minutes; test_experiment.py runs them in small
RUN = {"python", "pycon", "console"}
FILES = {"python", "json", "toml"}
SHOWN = {"text"}  # nothing to run
TIMEOUT = 600.0


def own_pages():
    """The pages whose blocks are run; the others tell of commands that take long, or of other machines."""
    pages = {str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")}
    return sorted(pages - {"evidence.md", "operations.md", "performance.md", "reliability.md", "stream-v1.md"})


def test_every_page_with_code_is_tested():
    for name in own_pages():
        if any(block.language in RUN | FILES for block in blocks(DOCS / name)):
            assert name in {INSTALLS, *FAST, *SLOW, *OTHERS}, f"{name} is in none of the lists above"


@pytest.mark.parametrize("name", own_pages())
def test_the_blocks_are_of_kinds_that_are_run(name):
    for block in blocks(DOCS / name):
        assert block.language in RUN | FILES | SHOWN, f"{name}:{block.line}: {block.language}"
        assert block.language in RUN or block.caption or block.language in SHOWN, f"{name}:{block.line}: no caption"


@pytest.mark.parametrize("name", [*FAST, *(pytest.param(name, marks=pytest.mark.nightly) for name in SLOW)])
def test_the_page_runs(name, tmp_path):
    run(DOCS / name, tmp_path)


@pytest.mark.nightly
def test_the_tutorial_runs_from_nothing(tmp_path):
    """It makes an environment of its own, in which its programs run, too."""
    python_blocks = [block for block in blocks(DOCS / INSTALLS) if block.language in ("python", "pycon")]
    assert all(block.caption for block in python_blocks), "what is not a file would run outside the environment"
    run(DOCS / INSTALLS, tmp_path)


def run(page, folder):
    """Does what a page says, in a process and a folder of its own."""
    command = [sys.executable, RUNNER, page]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    if done.returncode:
        pytest.fail(done.stdout + done.stderr, pytrace=False)


@pytest.mark.parametrize(
    ("page", "complaint"),
    [
        ("```console\n$ echo right\nwrong\n```\n", "should print\n    wrong"),
        ("```console\n$ false\n```\n", "exits with 1"),
        ("```pycon\n>>> 1 + 1\n3\n```\n", "Expected:\n    3"),
        ("```python\n1 / 0\n```\n", "ZeroDivisionError"),
    ],
)
def test_the_runner_notices_what_is_wrong(page, complaint, tmp_path):
    path = tmp_path / "page.md"
    path.write_text(page, encoding="utf-8")
    (tmp_path / "folder").mkdir()
    with pytest.raises(pytest.fail.Exception) as failure:
        run(path, tmp_path / "folder")
    assert complaint in failure.value.msg
