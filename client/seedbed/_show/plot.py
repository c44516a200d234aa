"""Plots of tensors: the histogram of the sampled values, overlaid with the density of their law.

The bins follow from the law, not from the values, so that a tensor of any size can be counted chunk by chunk. Where the
law has no density, as with recipes, the bins widen as values arrive.
"""

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from seedbed import dtypes
from seedbed._files.writing import create_file
from seedbed._show import laws
from seedbed.v1 import TensorDescription

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = np.ndarray[Any, Any]

MAX_PANELS = 12
SUFFIXES = (".png", ".svg", ".pdf")

_LARGEST = 1e150  # its square is finite
_GROWING_BINS = 128  # even, so that pairs of them can be joined
_BATCH = 1 << 13  # values counted at once; small enough that temporaries stay in the cache

_FILL, _EDGE, _CURVE, _TEXT, _QUIET = "#c9dcf0", "#5b8fc7", "#c8501e", "#1f2933", "#66717d"


class NotDrawable(ValueError):  # noqa: N818
    """A law whose values or density exceed float64, such as a normal with a std of 1e300."""


class LawHistogram:
    """Counts the values of one or more tensors of the same law.

    Args:
        description: The description of a tensor of this law.
        expected_size: The number of values to come; by default the tensor's elements.

    Attributes:
        description: The description of the first tensor.
        names: The names of the tensors counted.
        size: The number of values counted.
        mean: The mean of the values.
        std: The standard deviation of the values.

    Raises:
        NotDrawable: If the law is too wide or too narrow.

    >>> import seedbed
    >>> client = seedbed.connect("local:")
    >>> spec = seedbed.spec("uniform", (1000,), seed=7)
    >>> histogram = LawHistogram(client.describe(spec))
    >>> histogram.add(client.init(spec))
    >>> histogram.size, int(histogram.counts.sum()), 0.4 < histogram.mean < 0.6
    (1000, 1000, True)
    """

    def __init__(self, description: TensorDescription, expected_size: int | None = None) -> None:
        self.description = description
        self.names: list[str] = []
        self.size = 0
        self.atoms = Counter(dict.fromkeys(laws.atoms(description), 0))
        with np.errstate(all="ignore"):
            self.curve = laws.curve(description)
            self.moments = laws.moments(description)
        if self.curve is not None and not _is_drawable(self.curve):
            raise NotDrawable(f"{laws.text(description)} is too wide or too narrow to draw")
        self.edges = _edges(description, self.curve, expected_size or description.element_count)
        self.counts = np.zeros(len(self.edges) - 1, np.int64)
        self._is_growing = self.curve is None
        self._origin = self.moments[0] if self.moments else 0.0
        self._sum = 0.0
        self._sum_of_squares = 0.0

    def add(self, values: Array) -> None:
        """Counts more values; for complex values, their real parts."""
        flat = values.reshape(-1).real
        for first in range(0, flat.size, _BATCH):
            self._add_batch(flat[first : first + _BATCH].astype(np.float64))

    def _add_batch(self, values: Array) -> None:
        self.size += values.size
        deviations = values - self._origin
        self._sum += float(deviations.sum())
        self._sum_of_squares += float(np.dot(deviations, deviations))
        for atom in self.atoms:
            is_atom = values == atom
            count = int(np.count_nonzero(is_atom))
            if count:
                self.atoms[atom] += count
                values = values[~is_atom]
        if self._is_growing and values.size:
            self._grow(float(values.min()), float(values.max()))
        if len(self.counts):
            values = values[(values >= self.edges[0]) & (values <= self.edges[-1])]
            self.counts += np.bincount(self._bins(values), minlength=len(self.counts))

    def _grow(self, low: float, high: float) -> None:
        """Widens the bins to hold values of this range, doubling their width until it fits."""
        if not len(self.counts):
            margin = max(high - low, 1e-3 * max(abs(low), abs(high)), 1e-12) / 1000
            self.edges = np.linspace(low - margin, high + margin, _GROWING_BINS + 1)
            self.counts = np.zeros(_GROWING_BINS, np.int64)
        while low < self.edges[0] or high > self.edges[-1]:
            first, last = float(self.edges[0]), float(self.edges[-1])
            pairs, empty = self.counts.reshape(-1, 2).sum(axis=1), np.zeros(_GROWING_BINS // 2, np.int64)
            if low < first:
                self.edges, self.counts = (
                    np.linspace(2 * first - last, last, _GROWING_BINS + 1),
                    np.concatenate((empty, pairs)),
                )
            else:
                self.edges, self.counts = (
                    np.linspace(first, 2 * last - first, _GROWING_BINS + 1),
                    np.concatenate((pairs, empty)),
                )

    def _bins(self, values: Array) -> Array:
        """The bin of each value, as searchsorted finds it, but faster: all bins have about the same width."""
        first, last = self.edges[0], self.edges[-1]
        count = len(self.counts)
        guess: Array = ((values - first) * (count / (last - first))).astype(np.intp)
        np.minimum(guess, count - 1, out=guess)
        guess -= values < self.edges[guess]
        guess += (values >= self.edges[guess + 1]) & (guess < count - 1)
        return guess

    @property
    def mean(self) -> float:
        return self._origin + self._sum / self.size if self.size else math.nan

    @property
    def std(self) -> float:
        if not self.size:
            return math.nan
        return math.sqrt(max(0.0, self._sum_of_squares / self.size - (self._sum / self.size) ** 2))


def _is_drawable(curve: laws.Curve) -> bool:
    """Whether the density, the range and the squares of the values are finite in float64."""
    low, high = curve.x[0], curve.x[-1]
    return bool(np.isfinite(curve.y).all() and low < high and max(-low, high) < _LARGEST)


def draw(histograms: Sequence[LawHistogram], path: Path, title: str, subtitle: str = "") -> None:
    """Draws one panel for each histogram, the largest first, and writes the figure atomically.

    Args:
        histograms: At least one. Beyond ``MAX_PANELS``, the smallest are omitted, and the figure says so.
        path: The file to write, which ends in .png, .svg or .pdf.
        title: The title of the figure.
        subtitle: A line below the title.

    Raises:
        ImportError: If matplotlib is not installed.
        ValueError: If the file's suffix is not supported.
        OSError: If the file cannot be written.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"the file name must end in {', '.join(SUFFIXES)}; got {path.name!r}")
    # Without pyplot, which needs a window system and has global state.
    from matplotlib.figure import Figure  # noqa: PLC0415
    from matplotlib.layout_engine import ConstrainedLayoutEngine  # noqa: PLC0415

    panels = sorted(histograms, key=lambda histogram: -histogram.size)[:MAX_PANELS]
    columns = 1 if len(panels) == 1 else 2 if len(panels) <= 6 else 3
    rows = math.ceil(len(panels) / columns)
    size = (8.6, 5.6) if columns == 1 else (5.4 * columns, 3.5 * rows + 1.2)
    headline = 0.95 if columns == 1 else 1.2
    layout = ConstrainedLayoutEngine(rect=(0.01, 0.015, 0.98, 1 - headline / size[1]), wspace=0.06, hspace=0.09)
    figure = Figure(figsize=size, facecolor="white", layout=layout)
    omission = (
        f"the {len(histograms) - len(panels)} laws with the fewest elements are not shown"
        if len(histograms) > len(panels)
        else ""
    )
    _headline(figure, title, "   ".join(filter(None, (subtitle, omission))), size)
    for index, histogram in enumerate(panels):
        axes = figure.add_subplot(rows, columns, index + 1)
        _draw_panel(axes, histogram, alone=len(panels) == 1, total=sum(h.size for h in histograms))
    with create_file(path) as file:
        figure.savefig(file, format=path.suffix[1:].lower(), dpi=160)


def _headline(figure: "Figure", title: str, subtitle: str, size: tuple[float, float]) -> None:
    left, top = 0.22 / size[0], 1 - 0.2 / size[1]
    figure.text(left, top, title, fontsize=15, fontweight="bold", color=_TEXT, va="top")
    figure.text(left, top - 0.34 / size[1], subtitle, fontsize=10, color=_QUIET, va="top")


def _draw_panel(axes: "Axes", histogram: LawHistogram, *, alone: bool, total: int) -> None:
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(_QUIET)
    axes.tick_params(colors=_QUIET, labelsize=9, length=0, axis="y")
    axes.tick_params(colors=_QUIET, labelsize=9, axis="x")
    axes.grid(axis="y", color="#e6e9ec", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.locator_params(axis="x", nbins=9 if alone else 6)
    _panel_title(axes, histogram, alone=alone, total=total)
    if histogram.size == 0:
        axes.text(0.5, 0.5, "no elements", transform=axes.transAxes, ha="center", color=_QUIET)
        return
    if not len(histogram.counts):
        _draw_atoms(axes, histogram)
        return
    _draw_density(axes, histogram)
    _draw_moments(axes, histogram)


def _panel_title(axes: "Axes", histogram: LawHistogram, *, alone: bool, total: int) -> None:
    text = laws.text(histogram.description)
    if not alone:
        text += ", real parts" * laws.is_complex(histogram.description)
        share = f"{100 * histogram.size / total:.3g} %" if total else "0 %"
        names = histogram.names[0] if len(histogram.names) == 1 else f"{len(histogram.names)} tensors"
        if len(names) > 44:
            names = "…" + names[-43:]
        axes.set_title(f"{names} · {histogram.size:,} elements · {share}", loc="left", fontsize=9, color=_QUIET)
        axes.annotate(
            text, (0, 1), (0, 20), xycoords="axes fraction", textcoords="offset points", fontsize=11, color=_TEXT,
            fontweight="bold", annotation_clip=False,
        )  # fmt: skip
        return
    axes.set_title(text, loc="left", fontsize=11, color=_TEXT)
    axes.set_xlabel("real part" if laws.is_complex(histogram.description) else "value", color=_QUIET)


def _draw_density(axes: "Axes", histogram: LawHistogram) -> None:
    heights = histogram.counts / np.diff(histogram.edges) / histogram.size
    axes.stairs(heights, histogram.edges, fill=True, color=_FILL)
    axes.stairs(heights, histogram.edges, color=_EDGE, linewidth=0.9, label="sample")
    low, high, top = float(histogram.edges[0]), float(histogram.edges[-1]), heights.max(initial=0.0)
    if (curve := histogram.curve) is not None:
        axes.plot(curve.x, curve.y, color=_CURVE, linewidth=1.8, label="law", solid_joinstyle="round")
        low, high = min(float(curve.x[0]), low), max(float(curve.x[-1]), high)
        top = max(top, float(curve.y.max()))
    margin = 0.04 * (high - low)
    axes.set_xlim(low - margin, high + margin)
    axes.set_ylim(0, 1.32 * top)
    axes.set_ylabel("density", color=_QUIET, fontsize=9)
    for value, count in histogram.atoms.items():
        if not count and histogram.curve is None:
            continue
        label = f"exactly {value:g}: {100 * count / histogram.size:.4g} %"
        axes.vlines(value, 0, 1.06 * top, color=_CURVE, linewidth=2.2, linestyle=(0, (1.5, 0.8)), label=label)


def _draw_moments(axes: "Axes", histogram: LawHistogram) -> None:
    mean, std = (f"{moment:.5g}" for moment in histogram.moments) if histogram.moments else ("", "")
    rows = [
        ("", "law" if histogram.moments else "", "sample"),
        ("mean", mean, f"{histogram.mean:.5g}"),
        ("std", std, f"{histogram.std:.5g}"),
    ]
    text = "\n".join(f"{name:<4} {law:>10} {sample:>11}" for name, law, sample in rows)
    axes.text(
        0.995, 0.985, text, transform=axes.transAxes, ha="right", va="top", fontsize=8.5, family="monospace",
        color=_TEXT, linespacing=1.35,
    )  # fmt: skip
    axes.legend(loc="upper left", frameon=False, fontsize=9, labelcolor=_TEXT, handlelength=1.6)


def _draw_atoms(axes: "Axes", histogram: LawHistogram) -> None:
    values = sorted(histogram.atoms)
    shares = [histogram.atoms[value] / histogram.size for value in values]
    axes.vlines(values, 0, shares, color=_CURVE, linewidth=3)
    axes.plot(values, shares, "o", color=_CURVE, markersize=7)
    for value, share in zip(values, shares, strict=True):
        label = f"{value:g}\n{histogram.atoms[value]:,} elements, {100 * share:.4g} %"
        axes.annotate(label, (value, share), (0, 10), textcoords="offset points", ha="center", fontsize=9, color=_TEXT)
    axes.set_ylim(0, 1.32)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
    span = max(values[-1] - values[0], abs(values[0]), 1e-300)
    axes.set_xlim(values[0] - 0.6 * span, values[-1] + 0.6 * span)
    axes.set_ylabel("share", color=_QUIET, fontsize=9)


def _edges(description: TensorDescription, curve: laws.Curve | None, size: int) -> Array:
    """The edges of the bins, each half-way between two neighbouring values of the dtype.

    Otherwise the histogram of a 16-bit dtype looks like a comb: some bins span one value more than others.
    """
    if curve is None:
        return np.zeros(1)
    low, high = float(curve.x[0]), float(curve.x[-1])
    dtype = np.zeros(0, dtypes.numpy_dtype(description.spec.dtype)).real.dtype
    bins = min(max(int(2 * size ** (1 / 3)), 12), 120)
    outermost = np.array(max(abs(low), abs(high))).astype(dtype)
    spacing = float(np.nextafter(outermost, np.array(np.inf, dtype))) - float(outermost)
    width = spacing * max(1, math.ceil((high - low) / bins / spacing))
    first, last = math.floor(low / width), math.ceil(high / width)
    values = (np.arange(first, last + 1) * width).astype(dtype)
    below = np.nextafter(values, np.array(-np.inf, dtype))
    edges = (values.astype(np.float64) + below.astype(np.float64)) / 2
    # The outermost bins end where the curve does; a narrower bin there would show only noise.
    inner = edges[(edges > low + width / 2) & (edges < high - width / 2)]
    return np.concatenate(([low], inner, [high]))
