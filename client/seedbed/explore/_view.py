"""What the page shows of a tensor: its description, a bounded sample's histogram, a part of it as a picture."""

from __future__ import annotations

import base64
import math
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

import seedbed
from seedbed._show import descriptions, laws
from seedbed._show.plot import LawHistogram, NotDrawable
from seedbed._types import Array
from seedbed.explore._calls import Connection, command, python
from seedbed.explore._form import Request
from seedbed.v1 import Region, TensorDescription

MAX_SAMPLE = 1 << 20
MAX_SIDE = 192

_CURVE_POINTS = 500
_IN_THE_FORM = ("name", "scheme", "shape", "seed", "law", "mean", "std", "mean of real parts", "std of real parts")


def view(client: seedbed.Client, request: Request, connection: Connection) -> dict[str, Any]:
    """Describes a tensor, samples at most ``MAX_SAMPLE`` elements of it, and tells how to make all of it.

    Args:
        client: whom to ask.
        request: the tensor, or its region.
        connection: how the calls that are shown connect.

    Returns:
        What the page shows, ready for JSON.

    Raises:
        SeedbedError: as the client.
    """
    description = client.describe(request.spec, request.region)
    with np.errstate(all="ignore"):  # what overflows at the ends of float64 is told as missing
        facts = [
            row
            for row in descriptions.rows(description, with_region=request.region is not None)
            if row[0] not in _IN_THE_FORM
        ]
        shown = {
            "law": laws.text(description) + ", shown by its real parts" * laws.is_complex(description),
            "facts": facts,
            "moments": _moments(description),
            "python": python(request, connection),
            "command": command(request, connection),
        }
        if refusal := _too_large(description):
            return {**shown, "refusal": refusal}
        sampled = _sampled(client, description)
        facts += _orthogonality(client, description)
        return {**shown, **sampled}


def _sampled(client: seedbed.Client, description: TensorDescription) -> dict[str, Any]:
    started = time.perf_counter()
    values = client.init(description.spec, region=_beginning(description, MAX_SAMPLE))
    milliseconds = 1000 * (time.perf_counter() - started)
    sample: dict[str, float | None] = {
        "size": values.size,
        "of": description.element_count,
        "milliseconds": milliseconds,
    }
    shown = {"sample": sample, "histogram": None, "picture": _picture(client, description)}
    if not values.size:
        return shown
    try:
        histogram = LawHistogram(description, values.size)
    except NotDrawable:
        return shown
    histogram.add(values)
    sample |= {"mean": _finite(histogram.mean), "std": _finite(histogram.std)}
    return {**shown, "histogram": _counted(histogram)}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _moments(description: TensorDescription) -> list[float | None]:
    """Returns the law's mean and standard deviation; None where there is none, or float64 does not hold it."""
    mean, std = laws.moments(description) or (math.nan, math.nan)
    # An integral that is 0 may come out as 1e-18.
    return [_finite(0.0 if abs(mean) < 1e-12 * std else mean), _finite(std)]


def _too_large(description: TensorDescription) -> str:
    elements = math.prod(description.spec.shape)
    if not description.law.HasField("orthogonal") or elements <= MAX_SAMPLE:
        return ""
    return (
        f"Any part of an orthogonal matrix takes the whole of it: {elements:,} elements here. This page makes up to "
        f"{MAX_SAMPLE:,}; the calls below make it."
    )


def _beginning(description: TensorDescription, most: int) -> Region:
    """Returns the first elements of a region that form a region of at most ``most`` elements."""
    start, stop = description.region.start, description.region.stop
    return _part(start, _fitting([last - first for first, last in zip(start, stop, strict=True)], most))


def _part(start: Sequence[int], extents: Sequence[int]) -> Region:
    return Region(start=start, stop=[first + extent for first, extent in zip(start, extents, strict=True)])


def _fitting(extents: Sequence[int], most: int) -> list[int]:
    """Returns the largest extents of at most ``most`` elements that are the beginning of the row-major order.

    >>> _fitting([128256, 4096], 1 << 20), _fitting([3, 5000, 1000], 10_000)
    ([256, 4096], [1, 10, 1000])
    """
    within = [max(math.prod(extents[axis + 1 :]), 1) for axis in range(len(extents))]
    return [min(extent, max(1, most // each)) for extent, each in zip(extents, within, strict=True)]


def _counted(histogram: LawHistogram) -> dict[str, Any]:
    curve = histogram.curve
    shape = None
    if curve is not None:
        # A polygon's corners come first and last, and there may be no more.
        chosen = np.unique(np.linspace(0, len(curve.x) - 1, _CURVE_POINTS).round().astype(int))
        chosen = np.union1d(chosen, [1, len(curve.x) - 2])
        shape = {"x": curve.x[chosen].tolist(), "y": curve.y[chosen].tolist()}
    return {
        "edges": histogram.edges.tolist(),
        "counts": histogram.counts.tolist(),
        "curve": shape,
        "atoms": [{"value": value, "count": count} for value, count in sorted(histogram.atoms.items())],
    }


def _picture(client: seedbed.Client, description: TensorDescription) -> dict[str, Any]:
    """Returns the first rows and columns of the region as a matrix (dimension 0, all others)."""
    start, stop = description.region.start[:], description.region.stop[:]
    extents = [last - first for first, last in zip(start, stop, strict=True)]
    if len(extents) < 2:
        shown = _fitting(extents, MAX_SIDE)
        matrix_of = [1, *extents] if extents else [1, 1]
    else:
        shown = [min(extents[0], MAX_SIDE), *_fitting(extents[1:], MAX_SIDE)]
        matrix_of = [extents[0], math.prod(extents[1:])]
    values = client.init(description.spec, region=_part(start, shown)).real.astype(np.float64)
    matrix = values.reshape((1, -1) if len(extents) < 2 else (shown[0], math.prod(shown[1:])))
    center = _center(description)
    deviations = matrix - center
    span = _span(deviations)
    return {
        "rows": matrix.shape[0],
        "columns": matrix.shape[1],
        "of": matrix_of,
        "center": center,
        "span": span,
        # In spans from the centre, so that neither a tiny spread nor a huge one is lost in float32.
        "deviations": base64.b64encode((deviations / (span or 1)).astype("<f4").tobytes()).decode("ascii"),
    }


def _center(description: TensorDescription) -> float:
    """Returns the value that is drawn in the neutral colour: the mean, but 0 where all values are the same."""
    return 0.0 if description.law.HasField("constant") else _moments(description)[0] or 0.0


def _span(deviations: Array) -> float:
    """Returns the distance from the centre that is drawn in the full colour: few values lie beyond it."""
    distances = np.abs(deviations[deviations != 0])
    return min(float(np.quantile(distances, 0.995)), sys.float_info.max) if distances.size else 0.0


def _orthogonality(client: seedbed.Client, description: TensorDescription) -> list[tuple[str, str]]:
    """Returns how far the whole matrix, without its gain, is from orthogonal, by its rows or columns, the fewer."""
    if not description.law.HasField("orthogonal") or not math.prod(description.spec.shape):
        return []
    law = description.law.orthogonal
    q = np.moveaxis(client.init(description.spec).astype(np.float64), law.axis, 0) / law.gain
    q = q.reshape(len(q), -1)
    by_columns = q.shape[0] >= q.shape[1]
    gram = q.T @ q if by_columns else q @ q.T
    worst = np.abs(gram - np.eye(len(gram))).max()
    return [(f"largest |{'QᵀQ' if by_columns else 'QQᵀ'} − I|", f"{worst:.3g}")]
