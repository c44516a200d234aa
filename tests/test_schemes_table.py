"""The table of schemes: the methods are written from it, and its names are those of the contract and of the types."""

import subprocess
import sys
import typing

import pytest
from _helpers.command import ROOT

from seedbed import _types
from seedbed._ask.parameters import Choice
from seedbed._ask.table import OPTIONS, SCHEMES
from seedbed.v1 import TensorSpec

sys.path.insert(0, str(ROOT / "client"))
import generate_methods


def test_the_methods_are_those_of_the_table():
    formatted = subprocess.run(
        [sys.executable, "-m", "ruff", "format", "--stdin-filename", str(generate_methods.PATH), "-"],
        input=generate_methods.source(), capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert generate_methods.PATH.read_text() == formatted, "run `make schemes`"


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
def test_parameters_are_the_fields_of_the_contract(scheme):
    message = TensorSpec.DESCRIPTOR.fields_by_name[scheme.name].message_type
    assert {parameter.name for parameter in scheme.parameters} == set(message.fields_by_name)


def test_options_are_those_of_the_methods_type():
    assert [option.name for option in OPTIONS] == list(_types.Options.__annotations__)


def test_choices_are_those_of_their_types():
    kinds = [parameter.kind for scheme in SCHEMES.values() for parameter in scheme.parameters]
    choices = {kind.annotation: kind.choices for kind in kinds if isinstance(kind, Choice)}
    assert len(choices) == 5
    assert choices == {name: typing.get_args(getattr(_types, name)) for name in choices}
