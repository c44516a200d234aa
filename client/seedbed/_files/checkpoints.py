"""Checkpoints of several files, as Hugging Face lays them out: which tensor is in which file, and the index of them.

All of it is a pure function of the model and the largest size of a file. So workers that know nothing of each other
write disjoint files of one checkpoint, and whoever finishes last writes the index that each of them would write.
"""

import hashlib
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seedbed._ask import regions
from seedbed._files import strict_json
from seedbed._files.errors import FileFormatError
from seedbed.v1 import Model, TensorSlice, TensorSpec

ONE_FILE = "model.safetensors"
INDEX = "model.safetensors.index.json"

_FILE = re.compile(r"model(-\d{5,7}-of-(\d{5,7}))?\.safetensors")


@dataclass(frozen=True)
class Shard:
    """One file of a checkpoint.

    Attributes:
        name: of the file, within the checkpoint's directory.
        model: its tensors.
        size: the bytes of their data.
        checkpoint: what all files of the checkpoint have in common, and no other; None if there is but one.
    """

    name: str
    model: Model
    size: int
    checkpoint: str | None


def plan(model: Model, max_shard_size: int) -> list[Shard]:
    """Returns the files of a model's checkpoint: those that Hugging Face's libraries would write.

    A file is filled with tensors in the model's order until the next would exceed its size. A tensor that is larger has
    a file to itself.

    Args:
        model: all tensors; their dtypes are set.
        max_shard_size: the most bytes of tensor data in a file.
    """
    groups: list[list[TensorSpec]] = []
    current: list[TensorSpec] = []
    room = max_shard_size
    for spec in model.tensors:
        size = _byte_count(spec)
        if size > max_shard_size:
            groups.append([spec])
            continue
        if size > room:
            groups.append(current)
            current, room = [], max_shard_size
        current.append(spec)
        room -= size
    if current or not groups:
        groups.append(current)
    models = [Model(name=model.name, tensors=specs) for specs in groups]
    common = _digest(models)
    return [
        Shard(name, part, sum(map(_byte_count, part.tensors)), common)
        for name, part in zip(file_names(len(models)), models, strict=True)
    ]


def file_names(count: int) -> list[str]:
    """Returns the names of a checkpoint's files.

    >>> file_names(2)
    ['model-00001-of-00002.safetensors', 'model-00002-of-00002.safetensors']
    """
    if count == 1:
        return [ONE_FILE]
    return [f"model-{number:05d}-of-{count:05d}.safetensors" for number in range(1, count + 1)]


def file_count(name: str) -> int | None:
    """Returns of how many files a checkpoint consists that has a file of this name; None if it can have none.

    >>> file_count("model-00002-of-00004.safetensors"), file_count("model.safetensors"), file_count("gpt2.safetensors")
    (4, 1, None)
    """
    match = _FILE.fullmatch(name)
    return None if match is None else int(match[2] or 1)


def share(shards: Sequence[Shard], worker: int, workers: int) -> list[Shard]:
    """Returns the files that one of several workers shall write, about as many bytes as any other's.

    Args:
        shards: all files.
        worker: which worker, counted from 0.
        workers: how many there are.
    """
    loads = [0] * min(workers, len(shards))
    mine: set[str] = set()
    for shard in sorted(shards, key=lambda shard: -shard.size):
        least = loads.index(min(loads))
        loads[least] += shard.size
        if least == worker:
            mine.add(shard.name)
    return [shard for shard in shards if shard.name in mine]


def index(shards: Sequence[Shard]) -> dict[str, Any]:
    """Returns the content of the index of all files."""
    files = {spec.name: shard.name for shard in shards for spec in shard.model.tensors}
    elements = sum(math.prod(spec.shape) for shard in shards for spec in shard.model.tensors)
    size = sum(shard.size for shard in shards)
    return {"metadata": {"total_parameters": elements, "total_size": size}, "weight_map": files}


def read_index(folder: Path) -> object:
    """Returns the content of a checkpoint's index, whatever it is; None if there is none.

    Raises:
        FileFormatError: it is not JSON.
        OSError: it cannot be read.
    """
    path = folder / INDEX
    try:
        return strict_json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise FileFormatError(f"{path}: is not JSON: {error}") from error


def index_text(shards: Sequence[Shard]) -> str:
    """Returns the index of all files as transformers writes it."""
    return json.dumps(index(shards), indent=2, sort_keys=True) + "\n"


def _digest(models: Sequence[Model]) -> str | None:
    if len(models) == 1:
        return None
    state = hashlib.blake2b(digest_size=8)
    for model in models:
        message = model.SerializeToString(deterministic=True)
        state.update(len(message).to_bytes(8, "little") + message)
    return state.hexdigest()


def _byte_count(spec: TensorSpec) -> int:
    return regions.byte_count(TensorSlice(spec=spec))
