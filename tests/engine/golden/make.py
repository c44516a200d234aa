"""Writes stream_v1.json with the numpy reference. Released vectors never change; new ones go to the end of ``CASES``.

Run from the repository's root: python tests/engine/golden/make.py > tests/engine/golden/stream_v1.json
"""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import numpy as np
from google.protobuf import json_format

from seedbed.v1 import Region, TensorSpec
from seedbed_server import engine

BIG = 2**61 - 1  # a prime

DTYPES = ["FLOAT32", "FLOAT16", "BFLOAT16", "FLOAT64"]


def _part(recipe: dict, **box: dict) -> dict:
    return {**box, "recipe": recipe}


def _base64(values: np.ndarray) -> str:
    return base64.b64encode(values.astype(values.dtype.newbyteorder("<")).tobytes()).decode()


def _steps(*steps: dict) -> dict:
    return {"expression": {"steps": list(steps)}}


def _apply(function: str, *arguments: int) -> dict[str, Any]:
    return {"function": f"FUNCTION_{function}", "arguments": list(arguments)}


# The arguments of functions: any numbers, positive ones, those in (-1, 1), and a constant.
LEAVES = [
    {"recipe": {"uniform": {"a": -30.0, "b": 30.0}, "dtype": "DATA_TYPE_FLOAT64"}},
    {"recipe": {"uniform": {"a": 1e-3, "b": 9.0}, "dtype": "DATA_TYPE_FLOAT64"}},
    {"recipe": {"uniform": {"a": -1.0, "b": 1.0}, "dtype": "DATA_TYPE_FLOAT64"}},
    {"constant": 0.5},
]
FUNCTIONS = [
    *(
        [_apply(name, 0)]
        for name in [
            "NEGATE",
            "ABSOLUTE",
            "EXP",
            "EXPM1",
            "SIN",
            "COS",
            "TANH",
            "SIGMOID",
            "SOFTPLUS",
            "FLOOR",
            "ROUND",
        ]
    ),
    *([_apply(name, 1)] for name in ["SQRT", "RSQRT", "LOG"]),
    *([_apply(name, 2)] for name in ["LOG1P", "TANH", "EXPM1", "ERF", "ERFINV"]),
    *(
        [_apply(name, 0, 1)]
        for name in ["ADD", "SUBTRACT", "MULTIPLY", "DIVIDE", "MINIMUM", "MAXIMUM", "LESS", "LESS_EQUAL"]
    ),
    [_apply("POWER", 1, 2)],
    [_apply("CLAMP", 0, 2, 1)],
    [_apply("ROUND", 2), _apply("FLOOR", 2), _apply("EQUAL", 4, 5)],
    [_apply("ROUND", 2), _apply("WHERE", 4, 0, 1)],
    [_apply("DIVIDE", 2, 3), _apply("ERF", 4)],
]
REDUCTIONS: list[tuple[str, dict]] = [
    ("SUM", {}), ("MEAN", {"axes": [0, 2]}), ("MAXIMUM", {"axes": [-1]}), ("MINIMUM", {"axes": [1]}),
    ("NORM", {"axes": [1]}), ("NORM", {"axes": [0], "p": 1.0}), ("NORM", {"p": 3.0}),
]  # fmt: skip

