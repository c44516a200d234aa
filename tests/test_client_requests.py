"""The client's checks of Python arguments, before it sends a request."""

import inspect
import math
import pickle
from decimal import Decimal
from fractions import Fraction

import grpc
import ml_dtypes
import numpy as np
import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from numpy.lib.stride_tricks import as_strided

import seedbed
from seedbed import aio, errors
from seedbed._ask.regions import resolve
from seedbed._wire import targets
from seedbed.v1 import DataType, FanMode, Model, Nonlinearity, Normal, Region, TensorSlice, TensorSpec

NOBODY = "127.0.0.1:1"  # no server listens here, so a refusal must come from the client


def refusal(call, *args, **kwargs) -> seedbed.InvalidRequest:
    with pytest.raises(seedbed.InvalidRequest) as caught:
        call(*args, **kwargs)
    error = caught.value
    assert isinstance(error, (ValueError, seedbed.SeedbedError))
    assert str(error) == f"{error.field}: {error.description}"
    return error


@pytest.fixture
def client():
    with seedbed.connect(NOBODY) as client:
        yield client


MINIMAL = {
    "constant": {"val": 0.5},
    "sparse": {"sparsity": 0.5},
    "variance_scaling": {"scale": 1.0, "mode": "fan_in", "distribution": "normal"},
}


@pytest.mark.parametrize("scheme", seedbed.SCHEMES)
def test_every_scheme_has_a_method_a_message_and_documentation(scheme):
    assert seedbed.spec(scheme, (4, 4), **MINIMAL.get(scheme, {})).WhichOneof("scheme") == scheme
    for kind in (seedbed.Client, aio.AsyncClient):
        method = getattr(kind, scheme)
        parameters = inspect.signature(method).parameters
        assert list(parameters)[-9:-3] == ["seed", "name", "dtype", "algorithm_version", "stream", "region"]
        assert parameters["dtype"].default == "float32"
        assert parameters["timeout"].default is ...
        for name in list(parameters)[1:]:
            assert f"\n    {name}: " in inspect.getdoc(method), name
        assert ">>> " in method.__doc__


def test_schemes_are_those_of_the_contract():
    recipes = ["expression", "literal", "parts"]  # seedbed.spec makes these from Values and parts
    names = [field.name for field in TensorSpec.DESCRIPTOR.oneofs[0].fields]
    assert sorted([*seedbed.SCHEMES, *recipes]) == sorted(names)


@pytest.mark.parametrize(
    ("scheme", "defaults"),
    [
        ("uniform", "a=0.0, b=1.0"),
        ("normal", "mean=0.0, std=1.0"),
        ("trunc_normal", "mean=0.0, std=1.0, a=-2.0, b=2.0, *, bounds='absolute'"),
        ("xavier_uniform", "gain=1.0"),
        ("kaiming_normal", "a=0.0, mode='fan_in', nonlinearity='leaky_relu', *, gain=None"),
        ("sparse", "sparsity, std=0.01"),
        ("variance_scaling", "scale, mode, distribution, in_axis=-2, out_axis=-1, batch_axis=(), *, gain=1.0"),
    ],
)
def test_signatures_are_those_of_the_design(scheme, defaults):
    signature = inspect.signature(getattr(seedbed.Client, scheme))
    bare = [p.replace(annotation=inspect.Parameter.empty) for p in signature.parameters.values()]
    text = str(signature.replace(parameters=bare, return_annotation=inspect.Signature.empty))
    assert text.startswith(f"(self, shape, {defaults}, ")


