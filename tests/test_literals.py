"""Literals, which clients fill themselves; and recipes in model files and on the command line."""

import asyncio
import json

import ml_dtypes
import numpy as np
import pytest

import seedbed
from seedbed._show import laws, plot
from seedbed._wire import transport
from seedbed.cli._models import load_model, model_lines
from seedbed.v1 import Model, Region, TensorSlice, TensorSpec

NOWHERE = "localhost:1"
TABLE = np.arange(24, dtype=np.float32).reshape(4, 6)
LITERAL = seedbed.spec(seedbed.literal(TABLE), name="table")
WEIGHT = seedbed.spec("normal", (4, 6), name="weight", seed=7)
MODEL = [
    LITERAL,
    WEIGHT,
    seedbed.spec(seedbed.literal(np.zeros((0, 3))), name="empty"),
    seedbed.spec(seedbed.literal(TABLE.astype(ml_dtypes.bfloat16)), name="half"),
    seedbed.spec("ones", (3,), name="bias"),
    seedbed.spec(seedbed.literal(np.float64(2.5)), name="scalar"),
]
RECIPES = [
    *MODEL,
    seedbed.spec(seedbed.parts([(None, WEIGHT), (np.s_[:1], 0.0)]), (4, 6), name="padded", seed=7),
    seedbed.spec(seedbed.log(seedbed.draw("uniform", a=1, b=16)), (4, 16), name="A_log"),
    seedbed.spec("permutation", (10,), name="order", stream="weight"),
]


@pytest.fixture
def requests(monkeypatch):
    """The requests that are sent over sockets."""
    sent = []
    original = transport.GrpcTransport.stream

    def recorded(self, call, deadline):
        sent.append(call.request)
        return original(self, call, deadline)

    monkeypatch.setattr(transport.GrpcTransport, "stream", recorded)
    return sent


def get_model(target, model, **arguments):
    with seedbed.connect(target) as client:
        return list(client.init_model(model, **arguments))


def get_model_aio(target, model, **arguments):
    async def run():
        async with seedbed.aio.connect(target) as client:
            return [item async for item in client.init_model(model, **arguments)]

    return asyncio.run(run())


def test_literals_are_not_sent(requests, server):
    got = get_model(server, MODEL)
    assert [name for name, _ in got] == [spec.name for spec in MODEL]
    [request] = requests
    assert [part.spec.name for part in request.tensors] == ["weight", "bias"]
    arrays = dict(got)
    np.testing.assert_array_equal(arrays["table"], TABLE)
    assert arrays["half"].dtype == ml_dtypes.bfloat16
    assert arrays["empty"].shape == (0, 3)
    assert arrays["scalar"] == 2.5
    with seedbed.connect("local:") as client:
        np.testing.assert_array_equal(arrays["weight"], client.init(WEIGHT))


def test_all_clients_return_the_same_bytes(server):
    for get in (get_model, get_model_aio):
        for target in (server, "local:"):
            seen = []
            got = get(target, RECIPES, progress=lambda done, total, seen=seen: seen.append((done, total)))
            assert seen[-1][0] == seen[-1][1] == sum(array.nbytes for _, array in got)
            for (name, array), (expected_name, expected) in zip(got, get_model("local:", RECIPES), strict=True):
                assert name == expected_name
                assert array.tobytes() == expected.tobytes()


@pytest.mark.parametrize("get", [get_model, get_model_aio])
def test_literals_alone_need_no_server(get):
    assert [name for name, _ in get(NOWHERE, [LITERAL, MODEL[2], MODEL[3]])] == ["table", "empty", "half"]


def test_one_literal_needs_no_server():
    out = np.empty((2, 3), np.float32)
    with seedbed.connect(NOWHERE) as client:
        assert client.init(LITERAL, np.s_[1:3, 3:], out) is out
        np.testing.assert_array_equal(out, TABLE[1:3, 3:])
        np.testing.assert_array_equal(client.init(LITERAL, out=np.empty((6, 4), np.float32).T), TABLE)
        [(offset, values)] = client.iter_chunks(LITERAL, np.s_[:, 1:2], first_element=1)
        assert (offset, values.tolist()) == (1, [7, 13, 19])
        assert not values.flags.writeable
        assert list(client.iter_chunks(LITERAL, first_element=24)) == []


def test_large_literals_are_not_divided():
    large = seedbed.spec(seedbed.literal(np.zeros((9, 1 << 20), np.float32)))
    with seedbed.connect("localhost:1,localhost:2") as client:
        assert client.init(large).shape == (9, 1 << 20)


@pytest.mark.parametrize("region", [None, np.s_[1:3, ::], np.s_[2:2, :]])
def test_descriptions_equal_a_servers(region):
    spec = TensorSpec()
    spec.CopyFrom(LITERAL)
    spec.stream = "other"
    with seedbed.connect(NOWHERE) as client:
        described = client.describe(spec, region)
    part = TensorSlice(spec=spec, region=seedbed._ask.regions.resolve(region, spec.shape))
    assert described == engine().describe(spec, part.region if part.HasField("region") else None)


def engine():
    return pytest.importorskip("seedbed_server.engine")


def broken(**changes):
    spec = TensorSpec()
    spec.CopyFrom(LITERAL)
    for name, value in changes.items():
        if name == "shape":
            spec.shape[:] = value
        elif name == "data":
            spec.literal.data = value
    return spec


