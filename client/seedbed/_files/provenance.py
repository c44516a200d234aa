"""The recipe in a safetensors file's metadata, from which the file can be sampled again and verified.

All values are strings. The recipe is the canonical JSON of the request that produced the file: ``seedbed.model`` holds
a ``Model``, or ``seedbed.slice`` holds a ``TensorSlice``. ``format`` is ``pt``, which transformers requires.
``seedbed.version``, ``seedbed.algorithm_version`` and ``seedbed.seed`` are there for people to read. All files of one
checkpoint share ``seedbed.checkpoint``, the digest of all their models.
"""

import json
from collections.abc import Iterable

from google.protobuf import json_format
from google.protobuf.message import Message

from seedbed._files import strict_json
from seedbed._files.errors import FileFormatError
from seedbed._files.safetensors import SafetensorsFile
from seedbed._version import __version__
from seedbed.v1 import Model, TensorSlice, TensorSpec

UNNAMED = "tensor"  # the name in the file of a tensor that has none
CHECKPOINT = "seedbed.checkpoint"


def metadata(request: Model | TensorSlice, checkpoint: str | None = None) -> dict[str, str]:
    """The metadata of a file that holds the requested tensors, whose dtypes and algorithm versions are set."""
    specs = request.tensors if isinstance(request, Model) else [request.spec]
    return {
        **({} if checkpoint is None else {CHECKPOINT: checkpoint}),
        "format": "pt",
        "seedbed.version": __version__,
        "seedbed.algorithm_version": _distinct(spec.algorithm_version for spec in specs),
        "seedbed.seed": _distinct(spec.seed for spec in specs),
        "seedbed.model" if isinstance(request, Model) else "seedbed.slice": canonical_json(request),
    }


def read_request(file: SafetensorsFile) -> Model | TensorSlice:
    """The request that the file's metadata holds.

    Raises:
        FileFormatError: If the metadata holds no request, or a malformed one.
    """
    message: Model | TensorSlice
    for field, message in (("seedbed.model", Model()), ("seedbed.slice", TensorSlice())):
        if field in file.metadata:
            try:
                return strict_json.to_message(strict_json.loads(file.metadata[field]), message)
            except ValueError as error:
                raise FileFormatError(f"{file.path}: metadata {field} is malformed: {error}") from error
    raise FileFormatError(f"{file.path}: not written by Seedbed: its metadata holds no recipe")


def slices(request: Model | TensorSlice) -> dict[str, TensorSlice]:
    """The requested slice of each tensor, by the tensor's name in the file."""
    if isinstance(request, TensorSlice):
        return {name_in_file(request.spec): request}
    return {name_in_file(spec): TensorSlice(spec=spec) for spec in request.tensors}


def name_in_file(spec: TensorSpec) -> str:
    """The name of a tensor in a file."""
    return spec.name or UNNAMED


def canonical_json(message: Message) -> str:
    """The canonical JSON form of a message, on one line."""
    return json.dumps(json_format.MessageToDict(message), ensure_ascii=False)


def _distinct(values: Iterable[int]) -> str:
    return ",".join(map(str, sorted(set(values))))