def test_a_spec_carries_all_arguments():
    spec = seedbed.spec(
        "kaiming_uniform",
        (np.int64(3), 4),
        a=np.float32(0.5),
        mode="FAN_OUT",
        nonlinearity="relu",
        gain=Fraction(1, 2),
        seed=np.uint64(2**64 - 1),
        name="λ",
        dtype=ml_dtypes.bfloat16,
        algorithm_version=1,
    )
    assert spec.shape == [3, 4]
    assert spec.seed == 2**64 - 1
    assert spec.name == "λ"
    assert spec.dtype == DataType.DATA_TYPE_BFLOAT16
    assert spec.algorithm_version == 1
    scheme = spec.kaiming_uniform
    assert (scheme.a, scheme.mode, scheme.gain) == (0.5, FanMode.FAN_MODE_FAN_OUT, 0.5)
    assert scheme.nonlinearity == Nonlinearity.NONLINEARITY_RELU
    assert not seedbed.spec("kaiming_uniform", (3, 4)).kaiming_uniform.HasField("gain")


def test_shapes():
    assert seedbed.spec("ones", 5).shape == [5]
    assert seedbed.spec("ones", ()).shape == []
    assert seedbed.spec("ones", np.array([2, 3])).shape == [2, 3]
    assert seedbed.spec("ones", iter((2, 3))).shape == [2, 3]
    assert seedbed.spec("ones", seedbed.spec("ones", (2, 3)).shape).shape == [2, 3]


def test_axes():
    spec = seedbed.spec(
        "variance_scaling",
        (2, 3, 4),
        scale=1,
        mode="Fan_Geo_Avg",
        distribution="uniform",
        in_axis=(0, 1),
        batch_axis=(),
    )
    assert spec.variance_scaling.in_axis.axes == [0, 1]
    assert spec.variance_scaling.out_axis.axes == [-1]
    assert spec.variance_scaling.batch_axis.axes == []


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64"])
def test_dtypes(dtype):
    number = DataType.Value(f"DATA_TYPE_{dtype.upper()}")
    numpy_dtype = seedbed.dtypes.numpy_dtype(number)
    assert numpy_dtype.name == seedbed.dtypes.name_of(number) == dtype
    for form in (dtype, numpy_dtype, numpy_dtype.type):
        assert seedbed.spec("ones", 1, dtype=form).dtype == number


# The names of the supported types in other libraries; the tests of torch and JAX have their objects.
DTYPE_NAMES = {
    "float32": ["float32", "Float32", "float", "single", "fp32", "F32", "f32", "f4", "<f4", "=f4", "f", "torch.float32",
                "torch.float", np.single, np.dtype("f4")],
    "float16": ["float16", "half", "fp16", "F16", "f2", "e", "torch.half", np.half, np.dtype("f2")],
    "bfloat16": ["bfloat16", "bf16", "BF16", "torch.bfloat16", ml_dtypes.bfloat16, np.dtype(ml_dtypes.bfloat16)],
    "float64": ["float64", "double", "fp64", "F64", "f8", "d", "torch.double", float, np.double, np.dtype("f8")],
    "complex64": ["complex64", "csingle", "c64", "C64", "c8", "F", "torch.cfloat", np.csingle, np.dtype("c8")],
}  # fmt: skip


@pytest.mark.parametrize(("ours", "theirs"), [(ours, theirs) for ours, all_ in DTYPE_NAMES.items() for theirs in all_])
def test_dtypes_have_aliases_from_all_libraries(ours, theirs):
    number = DataType.Value(f"DATA_TYPE_{ours.upper()}")
    assert seedbed.dtypes.data_type(theirs) == number
    assert seedbed.spec("normal", (3,), dtype=theirs).dtype == number
    assert seedbed.draw("normal", (3,), dtype=theirs).astype(theirs)._step.cast == number


@pytest.mark.parametrize(
    ("dtype", "message"),
    [
        ("int8", "dtype int8 is not supported; use one of float32, float16, bfloat16, float64, complex64"),
        ("torch.int8", "dtype int8 is not supported;"),
        (ml_dtypes.float8_e4m3fn, "dtype float8_e4m3fn is not supported;"),
        (complex, "dtype complex128 is not supported;"),
        (int, "dtype int64 is not supported;"),
        ("F8_E4M3", "unknown dtype F8_E4M3; use one of float32,"),
        ("bflot16", "unknown dtype bflot16; did you mean bfloat16? use one of float32,"),
        ("", "unknown dtype ; use one of"),
        (3, "unknown dtype 3; use one of"),
    ],
)
def test_unsupported_dtypes_are_refused(dtype, message):
    error = refusal(seedbed.spec, "ones", 3, dtype=dtype)
    assert error.field == "spec.dtype"
    assert error.description.startswith(message)


