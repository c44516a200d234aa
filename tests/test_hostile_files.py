"""Malicious and damaged files: whatever they contain, a command reports what is wrong and where, and exits cleanly."""

import copy
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from seedbed._files import strict_json
from seedbed._files.checkpoints import INDEX
from seedbed._files.errors import FileFormatError
from seedbed._files.safetensors import read_safetensors

DEPTH = 200_000
DEEP = "[" * DEPTH + "]" * DEPTH
DEEP_OBJECT = '{"a":' * DEPTH + "1" + "}" * DEPTH
DEEP_RECIPE = '{"parts":{"parts":[{"recipe":' * 20_000 + "{}" + "}]}}" * 20_000
DIGITS = "9" * 5000


@pytest.fixture(autouse=True)
def _folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("SEEDBED_TARGET", raising=False)


def safetensors_file(header, data=b""):
    text = header if isinstance(header, bytes) else header.encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(name="a", dtype="F32", shape="[1]", offsets="[0,4]"):
    return f'"{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}'


# JSON

TEXTS = {
    "nested lists": (DEEP, "nested too deeply"),
    "nested objects": (DEEP_OBJECT, "nested too deeply"),
    "a duplicate key": ('{"a": {"b": 1, "c": 2, "b": 1}}', "duplicate key 'b'"),
    "NaN": ("[NaN]", "NaN is not a JSON number"),
    "-Infinity": ("[-Infinity]", "-Infinity is not a JSON number"),
    "too many digits": (DIGITS, "5000 digits"),
    "a surrogate": (r'["\uD800"]', "an unpaired surrogate"),
    "a surrogate in a key": (r'{"\udfff": 1}', "an unpaired surrogate"),
    "Latin-1": ('"é"'.encode("latin-1"), "invalid UTF-8 at byte 1"),
    "UTF-16": ("{}".encode("utf-16"), "invalid UTF-8 at byte 0"),
    "nothing": (b"", "Expecting value"),
    "more than one": ("{} {}", "Extra data"),
}


@pytest.mark.parametrize(("text", "message"), TEXTS.values(), ids=TEXTS.keys())
def test_json_is_read_strictly(text, message):
    with pytest.raises(ValueError, match=message):
        strict_json.loads(text)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) |
                    st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))  # fmt: skip
def test_json_is_read_as_python_does(value):
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False).encode("utf-8", "strict")):
        assert strict_json.loads(text) == value


# safetensors

HEADERS = {
    "nested lists": (DEEP, "nested too deeply"),
    "nested metadata": (f'{{"__metadata__":{{"a":{DEEP}}}}}', "nested too deeply"),
    "a duplicate tensor": (f"{{{entry()},{entry()}}}", "duplicate key 'a'"),
    "not a number": (f"{{{entry(shape='[NaN]')}}}", "NaN"),
    "an infinite size": (f"{{{entry(shape='[1e999]')}}}", "tensor 'a': invalid shape or data_offsets"),
    "a fraction": (f"{{{entry(offsets='[0.0,4.0]')}}}", "tensor 'a': invalid shape or data_offsets"),
    "a size of letters": (f"""{{{entry(shape='["1"]')}}}""", "tensor 'a': invalid shape or data_offsets"),
    "a shape that is a string": (f"""{{{entry(shape='"1"')}}}""", "tensor 'a': expected dtype, shape"),
    "true": (f"{{{entry(shape='[true]')}}}", "tensor 'a': invalid shape or data_offsets"),
    "2^63": (f"{{{entry(shape=f'[0,{2**63}]', offsets='[0,0]')}}}", "tensor 'a': invalid shape or data_offsets"),
    "too many digits": (f"{{{entry(shape=f'[{DIGITS}]')}}}", "5000 digits"),
    "a foreign dtype of another size": (f"{{{entry(dtype='I64')}}}", "tensor 'a': shape and data_offsets disagree"),
    "metadata as pairs": ('{"__metadata__":[["a","b"]]}', "__metadata__ is not an object of strings"),
    "metadata as numbers": ('{"__metadata__":{"a":1}}', "__metadata__ is not an object of strings"),
    "Latin-1": (b"{%s}" % entry("é").encode("latin-1"), "invalid UTF-8 at byte 2"),
    "a surrogate": (f"{{{entry(chr(92) + 'ud800')}}}", "an unpaired surrogate"),
}


@pytest.mark.parametrize(("header", "message"), HEADERS.values(), ids=HEADERS.keys())
def test_headers(seedbed_command, header, message):
    Path("w.safetensors").write_bytes(safetensors_file(header, bytes(4)))
    code, out, err = seedbed_command("verify", "w.safetensors")
    assert (code, out) == (2, "")
    assert err.startswith("seedbed: w.safetensors: not a safetensors file: its header is malformed: ")
    assert message in err
    assert err.count("\n") == 1


def test_null_metadata_is_accepted_as_by_the_official_reader():
    Path("w.safetensors").write_bytes(safetensors_file(f'{{"__metadata__":null,{entry()}}}', bytes(4)))
    with safe_open("w.safetensors", "np") as official:
        assert official.metadata() is None
    assert read_safetensors(Path("w.safetensors")).metadata == {}


def test_a_tensor_with_too_many_dimensions_for_numpy():
    Path("w.safetensors").write_bytes(safetensors_file(f"{{{entry(shape=[1] * 100)}}}", bytes(4)))
    with pytest.raises(FileFormatError, match="tensor 'a' cannot be a NumPy array"):
        read_safetensors(Path("w.safetensors")).open_tensor("a")


