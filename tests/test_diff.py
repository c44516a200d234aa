"""``seedbed diff``: where two files of tensors differ, whoever wrote them."""

import json
import math
import tracemalloc
from fractions import Fraction
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seedbed._files.safetensors import ELEMENT_TYPES, read_safetensors
from seedbed.cli import _diff

INDEX = "model.safetensors.index.json"


@pytest.fixture(autouse=True)
def _folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")


def write(path, tensors, metadata=None):
    """Writes a safetensors file, given the dtype, shape and bytes of each tensor."""
    fields, data = ({"__metadata__": metadata} if metadata else {}), b""
    for name, (dtype, shape, content) in tensors.items():
        fields[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    text = json.dumps(fields).encode()
    Path(path).write_bytes(len(text).to_bytes(8, "little") + text + data)


def f32(*values):
    array = np.array(values, np.float32)
    return ("F32", array.shape, array.tobytes())


@pytest.fixture
def table(seedbed_command):
    """Compares two files that differ, and returns the cells of the table and the text below it."""

    def run(*arguments):
        code, out, err = seedbed_command("diff", *arguments)
        assert (code, err) == (1, "")
        head, *rest = out.split("\n\n")
        return [[cell.strip() for cell in line.split("   ") if cell] for line in head.splitlines()], "\n".join(rest)

    return run


# Differences.

SHAPES = st.lists(st.integers(0, 7), max_size=3).map(tuple)


@st.composite
def files(draw):
    """The tensors of two files, and the indices of the elements of each that differ."""
    a, b, changed = {}, {}, {}
    for name in draw(st.lists(st.sampled_from("abcde"), unique=True)):
        dtype, shape = draw(st.sampled_from(sorted(ELEMENT_TYPES))), draw(SHAPES)
        count, size = math.prod(shape), ELEMENT_TYPES[dtype].itemsize
        # Any bytes: NaNs of all kinds, infinities, subnormals. A bool has only two values.
        element = st.sampled_from([b"\0", b"\1"]) if dtype == "BOOL" else st.binary(min_size=size, max_size=size)
        before = draw(st.lists(element, min_size=count, max_size=count))
        after = list(before)
        for index in draw(st.sets(st.integers(0, count - 1), max_size=5)) if count else ():
            after[index] = draw(element)
        a[name], b[name] = ((dtype, shape, b"".join(content)) for content in (before, after))
        changed[name] = [index for index in range(count) if before[index] != after[index]]
    return a, b, changed


def exact_components(value):
    """The real and imaginary parts of a number, exactly; None if one of them is NaN."""
    components = [value.real, value.imag] if np.iscomplexobj(value) else [value]
    numbers = [float(part) if not isinstance(part, (np.integer, np.bool_)) else int(part) for part in components]
    return numbers if not any(isinstance(part, float) and math.isnan(part) for part in numbers) else None


def distance(a, b):
    """The distance of two numbers; None if one of them is NaN."""
    components_a, components_b = exact_components(a), exact_components(b)
    if components_a is None or components_b is None:
        return None
    distances = [0 if x == y else math.inf if math.inf in (abs(x), abs(y)) else abs(Fraction(x) - Fraction(y))
                 for x, y in zip(components_a, components_b, strict=True)]  # fmt: skip
    if math.inf in distances:
        return math.inf
    if len(distances) == 1:
        return distances[0]
    return math.hypot(*map(float, distances))


def same_number(found, expected):
    found = {"Infinity": math.inf}.get(found, found)
    if expected is None or isinstance(found, int):
        return found == expected
    try:
        return found == pytest.approx(float(expected), rel=1e-15)
    except OverflowError:
        return found == math.inf


@pytest.mark.filterwarnings("error")
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(files=files(), piece=st.sampled_from([8, 16, 64, 4 << 20]))
def test_edits_are_found_exactly(seedbed_command, monkeypatch, files, piece):
    tensors_a, tensors_b, changed = files
    write("a.safetensors", tensors_a)
    write("b.safetensors", dict(reversed(tensors_b.items())))  # the order does not matter
    monkeypatch.setattr(_diff, "_PIECE", piece)
    code, out, err = seedbed_command("diff", "a.safetensors", "b.safetensors", "--json")
    report = json.loads(out)
    assert (code, err) == (int(any(changed.values())), "")
    assert (report["equal"], report["tensors"], report["metadata"]) == (not code, len(tensors_a), {})
    assert [difference["tensor"] for difference in report["differences"]] == [n for n in tensors_a if changed[n]]
    for difference in report["differences"]:
        name = difference["tensor"]
        dtype, shape, content = tensors_a[name]
        indices = changed[name]
        a = np.frombuffer(content, ELEMENT_TYPES[dtype])
        b = np.frombuffer(tensors_b[name][2], ELEMENT_TYPES[dtype])
        assert difference["a"] == difference["b"] == {"dtype": ELEMENT_TYPES[dtype].name, "shape": list(shape)}
        assert (difference["elements"], difference["differing"]) == (len(a), len(indices))
        first = difference["first"]
        assert np.ravel_multi_index(first["index"], shape) == indices[0]
        for side, values in (("a", a), ("b", b)):
            assert int(first[f"{side}_bits"], 16) == int.from_bytes(
                values[indices[0] : indices[0] + 1].tobytes(), "little"
            )
        with np.errstate(all="ignore"):
            distances = [distance(a[index], b[index]) for index in indices]
        assert difference["nans"] == distances.count(None)
        assert same_number(difference["largest_difference"], max((d for d in distances if d is not None), default=None))


def test_the_table(table):
    before, after = np.zeros((64, 128), np.float32), np.zeros((64, 128), np.float32)
    before[3, 5], after[3, 5], after[7, 0], after[9, 9] = 0.5, 0.25, -2, np.nan
    safetensors.numpy.save_file({"w": before, "same": np.ones(3), "gone": np.ones((3, 4), np.int8)}, "a.safetensors")
    safetensors.numpy.save_file({"w": after, "same": np.ones(3), "new": np.ones((), bool)}, "b.safetensors")
    [head, *rows], rest = table("a.safetensors", "b.safetensors")
    assert head == ["tensor", "differs", "first at", "A", "B", "by up to"]
    assert sorted(rows) == [
        ["gone", "only in A", "3 × 4 int8"],
        ["new", "only in B", "scalar bool"],
        ["w", "3 of 8,192", "[3, 5]", "0.5 (0x3f000000)", "0.25 (0x3e800000)", "2 and 1 NaN"],
    ]
    assert rest == "3 of 4 tensors differ; A is a.safetensors, B is b.safetensors\n"


def test_bits_are_compared(table, ok):
    nan, other_nan = np.array([0x7FC00000, 0x7FC00001], np.uint32).view(np.float32)
    write("a.safetensors", {"zero": f32(0.0), "nan": f32(nan), "same": f32(nan, -0.0)})
    write("b.safetensors", {"zero": f32(-0.0), "nan": f32(other_nan), "same": f32(nan, -0.0)})
    assert table("a.safetensors", "b.safetensors")[0][1:] == [
        ["zero", "1 of 1", "[0]", "0.0 (0x00000000)", "-0.0 (0x80000000)", "0"],
        ["nan", "1 of 1", "[0]", "nan (0x7fc00000)", "nan (0x7fc00001)", "1 NaN"],
    ]
    assert "equal bit for bit" in ok("diff", "a.safetensors", "b.safetensors", "--tensors", "same")


def test_other_dtypes_and_shapes_are_listed_and_not_compared(table):
    write("a.safetensors", {"t": f32(1, 2), "s": f32(1, 2), "both": f32(1, 2)})
    write(
        "b.safetensors",
        {"t": ("BF16", (2,), bytes(4)), "s": ("F32", (1, 2), bytes(8)), "both": ("I64", (1,), bytes(8))},
    )
    assert table("a.safetensors", "b.safetensors")[0][1:] == [
        ["t", "dtype", "2 float32", "2 bfloat16"],
        ["s", "shape", "2 float32", "1 × 2 float32"],
        ["both", "dtype and shape", "2 float32", "1 int64"],
    ]


def test_a_dtype_unknown_to_numpy_is_compared_byte_by_byte(table, ok):
    write("a.safetensors", {"w": ("F4", (2, 8), bytes(range(8)))})
    write("b.safetensors", {"w": ("F4", (2, 8), bytes([0, 1, 2, 255, 4, 5, 6, 0]))})
    ok("diff", "a.safetensors", "a.safetensors")
    assert table("a.safetensors", "b.safetensors")[0][1] == [
        "w", "2 of 8 bytes", "[3]", "3 (0x03)", "255 (0xff)", "252",
    ]  # fmt: skip


def test_a_tensor_with_too_many_dimensions_for_numpy(table):
    shape = (*[1] * 99, 2)
    write("a.safetensors", {"w": ("F32", shape, bytes(8))})
    write("b.safetensors", {"w": ("F32", shape, bytes(7) + b"@")})
    assert table("a.safetensors", "b.safetensors")[0][1][2] == f"[{'0, ' * 99}1]"


def test_the_largest_difference_of_wide_integers_is_exact(seedbed_command):
    safetensors.numpy.save_file({"i": np.array([-(2**63), 5]), "u": np.array([1], np.uint64)}, "a.safetensors")
    safetensors.numpy.save_file({"i": np.array([2**63 - 1, 5]), "u": np.array([2**64 - 1], np.uint64)}, "b.safetensors")
    report = json.loads(seedbed_command("diff", "a.safetensors", "b.safetensors", "--json")[1])
    assert {each["tensor"]: each["largest_difference"] for each in report["differences"]} == {
        "i": 2**64 - 1, "u": 2**64 - 2,
    }  # fmt: skip


def test_metadata_is_listed_but_does_not_count(ok, table):
    model = "x" * 1000
    write("a.safetensors", {"w": f32(1)}, {"format": "pt", "step": "7", "model": f"{model}1"})
    write("b.safetensors", {"w": f32(1)}, {"format": "pt", "note": "a\x1b[31m\nb", "model": f"{model}22"})
    write("c.safetensors", {"w": f32(2)}, {"format": "pt", "step": "8", "model": f"{model}1"})
    out = ok("diff", "a.safetensors", "b.safetensors")
    assert out.startswith(
        "a.safetensors and b.safetensors: 1 tensor, 4 bytes, equal bit for bit\n\nmetadata (informational)"
    )
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines()[3:]}
    assert rows == {
        "model": [f"…{'x' * 20}1", f"…{'x' * 20}22"], "note": ["-", r"a\x1b[31m\nb"], "step": ["7", "-"],
    }  # fmt: skip
    report = json.loads(ok("diff", "a.safetensors", "b.safetensors", "--json"))
    assert report["equal"]
    assert report["metadata"]["step"] == {"a": ["7"], "b": []}
    assert "\nstep                       7   8\n" in table("a.safetensors", "c.safetensors")[1]