@pytest.mark.parametrize(
    "value",
    [np.array(0.5), np.float16(0.5), ml_dtypes.bfloat16(0.5), np.longdouble(0.5), Fraction(1, 2), Decimal("0.5")],
    ids=lambda value: type(value).__name__,
)
def test_numbers_of_any_type(value):
    assert seedbed.spec("normal", (3,), std=value).normal.std == 0.5
    assert seedbed.spec("constant", (3,), val=value).constant.val == 0.5
    assert seedbed.spec("xavier_normal", (3, 3), gain=value).xavier_normal.gain == 0.5


def test_zero_dimensional_arrays_are_integers_too():
    spec = seedbed.spec("dirac", (np.array(4), np.int64(2), 3), groups=np.array(2), seed=np.array(7))
    assert (list(spec.shape), spec.dirac.groups, spec.seed) == ([4, 2, 3], 2, 7)


REFUSED = [
    (
        "ones",
        (3,),
        {"dtype": "int32"},
        "spec.dtype",
        "dtype int32 is not supported; use one of float32, float16, bfloat16, float64, complex64",
    ),
    ("ones", (3,), {"dtype": None}, "spec.dtype", "unknown dtype None"),
    ("ones", (3,), {"dtype": ">f4"}, "spec.dtype", "dtype >f4 is not in this machine's byte order"),
    ("ones", (3,), {"seed": -1}, "spec.seed", "seed -1 is outside 0 .. 2^64 - 1"),
    ("ones", (3,), {"seed": 2**64}, "spec.seed", "outside 0 .. 2^64 - 1"),
    ("ones", (3,), {"seed": True}, "spec.seed", "seed True not a valid number"),
    ("ones", (3,), {"seed": 1.0}, "spec.seed", "seed 1.0 is not an integer"),
    ("ones", (3,), {"name": b"w"}, "spec.name", "give text"),
    ("ones", (3,), {"name": "\ud800"}, "spec.name", "UTF-8"),
    ("ones", (3,), {"algorithm_version": -1}, "spec.algorithm_version", "outside 0 .. 2^32 - 1"),
    ("ones", (3, 2**63), {}, "spec.shape[1]", "outside -2^63 .. 2^63 - 1"),
    ("ones", (3, 4.0), {}, "spec.shape[1]", "size 4.0 is not an integer"),
    ("ones", (True,), {}, "spec.shape[0]", "size True not a valid number"),
    ("ones", "4,4", {}, "spec.shape[0]", "'4,4' is not an integer"),
    ("ones", None, {}, "spec.shape[0]", "None is not an integer"),
    ("constant", (3,), {"val": True}, "spec.constant.val", "val True not a valid number"),
    ("constant", (3,), {"val": "a"}, "spec.constant.val", "val a not a valid number"),
    ("constant", (3,), {"val": 10**400}, "spec.constant.val", "beyond the range of float64"),
    ("constant", (3,), {"val": None}, "spec.constant.val", "val None not a valid number"),
    ("constant", (3,), {"val": 1j}, "spec.constant.val", "not a valid number"),
    ("uniform", (3,), {"b": np.bool_(True)}, "spec.uniform.b", "b True not a valid number"),
    ("normal", (3,), {"std": [1]}, "spec.normal.std", "std [1] not a valid number"),
    (
        "normal",
        (3,),
        {"std": np.array([0.5])},
        "spec.normal.std",
        "std is an array of shape (1,); give a single number",
    ),
    ("normal", (3,), {"std": np.array(True)}, "spec.normal.std", "std True not a valid number"),
    ("normal", (3,), {"std": np.array("0.5")}, "spec.normal.std", "std 0.5 not a valid number"),
    ("normal", (3,), {"std": np.complex64(1)}, "spec.normal.std", "std (1+0j) not a valid number"),
    ("normal", (3,), {"seed": np.array([7])}, "spec.seed", "seed is an array of shape (1,); give a single number"),
    ("normal", (3,), {"seed": np.array(7.0)}, "spec.seed", "seed 7.0 is not an integer"),
    ("normal", (3,), {"seed": np.array(True)}, "spec.seed", "seed True not a valid number; give an integer"),
    ("dirac", (3, 3, 3), {"groups": 2**63}, "spec.dirac.groups", "outside -2^63 .. 2^63 - 1"),
    ("dirac", (3, 3, 3), {"groups": True}, "spec.dirac.groups", "groups True not a valid number"),
    ("trunc_normal", (3,), {"bounds": "std"}, "spec.trunc_normal.bounds", "use one of ['absolute', 'sigma']"),
    ("xavier_normal", (3, 3), {"gain": False}, "spec.xavier_normal.gain", "gain False not a valid number"),
    ("kaiming_normal", (3, 3), {"a": True}, "spec.kaiming_normal.a", "negative_slope True not a valid number"),
    ("kaiming_normal", (3, 3), {"gain": True}, "spec.kaiming_normal.gain", "gain True not a valid number"),
    (
        "kaiming_uniform",
        (3, 3),
        {"mode": "fan_avg"},
        "spec.kaiming_uniform.mode",
        "Mode fan_avg not supported, please use one of ['fan_in', 'fan_out']",
    ),
    ("kaiming_uniform", (3, 3), {"mode": None}, "spec.kaiming_uniform.mode", "Mode None not supported"),
    (
        "kaiming_normal",
        (3, 3),
        {"nonlinearity": "gelu"},
        "spec.kaiming_normal.nonlinearity",
        "Unsupported nonlinearity gelu; use one of ['linear', 'identity', 'conv1d'",
    ),
    ("kaiming_normal", (3, 3), {"nonlinearity": "ReLU"}, "spec.kaiming_normal.nonlinearity", "nonlinearity ReLU;"),
    ("kaiming_normal", (3, 3), {"nonlinearity": []}, "spec.kaiming_normal.nonlinearity", "nonlinearity [];"),
    (
        "variance_scaling",
        (3, 3),
        {"scale": 1, "mode": "fan", "distribution": "normal"},
        "spec.variance_scaling.mode",
        "use one of ['fan_in', 'fan_out', 'fan_avg', 'fan_geo_avg']",
    ),
    (
        "variance_scaling",
        (3, 3),
        {"scale": 1, "mode": "fan_in", "distribution": "gauss"},
        "spec.variance_scaling.distribution",
        "Distribution gauss not supported, please use one of ['uniform', 'normal', 'truncated_normal']",
    ),
    (
        "variance_scaling",
        (3, 3),
        {"scale": 1, "mode": "fan_in", "distribution": "normal", "in_axis": 2**31},
        "spec.variance_scaling.in_axis",
        "outside -2^31 .. 2^31 - 1",
    ),
]


