"""What initialisation is for: the variance of activations and gradients through thirty layers.

It repeats He et al., “Delving deep into rectifiers” (2015, arXiv:1502.01852), section 2.2, on a small scale. Each layer
multiplies the variance by a factor that depends on the initialisation, so after thirty layers it must be close to 1.
Weights come from Seedbed and from torch.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import click
import numpy as np
import numpy.typing as npt
from scipy import stats

import seedbed

Array = npt.NDArray[Any]
Activation = Literal["relu", "tanh"]
Source = Literal["seedbed", "torch"]

SOURCES: tuple[Source, ...] = ("seedbed", "torch")
SCHEMES = {"Xavier": ("xavier_normal", {}), "Kaiming": ("kaiming_normal", {"nonlinearity": "relu"})}
# n·Var[w] of a square layer.
GAINS = {"Xavier": 1.0, "Kaiming": 2.0}
ACTIVATIONS: tuple[Activation, ...] = ("relu", "tanh")
QUANTITIES = ("activations", "gradients")

_BLUE, _ORANGE, _GREY = "#2864a6", "#c8501e", "#66717d"
_FAR = 12.0  # standard deviations beyond which a normal variable is negligible


def draw(source: Source, client: seedbed.Client, scheme: str, shape: tuple[int, int], seed: int, name: str) -> Array:
    """Draws the float32 weights of one layer, independent of other seeds and names.

    Args:
        source: Whose initialiser to use.
        client: A Seedbed client.
        scheme: A key of SCHEMES.
        shape: (outputs, inputs).
        seed: The seed of the network.
        name: The name of the layer.
    """
    method, parameters = SCHEMES[scheme]
    if source == "seedbed":
        values: Array = getattr(client, method)(shape, **parameters, seed=seed, name=name)
        return values
    import torch  # noqa: PLC0415 - slow to import, and a peer that may be absent

    digest = hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=7).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest, "little"))
    weights = torch.empty(shape)
    getattr(torch.nn.init, f"{method}_")(weights, **parameters, generator=generator)
    return weights.numpy()


def forward(weights: Sequence[Array], x: Array, activation: Activation) -> tuple[list[Array], list[Array]]:
    """Returns the inputs x and the outputs y = x·wᵀ of every layer; all layers except the last have an activation."""
    inputs, outputs = [x], []
    for number, w in enumerate(weights, 1):
        outputs.append(inputs[-1] @ w.T)
        if number < len(weights):
            inputs.append(np.maximum(outputs[-1], 0) if activation == "relu" else np.tanh(outputs[-1]))
    return inputs, outputs


def backward(
    weights: Sequence[Array], outputs: Sequence[Array], gradient: Array, activation: Activation
) -> tuple[list[Array], list[Array]]:
    """Returns the gradients with respect to every layer's x and y, given that of the last y."""
    of_outputs, of_inputs = [gradient], [gradient @ weights[-1]]
    for w, y in zip(weights[-2::-1], outputs[-2::-1], strict=True):
        slope = (y > 0).astype(y.dtype) if activation == "relu" else 1 - np.tanh(y) ** 2
        of_outputs.append(of_inputs[-1] * slope)
        of_inputs.append(of_outputs[-1] @ w)
    return of_inputs[::-1], of_outputs[::-1]


def variances(weights: Sequence[Array], activation: Activation, batch: int, seed: int) -> dict[str, Array]:
    """Returns each layer's Var[y] for normal inputs, and Var[Δx] for a normal gradient at the end."""
    generator = np.random.default_rng(seed)
    x = generator.standard_normal((batch, weights[0].shape[1]), np.float32)
    gradient = generator.standard_normal((batch, weights[-1].shape[0]), np.float32)
    _, outputs = forward(weights, x, activation)
    gradients, _ = backward(weights, outputs, gradient, activation)
    return {
        "activations": np.array([y.var(dtype=np.float64) for y in outputs]),
        "gradients": np.array([g.var(dtype=np.float64) for g in gradients]),
    }


def predicted(gain: float, activation: Activation, depth: int) -> dict[str, Array]:
    """Predicts the variances in the limit of wide layers.

    For ReLU these are He et al.'s equations (9) and (13). In general, the mean of f² over a normal variable gives
    Var[y] from that of the previous layer (Poole et al. 2016), and the mean of f'² gives Var[Δx] (Schoenholz et al.
    2017).

    Args:
        gain: n·Var[w].
        activation: The activation f.
        depth: The number of layers.
    """
    z = np.linspace(-_FAR, _FAR, 24000)  # symmetric, and not at 0, where ReLU has no slope
    weight = stats.norm.pdf(z) * (z[1] - z[0])
    forwards, slopes = [gain], []
    for _ in range(depth - 1):
        y = math.sqrt(forwards[-1]) * z
        values, slope = (np.maximum(y, 0), y > 0) if activation == "relu" else (np.tanh(y), 1 - np.tanh(y) ** 2)
        forwards.append(gain * float(np.dot(weight, values**2)))
        slopes.append(gain * float(np.dot(weight, slope**2.0)))
    return {"activations": np.array(forwards), "gradients": gain * np.cumprod([1.0, *slopes[::-1]])[::-1]}