# The scheme, the shape, the region (None: the whole tensor), and the dtypes.
CASES: list[tuple[dict, list[int], tuple[list[int], list[int]] | None, list[str]]] = [
    ({"uniform": {}}, [64], None, ["FLOAT32", "FLOAT16", "BFLOAT16", "FLOAT64"]),
    ({"uniform": {"a": -0.1, "b": 0.3}}, [7, 9], None, ["FLOAT32", "FLOAT16", "BFLOAT16", "FLOAT64"]),
    ({"uniform": {"a": 1.0000001, "b": 1.02}}, [64], None, ["FLOAT32", "FLOAT16", "BFLOAT16"]),
    ({"uniform": {"a": -3.1e-8, "b": 3.1e-8}}, [64], None, ["FLOAT16"]),
    ({"uniform": {"a": 1.0, "b": 1.0000004}}, [32], None, ["FLOAT32", "FLOAT64"]),
    ({"normal": {}}, [64], None, ["FLOAT32", "FLOAT16", "BFLOAT16", "FLOAT64"]),
    ({"normal": {"mean": 0.25, "std": 1e-7}}, [33], None, ["FLOAT32", "FLOAT16", "BFLOAT16", "FLOAT64"]),
    ({"normal": {"std": 3e-8}}, [64], None, ["FLOAT16"]),
    ({"normal": {"std": 1e-40}}, [64], None, ["FLOAT32", "BFLOAT16"]),
    ({"normal": {}}, [BIG], ([BIG - 9], [BIG]), ["FLOAT32", "FLOAT16"]),
    ({"uniform": {}}, [2**62 - 1], ([2**62 - 12], [2**62 - 1]), ["BFLOAT16"]),
    ({"normal": {}}, [2**57, 15], ([2**57 - 3, 2], [2**57, 9]), ["FLOAT32"]),
    ({"normal": {}}, [2**60 - 1], ([2**60 - 9], [2**60 - 1]), ["FLOAT64"]),
    ({"trunc_normal": {}}, [64], None, ["FLOAT32", "FLOAT16", "BFLOAT16", "FLOAT64"]),
    ({"trunc_normal": {"std": 0.02}}, [5, 7], None, ["FLOAT32", "BFLOAT16", "FLOAT64"]),
    ({"trunc_normal": {"a": 5.0, "b": 5.1}}, [33], None, ["FLOAT32", "FLOAT16", "FLOAT64"]),
    ({"trunc_normal": {"a": -31.0, "b": -30.0}}, [33], None, ["FLOAT32", "FLOAT64"]),
    ({"trunc_normal": {"mean": 0.5, "std": 2.0, "a": -1.0, "b": 1.5, "bounds": "BOUNDS_UNIT_SIGMA"}}, [33], None,
     ["FLOAT32", "FLOAT64"]),
    ({"trunc_normal": {"mean": 0.1, "std": 0.003, "a": 0.1, "b": 0.107}}, [64], None,
     ["FLOAT32", "FLOAT16", "BFLOAT16"]),
    ({"trunc_normal": {"std": 0.02, "bounds": "BOUNDS_UNIT_SIGMA"}}, [33], None, ["FLOAT16", "BFLOAT16"]),
    ({"trunc_normal": {"std": 0.0, "mean": 3.0}}, [3], None, ["FLOAT32"]),
    ({"xavier_uniform": {"gain": 1.5}}, [6, 5, 3], None, ["FLOAT32", "FLOAT64"]),
    ({"xavier_normal": {}}, [8, 8], None, ["FLOAT32", "BFLOAT16"]),
    ({"xavier_normal": {"gain": 1.1}}, [7, 11], None, ["FLOAT64"]),
    ({"kaiming_normal": {"nonlinearity": "NONLINEARITY_TANH"}}, [7, 11], None, ["FLOAT64"]),
    ({"kaiming_uniform": {"nonlinearity": "NONLINEARITY_SELU"}}, [7, 11], None, ["FLOAT64"]),
    ({"kaiming_uniform": {"a": 2.23606797749979}}, [8, 9], None, ["FLOAT32"]),
    ({"kaiming_normal": {"mode": "FAN_MODE_FAN_OUT", "nonlinearity": "NONLINEARITY_RELU"}}, [8, 4, 3, 3], None,
     ["FLOAT32", "FLOAT16"]),
    ({"variance_scaling": {"scale": 1.0, "mode": "FAN_MODE_FAN_GEO_AVG"}}, [6, 10], None, ["FLOAT32", "FLOAT64"]),
    ({"variance_scaling": {"scale": 2.0, "mode": "FAN_MODE_FAN_AVG", "distribution": "DISTRIBUTION_UNIFORM"}},
     [3, 7, 11], None, ["FLOAT64"]),
    ({"variance_scaling": {"scale": 3.0, "mode": "FAN_MODE_FAN_OUT", "distribution": "DISTRIBUTION_NORMAL", "gain": 0.7,
                           "in_axis": {"axes": [0, -1]}, "out_axis": {"axes": [1]}, "batch_axis": {"axes": [2]}}},
     [3, 4, 2, 5, 6], ([1, 0, 0, 0, 2], [2, 4, 1, 5, 5]), ["FLOAT32", "FLOAT64"]),
    ({"sparse": {"sparsity": 0.3}}, [7, 5], None, ["FLOAT32", "FLOAT16", "BFLOAT16", "FLOAT64"]),
    ({"sparse": {"sparsity": 0.5, "std": 1.0}}, [100, 33], ([17, 3], [90, 11]), ["FLOAT32"]),
    ({"orthogonal": {}}, [12, 5], None, ["FLOAT32", "FLOAT16", "BFLOAT16", "FLOAT64"]),
    ({"orthogonal": {"gain": 1.4142135623730951}}, [5, 4, 3], ([1, 1, 0], [4, 4, 2]), ["FLOAT32", "FLOAT64"]),
    ({"orthogonal": {}}, [9, 9], None, ["FLOAT64"]),
    ({"orthogonal": {}}, [70, 40], None, ["FLOAT32", "FLOAT64"]),
    ({"orthogonal": {}}, [66, 130], None, ["FLOAT64"]),
    ({"orthogonal": {"axis": -1}}, [3, 4, 5], ([0, 1, 1], [3, 4, 4]), ["FLOAT32", "FLOAT64"]),
    ({"orthogonal": {"axis": 1, "gain": 0.7}}, [3, 20, 2], None, ["FLOAT64"]),
    ({"delta_orthogonal": {}}, [5, 4, 3, 2], None, ["FLOAT32", "BFLOAT16"]),
    ({"delta_orthogonal": {"gain": 1.5, "out_axis": -1, "in_axis": -2}}, [4, 3, 5], ([1, 0, 1], [4, 3, 5]),
     ["FLOAT64"]),
    ({"constant": {"val": 0.1}}, [3], None, ["FLOAT32", "FLOAT16", "BFLOAT16", "FLOAT64"]),
    ({"constant": {"val": 1.0 + 2.0**-11 + 2.0**-40}}, [2], None, ["FLOAT16", "FLOAT64"]),
    ({"constant": {"val": -0.0}}, [2], None, ["FLOAT32"]),
    ({"ones": {}}, [], None, ["FLOAT32", "BFLOAT16"]),
    ({"zeros": {}}, [2, 2], None, ["FLOAT64"]),
    ({"eye": {}}, [4, 6], ([1, 0], [4, 3]), ["FLOAT32"]),
    ({"dirac": {"groups": "2"}}, [6, 2, 3, 4], None, ["FLOAT32", "FLOAT16"]),
    ({"stream": "golden.normal.é", "normal": {}}, [64], None, DTYPES),
    ({"permutation": {}}, [100], None, DTYPES),
    ({"permutation": {}}, [5, 1], None, ["FLOAT32"]),
    ({"permutation": {}}, [2**33], ([2**32 - 5], [2**32 + 5]), ["FLOAT64"]),
    ({"parts": {"parts": [_part({"normal": {}}, region={"start": [0, 0], "stop": [3, 5]}),
                          _part({"uniform": {}}, region={"start": [2, 2], "stop": [6, 7]})]}}, [6, 8], None, DTYPES),
    ({"parts": {"parts": [_part({"normal": {}, "stream": "wq"},
                                view={"shape": [3, 4], "strides": [-2, 7], "offset": 6}),
                          _part({"constant": {"val": 0.1}}, view={"shape": [4], "strides": [8]})]}},
     [6, 7], ([1, 0], [5, 6]), ["FLOAT32", "BFLOAT16"]),
    ({"parts": {"parts": [_part({"normal": {}, "shape": [4, 1], "dtype": "DATA_TYPE_FLOAT64"}),
                          _part({"uniform": {}, "shape": [5]}, region={"start": [1, 0], "stop": [3, 5]})]}},
     [4, 5], None, DTYPES),
    ({"parts": {"parts": [
        _part({"parts": {"parts": [_part({"orthogonal": {}}, region={"start": [0, 0], "stop": [3, 2]}),
                                   _part({"kaiming_normal": {}}, region={"start": [3, 0], "stop": [4, 2]})]}},
              region={"start": [0, 1], "stop": [4, 3]}),
        _part({"sparse": {"sparsity": 0.5}}, region={"start": [0, 3], "stop": [4, 6]})]}}, [4, 6], None, ["FLOAT32"]),
    ({"literal": {"data": _base64(np.float32([1.5, -0.0, 3e38]))}}, [3], None, ["FLOAT32"]),
    ({"literal": {"data": _base64(np.float16([1.5, 6e-8, 65504, -2]))}}, [2, 2], ([0, 1], [2, 2]), ["FLOAT16"]),
    ({"literal": {"data": _base64(np.float64([0.1, 5e-324]))}}, [2], None, ["FLOAT64"]),
    *[(_steps(*LEAVES, *steps), [64], None, ["FLOAT32", "FLOAT64"]) for steps in FUNCTIONS],
    (_steps(*LEAVES, _apply("MULTIPLY", 0, 1)), [64], None, ["FLOAT16", "BFLOAT16"]),
    *[(_steps({"recipe": {"normal": {}}}, {"reduction": {"reducer": f"REDUCER_{name}", **fields}, "arguments": [0]},
              _apply("DIVIDE", 0, 1)), [6, 5, 4], ([1, 0, 1], [6, 4, 4]), ["FLOAT32", "FLOAT64"])
      for name, fields in REDUCTIONS],
    (_steps({"recipe": {"normal": {}}}, {"view": {"shape": [5, 7, 2], "strides": [-1, 5, 0], "offset": 4},
                                         "arguments": [0]},
            _apply("EXP", 1), {"view": {"shape": [7, 5], "strides": [2, 14]}, "arguments": [2]}),
     [7, 5], None, ["FLOAT32"]),
    (_steps({"recipe": {"normal": {}, "shape": [3, 4]}}, {"recipe": {"uniform": {}, "shape": [4]}},
            {"assembly": {"shape": [6, 4], "boxes": [{"shape": [3, 4], "strides": [8, 1]},
                                                     {"shape": [2, 4], "strides": [8, 1], "offset": 4}]},
             "arguments": [0, 1]}), [6, 4], None, ["FLOAT32", "FLOAT64"]),
    *[(_steps({"recipe": {"normal": {}, "dtype": "DATA_TYPE_FLOAT64"}},
              {"cast": f"DATA_TYPE_{dtype}", "arguments": [0]},
              _apply("SUBTRACT", 0, 1)), [33], None, ["FLOAT64"]) for dtype in DTYPES],
    (_steps({"recipe": {"permutation": {}, "shape": [32]}},
            {"recipe": {"literal": {"data": _base64(np.float32([3.0]))}, "shape": [1]}}, _apply("DIVIDE", 0, 1)),
     [2, 32], None, ["FLOAT32"]),
]  # fmt: skip