@pytest.mark.parametrize(("scheme", "shape", "arguments", "field", "text"), REFUSED)
def test_arguments_that_no_message_can_carry(client, scheme, shape, arguments, field, text):
    for call in (getattr(client, scheme), lambda *args, **kwargs: seedbed.spec(scheme, *args, **kwargs)):
        error = refusal(call, shape, **arguments)
        assert error.field == field
        assert text in error.description


def test_unknown_schemes_and_arguments(client):
    error = refusal(seedbed.spec, "glorot", (3, 3))
    assert (error.field, error.description[:29]) == ("spec.scheme", "unknown scheme glorot; use on")
    with pytest.raises(TypeError, match="unexpected keyword argument 'sede'"):
        client.normal((3,), sede=1)
    with pytest.raises(TypeError, match="unexpected keyword argument 'out'; give it to"):
        seedbed.spec("normal", (3,), out=np.empty(3))


@pytest.mark.parametrize(
    ("scheme", "keyword", "hint"),
    [
        ("normal", "sede", "did you mean 'seed'?"),
        ("normal", "stddev", "did you mean 'std'?"),
        ("uniform", "low", "did you mean 'a'?"),
        ("constant", "fill_value", "did you mean 'val'?"),
        ("ones", "generator", "did you mean 'seed'?"),
        (
            "ones",
            "low",
            "it accepts shape, seed, name, dtype, algorithm_version, stream, region, out, progress, timeout",
        ),
    ],
)
def test_keywords_of_other_libraries_get_a_hint(client, scheme, keyword, hint):
    with pytest.raises(TypeError) as caught:
        getattr(client, scheme)((3,), **MINIMAL.get(scheme, {}), **{keyword: 1})
    assert str(caught.value) == f"{scheme}() got an unexpected keyword argument {keyword!r}; {hint}"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("kaiming_nromal", "did you mean kaiming_normal?"),
        ("kaiming_normal_", "did you mean kaiming_normal?"),
        ("truncated_normal", "did you mean trunc_normal?"),
        ("he_normal", "it is variance_scaling with 2, 'fan_in', 'truncated_normal';"),
        ("glorot_uniform", "it is variance_scaling with 1, 'fan_avg', 'uniform';"),
    ],
)
def test_misspelt_schemes_get_a_hint(name, hint):
    for call in (seedbed.spec, seedbed.draw):
        assert refusal(call, name, (3, 3)).description.startswith(f"unknown scheme {name}; {hint} use one of constant,")


