"""Turns lists of torch initialisers into Seedbed model files.

    python examples/make_models.py SOURCE_FOLDER [TARGET_FOLDER]

A source file lists a model's parameters, with the ``torch.nn.init`` function that the model's library calls for each:

    {"model": "gpt2-124m", "params": [
      {"name": "transformer.wte.weight", "shape": [50257, 768], "init": "normal_", "args": {"mean": 0.0, "std": 0.02}}
    ]}

A model file is the canonical JSON form of ``seedbed.v1.Model``, with one tensor per line.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from google.protobuf import json_format

from seedbed.v1 import DataType, Model, TensorSpec

ALGORITHM_VERSION = 1

# Models that are published in a type other than float32.
DTYPES = {"llama-3.1-8b": DataType.DATA_TYPE_BFLOAT16}

# String arguments of torch, and the prefix of the enumeration values that they become.
ENUMS = {"mode": "FAN_MODE_", "nonlinearity": "NONLINEARITY_"}


def to_model(source: dict[str, Any]) -> Model:
    """Returns the model message of one source file."""
    dtype = DTYPES.get(source["model"], DataType.DATA_TYPE_FLOAT32)
    return Model(name=source["model"], tensors=[to_spec(param, dtype) for param in source["params"]])


def to_spec(param: dict[str, Any], dtype: int) -> TensorSpec:
    """Returns the spec of one parameter. The scheme's fields have the names of the torch function's arguments."""
    arguments = {key: ENUMS[key] + value.upper() if key in ENUMS else value for key, value in param["args"].items()}
    spec = TensorSpec(name=param["name"], shape=param["shape"], dtype=dtype, algorithm_version=ALGORITHM_VERSION)
    json_format.ParseDict({param["init"].removesuffix("_"): arguments}, spec)
    return spec


def to_text(model: Model) -> str:
    """Returns the model's canonical JSON with one tensor a line."""
    head = json.dumps({"name": model.name})[:-1]
    tensors = [json.dumps(json_format.MessageToDict(tensor), ensure_ascii=False) for tensor in model.tensors]
    return f'{head}, "tensors": [\n  ' + ",\n  ".join(tensors) + "\n]}\n"


def main() -> None:
    """Writes one model file for each source file."""
    parser = argparse.ArgumentParser(description="Turns lists of torch initialisers into Seedbed model files.")
    parser.add_argument("source", type=Path, help="folder of the lists")
    parser.add_argument("target", type=Path, nargs="?", default=Path(__file__).parent, help="folder of the model files")
    arguments = parser.parse_args()
    for path in sorted(arguments.source.glob("*.json")):
        model = to_model(json.loads(path.read_text(encoding="utf-8")))
        (arguments.target / path.name).write_text(to_text(model), encoding="utf-8")
        print(f"{arguments.target / path.name}: {len(model.tensors)} tensors")


if __name__ == "__main__":
    main()
