"""The page "Ray, Slurm, Kubernetes": its arithmetic is that of the rates it quotes, which are those of Performance."""

import hashlib
import json
import re
from pathlib import Path

import pytest
import yaml
from pages import DOCS, ROOT, tables

PAGE = (DOCS / "howto" / "clusters.md").read_text(encoding="utf-8")
TABLES = tables(PAGE)
MEASURED = [row for rows in tables((DOCS / "performance.md").read_text(encoding="utf-8")).values() for row in rows]
ARITHMETIC = TABLES["405 B parameters"] + TABLES["a seed checkpoint"]
JOB = yaml.safe_load((ROOT / "deploy" / "kubernetes" / "checkpoint" / "job.yaml").read_text(encoding="utf-8"))


def number(text):
    """The first number of a text, in which commas part thousands."""
    return float(re.search(r"\d[\d,]*(\.\d+)?", text)[0].replace(",", ""))


RATES = {name: number(rate) for name, rate, *_ in TABLES["rate"]}


@pytest.mark.parametrize(("name", "rate", "row", "column"), [row[:4] for row in TABLES["rate"]])
def test_a_rate_was_measured(name, rate, row, column):
    (found,) = [cells for cells in MEASURED if cells[0] == row]
    assert number(found[int(column)]) == number(rate), name


@pytest.mark.parametrize(("way", "amount", "rate", "shown"), ARITHMETIC)
def test_seconds_are_the_quotient(way, amount, rate, shown):
    for name, value in RATES.items():
        rate = re.sub(rf"\b{name}\b", str(value), rate)
    seconds = eval(amount) / eval(rate, {"min": min})
    digits = len(shown.partition(".")[2])
    assert f"{seconds:,.{digits}f}" == shown, way


def test_the_text_says_what_the_rates_say():
    layers, of_each, others = 126, 9, 3  # of Llama 3.1 405B; its 8B has 32 layers of the same tensors
    tensors = layers * of_each + others
    (row,) = [cells for cells in MEASURED if cells[0] == "the same into torch tensors, and by `init_module"]
    milliseconds = number(row[1].split(", ")[1]) / (32 * of_each + others)
    text = " ".join(PAGE.split())
    assert f"{milliseconds:.1f} ms each" in text
    assert f"{tensors:,} tensors, which would take {milliseconds * tensors / 1000:.1f} s" in text
    assert f"a link of {RATES['node'] * 8:.0f} Gbit/s" in text
    assert f"{-(-10 // RATES['writer']):.0f} of them fill 10 GB/s" in text


@pytest.mark.nightly
def test_the_pods_of_the_job_write_one_checkpoint(ok, monkeypatch, tmp_path):
    """Each pod's command runs here, of a small model, with what Kubernetes gives it; the third one runs twice."""
    monkeypatch.chdir(tmp_path)
    tensors = [{"name": f"t{i}", "shape": [1000], "seed": 7, "normal": {}} for i in range(6)]
    Path("model.json").write_text(json.dumps({"name": "m", "tensors": tensors}), encoding="utf-8")
    (container,) = JOB["spec"]["template"]["spec"]["containers"]
    places = {"/etc/seedbed/model/": "", "/checkpoint/model": "ckpt", "=100MB": "=4KB"}
    for pod in [*range(JOB["spec"]["completions"]), 2]:
        given = {**places, "$(JOB_COMPLETION_INDEX)": str(pod)}
        said = ok(*(replaced(argument, given) for argument in container["args"]))
    assert said.startswith("ckpt: 0 files")
    ok("model", "model.json", "-o", "whole", "--max-shard-size", "4KB")
    assert len(digests("ckpt")) == 7
    assert digests("ckpt") == digests("whole")


def replaced(text, places):
    for old, new in places.items():
        text = text.replace(old, new)
    return text


def digests(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in Path(folder).iterdir()}