# Selecting and pairing tensors.


def test_tensors_are_selected_by_name(ok, table, seedbed_command):
    write("a.safetensors", {"layers.0.w": f32(1), "layers.1.w": f32(1), "head": f32(1)})
    write("b.safetensors", {"layers.0.w": f32(1), "layers.1.w": f32(2), "head": f32(2), "more": f32(0)})
    assert "1 tensor, 4 bytes, equal" in ok("diff", "a.safetensors", "b.safetensors", "--tensors", "layers.0.*")
    rows = table("a.safetensors", "b.safetensors", "--tensors", "layers.*", "--tensors", "more")[0][1:]
    assert [row[:2] for row in rows] == [["layers.1.w", "1 of 1"], ["more", "only in B"]]
    code, out, err = seedbed_command("diff", "a.safetensors", "b.safetensors", "--tensors", "heads")
    assert (code, out) == (2, "")
    assert "no tensor in a.safetensors or b.safetensors matches 'heads'" in err


def checkpoint(folder, *files, index=INDEX):
    Path(folder).mkdir()
    weight_map = {name: f"model-{number}.safetensors" for number, tensors in enumerate(files) for name in tensors}
    for number, tensors in enumerate(files):
        write(f"{folder}/model-{number}.safetensors", tensors, {"format": "pt"})
    if index:
        Path(folder, index).write_text(json.dumps({"weight_map": weight_map}), encoding="utf-8")


