"""delta_orthogonal (Xiao et al. 2018) expressed as parts: an orthogonal matrix at the centre of the kernel."""

from __future__ import annotations

from seedbed.v1 import Orthogonal, Part, Parts, Recipe, Region, TensorSpec

from . import dtypes
from .errors import InvalidSpec
from .schemes import check_orthogonal_size, positive_axis


def gain_of(spec: TensorSpec) -> float | None:
    """The gain of a delta_orthogonal tensor; None for other schemes."""
    if not spec.HasField("delta_orthogonal"):
        return None
    return spec.delta_orthogonal.gain if spec.delta_orthogonal.HasField("gain") else 1.0


def expand(spec: TensorSpec, field: str) -> None:
    """Replaces delta_orthogonal by parts; leaves other schemes unchanged.

    Args:
        spec: The tensor; its shape and dtype are valid.
        field: The path of the spec in errors.

    Raises:
        InvalidSpec: The parameters are inconsistent with each other, the shape or the dtype.

    >>> spec = TensorSpec(shape=[6, 4, 3, 3], dtype="DATA_TYPE_FLOAT32", delta_orthogonal={})
    >>> expand(spec, "spec")
    >>> spec.parts.parts[0].region.start, spec.parts.parts[0].region.stop
    ([0, 0, 1, 1], [6, 4, 2, 2])
    """
    gain = gain_of(spec)
    if gain is None:
        return
    path = f"{field}.delta_orthogonal"
    if dtypes.is_complex(spec.dtype):
        raise InvalidSpec(path, "delta_orthogonal is not offered in complex64; give a real dtype")
    if not 0 <= gain <= dtypes.largest(spec.dtype):
        raise InvalidSpec(
            f"{path}.gain",
            f"{gain} is negative or beyond the dtype's range; give a gain within 0 .. {dtypes.largest(spec.dtype)}",
        )
    out_axis, in_axis = _axes(spec, path, f"{field}.shape")
    start = [0 if axis in (out_axis, in_axis) else (size - 1) // 2 for axis, size in enumerate(spec.shape)]
    stop = [size if axis in (out_axis, in_axis) else start[axis] + 1 for axis, size in enumerate(spec.shape)]
    matrix = Recipe(orthogonal=Orthogonal(gain=gain, axis=out_axis))
    parts = [] if 0 in spec.shape else [Part(region=Region(start=start, stop=stop), recipe=matrix)]
    spec.parts.CopyFrom(Parts(parts=parts))


def _axes(spec: TensorSpec, path: str, shape_field: str) -> tuple[int, int]:
    """The axes of outputs and inputs, counted from the first."""
    shape, scheme = spec.shape[:], spec.delta_orthogonal
    if len(shape) not in (3, 4, 5):
        raise InvalidSpec(
            shape_field, f"Only tensors with 3, 4, or 5 dimensions are supported by delta_orthogonal, not {len(shape)}"
        )
    out_axis = positive_axis(scheme.out_axis, len(shape), f"{path}.out_axis")
    in_axis = positive_axis(scheme.in_axis if scheme.HasField("in_axis") else 1, len(shape), f"{path}.in_axis")
    if out_axis == in_axis:
        raise InvalidSpec(f"{path}.in_axis", f"axis {in_axis} is also the output axis; give two different axes")
    inputs, outputs = shape[in_axis], shape[out_axis]
    if inputs > outputs:
        raise InvalidSpec(
            shape_field,
            f"has {inputs} inputs (axis {in_axis}) but only {outputs} outputs (axis {out_axis}), too few to preserve "
            "the norm; give at least as many outputs as inputs, or use orthogonal",
        )
    check_orthogonal_size(inputs * outputs, shape_field)
    return out_axis, in_axis
