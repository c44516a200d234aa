"""The examples for torch run, and print the same weights for every layout."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
PAGE = ROOT / "docs" / "howto" / "sharded-pytorch.md"

pytestmark = pytest.mark.slow


def run(example, *arguments):
    command = [sys.executable, EXAMPLES / example, *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_a_server_gives_every_rank_the_weights_of_the_page(server):
    """The page itself, whose commands sample in each rank, is run by another test."""
    output = run("tensor_parallel.py", "--tp", 2, "--target", server)
    digest = re.search(r"weights (\w{16});", output)[1]
    assert f"weights {digest};" in PAGE.read_text(encoding="utf-8")


def test_huggingface(tmp_path):
    output = run("huggingface.py", tmp_path / "gpt2", "--layers", 1)
    before, after = map(float, re.findall(r"\d+\.\d{3}", output))
    assert after < before
    from transformers import GPT2LMHeadModel

    module = GPT2LMHeadModel.from_pretrained(tmp_path / "gpt2")
    assert module.lm_head.weight is module.transformer.wte.weight
    assert (tmp_path / "gpt2" / "seedbed.json").stat().st_size > 1000
