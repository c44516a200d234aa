"""Sharded checkpoints in Hugging Face's layout: which file holds which tensor, and the index.

The layout is a pure function of the model and the maximum file size. Workers can therefore write disjoint files of one
checkpoint without talking to each other, and the last one to finish writes the index that any of them would write.
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
from seedbed.v1 import Model, TensorSlice, TensorSpec

ONE_FILE = "model.safetensors"
INDEX = "model.safetensors.index.json"

_FILE = re.compile(r"model(-\d{5,7}-of-(\d{5,7}))?\.safetensors")


@dataclass(frozen=True)
class Shard:
    """One file of a checkpoint.

    Attributes:
        name: The file's name within the checkpoint's directory.
        model: The file's tensors.
        size: The bytes of tensor data.
        checkpoint: An identifier that all files of the checkpoint share; None if there is only one file.
    """

    name: str
    model: Model
    size: int
    checkpoint: str | None


def plan(model: Model, max_shard_size: int) -> list[Shard]:
    """The files of a model's checkpoint, split as Hugging Face's libraries split them.

    A file takes tensors in the model's order until the next one would exceed the maximum size. A tensor that is larger
    than the maximum has a file to itself.

    Args:
        model: All tensors, with their dtypes set.
        max_shard_size: The maximum bytes of tensor data in one file.
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
    checkpoint = _digest(models)
    return [
        Shard(name, shard_model, sum(map(_byte_count, shard_model.tensors)), checkpoint)
        for name, shard_model in zip(file_names(len(models)), models, strict=True)
    ]


def file_names(count: int) -> list[str]:
    """The names of a checkpoint's files.

    >>> file_names(2)
    ['model-00001-of-00002.safetensors', 'model-00002-of-00002.safetensors']
    """
    if count == 1:
        return [ONE_FILE]
    return [f"model-{number:05d}-of-{count:05d}.safetensors" for number in range(1, count + 1)]


def file_count(name: str) -> int | None:
    """The number of files in the checkpoint that a file of this name belongs to; None if the name fits no checkpoint.

    >>> file_count("model-00002-of-00004.safetensors"), file_count("model.safetensors"), file_count("gpt2.safetensors")
    (4, 1, None)
    """
    match = _FILE.fullmatch(name)
    return None if match is None else int(match[2] or 1)


def share(shards: Sequence[Shard], worker: int, workers: int) -> list[Shard]:
    """The files that one worker writes; all workers write about the same number of bytes.

    Args:
        shards: All files of the checkpoint.
        worker: The worker's index, counted from 0.
        workers: The number of workers.
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
    """The content of a checkpoint's index."""
    files = {spec.name: shard.name for shard in shards for spec in shard.model.tensors}
    elements = sum(math.prod(spec.shape) for shard in shards for spec in shard.model.tensors)
    size = sum(shard.size for shard in shards)
    return {"metadata": {"total_parameters": elements, "total_size": size}, "weight_map": files}


def read_index(folder: Path) -> object:
    """The content of a checkpoint's index, unchecked; None if there is no index.

    Raises:
        FileFormatError: If the index is not JSON.
        OSError: If the index cannot be read.
    """
    path = folder / INDEX
    try:
        return strict_json.load(path)
    except FileNotFoundError:
        return None


def index_text(shards: Sequence[Shard]) -> str:
    """The index, formatted as transformers writes it."""
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