def test_gain_arguments(client):
    assert refusal(client.calculate_gain, "gelu").field == "nonlinearity"
    error = refusal(client.calculate_gain, "leaky_relu", True)
    assert (error.field, error.description) == ("param", "negative_slope True not a valid number")
    assert refusal(client.calculate_gain, "leaky_relu", "a").description == "negative_slope a not a valid number"


REGIONS = [
    (np.s_[:], (5,), [0], [5]),
    (np.s_[...], (5, 6), [0, 0], [5, 6]),
    (np.s_[1:2, ...], (5, 6, 7), [1, 0, 0], [2, 6, 7]),
    (np.s_[..., 1:2], (5, 6, 7), [0, 0, 1], [5, 6, 2]),
    (np.s_[1:2], (5, 6, 7), [1, 0, 0], [2, 6, 7]),
    (np.s_[-2:, :3], (5, 6, 7), [3, 0, 0], [5, 3, 7]),
    ((), (5, 6), [0, 0], [5, 6]),
    (np.s_[1:2, ..., 3:4], (5, 6), [1, 3], [2, 4]),
    (np.s_[1:2, 3:4, ...], (5, 6), [1, 3], [2, 4]),
    (np.s_[-3:, :-1], (5, 6), [2, 0], [5, 5]),
    (np.s_[-5:0:1, 6:], (5, 6), [0, 6], [0, 6]),
    (np.s_[np.int64(1) : np.uint8(2)], (5,), [1], [2]),
    (np.s_[0:0], (0,), [0], [0]),
    ((), (), [], []),
    (np.s_[...], (), [], []),
]


@pytest.mark.parametrize(("region", "shape", "start", "stop"), REGIONS)
def test_regions_mean_what_numpy_means(region, shape, start, stop):
    message = resolve(region, shape)
    assert (list(message.start), list(message.stop)) == (start, stop)
    expected = np.zeros(shape)[region].shape
    assert tuple(stop - start for start, stop in zip(message.start, message.stop, strict=True)) == expected


