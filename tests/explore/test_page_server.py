"""The page's server: the forms, the tensors, the errors by field, and who may request them."""

import base64
import dataclasses
import http.client
import inspect
import json
import math
import re
import shlex
from pathlib import Path
from urllib.parse import urlencode

import numpy as np
import pytest
import safetensors.numpy

import seedbed
from seedbed._ask.table import SCHEMES
from seedbed._show import laws
from seedbed.explore import _calls, _form, _view

STATIC = Path(_form.__file__).parent / "static"


def get(port, path, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request(headers.pop("method", "GET"), path, headers=headers)
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response, body


def tensor(port, status=200, **texts):
    response, body = get(port, f"/api/tensor?{urlencode(texts)}")
    assert response.status == status, body
    return json.loads(body)


def errors(port, **texts):
    return {error["field"]: error["message"] for error in tensor(port, status=422, **texts)["errors"]}


def example(scheme):
    [form] = [form for form in _form.schemes() if form["name"] == scheme]
    return {"scheme": scheme, **{field["name"]: field["example"] for field in form["fields"]}}


def run_program(program):
    names = {}
    exec(program, names)
    return names["w"]


def same_bits(left, right):
    return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()


# The forms


def test_every_scheme_has_a_form_with_every_parameter_of_the_client(page):
    _, body = get(page, "/api/schemes")
    forms = {scheme["name"]: scheme for scheme in json.loads(body)["schemes"]}
    assert tuple(forms) == seedbed.SCHEMES
    for scheme in seedbed.SCHEMES:
        parameters = list(inspect.signature(getattr(seedbed.Client, scheme)).parameters)
        fields = [field["name"] for field in forms[scheme]["fields"]]
        assert set(fields) == set(parameters) - {"self", "out", "progress", "timeout"}
        assert [name for name in parameters if name in fields and name != "algorithm_version"][:1] == ["shape"]
        assert forms[scheme]["text"]
        assert all(field["meaning"] for field in forms[scheme]["fields"])


def test_a_form_follows_the_table():
    fields = _form._fields(dataclasses.replace(SCHEMES["ones"], parameters=SCHEMES["normal"].parameters))
    assert list(fields)[:3] == ["shape", "mean", "std"]
    assert fields["std"] == {
        "name": "std", "own": True, "choices": [], "required": False, "default": "1.0",
        "meaning": "Standard deviation; at least 0.", "example": "",
    }  # fmt: skip
    assert fields["shape"]["example"] == "768"


def test_the_offered_choices_are_accepted_by_the_client():
    count = 0
    for scheme in _form.schemes():
        texts = example(scheme["name"])
        for field in scheme["fields"]:
            for choice in field["choices"]:
                count += 1
                _form.read({**texts, field["name"]: choice})
    assert count > 40
    kaiming = {field["name"]: field["choices"] for field in _form._fields(SCHEMES["kaiming_normal"]).values()}
    assert kaiming["mode"] == ["fan_in", "fan_out"]  # fan_avg is another scheme's
    assert {"relu", "tanh", "conv_transpose3d"} < set(kaiming["nonlinearity"])
    assert kaiming["dtype"] == ["float32", "float16", "bfloat16", "float64", "complex64"]
    assert kaiming["a"] == kaiming["shape"] == []
    modes = _form._fields(SCHEMES["variance_scaling"])["mode"]["choices"]
    assert modes == ["fan_in", "fan_out", "fan_avg", "fan_geo_avg"]


# Tensors


@pytest.mark.parametrize("scheme", seedbed.SCHEMES)
def test_the_example_of_every_scheme_can_be_viewed(page, scheme):
    view = tensor(page, **example(scheme))
    histogram, sample = view["histogram"], view["sample"]
    counted = sum(histogram["counts"]) + sum(atom["count"] for atom in histogram["atoms"])
    assert 0 < sample["size"] <= _view.MAX_SAMPLE
    assert counted == pytest.approx(sample["size"], abs=20)  # 2e-6 of a normal's values lie beyond the histogram
    assert (histogram["curve"] is None) == (scheme in ("constant", "ones", "zeros", "eye", "dirac", "delta_orthogonal"))
    mean, std = view["moments"]
    if mean is not None:
        assert sample["mean"] == pytest.approx(mean, abs=6 * (std or 1e-7) / math.sqrt(sample["size"]))
        assert sample["std"] == pytest.approx(std, rel=0.02)


def test_the_numbers_match_the_law_and_the_sample(page, client):
    texts = {"scheme": "kaiming_uniform", "shape": "64,3,7,7", "nonlinearity": "relu", "seed": "7", "dtype": "bfloat16"}
    view = tensor(page, **texts)
    values = client.kaiming_uniform((64, 3, 7, 7), nonlinearity="relu", seed=7, dtype="bfloat16").astype(np.float64)
    bound = math.sqrt(2) * math.sqrt(3 / 147)
    assert view["law"] == f"uniform(a={-bound:.6g}, b={bound:.6g})"
    assert view["moments"] == [0, pytest.approx(2 * bound / math.sqrt(12))]
    assert view["sample"]["mean"] == pytest.approx(values.mean())
    assert view["sample"]["std"] == pytest.approx(values.std())
    facts = dict(view["facts"])
    assert facts["dtype"] == "bfloat16"
    assert (facts["fan_in"], facts["fan_out"], facts["gain"]) == ("147", "3,136", repr(math.sqrt(2)))
    assert facts["bounds"] == f"[{-bound!r}, {bound!r})"
    assert facts["bytes"] == "18,816 (18.4 KiB)"
    assert facts["stream"] == f"0x{client.describe(seedbed.spec('normal', ())).stream:016x}"
    histogram = view["histogram"]
    expected, _ = np.histogram(values, histogram["edges"])
    assert histogram["counts"] == expected.tolist()


def test_the_density_matches_the_law_and_keeps_its_corners(page, client):
    view = tensor(page, scheme="trunc_normal", shape="100,100", std="1", a="-1", b="2")
    exact = laws.curve(client.describe(seedbed.spec("trunc_normal", (100, 100), std=1.0, a=-1.0, b=2.0)))
    curve = view["histogram"]["curve"]
    assert (curve["x"][0], curve["x"][-1]) == (-1, 2)
    assert curve["x"][1] == -1
    assert curve["y"][0] == curve["y"][-1] == 0
    assert 300 < len(curve["x"]) <= 502
    area = sum(
        (b - a) * (c + d) / 2
        for a, b, c, d in zip(curve["x"], curve["x"][1:], curve["y"], curve["y"][1:], strict=False)
    )
    assert area == pytest.approx(1, rel=1e-4)
    assert max(curve["y"]) == pytest.approx(exact.y.max(), rel=1e-4)


def test_a_large_tensor_is_sampled_partially_and_the_view_says_so(page, client):
    view = tensor(page, scheme="normal", shape="128256,4096", std="0.02", seed="7")
    assert view["sample"]["size"] == 2**20
    assert view["sample"]["of"] == 128256 * 4096
    first = client.normal((128256, 4096), std=0.02, seed=7, region=np.s_[:256, :])
    assert view["sample"]["mean"] == pytest.approx(float(first.astype(np.float64).mean()), rel=1e-6)
    picture = view["picture"]
    assert (picture["rows"], picture["columns"], picture["of"]) == (192, 192, [128256, 4096])


PICTURES = {
    "matrix": ({"scheme": "normal", "shape": "300,200"}, np.s_[:192, :192], (192, 192)),
    "region": ({"scheme": "normal", "shape": "300,200", "region": "10:20,-5:"}, np.s_[10:20, 195:], (10, 5)),
    "convolution": ({"scheme": "kaiming_normal", "shape": "8,64,3,3"}, np.s_[:, :21], (8, 189)),
    "vector": ({"scheme": "uniform", "shape": "768"}, np.s_[:192], (1, 192)),
    "scalar": ({"scheme": "uniform", "shape": ""}, np.s_[...], (1, 1)),
    "empty": ({"scheme": "uniform", "shape": "0,5"}, np.s_[...], (0, 5)),
    "tiny": ({"scheme": "normal", "shape": "9,9", "mean": "1", "std": "1e-9", "dtype": "float64"}, np.s_[...], (9, 9)),
    "huge": ({"scheme": "uniform", "shape": "9,9", "b": "1e300", "dtype": "float64"}, np.s_[...], (9, 9)),
}  # fmt: skip


@pytest.mark.parametrize("name", PICTURES)
def test_the_image_shows_the_values(page, name):
    texts, region, shape = PICTURES[name]
    picture = tensor(page, **texts)["picture"]
    whole = seedbed.connect("local:").init(_form.read({**texts, "region": ""}).spec)
    assert (picture["rows"], picture["columns"]) == shape
    deviations = np.frombuffer(base64.b64decode(picture["deviations"]), "<f4").astype(np.float64) * picture["span"]
    values = whole[region].astype(np.float64).reshape(-1)
    np.testing.assert_allclose(picture["center"] + deviations, values, rtol=1e-6, atol=1e-6 * picture["span"])


def test_orthogonality_is_that_of_the_whole_matrix(page, client):
    q = client.orthogonal((30, 40), gain=2, dtype="float64") / 2
    largest = abs(q @ q.T - np.eye(30)).max()
    for region in ("", ":5,:"):
        facts = dict(
            tensor(page, scheme="orthogonal", shape="30,40", gain="2", dtype="float64", region=region)["facts"]
        )
        assert facts["largest |QQᵀ − I|"] == f"{largest:.3g}"
        assert largest < 1e-14
    assert "largest |QᵀQ − I|" in dict(tensor(page, scheme="orthogonal", shape="40,30")["facts"])


def test_a_large_orthogonal_matrix_is_described_but_not_sampled(page):
    view = tensor(page, scheme="orthogonal", shape="4096,4096", region=":2,:2")
    assert "16,777,216 elements" in view["refusal"]
    assert "sample" not in view
    assert view["moments"] == [0, 1 / 64]
    assert "client.orthogonal" in view["python"]


def test_the_zeros_of_sparse_are_counted_separately(page):
    view = tensor(page, scheme="sparse", shape="512,512", sparsity="0.9")
    assert view["histogram"]["atoms"] == [{"value": 0.0, "count": 512 * math.ceil(0.9 * 512)}]


EXTREMES = [
    {"scheme": "uniform", "shape": "9,9", "a": "-1.7e308", "b": "0", "dtype": "float64"},
    {"scheme": "uniform", "shape": "9,9", "b": "1e300", "dtype": "float64"},
    {"scheme": "normal", "shape": "9,9", "std": "5e-324", "dtype": "float64"},
    {"scheme": "normal", "shape": "9,9", "mean": "3.4e38", "std": "1e-45", "dtype": "float64"},
    {"scheme": "trunc_normal", "shape": "9,9", "std": "5e-324", "bounds": "sigma"},
    {"scheme": "xavier_uniform", "shape": "3,0", "gain": "3.4e38", "dtype": "float16"},
    {"scheme": "constant", "shape": "9,9", "val": "1.7e308", "dtype": "float64"},
]


@pytest.mark.parametrize("texts", EXTREMES, ids=lambda texts: f"{texts['scheme']}-{list(texts.values())[2]}")
def test_values_beyond_float64_are_shown_as_missing(page, texts):
    view = tensor(page, **texts)
    assert "picture" in view
    assert view["histogram"] is None or texts["scheme"] == "constant"


# The calls

CALLS = {
    "defaults": {"scheme": "ones", "shape": "3"},
    "all": {
        "scheme": "kaiming_normal", "shape": "40, 30", "a": "0.1", "mode": "fan_out", "nonlinearity": "leaky_relu",
        "gain": "", "seed": "0xff", "name": "layers.0 'weight' \"$x\" \\ é\n", "dtype": "bfloat16",
        "region": "5:-5,...", "algorithm_version": "1",
    },
    "axes": {
        "scheme": "variance_scaling", "shape": "4,5,6", "scale": "2", "mode": "fan_avg", "distribution": "uniform",
        "in_axis": "0,1", "out_axis": "-1",
    },
    "negative": {
        "scheme": "uniform", "shape": "(8, 8)", "a": "-0.1", "b": "1e-3", "dtype": "float64",
        "seed": "18446744073709551615",
    },
    "scalar": {"scheme": "normal", "shape": "", "name": "--target"},
    "region": {"scheme": "orthogonal", "shape": "20,30", "region": "3:,:7"},
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_the_calls_reproduce_exactly_this_tensor(page, client, ok, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    view = tensor(page, **CALLS[name])
    request = _form.read(CALLS[name])
    expected = client.init(request.spec, region=request.region)
    assert same_bits(run_program(view["python"]), expected)
    words = shlex.split(view["command"].replace(" \\\n    ", " "))
    assert words[0] == "seedbed"
    ok(*words[1:])
    [written] = safetensors.numpy.load_file("w.safetensors").values()
    assert same_bits(written, expected)


def test_the_calls_connect_as_the_page_does(tmp_path, ok, monkeypatch):
    (tmp_path / "token").write_text("secret\n", encoding="ascii")
    monkeypatch.chdir(tmp_path)
    arguments = {"tls": True, "ca": Path("ca.pem"), "cert": Path("c.pem"), "key": Path("k.pem"), "server_name": "host"}
    connection = _calls.Connection("host:1", arguments, tmp_path / "token")
    request = _form.read({"scheme": "ones", "shape": "3"})
    program, command = _calls.python(request, connection), _calls.command(request, connection)
    assert "secret" not in program + command
    real_connect, calls = seedbed.connect, []

    def connect(target, **options):
        calls.append((target, {name: str(value) for name, value in options.items() if name != "timeout"}))
        return real_connect("local:")

    monkeypatch.setattr(seedbed, "connect", connect)
    run_program(program)
    ok(*shlex.split(command.replace(" \\\n    ", " "))[1:])
    expected = {**{name: str(value) for name, value in arguments.items()}, "token": "secret"}
    assert calls == [("host:1", expected)] * 2


# Errors

ERRORS = {
    "no scheme": ({}, "scheme", "unknown scheme"),
    "another scheme": ({"scheme": "gaussian", "shape": "3"}, "scheme", "use one of constant, ones"),
    "a missing shape": ({"scheme": "ones"}, "shape", "required"),
    "a missing parameter": ({"scheme": "constant", "shape": "3", "val": " "}, "val", "required"),
    "an unknown field": ({"scheme": "ones", "shape": "3", "std": "1"}, "std", "ones has no field"),
    "a shape of letters": ({"scheme": "ones", "shape": "a,b"}, "shape", "is not a shape"),
    "a negative shape": ({"scheme": "ones", "shape": "-1"}, "shape", ""),
    "a wrong rank": ({"scheme": "dirac", "shape": "3,3"}, "shape", "3, 4, or 5 dimensions"),
    "not a number": ({"scheme": "normal", "shape": "3", "std": "x"}, "std", "'x' is not a number"),
    "a negative std": ({"scheme": "normal", "shape": "3", "std": "-1"}, "std", ""),
    "reversed bounds": ({"scheme": "uniform", "shape": "3", "a": "2"}, "a", "swap them"),
    "a seed out of range": ({"scheme": "normal", "shape": "3", "seed": str(2**64)}, "seed", "outside 0 .. 2^64 - 1"),
    "a dtype": ({"scheme": "normal", "shape": "3", "dtype": "int8"}, "dtype", "float16"),
    "a choice": ({"scheme": "kaiming_normal", "shape": "3,3", "mode": "fan_avg"}, "mode", "fan_out"),
    "a region": ({"scheme": "normal", "shape": "3", "region": "1:9"}, "region", "outside dimension 0"),
    "groups": ({"scheme": "dirac", "shape": "4,4,3", "groups": "3"}, "groups", ""),
    "axes": (
        {
            "scheme": "variance_scaling", "shape": "3,3", "scale": "1", "mode": "fan_in", "distribution": "normal",
            "in_axis": "7",
        },
        "in_axis",
        "7",
    ),
    "a version": ({"scheme": "normal", "shape": "3", "algorithm_version": "99"}, "algorithm_version", "99"),
}  # fmt: skip


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_names_its_field(page, name):
    texts, field, message = ERRORS[name]
    messages = errors(page, **texts)
    assert list(messages) == [field]
    assert message in messages[field]


def test_all_invalid_texts_are_reported_together(page):
    assert set(errors(page, scheme="normal", shape="x", std="y", seed="z")) == {"shape", "std", "seed"}


def test_an_unavailable_service_is_reported(start_server, page_of):
    handle = start_server()
    with seedbed.connect(handle.target, timeout=2) as client, page_of(client, handle.target) as port:
        assert handle.target in tensor(port, scheme="ones", shape="3")["python"]
        handle.kill()
        [error] = tensor(port, status=502, scheme="ones", shape="3")["errors"]
        assert error["field"] == ""
        assert handle.target in error["message"]


# Who may request what


def test_the_page_loads_nothing_from_elsewhere(page):
    response, body = get(page, "/")
    policy = response.getheader("content-security-policy")
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    assert "unsafe" not in policy
    assert response.getheader("x-content-type-options") == "nosniff"
    assert b"<script>" not in body
    assert b"style=" not in body
    for path in [*re.findall(rb'(?:src|href)="([^"]+)"', body), b"/static/histogram.js"]:
        response, _ = get(page, path.decode())
        assert response.status == 200, path
        assert response.getheader("content-security-policy") == policy
    for file in STATIC.iterdir():
        links = set(re.findall(r"(?:https?:)?//[\w.]+\.\w+[\w./]*", file.read_text(encoding="utf-8")))
        assert links <= {"http://www.w3.org/2000/svg"}, file


@pytest.mark.parametrize("host", ["localhost:1", "127.0.0.1", "127.0.0.1:9999", "[::1]:8077", "LOCALHOST"])
def test_names_of_this_machine_are_accepted(page, host):
    assert get(page, "/", Host=host)[0].status == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:8077", "10.0.0.1", "[::1", "a@b:c", ""]
)
def test_other_names_are_refused(page, host):
    for path in ("/", "/api/schemes", "/static/page.js"):
        response, body = get(page, path, Host=host)
        assert response.status == 403
        assert b"localhost" in body
        assert response.getheader("content-security-policy")


def test_other_sites_may_link_to_the_page_but_not_request_data(page):
    for site in ("cross-site", "same-site"):
        assert get(page, "/?scheme=ones", **{"Sec-Fetch-Site": site})[0].status == 200
        assert get(page, "/api/tensor?scheme=ones&shape=3", **{"Sec-Fetch-Site": site})[0].status == 403
    assert get(page, "/api/tensor?scheme=ones&shape=3", **{"Sec-Fetch-Site": "same-origin"})[0].status == 200


def test_only_reading_is_served(page):
    assert get(page, "/api/tensor?scheme=ones&shape=3", method="POST")[0].status == 405
    for path in ("/static/../_app.py", "/static/%2e%2e/_app.py", "/docs", "/api", "/static/"):
        assert get(page, path)[0].status == 404, path
