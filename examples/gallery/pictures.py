"""Plots of tensors, with matplotlib and the public interface only.

The gallery of the documentation uses it.
"""

import math

import matplotlib.pyplot as plt
import numpy as np

import seedbed

client = seedbed.connect("local:")

SIZE = (7.2, 2.7)  # inches
FILL, EDGE, CURVE = "#c9dcf0", "#8fb3dc", "#c8501e"


def histogram(scheme, shape, **parameters):
    """Plots the values of a tensor, and over them the density of the law that `describe` returns."""
    spec = seedbed.spec(scheme, shape, **parameters)
    values = client.init(spec).ravel()
    law = client.describe(spec).law
    axes = empty_axes(f"{law.WhichOneof('law')} law; mean {values.mean():.0e}, std {values.std():.4f}")
    axes.hist(values, bins=80, density=True, color=FILL, edgecolor=EDGE, linewidth=0.4, label="values")
    x = np.linspace(values.min(), values.max(), 400)
    axes.plot(x, density(law, x), color=CURVE, linewidth=1.6, label="density")
    axes.set(yticks=[], ylim=(0, 1.3 * axes.get_ylim()[1]))
    axes.legend(loc="upper right", frameon=False, ncols=2)


def spike(scheme, shape, **parameters):
    """Plots a tensor whose values are all the same."""
    values = client.init(seedbed.spec(scheme, shape, **parameters)).ravel()
    axes = empty_axes(f"constant law; {len(values):,} values")
    axes.stem([values[0]], [np.mean(values == values[0])], linefmt=CURVE, basefmt=" ")
    axes.set(xlim=(-1.5, 1.5), ylim=(0, 1.2), yticks=[0, 1], ylabel="share")


def image(matrices, titles):
    """Plots matrices side by side: red is positive, blue negative, white 0."""
    figure, row = plt.subplots(1, len(matrices), squeeze=False, figsize=SIZE, layout="constrained")
    for axes, matrix, title in zip(row[0], matrices, titles, strict=True):
        most = abs(matrix).max()
        picture = axes.imshow(matrix, cmap="RdBu_r", vmin=-most, vmax=most, interpolation="nearest")
        axes.set(xticks=[], yticks=[])
        axes.set_title(title, fontsize=9)
        figure.colorbar(picture, ax=axes)


def empty_axes(title):
    """Axes of a new figure."""
    axes = plt.figure(figsize=SIZE, layout="constrained").add_subplot()
    axes.set_title(title, loc="left", fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def density(law, x):
    """The density of a law at x."""
    kind = law.WhichOneof("law")
    if kind == "uniform":
        return np.full_like(x, 1 / (law.uniform.b - law.uniform.a))
    bell = getattr(law, kind)
    curve = np.exp(-(((x - bell.mean) / bell.std) ** 2) / 2) / (bell.std * math.sqrt(2 * math.pi))
    if kind == "trunc_normal":
        below, above = (math.erf((end - bell.mean) / bell.std / math.sqrt(2)) / 2 for end in (bell.a, bell.b))
        curve /= above - below
    return curve