def test_directories_and_indexes_are_compared_whatever_their_files(ok, table):
    tensors = {name: f32(*range(number + 1)) for number, name in enumerate("abcd")}
    write("one.safetensors", tensors, {"format": "pt"})
    checkpoint("two", {"d": tensors["d"], "a": tensors["a"]}, {"c": tensors["c"], "b": tensors["b"]})
    checkpoint("three", {"b": tensors["b"]}, {"a": tensors["a"]}, {"c": tensors["c"], "d": f32(0, 1, 2, 4)}, index=None)
    write("two/consolidated.safetensors", tensors)  # not in the index
    for other in ("two", f"two/{INDEX}"):
        assert (
            ok("diff", "one.safetensors", other)
            == f"one.safetensors and {other}: 4 tensors, 40 bytes, equal bit for bit\n"
        )
    assert table("two", "three")[0][1][:3] == ["d", "1 of 4", "[3]"]


def test_npy_files_are_compared_with_one_another_and_with_the_one_tensor_of_a_file(ok, table, seedbed_command):
    array = np.arange(12, dtype=np.float64).reshape(3, 4)
    np.save("a.npy", array)
    np.save("big.npy", array.astype(">f8"))
    np.save("b.npy", np.where(array == 6, 7, array))
    safetensors.numpy.save_file({"w": array, "v": np.ones(3)}, "w.safetensors", {"format": "pt"})
    ok("diff", "a.npy", "big.npy")
    assert ok("diff", "a.npy", "w.safetensors", "--tensors", "w") == (
        "a.npy and w.safetensors: 1 tensor, 96 bytes, equal bit for bit\n"
    )
    assert table("b.npy", "a.npy")[0][1] == [
        "array", "1 of 12", "[1, 2]", "7.0 (0x401c000000000000)", "6.0 (0x4018000000000000)", "1",
    ]  # fmt: skip
    assert table("w.safetensors", "b.npy", "--tensors", "w")[0][1][:3] == ["w", "1 of 12", "[1, 2]"]
    code, _, err = seedbed_command("diff", "w.safetensors", "a.npy")
    assert code == 2
    assert "a.npy is one tensor without a name, and w.safetensors has 2 tensors; choose one with --tensors" in err