BROKEN = [
    (broken(data=b"123"), None),
    (broken(data=b""), None),
    (broken(shape=[5, 6]), None),
    (broken(shape=[-4, 6]), None),
    (broken(shape=[1] * 65), None),
    (broken(shape=[2**62, 0, 2**62], data=b""), None),
    (broken(data=np.where(TABLE == 5, np.inf, TABLE).astype("f4").tobytes()), None),
    (broken(data=np.where(TABLE == 7, np.nan, TABLE).astype("f4").tobytes()), None),
    (LITERAL, Region(start=[0], stop=[4])),
    (LITERAL, Region(start=[0, 0], stop=[4])),
    (LITERAL, Region(start=[3, 0], stop=[2, 6])),
    (LITERAL, Region(start=[-1, 0], stop=[2, 6])),
    (LITERAL, Region(start=[0, 0], stop=[4, 7])),
]


@pytest.mark.parametrize(("spec", "region"), BROKEN)
def test_refusals_equal_the_engines(spec, region):
    with pytest.raises(engine().InvalidSpec) as expected:
        engine().describe(spec, region, "tensors[1].")
    refusal = expected.value
    with seedbed.connect(NOWHERE) as client:
        with pytest.raises(seedbed.InvalidRequest) as error:
            list(client.init_model([TensorSlice(spec=WEIGHT), TensorSlice(spec=spec, region=region)]))
        assert (error.value.field, error.value.description) == (refusal.field, refusal.description)
        for call in (client.init, client.describe):
            with pytest.raises(seedbed.InvalidRequest) as error:
                call(spec, region)
            assert f"tensors[1].{error.value.field}" == refusal.field


def test_refusals_of_first_elements_equal_a_servers():
    with seedbed.connect(NOWHERE) as client, pytest.raises(seedbed.InvalidRequest) as error:
        list(client.iter_chunks(LITERAL, first_element=25))
    assert error.value.field == "first_element"
    assert error.value.description == "is 25, but the region has 24 elements; give one of 0..24"


@pytest.mark.parametrize("get", [get_model, get_model_aio])
def test_refusals_name_the_tensor_of_the_model(get):
    with pytest.raises(seedbed.InvalidRequest) as error:
        get("local:", [LITERAL, seedbed.spec("normal", (3,), std=-1, name="bad")])
    assert error.value.field == "tensors[1].spec.normal.std"


# Model files and the command line ------------------------------------------------------------------------------------


@pytest.fixture
def model_file(tmp_path):
    large = seedbed.spec(seedbed.literal(np.arange(2 << 20, dtype=np.float32)), name="large")
    path = tmp_path / "recipes.json"
    path.write_text("".join(model_lines(Model(name="recipes", tensors=[*RECIPES, large]))))
    return path


def test_model_files_keep_recipes(model_file):
    loaded = load_model(model_file)
    assert loaded.tensors[:-1] == RECIPES
    lines = "".join(model_lines(loaded))
    assert lines == model_file.read_text()
    assert json.loads(lines)["tensors"][6]["parts"]["parts"][1]["region"] == {"start": ["0", "0"], "stop": ["1", "6"]}


def test_errors_in_model_files_are_located(tmp_path, seedbed_command):
    path = tmp_path / "bad.json"
    spec = '{"name": "x", "shape": [2], "literal": {"data": "AAAA"}}'
    path.write_text(f'{{"tensors": [{{"name": "w", "shape": [2], "ones": {{}}}}, {spec}]}}')
    code, _, text = seedbed_command("model", path, "-o", tmp_path / "x.safetensors", "--target", "local:")
    assert code
    assert "tensors[1].literal.data: has 3 bytes" in " ".join(text.split())


@pytest.mark.parametrize("is_local", [True, False])
def test_files_with_recipes_are_made_and_verified(model_file, ok, server, is_local):
    target = "local:" if is_local else server
    made, picture = model_file.with_suffix(".safetensors"), model_file.with_suffix(".png")
    ok("model", model_file, "-o", made, "--target", target)
    assert "equal bit for bit" in ok("verify", made, "--target", target)
    text = ok("describe", "model", model_file, "--target", target)
    assert "parts: 2 boxes: normal(mean=0, std=1), constant(val=0)" in text
    assert "expression of 2 steps: log of uniform(a=1, b=16)" in text
    ok("plot", "file", made, "-o", picture, "--target", target)
    assert picture.stat().st_size > 1000


def test_permutations_and_streams_on_the_command_line(tmp_path, ok):
    for stream in ("one", "other"):
        ok("get", "permutation", "--shape", "100", "--stream", stream, "-o", tmp_path / f"{stream}.npy")
    one, other = np.load(tmp_path / "one.npy"), np.load(tmp_path / "other.npy")
    assert sorted(one) == sorted(other) == list(range(100))
    assert (one != other).any()
    text = ok("describe", "permutation", "--shape", "10", "--stream", "one")
    assert "4.5" in text
    assert "one" in text


def test_histograms_of_unknown_laws_contain_all_values():
    with seedbed.connect("local:") as client:
        for spec in RECIPES:
            description, values = client.describe(spec), client.init(spec)
            histogram = plot.LawHistogram(description)
            for row in values.reshape(values.size, 1):
                histogram.add(row)
            assert int(histogram.counts.sum()) + sum(histogram.atoms.values()) >= 0.95 * values.size
            if laws.moments(description) is None:
                assert int(histogram.counts.sum()) + sum(histogram.atoms.values()) == values.size
