"""Descriptions of tensors as text, for ``seedbed describe`` and for their ``repr`` in Python."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any, Final

import numpy as np

from seedbed import dtypes
from seedbed.v1 import TensorDescription, TensorSpec

_RECIPES: Final = ("parts", "literal", "expression")  # their law's text lists their components
_UNITS: Final = ("KiB", "MiB", "GiB", "TiB")


def rows(description: TensorDescription, *, with_region: bool) -> Iterator[tuple[str, str]]:
    """The rows of a description's table: name and text."""
    from seedbed._show import laws  # noqa: PLC0415 - keeps `import seedbed` fast

    spec, law = description.spec, description.law
    yield "name", spec.name or "(none)"
    yield "scheme", scheme_text(spec)
    if spec.stream:
        yield "stream name", spec.stream
    yield "shape", shape_text(spec.shape)
    if with_region:
        ranges = zip(description.region.start, description.region.stop, strict=True)
        yield "region", f"[{', '.join(f'{start}:{stop}' for start, stop in ranges)}]"
    yield "dtype", dtypes.name_of(spec.dtype)
    yield "seed", str(spec.seed)
    yield "algorithm version", str(spec.algorithm_version)
    yield "law", laws.text(description)
    if law.HasField("uniform"):
        yield "bounds", f"[{law.uniform.a!r}, {law.uniform.b!r})"
    if law.HasField("trunc_normal"):
        yield "bounds", f"[{law.trunc_normal.a!r}, {law.trunc_normal.b!r}]"
    moments = laws.moments(description)
    if moments is not None:
        suffix = " of real parts" if laws.is_complex(description) else ""
        yield f"mean{suffix}", f"{moments[0]:.10g}"
        yield f"std{suffix}", f"{moments[1]:.10g}"
    for name in ("fan_in", "fan_out"):
        if description.HasField(name):
            yield name, f"{getattr(description, name):,}"
    if description.HasField("gain"):
        yield "gain", f"{description.gain!r}"
    yield "elements", f"{description.element_count:,}"
    yield (
        "bytes",
        f"{description.byte_count:,}"
        + (f" ({bytes_text(description.byte_count)})" if description.byte_count >= 1024 else ""),
    )
    yield "stream", f"0x{description.stream:016x}"


def scheme_text(spec: TensorSpec) -> str:
    """The scheme with the arguments that were set, such as ``kaiming_normal(mode=fan_out, nonlinearity=relu)``."""
    scheme: str = spec.WhichOneof("scheme")
    if scheme in _RECIPES:
        return scheme
    arguments = []
    for field, value in getattr(spec, scheme).ListFields():
        if field.enum_type:
            text = enum_name(field.enum_type.values_by_number[value].name, field)
        elif field.message_type:
            text = str(tuple(value.axes))
        else:
            text = f"{value:.6g}"
        arguments.append(f"{field.name}={text}")
    return f"{scheme}({', '.join(arguments)})" if arguments else scheme


def enum_name(value: str, field: Any) -> str:  # noqa: ANN401 - each protobuf runtime has its own field descriptor
    """The name of an enumeration's value, as in Python arguments."""
    unspecified: str = field.enum_type.values[0].name
    return value.removeprefix(unspecified.removesuffix("UNSPECIFIED")).lower()


def shape_text(shape: Iterable[int]) -> str:
    """A shape as text, ``4096 × 4096``."""
    return " × ".join(map(str, shape)) or "scalar"


def bytes_text(count: int) -> str:
    """A number of bytes as text, ``32.0 MiB``."""
    if count < 1024:
        return f"{count} bytes"
    exponent = min((count.bit_length() - 1) // 10, len(_UNITS))
    return f"{count / 1024**exponent:.1f} {_UNITS[exponent - 1]}"


def show_readably() -> None:
    """Makes the ``repr`` of descriptions the table of ``seedbed describe``; ``str`` stays protobuf's text."""
    with contextlib.suppress(TypeError):  # some protobuf runtimes do not allow the assignment
        TensorDescription.__repr__ = _repr  # type: ignore[assignment,method-assign]


def _repr(description: TensorDescription) -> str:
    try:
        with np.errstate(all="ignore"):  # extreme parameters may overflow float64
            table = list(rows(description, with_region=_has_partial_region(description)))
    except Exception:
        return str(description)
    width = max(len(name) for name, _ in table)
    return "\n".join(["TensorDescription", *(f"  {name:{width}}   {text}" for name, text in table)])


def _has_partial_region(description: TensorDescription) -> bool:
    region = description.region
    return any(region.start) or list(region.stop) != list(description.spec.shape)
