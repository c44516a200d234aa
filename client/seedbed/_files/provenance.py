"""What a safetensors file tells about its own making, so that it can be made again and compared.

The metadata, all strings: ``format`` (``pt``, which transformers wants), ``seedbed.version``, and for people
``seedbed.algorithm_version`` and ``seedbed.seed``. What counts is the canonical JSON of the message that was served:
``seedbed.model`` holds a ``Model``, ``seedbed.slice`` a ``TensorSlice``. The files of one checkpoint have
``seedbed.checkpoint`` in common, the digest of all their models.
"""

import json
from collections.abc import Iterable

from google.protobuf import json_format
from google.protobuf.message import Message

from seedbed._files import strict_json
from seedbed._files.errors import FileFormatError
from seedbed._files.safetensors import SafetensorsFile
from seedbed._version import __version__
from seedbed.v1 import Model, Region, TensorSlice, TensorSpec

UNNAMED = "tensor"  # what a tensor of no name is called in a file, where it needs one
CHECKPOINT = "seedbed.checkpoint"


def metadata(made: Model | TensorSlice, checkpoint: str | None = None) -> dict[str, str]:
    """Returns the metadata of a file that holds these tensors; their dtypes and algorithm versions are set."""
    specs = made.tensors if isinstance(made, Model) else [made.spec]
    return {
        **({} if checkpoint is None else {CHECKPOINT: checkpoint}),
        "format": "pt",
        "seedbed.version": __version__,
        "seedbed.algorithm_version": _distinct(spec.algorithm_version for spec in specs),
        "seedbed.seed": _distinct(spec.seed for spec in specs),
        "seedbed.model" if isinstance(made, Model) else "seedbed.slice": canonical_json(made),
    }


def made_by(file: SafetensorsFile) -> Model | TensorSlice:
    """Returns the message that the file's metadata holds.

    Raises:
        FileFormatError: there is none.
    """
    message: Model | TensorSlice
    for field, message in (("seedbed.model", Model()), ("seedbed.slice", TensorSlice())):
        if field in file.metadata:
            try:
                return strict_json.to_message(strict_json.loads(file.metadata[field]), message)
            except ValueError as error:
                raise FileFormatError(f"{file.path}: its metadata {field} is malformed: {error}") from error
    raise FileFormatError(f"{file.path}: not made by Seedbed: its metadata do not tell how to make it again")


def slices(made: Model | TensorSlice) -> dict[str, TensorSlice]:
    """Returns the part served of each tensor, by the name it has in the file."""
    if isinstance(made, TensorSlice):
        return {name_in_file(made.spec): made}
    return {name_in_file(spec): TensorSlice(spec=spec) for spec in made.tensors}


def region_of(part: TensorSlice) -> Region | None:
    """Returns the region that a slice asks for; None means the whole tensor."""
    return part.region if part.HasField("region") else None


def name_in_file(spec: TensorSpec) -> str:
    """Returns the name of a tensor in a file."""
    return spec.name or UNNAMED


def canonical_json(message: Message) -> str:
    """Returns the canonical JSON form of a message, on one line."""
    return json.dumps(json_format.MessageToDict(message), ensure_ascii=False)


def _distinct(values: Iterable[int]) -> str:
    return ",".join(map(str, sorted(set(values))))