@pytest.mark.parametrize("text", [DEEP, f'{{"tensors":[{DEEP_RECIPE}]}}', '{"name":3}', "[]"])
def test_models_in_metadata(seedbed_command, text):
    Path("w.safetensors").write_bytes(safetensors_file(json.dumps({"__metadata__": {"seedbed.model": text}})))
    code, _, err = seedbed_command("verify", "w.safetensors")
    assert code == 2
    assert err.startswith("seedbed: w.safetensors: metadata seedbed.model is malformed: ")


# other files

OTHERS = {
    "a model": (("describe", "model", "f"), DEEP_OBJECT, "f: not a model file: nested too deeply"),
    "tensors": (("model", "f", "-o", "x"), f'{{"tensors":{DEEP}}}', "f: not a model file: nested too deeply"),
    "a recipe": (("model", "f", "-o", "x"), f'{{"tensors":[{DEEP_RECIPE}]}}', "f: not a model file: nested too deeply"),
    "the server's options": (("serve", "--config", "f"), f"listen = {DEEP}", "f cannot be read: nested too deep"),
}


@pytest.mark.parametrize(("command", "text", "message"), OTHERS.values(), ids=OTHERS.keys())
def test_other_files(seedbed_command, command, text, message):
    Path("f").write_text(text, encoding="utf-8")
    code, out, err = seedbed_command(*command)
    assert (code, out) == (2, "")
    assert message in err
    assert "Traceback" not in err


CONFIGURATIONS = {
    "nested lists": (DEEP, "f: not JSON: nested too deeply"),
    "an unknown type": ('{"model_type": ["gpt2"]}', "f: the installed transformers has no model_type ['gpt2']"),
    "wrong architectures": ('{"model_type": "gpt2", "architectures": [5]}', "f: architectures is not a list of names"),
}


@pytest.mark.slow  # imports transformers
@pytest.mark.parametrize(("text", "message"), CONFIGURATIONS.values(), ids=CONFIGURATIONS.keys())
def test_configurations_of_transformers(seedbed_command, text, message):
    pytest.importorskip("transformers")
    Path("f").write_text(text, encoding="utf-8")
    code, out, err = seedbed_command("record", "--hf-config", "f", "-o", "x")
    assert (code, out) == (2, "")
    assert message in err


def test_an_index_that_cannot_be_read(seedbed_command):
    Path(INDEX).write_text(DEEP, encoding="utf-8")
    code, _, err = seedbed_command("verify", ".")
    assert (code, err) == (2, f"seedbed: {INDEX}: not JSON: nested too deeply\n")


def test_missing_files_of_a_huge_index_are_summarised(seedbed_command):
    Path(INDEX).write_text('{"weight_map": {"a": "model-00001-of-100200.safetensors"}}', encoding="utf-8")
    code, _, err = seedbed_command("verify", ".")
    assert code == 1
    assert err.count(".safetensors: missing\n") == 100
    assert "seedbed: verification failed: .: 100,100 more files missing\n" in err


# anything

MODEL = {
    "name": "model",
    "tensors": [
        {"name": "a", "shape": [4, 3], "seed": "7", "dtype": "DATA_TYPE_BFLOAT16", "normal": {"std": 0.5}},
        {"name": "b", "shape": [2], "parts": {"parts": [
            {"region": {"start": ["0"], "stop": ["1"]}, "recipe": {"ones": {}}},
            {"region": {"start": ["1"], "stop": ["2"]}, "recipe": {"zeros": {}}},
        ]}},
        {"name": "c", "shape": [1], "literal": {"data": "AAAAAA=="}},
        {"name": "d", "shape": [3], "expression": {"steps": [
            {"recipe": {"uniform": {"a": 1, "b": 16}}}, {"function": "FUNCTION_LOG", "arguments": [0]},
        ]}},
    ],
}  # fmt: skip
INVALID_VALUES = [
    None, True, 3, -1, 2**63, 2**64, 10**30, -(2**63), 1.5, "x", "", [], [1], [[1]], {}, {"a": 1}, "9" * 30, "NaN",
]  # fmt: skip


def paths(value, path=()):
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from paths(inner, (*path, key))


@st.composite
def corrupted(draw, value):
    value = copy.deepcopy(value)
    *path, last = draw(st.sampled_from(list(paths(value))))
    container = value
    for key in path:
        container = container[key]
    match draw(st.sampled_from(["value", "value", "removed", "renamed"])):
        case "value":
            container[last] = draw(st.sampled_from(INVALID_VALUES))
        case "renamed" if isinstance(container, dict):
            container[draw(st.sampled_from(["shape", "dtype", "region", "zz"]))] = container.pop(last)
        case _:
            del container[last]
    return value


@pytest.fixture
def file_parts(ok):
    """The header and the data of the model's file."""
    Path("m.json").write_text(json.dumps(MODEL), encoding="utf-8")
    ok("model", "m.json", "-o", "w.safetensors")
    content = Path("w.safetensors").read_bytes()
    length = 8 + int.from_bytes(content[:8], "little")
    return json.loads(content[8:length]), content[length:]


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_command_crashes_on_a_corrupted_value(seedbed_command, file_parts, data):
    header, content = file_parts
    if data.draw(st.booleans(), "in the header"):
        header = data.draw(corrupted(header))
    else:
        header = copy.deepcopy(header)
        model = json.loads(header["__metadata__"]["seedbed.model"])
        header["__metadata__"]["seedbed.model"] = json.dumps(data.draw(corrupted(model)))
    Path("x.safetensors").write_bytes(safetensors_file(json.dumps(header), content))
    Path("x.json").write_text(json.dumps(data.draw(corrupted(MODEL))), encoding="utf-8")
    for command in (("verify", "x.safetensors"), ("describe", "model", "x.json")):
        code, _, err = seedbed_command(*command)
        assert code in (0, 1, 2), err
        assert (err == "") == (code == 0)
