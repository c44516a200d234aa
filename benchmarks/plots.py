"""The plots, drawn from the report alone. Figures that were not measured are skipped."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from benchmarks.measuring import Figures, Row

OURS, OURS_TOO, OURS_THREE = "#1d5fa6", "#6fa3d8", "#b9d3ee"
PEER, PEER_TOO, PEER_THREE, CEILING = "#d9730d", "#f0b070", "#8a8f98", "#1f2933"
TEXT, QUIET, GRID = "#1f2933", "#66717d", "#e6e9ec"

COLORS = {
    "seedbed numba": OURS,
    "seedbed numba, 2 threads": OURS_TOO,
    "seedbed numpy": OURS_THREE,
    "seedbed TCP": OURS,
    "seedbed Unix": OURS_TOO,
    "seedbed local:": OURS_THREE,
    "torch": PEER,
    "torch, no server": PEER,
    "NumPy": PEER_TOO,
    "tutorial TCP": PEER_TOO,
    "JAX": PEER_THREE,
    "Flight + NumPy TCP": PEER_THREE,
    "memset": CEILING,
    "ceiling TCP": CEILING,
    "seedbed server": OURS,
    "ceiling server": CEILING,
    "client": PEER_TOO,
}
CEILING_NAME = "ceiling TCP"
LABELS = {CEILING_NAME: "ceiling: gRPC alone", "ceiling server": "ceiling's server"}
STYLE = {
    "font.size": 9,
    "text.color": TEXT,
    "axes.labelcolor": QUIET,
    "axes.edgecolor": QUIET,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "grid.color": GRID,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "legend.frameon": False,
    "svg.hashsalt": "seedbed",  # the same figures give the same file
}


def draw(figures: Figures, folder: Path, suffix: str = "svg") -> list[Path]:
    """Draws all plots that have figures, and returns their paths."""
    paths = []
    with mpl.rc_context(STYLE):
        for name, (table, plot) in PLOTS.items():
            if figures.of(table):
                figure = Figure(layout="constrained", facecolor="white")
                plot(figures, figure)
                paths.append(folder / f"{name}.{suffix}")
                figure.savefig(paths[-1], dpi=150, metadata={"Date": None} if suffix == "svg" else None)
    return paths


def _engine(figures: Figures, figure: Figure) -> None:
    rows = figures.of("laws")
    laws = _unique(row.case.split()[0] for row in rows)
    figure.set_size_inches(11, 9)
    figure.suptitle("Sampling into memory: million elements a second", x=0.01, ha="left", weight="bold")
    for axes, law in zip(figure.subplots(2, 2).flat, laws, strict=True):
        here = [row for row in rows if row.case.split()[0] == law]
        shown = [row for row in here if row.name in COLORS and (row.name != "memset" or law == "constant")]
        memset = {row.case: row.median for row in here if row.name == "memset"}
        labels = {
            case: case.split()[1] if law == "constant" else f"{case.split()[1]}\n(memset\n{memset[case]:,.0f})"
            for case in memset
        }
        _grouped_bars(axes, shown, labels)
        axes.set_title(law)
        axes.set_xlabel("million a second")
        axes.xaxis.set_major_formatter("{x:,.0f}")
    _shared_legend(figure)


def _grouped_bars(axes: Axes, rows: list[Row], labels: dict[str, str]) -> None:
    """Draws horizontal bars with their figures, grouped by case, from the top."""
    names = _unique(row.name for row in rows)
    position, ticks = 0.0, []
    for case in labels:
        here = [row for name in names for row in rows if row.case == case and row.name == name]
        ticks.append(position + (len(here) - 1) / 2)
        for row in here:
            axes.barh(position, row.median, 0.86, color=COLORS[row.name], label=row.name)
            axes.annotate(
                _short(row.median), (row.median, position), (3, 0), textcoords="offset points", va="center", fontsize=7
            )
            position += 1
        position += 0.9
    axes.set_yticks(ticks, labels.values(), color=TEXT)
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    axes.margins(x=0.12, y=0.02)
    axes.grid(axis="x")


def _transport(figures: Figures, figure: Figure) -> None:
    rows = figures.of("transport")
    dtypes = _unique(row.case.split()[1] for row in rows)
    figure.set_size_inches(11, 7.5)
    figure.suptitle("Into the caller's array over loopback: GB/s", x=0.01, ha="left", weight="bold")
    for axes, dtype in zip(figure.subplots(len(dtypes), 1, squeeze=False).flat, dtypes, strict=True):
        here = [row for row in rows if row.case.split()[1] == dtype]
        _columns_under_ceiling(axes, here)
        axes.set_title(dtype)
        axes.set_ylabel("GB/s")
    _shared_legend(figure)


def _columns_under_ceiling(axes: Axes, rows: list[Row]) -> None:
    """Draws columns grouped by case, with the ceiling as a line over each group."""
    position, ticks = 0.0, {}
    # torch's constants need neither sampling nor a server; on their scale, the other columns would look flat.
    top = 1.18 * max(row.median for row in rows if row.name != "torch, no server" or "constant" not in row.case)
    for case in _unique(row.case for row in rows):
        group = [row for row in rows if row.case == case and row.name in COLORS]
        columns = [row for row in group if row.name != CEILING_NAME]
        ends = position - 0.5, position + len(columns) - 0.5
        ticks[case.split()[0]] = sum(ends) / 2
        for row in group:
            if row.name == CEILING_NAME:
                axes.hlines(row.median, *ends, color=CEILING, linestyle=(0, (4, 2)), label=LABELS[row.name])
        for number, row in enumerate(columns, int(position)):
            axes.bar(number, min(row.median, top), 0.86, color=COLORS[row.name], label=row.name)
            text = f"{row.median:.2f}" if row.median < top else f"↑ {row.median:.0f}"
            axes.annotate(
                text, (number, min(row.median, 0.955 * top)), (0, 2), textcoords="offset points", ha="center",
                fontsize=7, bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.6},
            )  # fmt: skip
        position += len(columns) + 1
    axes.set_ylim(0, top)
    axes.margins(x=0.01)
    axes.set_xticks(list(ticks.values()), ticks, color=TEXT)
    axes.tick_params(axis="x", length=0)
    axes.grid(axis="y")


def _chunk_sizes(figures: Figures, figure: Figure) -> None:
    rows = figures.of("chunk sizes")
    axes = _single(figure, "Chunk size: normal float32 into the caller's array over TCP")
    _lines(axes, rows)
    axes.set_xscale("log", base=2)
    _ticks(axes, rows, lambda kib: f"{kib:.0f} KiB" if kib < 1024 else f"{kib / 1024:.0f} MiB")
    axes.set(xlabel="payload of a chunk", ylabel="GB/s")
    axes.set_ylim(bottom=0)
    axes.legend()


def _elements(figures: Figures, figure: Figure) -> None:
    rows = figures.of("elements")
    axes = _single(figure, "Time against size: normal float32, one tensor over TCP")
    _lines(axes, rows)
    ours = sorted((row for row in rows if row.name == "seedbed TCP"), key=lambda row: row.x)
    if ours:
        least, most = ours[0], ours[-1]
        xs = [10 ** (step / 10) for step in range(30, 91) if 10 ** (step / 10) <= most.x * 1.01]
        line = [least.median + most.median * x / most.x for x in xs]
        text = f"{least.median * 1e3:.2g} ms + {most.median / most.x * 1e9:.2g} ns an element"
        axes.plot(xs, line, color=OURS_TOO, linestyle=(0, (1, 1.5)), linewidth=1.3, label=text)
    axes.set(xscale="log", yscale="log", xlabel="elements", ylabel="seconds")
    axes.legend()


def _streams(figures: Figures, figure: Figure) -> None:
    figure.set_size_inches(11, 4.6)
    figure.suptitle("Streams at once: normal float32 over TCP", x=0.01, ha="left", weight="bold")
    total, fairness = figure.subplots(1, 2)
    for axes, table in ((total, "streams"), (fairness, "fairness")):
        rows = figures.of(table)
        _lines(axes, rows)
        axes.set_xscale("log", base=2)
        _ticks(axes, rows, lambda count: f"{count:.0f}")
        axes.set_xlabel("streams")
        axes.set_ylim(bottom=0)
    _shared_legend(figure)
    total.set(title="all streams together", ylabel="GB/s")
    fairness.set(title="the slowest stream's bytes / the fastest's", ylabel="1 = all get the same")
    fairness.set_ylim(0, 1.03)


def _memory(figures: Figures, figure: Figure) -> None:
    stages = _unique(series["stage"] for series in figures.series)
    figure.set_size_inches(11, 2.9 * len(stages))
    figure.suptitle("Resident memory above idle", x=0.01, ha="left", weight="bold")
    for axes, stage in zip(figure.subplots(len(stages), 1, squeeze=False).flat, stages, strict=True):
        here = [series for series in figures.series if series["stage"] == stage]
        for series in here:
            above = [mib - min(series["mib"]) for mib in series["mib"]]
            name = series["process"]
            axes.plot(series["seconds"], above, color=COLORS[name], label=LABELS.get(name, name), linewidth=1.4)
        if stage != "elements":
            _marks(axes, here[0]["marks"])
        axes.set(title=TITLES.get(stage, stage), xlabel="seconds", ylabel="MiB")
        axes.margins(x=0.01)
        axes.set_ylim(top=1.1 * axes.get_ylim()[1])
        axes.grid(axis="y")
    _shared_legend(figure)


def _marks(axes: Axes, marks: list[tuple[float, str]]) -> None:
    """Marks the start of each step along the top, in the colour of the server."""
    for second, text in marks:
        name, what = text.split(", ")
        axes.axvline(second, color=GRID, linewidth=0.8, zorder=0)
        axes.annotate(
            what.removesuffix("s").removesuffix(" stream"), (second, 1), (2, -2), va="top", fontsize=7,
            xycoords=("data", "axes fraction"), textcoords="offset points", color=COLORS[name],
        )  # fmt: skip


TITLES = {
    "elements": "one tensor after the other, from 1,000 elements, each ten times as large",
    "streams": "streams at once (their number at the top), blue for ours and black for the ceiling's",
    "one tensor": "one huge tensor, dropped chunk by chunk",
}


def _shared_legend(figure: Figure) -> None:
    """Draws one legend below all panels."""
    found = {}
    for axes in figure.axes:
        handles, labels = axes.get_legend_handles_labels()
        found |= dict(zip(labels, handles, strict=True))
    if found:
        figure.legend(found.values(), found, loc="outside lower center", ncols=len(found))


def _single(figure: Figure, title: str) -> Axes:
    figure.set_size_inches(8, 4.8)
    axes = figure.subplots()
    axes.set_title(title)
    return axes


def _lines(axes: Axes, rows: list[Row]) -> None:
    """Draws a line for each competitor, with the span from the lowest to the highest turn."""
    for name in _unique(row.name for row in rows):
        here = sorted((row for row in rows if row.name == name), key=lambda row: row.x)
        xs, medians = [row.x for row in here], [statistics.median(row.runs) for row in here]
        axes.fill_between(
            xs, [min(row.runs) for row in here], [max(row.runs) for row in here], color=COLORS[name], alpha=0.13,
            linewidth=0,
        )  # fmt: skip
        axes.plot(xs, medians, "o-", color=COLORS[name], label=LABELS.get(name, name), markersize=4, linewidth=1.6)
    axes.grid()


def _ticks(axes: Axes, rows: list[Row], text: Callable[[float], str]) -> None:
    axes.set_xticks(_unique(row.x for row in rows))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: text(x)))
    axes.xaxis.set_minor_locator(NullLocator())


def _unique(items: Iterable) -> list:
    return list(dict.fromkeys(items))


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


PLOTS: dict[str, tuple[str, Callable[[Figures, Figure], None]]] = {
    "engine": ("laws", _engine),
    "transport": ("transport", _transport),
    "chunk-sizes": ("chunk sizes", _chunk_sizes),
    "elements": ("elements", _elements),
    "streams": ("streams", _streams),
    "memory": ("memory above idle", _memory),
}
"""The table that each plot needs, and the function that draws it."""