COMPLEX = ["COMPLEX64"]
CASES += [
    ({"uniform": {}}, [33], None, COMPLEX),
    ({"uniform": {"a": -0.1, "b": 0.3}}, [7, 9], ([2, 1], [6, 8]), COMPLEX),
    ({"normal": {}}, [33], None, COMPLEX),
    ({"normal": {"std": 1e-7}}, [5, 7], ([1, 2], [5, 7]), COMPLEX),
    ({"normal": {}}, [2**60 - 1], ([2**60 - 9], [2**60 - 1]), COMPLEX),
    ({"xavier_normal": {}}, [4, 6], None, COMPLEX),
    ({"kaiming_uniform": {}}, [4, 6], None, COMPLEX),
    ({"disk": {}}, [33], None, COMPLEX),
    ({"disk": {"radius": 0.02, "std": 0.3}}, [33], None, COMPLEX),
    ({"disk": {"radius": 9.0, "std": 1.0}}, [33], None, COMPLEX),
    *[({"variance_scaling": {"distribution": f"DISTRIBUTION_{name}"}}, [5, 7], None, COMPLEX)
      for name in ("UNIFORM", "NORMAL", "TRUNCATED_NORMAL")],
    ({"constant": {"val": 0.1}}, [3], None, COMPLEX),
    ({"eye": {}}, [4, 6], ([1, 0], [4, 3]), COMPLEX),
    ({"dirac": {}}, [3, 2, 3], None, COMPLEX),
    ({"parts": {"parts": [_part({"normal": {}}, region={"start": [0, 0], "stop": [3, 5]}),
                          _part({"disk": {}}, view={"shape": [6], "strides": [9], "offset": 1}),
                          _part({"constant": {"val": 0.1}, "dtype": "DATA_TYPE_FLOAT64"},
                                region={"start": [5, 2], "stop": [6, 7]})]}}, [6, 8], None, COMPLEX),
    ({"literal": {"data": _base64(np.complex64([1.5 - 2j, 3e38j]))}}, [2], None, COMPLEX),
]  # fmt: skip

