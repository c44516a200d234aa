"""Whether a network learns as well from Seedbed's weights as from torch's, on scikit-learn's digits.

There are two networks: one of three layers, whose accuracy is compared over many seeds, and one of thirty, as in He et
al. (2015), figure 3, where the initialisation alone decides whether it learns.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
from scipy import stats

import seedbed
from evidence.experiment import SOURCES, Source, backward, draw, forward

Array = npt.NDArray[Any]

PIXELS, DIGITS = 64, 10
SHALLOW = (PIXELS, 128, 128, DIGITS)
MARGIN = 0.5  # percentage points of accuracy below which a difference is negligible; fixed before the first run
CONFIDENCE = 0.95
TEST_SHARE = 0.25

_BLUE, _ORANGE = "#2864a6", "#c8501e"


@dataclass(frozen=True)
class Data:
    """Standardised images of shape (images, 64) and their digits, for training and for testing."""

    images: Array
    digits: Array
    test_images: Array
    test_digits: Array


@dataclass(frozen=True)
class Run:
    """The result of one network: its loss after each epoch, and its accuracy on the test images in percent."""

    losses: Array
    accuracy: float


def load(seed: int) -> Data:
    """Loads the 1797 digits, split at random by the seed."""
    from sklearn.datasets import load_digits  # noqa: PLC0415 - slow to import

    digits = load_digits()
    images = ((digits.data - digits.data.mean()) / digits.data.std()).astype(np.float32)
    order = np.random.default_rng(seed).permutation(len(images))
    test, learn = np.split(order, [int(TEST_SHARE * len(images))])
    return Data(images[learn], digits.target[learn], images[test], digits.target[test])


def initial(
    source: Source, client: seedbed.Client, scheme: str, widths: Sequence[int], seed: int, scale: float = 1.0
) -> list[Array]:
    """Draws the weights of all layers; biases are not used.

    Args:
        source: Whose initialiser to use.
        client: A Seedbed client.
        scheme: Xavier or Kaiming.
        widths: The widths of the layers, from inputs to outputs.
        seed: The seed of the network.
        scale: A factor for all weights.
    """
    shapes = zip(widths[1:], widths[:-1], strict=True)
    return [
        np.float32(scale) * draw(source, client, scheme, shape, seed, f"layers.{layer}.weight")
        for layer, shape in enumerate(shapes)
    ]


def train(weights: list[Array], data: Data, epochs: int, rate: float, batch: int, seed: int) -> Run:
    """Trains a ReLU network by stochastic gradient descent with momentum 0.9 on the cross-entropy.

    Args:
        weights: The weights of all layers, changed in place.
        data: The data for training and testing.
        epochs: The number of passes over the images.
        rate: The learning rate.
        batch: The number of images per step.
        seed: The seed of the order of the images.
    """
    generator = np.random.default_rng(seed)
    velocities = [np.zeros_like(w) for w in weights]
    losses = []
    for _ in range(epochs):
        for rows in np.array_split(generator.permutation(len(data.images)), len(data.images) // batch):
            inputs, outputs = forward(weights, data.images[rows], "relu")
            gradient = _softmax(outputs[-1])
            gradient[np.arange(len(rows)), data.digits[rows]] -= 1
            _, gradients = backward(weights, outputs, gradient / len(rows), "relu")
            for w, velocity, x, g in zip(weights, velocities, inputs, gradients, strict=True):
                velocity[...] = 0.9 * velocity - rate * (g.T @ x)
                np.add(w, velocity, out=w)
        losses.append(_loss(weights, data))
    answers = forward(weights, data.test_images, "relu")[1][-1].argmax(axis=1)
    return Run(np.array(losses), 100 * float((answers == data.test_digits).mean()))


def _softmax(y: Array) -> Array:
    powers = np.exp(y - y.max(axis=1, keepdims=True))
    shares: Array = powers / powers.sum(axis=1, keepdims=True)
    return shares


def _loss(weights: Sequence[Array], data: Data) -> float:
    shares = _softmax(forward(weights, data.images, "relu")[1][-1])
    right = shares[np.arange(len(shares)), data.digits]
    return float(-np.log(np.maximum(right, np.finfo(np.float32).tiny)).mean())


@dataclass(frozen=True)
class Comparison:
    """Seedbed's accuracies against torch's, pair by pair, in percentage points.

    Attributes:
        difference: The mean of Seedbed's minus torch's.
        interval: The confidence interval of the difference, of level CONFIDENCE.
        p: The p-value of the paired t-test that the difference is 0.
        p_beyond: The p-value of the two one-sided t-tests (TOST, Schuirmann 1987) that it is MARGIN or more; small if
            the accuracies are equal.
    """

    difference: float
    interval: tuple[float, float]
    p: float
    p_beyond: float


def compare(ours: Array, theirs: Array) -> Comparison:
    """Compares accuracies by seed; both saw the same images in the same order."""
    paired = stats.ttest_rel(ours, theirs)
    interval = paired.confidence_interval(CONFIDENCE)
    beyond = max(
        stats.ttest_1samp(ours - theirs, -MARGIN, alternative="greater").pvalue,
        stats.ttest_1samp(ours - theirs, MARGIN, alternative="less").pvalue,
    )
    return Comparison(float((ours - theirs).mean()), (interval.low, interval.high), paired.pvalue, float(beyond))


def shallow(client: seedbed.Client, seeds: int, epochs: int) -> dict[str, Array]:
    """Returns the accuracies of the network of three layers for each seed, by its initial weights."""
    starts = {"Seedbed": ("seedbed", 1.0), "torch": ("torch", 1.0), "control": ("seedbed", 0.1)}
    accuracies: dict[str, list[float]] = {name: [] for name in starts}
    for seed in range(seeds):
        data = load(seed)
        for name, (source, scale) in starts.items():
            weights = initial(source, client, "Kaiming", SHALLOW, seed, scale)  # type: ignore[arg-type]
            accuracies[name].append(train(weights, data, epochs, rate=0.02, batch=32, seed=seed).accuracy)
    return {name: np.array(values) for name, values in accuracies.items()}


def deep(
    client: seedbed.Client, seeds: int, epochs: int, depth: int, width: int
) -> dict[tuple[str, Source], list[Run]]:
    """Trains networks of ``depth`` layers with both schemes of both sources."""
    widths = (PIXELS, *[width] * (depth - 1), DIGITS)
    runs: dict[tuple[str, Source], list[Run]] = {}
    for scheme in ("Xavier", "Kaiming"):
        for source in SOURCES:
            runs[scheme, source] = [
                train(
                    initial(source, client, scheme, widths, seed), load(seed), epochs, rate=0.002, batch=32, seed=seed
                )
                for seed in range(seeds)
            ]
    return runs


def plot(runs: dict[tuple[str, Source], list[Run]], path: Path) -> None:
    """Plots the losses by epoch: the median over the seeds, and the range of Seedbed's."""
    import matplotlib as mpl  # noqa: PLC0415 - an extra
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(9, 3.6), layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    for (scheme, source), of_seeds in runs.items():
        losses = np.array([run.losses for run in of_seeds])
        epochs = np.arange(1, losses.shape[1] + 1)
        color = _ORANGE if scheme == "Xavier" else _BLUE
        median = np.median(losses, axis=0)
        if source == "seedbed":
            axes.fill_between(epochs, losses.min(axis=0), losses.max(axis=0), color=color, alpha=0.15, linewidth=0)
            axes.plot(epochs, median, color=color, linewidth=1.8, label=f"{scheme}, Seedbed")
        else:
            axes.plot(epochs, median, "o", color=color, markersize=4, markerfacecolor="white", label=f"{scheme}, torch")
    axes.axhline(math.log(DIGITS), color="#66717d", linewidth=0.9, linestyle=(0, (4, 3)), label="guessing, ln 10")
    axes.set(xlabel="epoch", ylim=(0, 1.15 * math.log(DIGITS)))
    axes.set_title("Cross-entropy of the images learnt from", loc="left", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9, loc="center right")
    path.parent.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context({"svg.hashsalt": "seedbed"}):  # the same figures give the same file
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def shallow_table(accuracies: dict[str, Array]) -> str:
    """The accuracies, and their differences from torch's."""
    lines = ["| weights | accuracy, % (std) | minus torch's [95 %] | p | p beyond ±0.5 |"]
    lines.append("| --- | ---: | ---: | ---: | ---: |")
    theirs = accuracies["torch"]
    names = {"torch": "torch", "Seedbed": "Seedbed", "control": "Seedbed, a tenth as large"}
    for key, name in names.items():
        ours = accuracies[key]
        cells = [f"{ours.mean():.2f} ({ours.std(ddof=1):.2f})", "", "", ""]
        if key != "torch":
            found = compare(ours, theirs)
            low, high = found.interval
            cells[1:] = [
                f"{found.difference:+.2f} [{low:+.2f}, {high:+.2f}]",
                f"{found.p:.2g}",
                f"{found.p_beyond:.2g}",
            ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def deep_table(runs: dict[tuple[str, Source], list[Run]]) -> str:
    """The losses after the last epoch and the accuracies; Welch's t-test of the accuracies, Seedbed against torch."""
    lines = ["| network | Seedbed: loss, median | accuracy, % (std) | torch: loss, median | accuracy, % (std) | p |"]
    lines.append("| --- | ---: | ---: | ---: | ---: | ---: |")
    for scheme in ("Xavier", "Kaiming"):
        cells, accuracies = [], []
        for source in SOURCES:
            accuracies.append(np.array([run.accuracy for run in runs[scheme, source]]))
            loss = np.median([run.losses[-1] for run in runs[scheme, source]])
            cells += [f"{loss:.3f}", f"{accuracies[-1].mean():.1f} ({accuracies[-1].std(ddof=1):.1f})"]
        p = stats.ttest_ind(*accuracies, equal_var=False).pvalue
        lines.append(f"| {scheme} | {' | '.join(cells)} | {'' if math.isnan(p) else f'{p:.2f}'} |")
    return "\n".join(lines)


@click.command()
@click.option("--seeds", type=click.IntRange(min=2), default=60, show_default=True, help="Networks of three layers.")
@click.option("--epochs", type=click.IntRange(min=1), default=20, show_default=True, help="Of the same.")
@click.option(
    "--deep-seeds", type=click.IntRange(min=2), default=10, show_default=True, help="Networks of many layers."
)
@click.option("--deep-epochs", type=click.IntRange(min=1), default=15, show_default=True, help="Of the same.")
@click.option("--depth", type=click.IntRange(min=2), default=30, show_default=True, help="Their layers.")
@click.option("--width", type=click.IntRange(min=1), default=128, show_default=True, help="Their units of a layer.")
@click.option("--target", default="local:", show_default=True, help="The server.")
@click.option(
    "--picture", type=click.Path(path_type=Path), default=Path("out/evidence/training.svg"), show_default=True
)
def main(
    *,
    seeds: int,
    epochs: int,
    deep_seeds: int,
    deep_epochs: int,
    depth: int,
    width: int,
    target: str,
    picture: Path,
) -> None:
    """Train networks on scikit-learn's digits, from Seedbed's weights and from torch's."""
    with seedbed.connect(target) as client:
        accuracies = shallow(client, seeds, epochs)
        click.echo(f"{len(SHALLOW) - 1} layers, {seeds} seeds, {epochs} epochs\n\n{shallow_table(accuracies)}\n")
        runs = deep(client, deep_seeds, deep_epochs, depth, width)
    plot(runs, picture)
    click.echo(f"{depth} layers, {deep_seeds} seeds, {deep_epochs} epochs; {picture}\n\n{deep_table(runs)}")


if __name__ == "__main__":
    main()
