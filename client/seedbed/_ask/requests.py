"""The arguments of the clients' methods as messages: slices of tensors, models, and unary requests."""

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
    """A request with a single response."""

    method: str
    request: Message
    response: type[_Response]


def describe(tensor_slice: TensorSlice) -> UnaryCall[DescribeTensorResponse]:
    """The call that describes a slice of a tensor."""
    request = DescribeTensorRequest(spec=tensor_slice.spec, region=regions.region_of(tensor_slice))
    return UnaryCall("DescribeTensor", request, DescribeTensorResponse)


def calculate_gain(nonlinearity: str, param: float | None) -> UnaryCall[CalculateGainResponse]:
    """The call that calculates a gain.

    Raises:
        InvalidRequest: The message cannot carry an argument.
    """
    request = CalculateGainRequest(
        nonlinearity=nonlinearity_of(nonlinearity, "nonlinearity"),
        param=None if param is None else arguments.number(param, "param", "negative_slope"),
    )
    return UnaryCall("CalculateGain", request, CalculateGainResponse)


def server_info() -> UnaryCall[GetServerInfoResponse]:
    """The call that asks for a server's versions and limits."""
    return UnaryCall("GetServerInfo", GetServerInfoRequest(), GetServerInfoResponse)


def describe_literal(tensor_slice: TensorSlice) -> TensorDescription | None:
    """The description of a literal, made here to spare sending its values; None for any other tensor.

    Raises:
        InvalidRequest: The literal is invalid.
    """
    if not literals.is_literal(tensor_slice):
        return None
    literals.check(tensor_slice)
    return literals.describe(tensor_slice)


def tensor_slice(spec: TensorSpec, region: RegionLike | None) -> TensorSlice:
    """A copy of the spec with its region, so that the caller may change theirs during the call."""
    if not isinstance(spec, TensorSpec):
        raise InvalidRequest(
            "spec", f"is a {type(spec).__name__}; give a TensorSpec, such as seedbed.spec(...) returns"
        )
    dtypes.numpy_dtype(spec.dtype)  # refuses an unknown dtype, of which there is no array
    return TensorSlice(spec=spec, region=regions.resolve(region, spec.shape))


def slices(model: ModelLike) -> list[TensorSlice]:
    """The slices of a model, as copies.

    Raises:
        InvalidRequest: The argument is not a model.
    """
    items = arguments.items(model.tensors if isinstance(model, Model) else model)
    if isinstance(model, Mapping):
        raise InvalidRequest("tensors", f"is a {type(model).__name__}; give its values, which have their own names")
    if items is None:
        raise InvalidRequest(
            "tensors", f"is a {type(model).__name__}; give a Model, or a list of TensorSpec or TensorSlice"
        )
    return [_slice(item, index) for index, item in enumerate(items)]


def named_slices(model: ModelLike, out: Outputs | None) -> list[TensorSlice]:
    """The slices of a model whose names identify its tensors, as copies.

    Raises:
        InvalidRequest: The argument is not a model, different tensors share a name, or a mapping ``out`` has one array
            for several slices of a tensor.
    """
    result = slices(model)
    first: dict[str, int] = {}
    for index, item in enumerate(result):
        name, other = item.spec.name, first.setdefault(item.spec.name, index)
        if name and other != index and item.spec != result[other].spec:
            shape, scheme = tuple(result[other].spec.shape), result[other].spec.WhichOneof("scheme")
            remedy = "give them different names, and a common stream if they share values; or make two calls"
            refusal = f"{name!r} is also the name of an earlier tensor, {scheme} of shape {shape}; {remedy}"
            raise InvalidRequest(f"{fields.of_tensor(index)}.spec.name", refusal)
        if other != index and isinstance(out, Mapping):
            refusal = f"has one array for tensors[{other}] and tensors[{index}], both named {name!r}"
            raise InvalidRequest("out", f"{refusal}; give a function, which is called for each")
    return result


def label(model: ModelLike, slices: Sequence[TensorSlice]) -> str:
    """The label of a model's progress bar."""
    if isinstance(model, Model) and model.name:
        return model.name
    return f"{len(slices):,} tensor{'' if len(slices) == 1 else 's'}"


def label_of(spec: TensorSpec) -> str:
    """The label of a tensor's progress bar; empty for anything else."""
    return spec.name or spec.WhichOneof("scheme") or "" if isinstance(spec, TensorSpec) else ""


def _slice(item: object, index: int) -> TensorSlice:
    field = fields.of_tensor(index)
    result = TensorSlice()
    if isinstance(item, TensorSlice):
        result.CopyFrom(item)
    elif isinstance(item, TensorSpec):
        result.spec.CopyFrom(item)
    else:
        raise InvalidRequest(field, f"is a {type(item).__name__}; give a TensorSpec or a TensorSlice")
    try:
        dtypes.numpy_dtype(result.spec.dtype)
    except InvalidRequest as error:
        raise fields.in_model(error, index) from None
    return result