SEEDS = {"FLOAT32": 0, "FLOAT16": 7, "BFLOAT16": 0xFEDCBA9876543210, "FLOAT64": 2**64 - 1, "COMPLEX64": 7}


def vector(scheme: dict, shape: list[int], bounds: tuple[list[int], list[int]] | None, dtype: str) -> dict:
    spec = json_format.ParseDict(scheme, TensorSpec(name=f"golden.{next(iter(scheme))}.é", shape=shape))
    spec.dtype = f"DATA_TYPE_{dtype}"
    spec.seed = SEEDS[dtype]
    spec.algorithm_version = 1
    region = Region(start=bounds[0], stop=bounds[1]) if bounds else None
    description = engine.describe(spec, region)
    out = np.empty(description.element_count, engine.numpy_dtype(description.spec.dtype))
    engine.open_backend("numpy", 1).fill(description, 0, out)
    data = out.view(f"<u{out.itemsize}")
    return {
        "spec": json_format.MessageToDict(spec, preserving_proto_field_name=True),
        **({"region": json_format.MessageToDict(region)} if region else {}),
        "bits": [f"{value:0{2 * out.itemsize}x}" for value in data[:16].tolist()],
        "sha256": hashlib.sha256(data.tobytes()).hexdigest(),
    }


def main() -> None:
    vectors = [vector(scheme, shape, bounds, dtype) for scheme, shape, bounds, dtypes in CASES for dtype in dtypes]
    lines = ",\n".join("  " + json.dumps(entry, ensure_ascii=False) for entry in vectors)
    print(f'{{"algorithm_version": 1, "tensors": [\n{lines}\n]}}')


if __name__ == "__main__":
    main()