def test_tensors_of_two_seeds_differ(ok, table):
    for seed in ("1", "2"):
        ok("get", "normal", "--shape", "30,40", "--seed", seed, "--name", "w", "-o", f"{seed}.safetensors")
    ok("get", "normal", "--shape", "30,40", "--seed", "1", "--name", "w", "-o", "1.npy")
    assert table("1.safetensors", "2.safetensors")[0][1][:3] == ["w", "1,200 of 1,200", "[0, 0]"]
    ok("diff", "1.npy", "1.safetensors")


def test_memory_is_bounded_by_the_pieces(ok):
    for name in ("a.npy", "b.npy"):
        np.lib.format.open_memmap(name, "w+", np.float32, (16 << 20,)).flush()  # 64 MiB, sparse
    ok("diff", "a.npy", "a.npy")  # imports
    tracemalloc.start()
    ok("diff", "a.npy", "b.npy")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 32 << 20


# Errors.


def broken_checkpoints():
    checkpoint("lost", {"a": f32(1)}, {"b": f32(1)})
    Path("lost/model-1.safetensors").unlink()
    checkpoint("other", {"a": f32(1)}, {"b": f32(1)})
    write("other/model-1.safetensors", {"c": f32(1)})
    checkpoint("more", {"a": f32(1)}, {"b": f32(1)})
    write("more/model-1.safetensors", {"b": f32(1), "c": f32(1)})
    checkpoint("twice", {"a": f32(1)}, {"a": f32(1)}, index=None)
    checkpoint("both", {"a": f32(1)})
    write("both/model.safetensors", {"a": f32(1)})
    checkpoint("away", {"a": f32(1)})
    Path("away", INDEX).write_text('{"weight_map": {"a": "../a.safetensors"}}', encoding="utf-8")
    checkpoint("text", {"a": f32(1)})
    Path("text", INDEX).write_text("no JSON", encoding="utf-8")
    Path("empty").mkdir()


