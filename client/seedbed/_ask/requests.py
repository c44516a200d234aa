"""The arguments of the clients' methods as messages: parts of tensors, models, requests that have one response."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Generic, NamedTuple, TypeVar

from google.protobuf.message import Message

from seedbed import dtypes
from seedbed._ask import arguments, literals, regions
from seedbed._ask.schemes import nonlinearity_of
from seedbed._types import ModelLike, Outputs, RegionLike
from seedbed.common import fields
from seedbed.errors import InvalidRequest
from seedbed.v1 import (
    CalculateGainRequest,
    CalculateGainResponse,
    DescribeTensorRequest,
    DescribeTensorResponse,
    GetServerInfoRequest,
    GetServerInfoResponse,
    Model,
    TensorDescription,
    TensorSlice,
    TensorSpec,
)

_Response = TypeVar("_Response", bound=Message)


class UnaryCall(NamedTuple, Generic[_Response]):
    """A request that has one response."""

    method: str
    request: Message
    response: type[_Response]


def describe(part: TensorSlice) -> UnaryCall[DescribeTensorResponse]:
    """Asks what a part of a tensor resolves to."""
    request = DescribeTensorRequest(spec=part.spec, region=part.region if part.HasField("region") else None)
    return UnaryCall("DescribeTensor", request, DescribeTensorResponse)


def calculate_gain(nonlinearity: str, param: float | None) -> UnaryCall[CalculateGainResponse]:
    """Asks for a gain.

    Raises:
        InvalidRequest: A message cannot carry an argument.
    """
    request = CalculateGainRequest(
        nonlinearity=nonlinearity_of(nonlinearity, "nonlinearity"),
        param=None if param is None else arguments.number(param, "param", "negative_slope"),
    )
    return UnaryCall("CalculateGain", request, CalculateGainResponse)


def server_info() -> UnaryCall[GetServerInfoResponse]:
    """Asks a server about itself."""
    return UnaryCall("GetServerInfo", GetServerInfoRequest(), GetServerInfoResponse)


def described_here(part: TensorSlice) -> TensorDescription | None:
    """The description of a literal, whose values need not travel for it; None for any other tensor.

    Raises:
        InvalidRequest: The literal is invalid.
    """
    if not literals.is_literal(part):
        return None
    literals.check(part)
    return literals.describe(part)


def tensor_slice(spec: TensorSpec, region: RegionLike | None) -> TensorSlice:
    """A message of our own, so that the caller may change theirs while the call runs."""
    if not isinstance(spec, TensorSpec):
        raise InvalidRequest("spec", f"is a {type(spec).__name__}; give a TensorSpec, such as seedbed.spec(...) makes")
    dtypes.numpy_dtype(spec.dtype)  # an array of an unknown type could not be made
    return TensorSlice(spec=spec, region=regions.resolve(region, spec.shape))


def slices(model: ModelLike) -> list[TensorSlice]:
    """The parts of a model, as messages of our own.

    Raises:
        InvalidRequest: If it is no model.
    """
    items = arguments.items(model.tensors if isinstance(model, Model) else model)
    if isinstance(model, Mapping):
        raise InvalidRequest("tensors", f"is a {type(model).__name__}; give its values, whose names are their own")
    if items is None:
        raise InvalidRequest(
            "tensors", f"is a {type(model).__name__}; give a Model, or a list of TensorSpec or TensorSlice"
        )
    return [_slice(item, index) for index, item in enumerate(items)]


def named(model: ModelLike, out: Outputs | None) -> list[TensorSlice]:
    """The parts of a model whose names tell its tensors apart.

    Raises:
        InvalidRequest: If it is no model, if tensors share a name that are not the same one, or if a mapping ``out``
            has one array for several parts.
    """
    wanted = slices(model)
    first: dict[str, int] = {}
    for index, part in enumerate(wanted):
        name, other = part.spec.name, first.setdefault(part.spec.name, index)
        if name and other != index and part.spec != wanted[other].spec:
            shape, scheme = tuple(wanted[other].spec.shape), wanted[other].spec.WhichOneof("scheme")
            remedy = (
                "give each a name of its own, and where one is to hold the other's values a stream, or make two calls"
            )
            refusal = f"{name!r} is the name of an earlier tensor, too, {scheme} of shape {shape}; {remedy}"
            raise InvalidRequest(f"{fields.of_tensor(index)}.spec.name", refusal)
        if other != index and isinstance(out, Mapping):
            remedy = "give a function, which is asked for each"
            raise InvalidRequest(
                "out", f"has one array for tensors[{other}] and tensors[{index}], both of the name {name!r}; {remedy}"
            )
    return wanted


def label(model: ModelLike, wanted: Sequence[TensorSlice]) -> str:
    """What to call a model."""
    if isinstance(model, Model) and model.name:
        return model.name
    return f"{len(wanted):,} tensor{'' if len(wanted) == 1 else 's'}"


def label_of(spec: TensorSpec) -> str:
    """What to call a tensor; an empty text if it is none."""
    return spec.name or spec.WhichOneof("scheme") or "" if isinstance(spec, TensorSpec) else ""


def _slice(item: object, index: int) -> TensorSlice:
    field = fields.of_tensor(index)
    wanted = TensorSlice()
    if isinstance(item, TensorSlice):
        wanted.CopyFrom(item)
    elif isinstance(item, TensorSpec):
        wanted.spec.CopyFrom(item)
    else:
        raise InvalidRequest(field, f"is a {type(item).__name__}; give a TensorSpec or a TensorSlice")
    try:
        dtypes.numpy_dtype(wanted.spec.dtype)
    except InvalidRequest as error:
        raise fields.in_model(error, index) from None
    return wanted