BAD_REGIONS = [
    (np.s_[1], (5,), "use the slice 1:2"),
    (np.s_[:, -1], (5, 5), "use the slice -1:"),
    (np.s_[True], (5,), "True is not a slice"),
    (np.s_[:, None], (5,), "None is not a slice"),
    ([slice(1, 2)], (5,), "is not a slice"),
    ("1:2", (5,), "'1:2' is not a slice"),
    (np.s_[::2], (5,), "has step 2; only step 1 is served"),
    (np.s_[::-1], (5,), "has step -1"),
    (np.s_[::2], (5, 5), "dimension 0 has step 2; only step 1 is served"),
    (np.s_[:, :, :], (5, 5), "has 3 dimensions, the shape has 2; give one slice for each, or fewer"),
    (np.s_[:, :, ..., :], (5, 5), "has 3 dimensions, the shape has 2"),
    (np.s_[..., ...], (5, 5), "has several `...`"),
    (np.s_[:, ..., ...], (5, 5), "has several `...`"),
    (np.s_[3:2], (5,), "3:2 is reversed in dimension 0"),
    (np.s_[:, 0:6], (5, 5), "0:6 is outside dimension 1, whose size is 5"),
    (np.s_[-6:], (5,), "-6: is outside dimension 0, whose size is 5"),
    (np.s_[:-6], (5,), ":-6 is outside"),
    (np.s_[6:], (5,), "6: is outside"),
    (np.s_[0.5:], (5,), "0.5 is not an integer"),
    (np.s_[True:], (5,), "True not a valid number"),
    (np.s_[: 2**63], (5,), "outside"),
    (np.s_[:], (), "has 1 dimensions, the shape has 0"),
]


@pytest.mark.parametrize(("region", "shape", "text"), BAD_REGIONS)
def test_invalid_regions(client, region, shape, text):
    error = refusal(client.ones, shape, region=region)
    assert error.field == "region"
    assert text in error.description
    assert refusal(client.describe, seedbed.spec("ones", shape), region).field == "region"
    assert refusal(client.iter_chunks, seedbed.spec("ones", shape), region).field == "region"


def read_only(shape):
    array = np.empty(shape, np.float32)
    array.flags.writeable = False
    return array


BAD_OUTPUTS = [
    (np.empty((2, 3), np.float32), "has shape (2, 3) for tensor 'w'; give one of the region's shape, (3, 2)"),
    (np.empty(6, np.float32), "has shape (6,)"),
    (np.empty((3, 2), np.float64), "has dtype float64 for tensor 'w'; give one of dtype float32"),
    (np.empty((3, 2), ">f4"), "has dtype >f4 for tensor 'w', of the other byte order; give float32"),
    (as_strided(np.empty(9, np.float32), (3, 2), (4, 4)), "has elements that share memory for tensor 'w'"),
    (as_strided(np.empty(9, np.float32), (3, 2), (0, 4)), "has elements that share memory for tensor 'w'"),
    (read_only((3, 2)), "is read-only for tensor 'w'; give a writable array"),
    (np.broadcast_to(np.float32(1), (3, 2)), "is read-only"),
    ([[0.0] * 2] * 3, "is a list for tensor 'w'; give a NumPy array"),
]


@pytest.mark.parametrize(("out", "text"), BAD_OUTPUTS)
def test_unsuitable_outputs_are_refused_before_the_request(client, out, text):
    spec = seedbed.spec("ones", (3, 4), name="w")
    for call in (
        lambda: client.init(spec, region=np.s_[:, 1:3], out=out),
        lambda: client.init(spec, region=Region(start=[0, 1], stop=[3, 3]), out=out),
        lambda: client.ones((3, 2), name="w", out=out),
        lambda: client.init_model([seedbed.spec("ones", (3, 2), name="w")], out={"w": out}),
    ):
        error = refusal(call)
        assert error.field == "out"
        assert text in error.description


