"""Descriptions of tensors for people: what ``seedbed describe`` prints, and how they show themselves in Python."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any, Final

import numpy as np

from seedbed import dtypes
from seedbed.v1 import TensorDescription, TensorSpec

_RECIPES: Final = ("parts", "literal", "expression")  # whose law tells what they are made of
_UNITS: Final = ("KiB", "MiB", "GiB", "TiB")


def rows(description: TensorDescription, *, with_region: bool) -> Iterator[tuple[str, str]]:
    """What a description says, and how each of it is called."""
    from seedbed._show import laws  # noqa: PLC0415 - `import seedbed` stays fast

    spec, law = description.spec, description.law
    yield "name", spec.name or "(none)"
    yield "scheme", scheme_text(spec)
    if spec.stream:
        yield "stream of", spec.stream
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
        of = " of real parts" if laws.is_complex(description) else ""
        yield f"mean{of}", f"{moments[0]:.10g}"
        yield f"std{of}", f"{moments[1]:.10g}"
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
    """Returns the scheme as it was asked for, such as ``kaiming_normal(mode=fan_out, nonlinearity=relu)``."""
    scheme: str = spec.WhichOneof("scheme")
    if scheme in _RECIPES:
        return scheme
    parts = []
    for field, value in getattr(spec, scheme).ListFields():
        if field.enum_type:
            text = enum_name(field.enum_type.values_by_number[value].name, field)
        elif field.message_type:
            text = str(tuple(value.axes))
        else:
            text = f"{value:.6g}"
        parts.append(f"{field.name}={text}")
    return f"{scheme}({', '.join(parts)})" if parts else scheme


def enum_name(value: str, field: Any) -> str:  # noqa: ANN401 - protobuf has a field descriptor for each of its runtimes
    """The name of an enumeration's value, as Python's arguments have it."""
    unspecified: str = field.enum_type.values[0].name
    return value.removeprefix(unspecified.removesuffix("UNSPECIFIED")).lower()


def shape_text(shape: Iterable[int]) -> str:
    """Returns a shape for people, ``4096 × 4096``."""
    return " × ".join(map(str, shape)) or "scalar"


def bytes_text(count: int) -> str:
    """Returns a number of bytes for people, ``32.0 MiB``."""
    if count < 1024:
        return f"{count} bytes"
    exponent = min((count.bit_length() - 1) // 10, len(_UNITS))
    return f"{count / 1024**exponent:.1f} {_UNITS[exponent - 1]}"


def show_readably() -> None:
    """Lets descriptions show themselves as ``seedbed describe`` prints them; ``str`` is protobuf's text, as ever."""
    with contextlib.suppress(TypeError):  # of a version of protobuf that does not let us
        TensorDescription.__repr__ = _shown  # type: ignore[assignment,method-assign]


def _shown(description: TensorDescription) -> str:
    try:
        with np.errstate(all="ignore"):  # a law at the ends of float64 may overflow
            table = list(rows(description, with_region=_is_part(description)))
    except Exception:
        return str(description)
    width = max(len(name) for name, _ in table)
    return "\n".join(["TensorDescription", *(f"  {name:{width}}   {text}" for name, text in table)])


def _is_part(description: TensorDescription) -> bool:
    region = description.region
    return any(region.start) or list(region.stop) != list(description.spec.shape)