ERRORS = {
    "no.safetensors": "no.safetensors: No such file or directory",
    "no.npy": "no.npy: No such file or directory",
    "text.bin": "text.bin: not a safetensors file",
    "text.npy": "text.npy: not a .npy file",
    "deep.npy": "deep.npy: not a .npy file",
    "short.npy": "short.npy: truncated: 90 of 96 bytes",
    "long.npy": "long.npy: too long: 97 of 96 bytes",
    "fortran.npy": "fortran.npy: stored in Fortran order; save it again with numpy.ascontiguousarray",
    "objects.npy": "objects.npy: dtype object is not supported",
    "negative.npy": "negative.npy: not a .npy file: its shape is (-3, -4)",
    "bfloat16.npy": "bfloat16.npy: dtype |V2 is not supported",
    "lost": "lost/model-1.safetensors: No such file or directory",
    "other": f"other/{INDEX}: tensor 'b' is not in model-1.safetensors",
    "more": f"more/{INDEX}: tensor 'c' of model-1.safetensors is missing",
    "twice": "twice: tensor 'a' is in model-0.safetensors and model-1.safetensors; give one of them",
    "both": f"both: holds {INDEX} and model.safetensors; give one of them",
    "away": f"away/{INDEX}: not an index: its weight_map must name a file in its directory for each tensor",
    "text": f"text/{INDEX}: not JSON: Expecting value",
    "empty": "empty: holds no .safetensors files",
}


@pytest.fixture
def error_files():
    broken_checkpoints()
    array = np.arange(12, dtype=np.float64).reshape(3, 4)
    np.save("array.npy", array)
    content = Path("array.npy").read_bytes()
    Path("short.npy").write_bytes(content[:-6])
    Path("long.npy").write_bytes(content + b"x")
    Path("text.bin").write_text("hello, I am not a tensor", encoding="utf-8")
    Path("text.npy").write_text("hello", encoding="utf-8")
    Path("deep.npy").write_bytes(b"\x93NUMPY\x01\x00" + (9000).to_bytes(2, "little") + b"(" * 8999 + b"\n")
    Path("negative.npy").write_bytes(content.replace(b"(3, 4), }  ", b"(-3, -4), }"))
    np.save("fortran.npy", array.T)
    np.save("objects.npy", np.array([None]), allow_pickle=True)
    np.save("bfloat16.npy", np.ones(3, ml_dtypes.bfloat16))


def test_an_error_has_another_exit_code_than_a_difference(seedbed_command, error_files):
    for path, message in ERRORS.items():
        for arguments in ((path, "array.npy"), ("array.npy", path)):
            code, out, err = seedbed_command("diff", *arguments)
            assert (code, out) == (2, ""), arguments
            assert err.startswith(f"seedbed: {message}"), arguments
            assert err.count("\n") == 1


def test_a_file_that_is_truncated_meanwhile_is_an_error(seedbed_command, monkeypatch):
    write("a.safetensors", {"w": f32(1, 2, 3)})
    header = read_safetensors(Path("a.safetensors"))
    write("b.safetensors", {"w": f32(1, 2)})  # as if it had been replaced since
    monkeypatch.setattr("seedbed.cli._stored.read_safetensors", lambda path: header)
    header.tensors["w"] = type(header.tensors["w"])("F32", (3000,), 80, 12080)
    code, _, err = seedbed_command("diff", "a.safetensors", "b.safetensors")
    assert (code, err) == (2, "seedbed: a.safetensors: truncated while it was read\n")