def test_model_arguments(client):
    spec = seedbed.spec("ones", (2,), name="w")
    assert refusal(client.init_model, spec).description.startswith("is a TensorSpec; give a Model")
    assert refusal(client.init_model, None).field == "tensors"
    assert refusal(client.init_model, "w").field == "tensors"
    assert refusal(client.init_model, [spec, "w"]).field == "tensors[1]"
    assert refusal(client.init_model, [TensorSpec(dtype=99)]).field == "tensors[0].spec.dtype"
    assert refusal(client.init_model, [spec], out={}).description.startswith("has no array for tensor 'w'")
    assert refusal(client.init_model, [spec], out=3).field == "out"
    assert refusal(client.init_model, Model(tensors=[spec]), out={"w": [1, 2]}).field == "out"


def test_tensors_with_the_same_name(client):
    one, other = (seedbed.spec("normal", (4, 3), name="w", seed=seed) for seed in (0, 1))
    part = TensorSlice(spec=one, region=Region(start=[0, 0], stop=[1, 3]))
    error = refusal(client.init_model, [seedbed.spec("ones", 3, name="v"), one, other])
    assert error.field == "tensors[2].spec.name"
    assert error.description.startswith("'w' is also the name of an earlier tensor, normal of shape (4, 3); give them")
    assert client.init_model([one, part, one, seedbed.spec("ones", 3), seedbed.spec("zeros", 3)])
    array = np.empty((4, 3), np.float32)
    error = refusal(client.init_model, [one, one], out={"w": array})
    assert error.field == "out"
    assert error.description.startswith("has one array for tensors[0] and tensors[1], both named 'w'; give a func")
    assert client.init_model([one, one], out=lambda _: array)
    assert (
        refusal(client.init_model, {"w": one}).description == "is a dict; give its values, which have their own names"
    )


def test_spec_arguments(client):
    for call in (client.init, client.describe, client.iter_chunks):
        assert refusal(call, {"shape": [3]}).description.startswith("is a dict; give a TensorSpec")
        assert refusal(call, TensorSlice()).field == "spec"
        assert refusal(call, TensorSpec(dtype=99)).field == "spec.dtype"
    assert refusal(client.iter_chunks, seedbed.spec("ones", 3), first_element=1.5).field == "first_element"


@pytest.mark.parametrize("timeout", [0, -1, math.nan, True, "1"])
def test_invalid_timeouts(client, timeout):
    assert refusal(seedbed.connect, NOBODY, timeout=timeout).field == "timeout"
    assert refusal(client.ones, 3, timeout=timeout).field == "timeout"
    assert refusal(client.server_info, timeout=timeout).field == "timeout"


@pytest.mark.parametrize(
    "target",
    ["", "localhost", "localhost:", ":50051", "localhost:x", "localhost:0", "localhost:65536", "http://localhost:50051",
     "unix:", "unix:///", "local", "local:x:1", "::1:50051", "[::1]", "a b:1", None, 50051, b"localhost:1"],
)  # fmt: skip
def test_invalid_targets(target):
    for connect in (seedbed.connect, aio.connect):
        error = refusal(connect, target)
        assert error.field == "target"
        assert "give HOST:PORT such as localhost:50051, several as HOST:PORT,HOST:PORT" in error.description


@pytest.mark.parametrize(
    "target", ["localhost:50051", "[::1]:50051", "10.0.0.1:1", "a-b.c_d:65535", "unix:x", "unix:///x", "dns:///a:1"]
)
def test_valid_targets(target):
    with seedbed.connect(target, timeout=3) as client:
        assert repr(client) == f"<Client of {target}, timeout=3.0>"


def test_channel_options():
    options = dict(targets.parse("localhost:1", [("grpc.keepalive_time_ms", 7)]).options)
    assert options["grpc.keepalive_time_ms"] == 7
    assert options["grpc.enable_http_proxy"] == 0
    assert "grpc.enable_http_proxy" in dict(targets.parse("[::1]:1").options)
    assert "grpc.enable_http_proxy" not in dict(targets.parse("localhost.example.com:1").options)
    assert "grpc.enable_http_proxy" not in dict(targets.parse("10.0.0.1:1").options)


