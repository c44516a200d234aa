"""The ``repr`` of a description is the table of ``seedbed describe``."""

import numpy as np
import pytest
from google.protobuf import json_format

import seedbed
from seedbed.v1 import TensorDescription


@pytest.fixture(scope="module")
def client():
    with seedbed.connect("local:") as client:
        yield client


def test_a_description_is_a_table(client):
    description = client.describe(
        seedbed.spec("kaiming_normal", (64, 3), nonlinearity="tanh", seed=7, name="fc.weight"), region=np.s_[:32]
    )
    assert (
        repr(description)
        == """TensorDescription
  name                fc.weight
  scheme              kaiming_normal(mode=fan_in, nonlinearity=tanh)
  shape               64 × 3
  region              [0:32, 0:3]
  dtype               float32
  seed                7
  algorithm version   1
  law                 normal(mean=0, std=0.96225)
  mean                0
  std                 0.9622504486
  fan_in              3
  fan_out             64
  gain                1.6666666666666667
  elements            96
  bytes               384
  stream              0x73d2d3db05ba26ca"""
    )


def test_it_is_the_table_of_the_command_line(client, ok):
    for scheme in ("trunc_normal", "eye", "orthogonal", "disk"):
        dtype = "complex64" if scheme == "disk" else "float32"
        table = repr(client.describe(seedbed.spec(scheme, (4, 3), dtype=dtype)))
        printed = ok("describe", scheme, "--shape", "4,3", "--dtype", dtype)
        assert [line.split() for line in table.splitlines()[1:]] == [line.split() for line in printed.splitlines()]


@pytest.mark.parametrize(
    ("recipe", "law"),
    [
        (seedbed.literal([1.0, 2.0]), "literal"),
        (seedbed.log(seedbed.draw("uniform", (2,), a=1, b=16)), "expression of 2 steps: log of uniform(a=1, b=16)"),
        (seedbed.parts([(np.s_[:1], 1.0)]), "parts: 1 box: constant(val=1)"),
    ],
)
def test_the_law_of_a_recipe_lists_its_components(client, recipe, law):
    assert f"  law                 {law}\n" in repr(client.describe(seedbed.spec(recipe, (2,), name="w")))


def test_it_stays_a_message(client):
    description = client.describe(seedbed.spec("normal", (4,), name="w"))
    assert str(description).startswith('spec {\n  name: "w"\n')
    assert json_format.Parse(json_format.MessageToJson(description), TensorDescription()) == description


def test_an_incomplete_description_falls_back_to_protobuf_s_text():
    for incomplete in (TensorDescription(), TensorDescription(stream=4)):
        assert repr(incomplete) == str(incomplete)
