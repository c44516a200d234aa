"""The command line: files, output, messages and exit codes."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from _helpers.command import environment, process
from _helpers.emulation import emulated_cupy
from _helpers.waiting import wait_until
from safetensors import safe_open

import seedbed
from seedbed.cli import main

ROOT = Path(__file__).resolve().parent.parent
TINY = {
    "name": "tiny",
    "tensors": [
        {"name": "fc.weight", "shape": [64, 128], "seed": 7, "kaimingNormal": {"mode": "FAN_MODE_FAN_OUT"}},
        {"name": "fc.bias", "shape": [64], "zeros": {}},
        {"name": "half", "shape": [33], "dtype": "DATA_TYPE_BFLOAT16", "normal": {"std": 0.02}},
        {"name": "none", "shape": [0, 3], "ones": {}},
    ],
}


@pytest.fixture(autouse=True)
def _environment(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("SEEDBED_TARGET", raising=False)


@pytest.fixture
def tiny(tmp_path):
    (tmp_path / "tiny.json").write_text(json.dumps(TINY), encoding="utf-8")
    return tmp_path / "tiny.json"


def expected(scheme, *arguments, **options):
    with seedbed.connect("local:") as client:
        return getattr(client, scheme)(*arguments, **options)


# get


def test_get_writes_an_npy_file(ok, tmp_path):
    out = ok("get", "uniform", "--shape", "30,40", "--a", "-2", "--b", "3", "--seed", "7", "-o", "w.npy")
    assert (np.load("w.npy") == expected("uniform", (30, 40), a=-2, b=3, seed=7)).all()
    assert "w.npy: 30 × 40 float32, uniform(a=-2, b=3), 4.7 KiB" in out
    assert [path.name for path in tmp_path.iterdir()] == ["w.npy"]


def test_get_writes_a_region_of_a_safetensors_file(ok):
    ok(
        "get", "kaiming_normal", "--shape", "40,30", "--mode", "fan_out", "--nonlinearity", "relu", "--seed", "0x7",
        "--name", "fc", "--dtype", "bfloat16", "--region", "10:20,:", "-o", "w.safetensors",
    )  # fmt: skip
    whole = expected(
        "kaiming_normal", (40, 30), mode="fan_out", nonlinearity="relu", seed=7, name="fc", dtype="bfloat16"
    )
    found = safetensors.numpy.load_file("w.safetensors")["fc"]
    assert found.dtype == ml_dtypes.bfloat16
    assert (found.view(np.uint16) == whole[10:20].view(np.uint16)).all()
    with safe_open("w.safetensors", framework="np") as file:
        metadata = file.metadata()
    assert (metadata["format"], metadata["seedbed.seed"], metadata["seedbed.algorithm_version"]) == ("pt", "7", "1")
    assert json.loads(metadata["seedbed.slice"])["region"] == {"start": ["10", "0"], "stop": ["20", "30"]}


def test_regions_and_dtypes_in_other_notations(ok):
    for dtype, region in (("bfloat16", "10:20,:"), ("BF16", "10:20"), ("torch.bfloat16", "-30:20:1,...")):
        ok("get", "normal", "--shape", "40,30", "--dtype", dtype, "--region", region, "-o", f"{dtype}.safetensors")
    first, *others = (Path(f"{dtype}.safetensors").read_bytes() for dtype in ("bfloat16", "BF16", "torch.bfloat16"))
    assert [first, first] == others


def test_get_of_a_tensor_without_a_name(ok):
    ok("get", "eye", "--shape", "3,3", "-o", "w.safetensors")
    assert (safetensors.numpy.load_file("w.safetensors")["tensor"] == np.eye(3)).all()


@pytest.mark.parametrize("options", [("--shape", "30,40"), ("--shape", ""), ("--shape", "0,4"),
                                     ("--shape", "9,4", "--region", "2:5,1:")])  # fmt: skip
def test_get_writes_the_npy_file_to_standard_output(capsysbinary, options):
    assert main(["get", "normal", *options, "--seed", "7", "--progress", "-o", "w.npy"]) == 0
    capsysbinary.readouterr()
    assert main(["get", "normal", *options, "--seed", "7", "--progress", "-o", "-"]) == 0
    out, err = capsysbinary.readouterr()
    assert out == Path("w.npy").read_bytes()
    assert b"normal(mean=0, std=1)" in err


def test_get_writes_no_npy_file_to_a_terminal(seedbed_command, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    code, out, err = seedbed_command("get", "normal", "--shape", "3", "-o", "-")
    assert (code, out) == (2, "")
    assert "- would write a .npy file to this terminal" in err


@pytest.mark.parametrize(
    ("shape", "dims"),
    [
        ("", ()),
        ("5", (5,)),
        ("(2, 3)", (2, 3)),
        (" 2 ,3 ", (2, 3)),
        ("()", ()),
        ("(4,)", (4,)),
        ("[2,3,]", (2, 3)),
        ("0,4", (0, 4)),
    ],
)
def test_shapes(ok, shape, dims):
    ok("get", "ones", "--shape", shape, "-o", "w.npy")
    assert np.load("w.npy").shape == dims


def test_get_takes_axes_and_required_parameters(ok):
    ok(
        "get", "variance_scaling", "--shape", "4,5,6", "--scale", "2", "--mode", "fan_avg", "--distribution", "uniform",
        "--in-axis", "0,1", "--out-axis", "-1", "--batch-axis", "", "-o", "w.npy",
    )  # fmt: skip
    same = expected("variance_scaling", (4, 5, 6), 2, "fan_avg", "uniform", in_axis=(0, 1), out_axis=-1, batch_axis=())
    assert (np.load("w.npy") == same).all()


def test_every_scheme_is_a_subcommand_with_complete_help(ok):
    for command in ("get", "describe", "plot"):
        listing = ok(command, "--help")
        for scheme in seedbed.SCHEMES:
            assert f"  {scheme} " in listing
            text = ok(command, scheme, "--help")
            assert f"Example:\n    seedbed {command} {scheme} --shape" in text
            assert "  --shape N,N,…" in text
            assert "  --seed N" in text
            assert "[default: " in text
            assert "`" not in text


def test_the_examples_in_the_help_of_every_scheme_work(ok):
    for scheme in seedbed.SCHEMES:
        line = next(
            line for line in ok("describe", scheme, "--help").splitlines() if line.startswith("    seedbed describe")
        )
        assert "elements" in ok(*line.split()[1:])


def test_help_of_a_scheme_has_formula_paper_defaults_and_choices(ok):
    text = " ".join(ok("get", "kaiming_uniform", "--help").split())
    for part in (
        "Uniform within +-gain * sqrt(3 / fan).",
        "He et al.",
        "--mode NAME",
        "[default: fan_in]",
        "[default: leaky_relu]",
        "conv_transpose3d, sigmoid, tanh",
        "--gain NUMBER",
    ):
        assert part in text


REFUSALS = {
    "no shape": (("get", "ones", "-o", "w.npy"), "Missing option '--shape'"),
    "no output": (("get", "ones", "--shape", "3"), "Missing option '-o' / '--output'"),
    "no such scheme": (("get", "gaussian", "--shape", "3", "-o", "w.npy"), "No such command 'gaussian'"),
    "a shape of letters": (
        ("get", "ones", "--shape", "a,b", "-o", "w.npy"),
        "'a,b' is not a shape; give the dimensions",
    ),
    "a shape without commas": (("get", "ones", "--shape", "3 4", "-o", "w.npy"), "'3 4' is not a shape;"),
    "a shape of two brackets": (("get", "ones", "--shape", "[3][4]", "-o", "w.npy"), "'[3][4]' is not a shape;"),
    "a shape with crosses": (("get", "ones", "--shape", "3x4", "-o", "w.npy"), "'3x4' is not a shape;"),
    "a region without commas": (("get", "ones", "--shape", "30", "--region", "1 0:2 0", "-o", "w.npy"), "not a range"),
    "a negative shape": (("get", "ones", "--shape", "-3,4", "-o", "w.npy"), "spec.shape"),
    "an invalid region": (("get", "ones", "--shape", "3", "--region", "1", "-o", "w.npy"), "'1' is not a range"),
    "a region with a step": (
        ("get", "ones", "--shape", "3", "--region", "::2", "-o", "w.npy"),
        "'::2' has step 2; only step 1 is served",
    ),
    "a region outside": (("get", "ones", "--shape", "3", "--region", "1:9", "-o", "w.npy"), "region"),
    "a seed too large": (("get", "normal", "--shape", "3", "--seed", str(2**64), "-o", "w.npy"), "2^64"),
    "an invalid seed": (("get", "normal", "--shape", "3", "--seed", "x", "-o", "w.npy"), "'x' is not an integer"),
    "a negative std": (("get", "normal", "--shape", "3", "--std", "-1", "-o", "w.npy"), "spec.normal.std"),
    "a std that is not a number": (("get", "normal", "--shape", "3", "--std", "nan", "-o", "w.npy"), "spec.normal.std"),
    "one dimension": (("get", "xavier_normal", "--shape", "3", "-o", "w.npy"), "spec.shape"),
    "an unknown mode": (("get", "kaiming_normal", "--shape", "3,3", "--mode", "x", "-o", "w.npy"), "fan_in"),
    "an unknown dtype": (
        ("get", "ones", "--shape", "3", "--dtype", "int8", "-o", "w.npy"),
        "is not supported; use one of",
    ),
    "bfloat16 in npy": (
        ("get", "ones", "--shape", "3", "--dtype", "bfloat16", "-o", "w.npy"),
        "write a .safetensors file",
    ),
    "a model in another file format": (
        ("model", ROOT / "examples/gpt2-124m.json", "-o", "gpt2.npy"),
        "gpt2.npy has the name of another file format; give FILE.safetensors",
    ),
    "safetensors to standard output": (
        ("model", ROOT / "examples/gpt2-124m.json", "-o", "-"),
        "give FILE.safetensors or a directory",
    ),
    "another file format": (
        ("get", "ones", "--shape", "3", "-o", "w.bin"),
        "w.bin does not end in .npy or .safetensors",
    ),
    "bfloat16 in npy, to standard output": (
        ("get", "ones", "--shape", "3", "--dtype", "bfloat16", "-o", "-"),
        "write a .safetensors file",
    ),
    "a reserved name": (
        ("get", "ones", "--shape", "3", "--name", "__metadata__", "-o", "w.safetensors"),
        "give the tensor another name",
    ),
    "a missing directory": (
        ("get", "ones", "--shape", "3", "-o", "no/w.npy"),
        "no/w.npy: directory no does not exist; create it first",
    ),
    "an invalid target": (("get", "ones", "--shape", "3", "-o", "w.npy", "--target", "nowhere"), "target"),
    "an invalid timeout": (("get", "ones", "--shape", "3", "-o", "w.npy", "--timeout", "-1"), "timeout"),
    "a negative wait": (
        ("get", "ones", "--shape", "3", "-o", "w.npy", "--wait", "-1"),
        "wait: must be 0 or more seconds, such as 300, not -1.0;",
    ),
    "a wait that is not a number": (
        ("get", "ones", "--shape", "3", "-o", "w.npy", "--wait", "nan"),
        "wait: must be 0 or more seconds, such as 300, not nan;",
    ),
    "health, with a negative wait": (("health", "--wait", "-1"), "wait: must be 0 or more seconds"),
    "another image format": (("plot", "ones", "--shape", "3", "-o", "w.gif"), ".png"),
    "no file": (("verify", "no.safetensors"), "no.safetensors: No such file or directory"),
}


@pytest.mark.parametrize(("arguments", "message"), REFUSALS.values(), ids=REFUSALS.keys())
def test_refusals(seedbed_command, tmp_path, arguments, message):
    code, out, err = seedbed_command(*arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert "Traceback" not in err
    assert not list(tmp_path.iterdir())


def test_an_unreachable_service_is_another_exit_code(seedbed_command, tmp_path):
    code, out, err = seedbed_command(
        "get", "ones", "--shape", "3", "-o", "w.npy", "--target", "127.0.0.1:1", "--wait", "0"
    )
    assert (code, out) == (3, "")
    assert err.startswith("seedbed: no Seedbed server answers at 127.0.0.1:1;")
    assert "Traceback" not in err
    assert not list(tmp_path.iterdir())


# model and verify


def test_verify_confirms_what_model_wrote(ok, tiny):
    out = ok("model", tiny, "-o", "tiny.safetensors")
    assert "tiny.safetensors: 4 tensors, 32.3 KiB" in out
    tensors = safetensors.numpy.load_file("tiny.safetensors")
    assert (
        tensors["fc.weight"] == expected("kaiming_normal", (64, 128), mode="fan_out", seed=7, name="fc.weight")
    ).all()
    assert tensors["half"].dtype == ml_dtypes.bfloat16
    assert tensors["none"].shape == (0, 3)
    out = ok("verify", "tiny.safetensors")
    assert "verified, 4 tensors, 32.3 KiB, equal bit for bit (seed 0,7, algorithm version 1)" in out


def test_model_metadata_is_complete(ok, tiny):
    ok("model", tiny, "-o", "tiny.safetensors")
    with safe_open("tiny.safetensors", framework="np") as file:
        metadata = file.metadata()
    model = json.loads(metadata["seedbed.model"])
    assert [spec["algorithmVersion"] for spec in model["tensors"]] == [1] * 4
    assert [spec["dtype"] for spec in model["tensors"]] == ["DATA_TYPE_FLOAT32"] * 2 + [
        "DATA_TYPE_BFLOAT16",
        "DATA_TYPE_FLOAT32",
    ]


def test_seed_and_dtype_of_all_tensors(ok, tiny):
    ok("model", tiny, "-o", "tiny.safetensors", "--seed", "9", "--dtype", "float16")
    tensors = safetensors.numpy.load_file("tiny.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {np.dtype(np.float16)}
    assert (tensors["half"] == expected("normal", (33,), std=0.02, seed=9, name="half", dtype="float16")).all()
    assert "(seed 9, algorithm version 1)" in ok("verify", "tiny.safetensors")


def test_a_model_file_takes_other_names_of_dtypes(ok, tmp_path):
    for dtype in ("DATA_TYPE_BFLOAT16", "torch.bfloat16", "bf16"):
        tensor = {"name": "w", "shape": [8, 4], "normal": {}, "dtype": dtype}
        (tmp_path / "model.json").write_text(json.dumps({"tensors": [tensor]}))
        ok("model", "model.json", "-o", f"{dtype}.safetensors")
        assert Path(f"{dtype}.safetensors").read_bytes() == Path("DATA_TYPE_BFLOAT16.safetensors").read_bytes()


def test_an_empty_model_is_a_file(ok, tmp_path):
    (tmp_path / "m.json").write_text("{}")
    ok("model", "m.json", "-o", "m.safetensors")
    assert "verified, 0 tensors" in ok("verify", "m.safetensors")


MODEL_ERRORS = {
    "not JSON": ('{"tensors": [', "m.json: not a model file"),
    "no text": (b"\xff\xfe", "m.json: not a model file: invalid UTF-8"),
    "an unknown field": (
        '{"tensors": [{"name": "a"}, {"name": "b", "shap": [3]}]}',
        'tensors[1]: Message type "seedbed.v1',
    ),
    "a shape of letters": ('{"tensors": [{"name": "a", "shape": ["x"]}]}', "tensors[0]: Failed to parse shape field"),
    "an invalid tensor": ('{"tensors": [3]}', "m.json: not a model file"),
    "a list": ("[]", "m.json: not a model file"),
    "an unknown enum": ('{"tensors": [{"name": "a", "dtype": "int8"}]}', "int8"),
    "no name": ('{"tensors": [{"shape": [3], "ones": {}}]}', "m.json: tensors[0].name"),
    "a duplicate name": (
        '{"tensors": [{"name": "a", "ones": {}}, {"name": "a", "ones": {}}]}',
        "m.json: tensors[1].name: 'a'",
    ),
    "no scheme": ('{"tensors": [{"name": "a", "shape": [3]}]}', "m.json: tensors[0].scheme"),
    "a bad value": (
        '{"tensors": [{"name": "a", "ones": {}}, {"name": "b", "shape": [3], "normal": {"std": -1}}]}',
        "m.json: tensors[1].normal.std: ",
    ),
    "a negative dimension": (
        '{"tensors": [{"name": "b", "shape": [-3], "normal": {"std": 1}}]}',
        "m.json: tensors[0].shape",
    ),
}


@pytest.mark.parametrize(("text", "message"), MODEL_ERRORS.values(), ids=MODEL_ERRORS.keys())
def test_errors_in_a_model_file_name_file_and_field(seedbed_command, tmp_path, text, message):
    (tmp_path / "m.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    code, out, err = seedbed_command("model", "m.json", "-o", "m.safetensors")
    assert (code, out) == (2, "")
    assert message in err
    assert "Traceback" not in err
    assert [path.name for path in tmp_path.iterdir()] == ["m.json"]


def test_verify_names_the_first_element_that_differs(ok, seedbed_command, tiny):
    ok("model", tiny, "-o", "tiny.safetensors")
    with Path("tiny.safetensors").open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        begin = json.loads(file.read(length))["fc.weight"]["data_offsets"][0]
        file.seek(8 + length + begin + 4 * (3 * 128 + 5))
        file.write(np.float32(0.25).tobytes())
    code, out, err = seedbed_command("verify", "tiny.safetensors")
    weight = expected("kaiming_normal", (64, 128), mode="fan_out", seed=7, name="fc.weight")[3, 5]
    word = int(weight.view(np.uint32))
    assert (code, out) == (1, "")
    assert f"tensor 'fc.weight', element [3, 5]: expected {weight} (0x{word:08x}), found 0.25 (0x3e800000)" in err


def test_verify_distinguishes_minus_zero_from_zero(ok, seedbed_command):
    ok("get", "zeros", "--shape", "4", "-o", "w.safetensors")
    content = bytearray(Path("w.safetensors").read_bytes())
    content[-1] = 0x80
    Path("w.safetensors").write_bytes(content)
    code, _, err = seedbed_command("verify", "w.safetensors")
    assert code == 1
    assert "element [3]: expected 0.0 (0x00000000), found -0.0 (0x80000000)" in err


def test_verify_a_region(ok):
    ok("get", "normal", "--shape", "40,30", "--region", "7:9,3:", "--dtype", "float64", "-o", "w.safetensors")
    assert "verified, 1 tensor," in ok("verify", "w.safetensors")


def rewrite(**changes):
    """Writes the tiny file again with the official library, with some tensors changed."""
    with safe_open("tiny.safetensors", framework="np") as file:
        metadata = file.metadata()
    tensors = {**safetensors.numpy.load_file("tiny.safetensors"), **changes}
    tensors = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    safetensors.numpy.save_file(tensors, "tiny.safetensors", metadata)


LAYOUTS = {
    "a tensor too many": ({"more": np.ones(3, np.float32)}, "tensor 'more' is in the file, but not in its metadata"),
    "a tensor missing": ({"half": None}, "tensor 'half' is in the metadata, but not in the file"),
    "another shape": ({"fc.bias": np.zeros((8, 8), np.float32)}, "tensor 'fc.bias': expected F32 64, found F32 8 × 8"),
    "another dtype": ({"fc.bias": np.zeros(64, np.int64)}, "tensor 'fc.bias': expected F32 64, found I64 64"),
}


@pytest.mark.parametrize(("changes", "message"), LAYOUTS.values(), ids=LAYOUTS.keys())
def test_verify_compares_the_layout(ok, seedbed_command, tiny, changes, message):
    ok("model", tiny, "-o", "tiny.safetensors")
    rewrite(**changes)
    code, _, err = seedbed_command("verify", "tiny.safetensors")
    assert code == 1
    assert message in err


def test_verify_accepts_a_copy_by_another_writer(ok, tiny):
    ok("model", tiny, "-o", "tiny.safetensors")
    rewrite()
    assert "verified" in ok("verify", "tiny.safetensors")


def test_verify_of_a_truncated_file_fails(ok, seedbed_command, tiny):
    ok("model", tiny, "-o", "tiny.safetensors")
    content = Path("tiny.safetensors").read_bytes()
    Path("tiny.safetensors").write_bytes(content[:-100])
    code, _, err = seedbed_command("verify", "tiny.safetensors")
    assert code == 1
    assert "truncated" in err


def test_verify_refuses_files_without_a_recipe(seedbed_command):
    safetensors.numpy.save_file({"a": np.ones(3, np.float32)}, "a.safetensors")
    code, _, err = seedbed_command("verify", "a.safetensors")
    assert code == 2
    assert "not written by Seedbed" in err


# describe, plot, info, health


def test_describe_is_a_table(ok):
    out = ok("describe", "xavier_uniform", "--shape", "3,5", "--name", "fc", "--region", "0:1,:")
    rows = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert rows["scheme"].strip() == "xavier_uniform(gain=1)"
    assert rows["region"].strip() == "[0:1, 0:5]"
    assert rows["bounds"].startswith("[-0.866025")
    assert float(rows["std"]) == pytest.approx(0.5)
    assert (rows["fan_in"].strip(), rows["fan_out"].strip(), rows["elements"].strip()) == ("5", "3", "5")
    assert rows["bytes"].strip() == "20"


def test_describe_is_json_for_programs(ok):
    description = json.loads(ok("describe", "normal", "--shape", "3,5", "--std", "0.5", "--json"))
    assert description["law"] == {"normal": {"std": 0.5}}
    assert description["elementCount"] == "15"


def test_describe_model(ok, tiny):
    out = ok("describe", "model", tiny)
    assert "fc.weight" in out
    assert "4 tensors, 8,289 elements" in out
    assert len(json.loads(ok("describe", "model", tiny, "--json"))) == 4


def test_describe_model_names_file_and_field(seedbed_command, tmp_path):
    (tmp_path / "m.json").write_text('{"tensors": [{"name": "b", "shape": [3], "normal": {"std": -1}}]}')
    code, _, err = seedbed_command("describe", "model", "m.json")
    assert code == 2
    assert "m.json: tensors[0].normal.std: " in err


def test_plot(ok):
    out = ok("plot", "trunc_normal", "--shape", "60,60", "--seed", "7", "--name", "w", "-o", "w.png")
    assert "trunc_normal(mean=0, std=1, a=-2, b=2), 3,600 elements" in out
    assert Path("w.png").read_bytes().startswith(b"\x89PNG")


def test_plot_file(ok, tiny):
    ok("model", tiny, "-o", "tiny.safetensors")
    assert "4 laws, 4 tensors" in ok("plot", "file", "tiny.safetensors", "-o", "tiny.svg")
    assert "1 laws, 2 tensors" not in ok("plot", "file", "tiny.safetensors", "--tensor", "fc.*", "-o", "fc.svg")
    assert Path("fc.svg").exists()


def test_plot_file_needs_a_matching_tensor(ok, seedbed_command, tiny):
    ok("model", tiny, "-o", "tiny.safetensors")
    code, _, err = seedbed_command("plot", "file", "tiny.safetensors", "--tensor", "nothing*", "-o", "fc.svg")
    assert code == 2
    assert "nothing*" in err


def test_info(ok, server):
    assert "numpy" in ok("info", "--target", server)
    info = json.loads(ok("info", "--json", "--target", server))
    assert info["backend"] == "numpy"
    assert info["algorithmVersions"] == [1]


def test_health(ok, seedbed_command, server):
    assert ok("health", "--target", server) == "serving\n"
    assert ok("health") == "serving\n"
    code, out, err = seedbed_command("health", "--target", "127.0.0.1:1", "--timeout", "1")
    assert (code, out) == (1, "")
    assert "not serving: 127.0.0.1:1" in err


def test_the_target_is_read_from_the_environment(seedbed_command, monkeypatch):
    monkeypatch.setenv("SEEDBED_TARGET", "127.0.0.1:1")
    assert seedbed_command("health", "--timeout", "1")[0] == 1


def test_version_and_usage(seedbed_command):
    code, out, _ = seedbed_command("--version")
    assert code == 0
    assert out == f"seedbed, version {seedbed.__version__}\n"
    code, out, _ = seedbed_command("--help")
    assert code == 0
    assert "Exit codes:" in out
    assert seedbed_command("nonsense")[0] == 2
    assert seedbed_command("get", "ones", "--nonsense")[0] == 2


# over a socket, as a process


def test_a_remote_file_equals_the_local_file(ok, server, tiny):
    ok("model", tiny, "-o", "local.safetensors")
    ok("model", tiny, "-o", "remote.safetensors", "--target", server)
    assert Path("local.safetensors").read_bytes() == Path("remote.safetensors").read_bytes()
    assert "verified" in ok("verify", "local.safetensors", "--target", server)


def test_progress_is_drawn_on_standard_error_only(seedbed_command):
    code, out, err = seedbed_command("get", "normal", "--shape", "500,500", "-o", "w.npy", "--progress")
    assert code == 0
    assert "w.npy: 500 × 500 float32" in out
    assert "MiB" in err or "KiB" in err or "kB" in err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_command_leaves_nothing_behind(tmp_path, server, number, code):
    child = process("get", "normal", "--shape", "10000,10000", "-o", "w.npy", "--target", server)
    end = time.monotonic() + 30
    while not list(tmp_path.glob(".w.npy.*.part")) and time.monotonic() < end:
        time.sleep(0.01)
    time.sleep(0.1)
    child.send_signal(number)
    out, err = child.communicate(timeout=30)
    assert (child.returncode, out) == (code, "")
    assert "Traceback" not in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("command", "head_options", "out"),
    [
        ("describe model many.json", "-n 1", b"tensor"),
        ("get normal --shape 3000,1000 -o -", "-c 6", b"\x93NUMPY"),
    ],
)
def test_a_closed_pipe_is_silent(tmp_path, command, head_options, out):
    # More output than a pipe holds; otherwise all of it may be written before the pipe is closed.
    tensors = [{"name": f"{index:099}", "shape": [1], "zeros": {}} for index in range(2000)]
    (tmp_path / "many.json").write_text(json.dumps({"tensors": tensors}))
    command = f"{sys.executable} -m seedbed.cli {command} | head {head_options}"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, check=False,
        env=environment(), cwd=tmp_path,
    )  # fmt: skip
    assert done.stdout.startswith(out)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("command", ["get ones --shape 3 -o -", "describe ones --shape 3"])
def test_a_full_disk_behind_standard_output(command):
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "seedbed.cli", *command.split()], stdout=full, stderr=subprocess.PIPE, check=False,
            env=environment(),
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (2, b"seedbed: No space left on device\n")


def test_serve_serves_and_stops(ok):
    child = process("serve", "--listen", "127.0.0.1:0", "--backend", "numpy")
    try:
        banner = child.stdout.readline()
        target = banner.split("serving on ")[1].split(";")[0].split(",")[0]
        assert ok("health", "--target", target) == "serving\n"
    finally:
        child.send_signal(signal.SIGTERM)
        _, err = child.communicate(timeout=30)
    assert (child.returncode, err) == (0, "")


@pytest.mark.slow
def test_a_signal_during_compilation_stops_serve_quietly(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    child = process("serve", "--listen", "127.0.0.1:0", "--backend", "numba")
    assert wait_until(lambda: list((tmp_path / "cache").glob("*/*")), 30)  # the first function is compiled
    child.send_signal(signal.SIGTERM)
    assert child.communicate(timeout=30) == ("", "")
    assert child.returncode == 128 + signal.SIGTERM


def test_serve_on_a_gpu(seedbed_command, monkeypatch):
    monkeypatch.setenv("SEEDBED_DEVICE", "7")
    with emulated_cupy():
        code, _, err = seedbed_command("serve", "--listen", "127.0.0.1:0", "--backend", "cupy")
    assert code == 2
    assert "there is no device 7; give one of 0 .. 0" in err


def test_serve_refuses_invalid_options(seedbed_command):
    code, _, err = seedbed_command("serve", "--listen", "nowhere")
    assert code == 2
    assert "nowhere" in err
    code, _, err = seedbed_command("serve", "--listen", "127.0.0.1:0", "--chunk-bytes", "-1")
    assert code == 2
    assert "Traceback" not in err


WITHOUT_CLICK_AND_RICH = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name in ("click", "rich"):
            raise ModuleNotFoundError(name)
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name in ("click", "rich") else find(name, package)
sys.meta_path.insert(0, Missing())
from seedbed.cli import main
sys.exit(main())
"""


def test_without_the_extra_the_command_says_how_to_install_it():
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_CLICK_AND_RICH],
        capture_output=True,
        text=True,
        check=False,
        env=environment(),
    )
    assert done.returncode == 2
    assert done.stderr == "seedbed: the command line is not installed; run: pip install 'seedbed[cli]'\n"
