"""The examples for torch run, and print the same weights for every layout."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

pytestmark = pytest.mark.nightly


def run(example, *arguments):
    command = [sys.executable, EXAMPLES / example, *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def digest(output):
    return re.search(r"weights (\w{16});", output)[1]


def test_layouts(server):
    sharded = run("fsdp2.py", "--ranks", 2)
    losses = [float(loss) for loss in re.findall(r"\d\.\d{3}", sharded)]
    assert losses[-1] < losses[0]
    cut = run("tensor_parallel.py", "--tp", 2, "--dp", 2, "--target", server)
    assert "_StridedShard" in cut
    assert digest(sharded) == digest(cut)


def test_huggingface(tmp_path):
    output = run("huggingface.py", tmp_path / "gpt2", "--layers", 1)
    before, after = map(float, re.findall(r"\d+\.\d{3}", output))
    assert after < before
    from transformers import GPT2LMHeadModel

    module = GPT2LMHeadModel.from_pretrained(tmp_path / "gpt2")
    assert module.lm_head.weight is module.transformer.wte.weight
    assert (tmp_path / "gpt2" / "seedbed.json").stat().st_size > 1000