@dataclass(frozen=True)
class Curves:
    """Measured variances by layer, with one row per network.

    Attributes:
        activation: The activation of the networks.
        scheme: A key of SCHEMES.
        quantity: One of QUANTITIES.
        predicted: The limit of wide layers, for each layer.
        measured: The variances by source, with shape (networks, layers).
    """

    activation: Activation
    scheme: str
    quantity: str
    predicted: Array
    measured: dict[Source, Array]

    @property
    def end(self) -> int:
        """The layer farthest from the start of the signal or of the gradient."""
        return -1 if self.quantity == "activations" else 0

    def logs(self, source: Source) -> Array:
        """The logarithms to base 10 at that layer, for each network."""
        ends: Array = np.log10(self.measured[source][:, self.end])
        return ends


def measure(networks: int, depth: int, width: int, batch: int, target: str) -> list[Curves]:
    """Measures all combinations of activation, scheme and source."""
    found = []
    with seedbed.connect(target) as client:
        for activation in ACTIVATIONS:
            for scheme in SCHEMES:
                rows: dict[Source, list[dict[str, Array]]] = {source: [] for source in SOURCES}
                for source in SOURCES:
                    for seed in range(networks):
                        names = [f"{activation}.{scheme}.layers.{layer}.weight" for layer in range(depth)]
                        weights = [draw(source, client, scheme, (width, width), seed, name) for name in names]
                        rows[source].append(variances(weights, activation, batch, seed))
                limit = predicted(GAINS[scheme], activation, depth)
                for quantity in QUANTITIES:
                    measured = {source: np.array([row[quantity] for row in rows[source]]) for source in SOURCES}
                    found.append(Curves(activation, scheme, quantity, limit[quantity], measured))
    return found


def table(found: Sequence[Curves]) -> str:
    """The variances at the far end, geometric means, and Welch's t-test of their logarithms, Seedbed against torch."""
    lines = ["| network | Var[y] of the last layer, Var[Δx] of the first | predicted | Seedbed | torch | p |"]
    lines.append("| --- | --- | ---: | ---: | ---: | ---: |")
    for curves in found:
        ours, theirs = curves.logs("seedbed"), curves.logs("torch")
        p = stats.ttest_ind(ours, theirs, equal_var=False).pvalue
        cells = [f"{curves.predicted[curves.end]:.3g}", f"{10 ** ours.mean():.3g}", f"{10 ** theirs.mean():.3g}"]
        network = f"{curves.activation}, {curves.scheme}"
        lines.append(f"| {network} | {curves.quantity} | {' | '.join(cells)} | {p:.2f} |")
    return "\n".join(lines)


def plot(found: Sequence[Curves], path: Path) -> None:
    """Draws a panel for each activation and quantity: both schemes, both sources, and the prediction."""
    import matplotlib as mpl  # noqa: PLC0415 - an extra
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(9, 6.4), layout="constrained", facecolor="white")
    panels = figure.subplots(2, 2, sharex=True)
    rows = {"relu": 0, "tanh": 1}
    for curves in found:
        axes = panels[rows[curves.activation], QUANTITIES.index(curves.quantity)]
        layers = np.arange(1, len(curves.predicted) + 1)
        color = _ORANGE if curves.scheme == "Xavier" else _BLUE
        ours, theirs = (np.exp(np.log(curves.measured[source]).mean(axis=0)) for source in SOURCES)
        low, high = curves.measured["seedbed"].min(axis=0), curves.measured["seedbed"].max(axis=0)
        axes.fill_between(layers, low, high, color=color, alpha=0.15, linewidth=0)
        axes.plot(layers, curves.predicted, color=_GREY, linewidth=0.9)
        axes.plot(layers, ours, color=color, linewidth=1.8, label=f"{curves.scheme}, Seedbed")
        axes.plot(
            layers, theirs, "o", color=color, markersize=4, markerfacecolor="white", label=f"{curves.scheme}, torch"
        )
        axes.set_yscale("log")
        what = "Var[y], forward" if curves.quantity == "activations" else "Var[Δx], backward from the last layer"
        axes.set_title(f"{'ReLU' if curves.activation == 'relu' else 'tanh'}: {what}", loc="left", fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#e6e9ec", linewidth=0.8)
    for axes in panels[1]:
        axes.set_xlabel("layer")
    panels[0, 0].plot([], [], color=_GREY, linewidth=0.9, label="prediction, wide layers")
    panels[0, 0].legend(frameon=False, fontsize=9, loc="lower left")
    path.parent.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context({"svg.hashsalt": "seedbed"}):  # the same figures give the same file
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


@click.command()
@click.option("--networks", type=click.IntRange(min=2), default=20, show_default=True, help="Of each kind.")
@click.option("--depth", type=click.IntRange(min=2), default=30, show_default=True, help="Layers.")
@click.option("--width", type=click.IntRange(min=1), default=512, show_default=True, help="Units of a layer.")
@click.option("--batch", type=click.IntRange(min=2), default=256, show_default=True, help="Inputs.")
@click.option("--target", default="local:", show_default=True, help="The server.")
@click.option(
    "--picture", type=click.Path(path_type=Path), default=Path("out/evidence/variances.svg"), show_default=True
)
def main(*, networks: int, depth: int, width: int, batch: int, target: str, picture: Path) -> None:
    """Measure the variance of activations and gradients through deep networks, under Xavier and Kaiming."""
    found = measure(networks, depth, width, batch, target)
    plot(found, picture)
    click.echo(f"{networks} networks of each kind, {depth} layers of {width} units, {batch} inputs; {picture}\n")
    click.echo(table(found))


if __name__ == "__main__":
    main()
