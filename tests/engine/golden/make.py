"""Writes stream_v1.json from the numpy reference. A released version's file is never written again: it is the promise.

Run from the repository's root: python tests/engine/golden/make.py > tests/engine/golden/stream_v1.json
"""

from __future__ import annotations

import hashlib
import json

import numpy as np
from google.protobuf import json_format

from seedbed.v1 import Region, TensorSpec
from seedbed_server import engine

BIG = 2**61 - 1  # a prime

# The scheme, its shape, and the region if not the whole; each is asked for in every dtype that follows.
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
    ({"constant": {"val": 0.1}}, [3], None, ["FLOAT32", "FLOAT16", "BFLOAT16", "FLOAT64"]),
    ({"constant": {"val": 1.0 + 2.0**-11 + 2.0**-40}}, [2], None, ["FLOAT16", "FLOAT64"]),
    ({"constant": {"val": -0.0}}, [2], None, ["FLOAT32"]),
    ({"ones": {}}, [], None, ["FLOAT32", "BFLOAT16"]),
    ({"zeros": {}}, [2, 2], None, ["FLOAT64"]),
    ({"eye": {}}, [4, 6], ([1, 0], [4, 3]), ["FLOAT32"]),
    ({"dirac": {"groups": "2"}}, [6, 2, 3, 4], None, ["FLOAT32", "FLOAT16"]),
    ({"normal": {}, "patches": [{"region": {"start": [2, 0], "stop": [3, 5]}, "val": 0.1}]}, [4, 5], None,
     ["FLOAT32", "BFLOAT16"]),
    ({"uniform": {}, "patches": [{"region": {"start": [1, 1], "stop": [6, 4]}, "val": 3.0},
                                 {"region": {"start": [2, 3], "stop": [4, 7]}, "val": -1.0}]},
     [6, 7], ([0, 2], [5, 6]), ["FLOAT64"]),
]  # fmt: skip

SEEDS = {"FLOAT32": 0, "FLOAT16": 7, "BFLOAT16": 0xFEDCBA9876543210, "FLOAT64": 2**64 - 1}


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