class Failure(grpc.RpcError):
    def __init__(self, code, details="", metadata=()):
        super().__init__()
        self._parts = code, details, metadata

    def code(self):
        return self._parts[0]

    def details(self):
        return self._parts[1]

    def trailing_metadata(self):
        return self._parts[2]


@pytest.mark.parametrize(
    ("code", "details", "kind", "text"),
    [
        (
            "UNAVAILABLE",
            "ipv4:1.2.3.4:1: Failed to connect",
            seedbed.Unavailable,
            "no Seedbed server answers at host:1;",
        ),
        ("CANCELLED", "CANCELLED", seedbed.Unavailable, "no Seedbed server answers at host:1;"),
        ("INTERNAL", "Received RST_STREAM with error code 2", seedbed.Unavailable, "no Seedbed server answers"),
        ("UNKNOWN", "Stream removed", seedbed.Unavailable, "no Seedbed server answers"),
        ("UNKNOWN", "Exception calling application: boom", seedbed.InternalError, "host:1 failed"),
        ("INTERNAL", "Exception deserializing", seedbed.InternalError, "host:1 failed"),
        ("DEADLINE_EXCEEDED", "Deadline Exceeded", seedbed.DeadlineExceeded, "no complete response from host:1"),
        ("UNAUTHENTICATED", "token expired", seedbed.Unauthenticated, "token expired"),
        ("PERMISSION_DENIED", "", seedbed.PermissionDenied, "host:1 does not permit"),
        ("RESOURCE_EXHAUSTED", "over 4 MiB", seedbed.ResourceExhausted, "over 4 MiB"),
        ("UNIMPLEMENTED", "Method not found!", seedbed.SeedbedError, "an older Seedbed server or another service"),
        ("DATA_LOSS", "", seedbed.Corrupted, "data loss"),
        ("INVALID_ARGUMENT", "what?", seedbed.InvalidRequest, "what?"),
        ("FAILED_PRECONDITION", "x", seedbed.InternalError, "host:1 failed"),
    ],
)
def test_codes_become_errors_with_a_remedy(code, details, kind, text):
    error = errors.from_rpc(Failure(grpc.StatusCode[code], details), "host:1")
    assert type(error) is kind
    assert text in str(error)
    assert "Exception" not in str(error)
    assert "ipv4" not in str(error)


def test_invalid_requests_name_the_field():
    detail = any_pb2.Any()
    violation = error_details_pb2.BadRequest.FieldViolation(field="spec.uniform.b", description="is 0; give more")
    detail.Pack(error_details_pb2.BadRequest(field_violations=[violation]))
    status = status_pb2.Status(code=3, message="spec.uniform.b: is 0; give more", details=[detail])
    metadata = [("other", "x"), ("grpc-status-details-bin", status.SerializeToString())]
    error = errors.from_rpc(Failure(grpc.StatusCode.INVALID_ARGUMENT, "", metadata), "host:1")
    assert (error.field, error.description) == ("spec.uniform.b", "is 0; give more")  # type: ignore[attr-defined]
    assert str(error) == status.message
    mangled = [("grpc-status-details-bin", b"\xff\xff")]
    assert str(errors.from_rpc(Failure(grpc.StatusCode.INVALID_ARGUMENT, "why", mangled), "host:1")) == "why"


def test_errors_survive_pickling():
    error = pickle.loads(pickle.dumps(seedbed.InvalidRequest("out", "is a list")))
    assert (error.field, error.description, str(error)) == ("out", "is a list", "out: is a list")
    assert isinstance(seedbed.DeadlineExceeded("x"), TimeoutError)


def test_specs_are_plain_messages():
    assert seedbed.spec("normal", (2,), std=0.5).normal == Normal(mean=0, std=0.5)
