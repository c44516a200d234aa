"""The view of a tensor on the page: its description, the histogram of a bounded sample, and an image of a region."""

from __future__ import annotations

import base64
import math
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

import seedbed
from seedbed._ask import regions
from seedbed._show import descriptions, laws
from seedbed._show.plot import LawHistogram, NotDrawable
from seedbed._types import Array
from seedbed.explore._calls import Connection, command, python
from seedbed.explore._form import Request
from seedbed.v1 import Region, TensorDescription

MAX_SAMPLE = 1 << 20
MAX_SIDE = 192

_CURVE_POINTS = 500
_SHOWN_ELSEWHERE = ("name", "scheme", "shape", "seed", "law", "mean", "std", "mean of real parts", "std of real parts")


def view(client: seedbed.Client, request: Request, connection: Connection) -> dict[str, Any]:
    """Describes a tensor, samples at most ``MAX_SAMPLE`` of its elements, and gives the calls that reproduce all of it.

    Args:
        client: The client that samples the tensor.
        request: The completed form.
        connection: The connection that the calls show.

    Returns:
        The content of the page, ready for JSON.

    Raises:
        SeedbedError: If the client raises it.
    """
    description = client.describe(request.spec, request.region)
    with np.errstate(all="ignore"):  # values that overflow float64 are shown as missing
        facts = [
            row
            for row in descriptions.rows(description, with_region=request.region is not None)
            if row[0] not in _SHOWN_ELSEWHERE
        ]
        content = {
            "law": laws.text(description) + ", real parts shown" * laws.is_complex(description),
            "facts": facts,
            "moments": _moments(description),
            "python": python(request, connection),
            "command": command(request, connection),
        }
        if refusal := _size_refusal(description):
            return {**content, "refusal": refusal}
        sample = _sample(client, description)
        facts += _orthogonality(client, description)
        return {**content, **sample}


def _sample(client: seedbed.Client, description: TensorDescription) -> dict[str, Any]:
    start = time.perf_counter()
    values = client.init(description.spec, region=_first_elements(description, MAX_SAMPLE))
    milliseconds = 1000 * (time.perf_counter() - start)
    sample: dict[str, float | None] = {
        "size": values.size,
        "of": description.element_count,
        "milliseconds": milliseconds,
    }
    content = {"sample": sample, "histogram": None, "picture": _picture(client, description)}
    if not values.size:
        return content
    try:
        histogram = LawHistogram(description, values.size)
    except NotDrawable:
        return content
    histogram.add(values)
    sample |= {"mean": _finite(histogram.mean), "std": _finite(histogram.std)}
    return {**content, "histogram": _histogram(histogram)}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _moments(description: TensorDescription) -> list[float | None]:
    """The law's mean and standard deviation; None where there is none, or where it exceeds float64."""
    mean, std = laws.moments(description) or (math.nan, math.nan)
    # Numerical integration may give 1e-18 for a mean of 0.
    return [_finite(0.0 if abs(mean) < 1e-12 * std else mean), _finite(std)]


def _size_refusal(description: TensorDescription) -> str:
    elements = math.prod(description.spec.shape)
    if not description.law.HasField("orthogonal") or elements <= MAX_SAMPLE:
        return ""
    return (
        f"Sampling any region of an orthogonal matrix takes the whole matrix, which has {elements:,} elements. This "
        f"page samples at most {MAX_SAMPLE:,}; use the calls below instead."
    )


def _first_elements(description: TensorDescription, limit: int) -> Region:
    """The first elements of the description's region that form a region of at most ``limit`` elements."""
    return _region(description.region.start, _limited_extents(regions.extents(description), limit))


def _region(start: Sequence[int], extents: Sequence[int]) -> Region:
    return Region(start=start, stop=[first + extent for first, extent in zip(start, extents, strict=True)])


def _limited_extents(extents: Sequence[int], limit: int) -> list[int]:
    """The largest extents of at most ``limit`` elements that come first in row-major order.

    >>> _limited_extents([128256, 4096], 1 << 20), _limited_extents([3, 5000, 1000], 10_000)
    ([256, 4096], [1, 10, 1000])
    """
    strides = [max(math.prod(extents[axis + 1 :]), 1) for axis in range(len(extents))]
    return [min(extent, max(1, limit // stride)) for extent, stride in zip(extents, strides, strict=True)]


def _histogram(histogram: LawHistogram) -> dict[str, Any]:
    curve = histogram.curve
    points = None
    if curve is not None:
        # The second and the second-to-last points are corners of the polygon, and must not be dropped.
        kept = np.unique(np.linspace(0, len(curve.x) - 1, _CURVE_POINTS).round().astype(int))
        kept = np.union1d(kept, [1, len(curve.x) - 2])
        points = {"x": curve.x[kept].tolist(), "y": curve.y[kept].tolist()}
    return {
        "edges": histogram.edges.tolist(),
        "counts": histogram.counts.tolist(),
        "curve": points,
        "atoms": [{"value": value, "count": count} for value, count in sorted(histogram.atoms.items())],
    }


def _picture(client: seedbed.Client, description: TensorDescription) -> dict[str, Any]:
    """The first rows and columns of the region as a matrix: dimension 0 by all other dimensions."""
    extents = regions.extents(description)
    if len(extents) < 2:
        visible = _limited_extents(extents, MAX_SIDE)
        matrix_of = [1, *extents] if extents else [1, 1]
    else:
        visible = [min(extents[0], MAX_SIDE), *_limited_extents(extents[1:], MAX_SIDE)]
        matrix_of = [extents[0], math.prod(extents[1:])]
    values = client.init(description.spec, region=_region(description.region.start, visible)).real.astype(np.float64)
    matrix = values.reshape((1, -1) if len(extents) < 2 else (visible[0], math.prod(visible[1:])))
    center = _center(description)
    deviations = matrix - center
    span = _span(deviations)
    return {
        "rows": matrix.shape[0],
        "columns": matrix.shape[1],
        "of": matrix_of,
        "center": center,
        "span": span,
        # Relative to the span, so that float32 can hold both tiny and huge deviations.
        "deviations": base64.b64encode((deviations / (span or 1)).astype("<f4").tobytes()).decode("ascii"),
    }


def _center(description: TensorDescription) -> float:
    """The value that is drawn in the neutral colour: the mean, but 0 where all values are the same."""
    return 0.0 if description.law.HasField("constant") else _moments(description)[0] or 0.0


def _span(deviations: Array) -> float:
    """The distance from the centre that is drawn in the full colour; few values lie beyond it."""
    distances = np.abs(deviations[deviations != 0])
    return min(float(np.quantile(distances, 0.995)), sys.float_info.max) if distances.size else 0.0


def _orthogonality(client: seedbed.Client, description: TensorDescription) -> list[tuple[str, str]]:
    """The largest deviation of the whole matrix, without its gain, from orthogonality of its rows or its columns.

    Whichever of the two are fewer can be orthogonal.
    """
    if not description.law.HasField("orthogonal") or not math.prod(description.spec.shape):
        return []
    law = description.law.orthogonal
    q = np.moveaxis(client.init(description.spec).astype(np.float64), law.axis, 0) / law.gain
    q = q.reshape(len(q), -1)
    by_columns = q.shape[0] >= q.shape[1]
    gram = q.T @ q if by_columns else q @ q.T
    largest = np.abs(gram - np.eye(len(gram))).max()
    return [(f"largest |{'QᵀQ' if by_columns else 'QQᵀ'} − I|", f"{largest:.3g}")]
