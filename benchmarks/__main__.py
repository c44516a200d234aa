"""Runs the benchmarks, prints their tables, and writes benchmarks.json and its plots.

Each part can run alone; the file keeps its results of the other parts.
"""

from __future__ import annotations

import dataclasses
import datetime
import importlib
import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from benchmarks import aims, plots
from benchmarks.measuring import QUICK, TINY, Figures, Row, Sizes, machine, percentile, to_text

PARTS = ("engine", "transport", "latency", "scale", "training", "operation")
PERCENTILE_RUNS = 100  # with at least so many runs, the 99th percentile is shown, too


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("parts", nargs=-1, type=click.Choice([*PARTS, "plots"]))
@click.option("--quick", "sizes", flag_value=QUICK, type=click.UNPROCESSED, help="Small sizes, about a minute.")
@click.option("--tiny", "sizes", flag_value=TINY, type=click.UNPROCESSED, help="The smallest sizes, for the tests.")
@click.option("--set", "changes", multiple=True, metavar="SIZE=VALUE", help="Change a size, such as memory_gib=2.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("out"), show_default=True, help="Output folder.")
def main(*, parts: tuple[str, ...], sizes: Sizes | None, changes: tuple[str, ...], out: Path) -> None:
    """Measure PARTS (by default all), and write benchmarks.json and its plots; "plots" only draws them again."""
    sizes = _changed(sizes or Sizes(), changes)
    # Without a terminal, use a width that fits the tables.
    console = Console() if Console().is_terminal else Console(width=160)
    out.mkdir(parents=True, exist_ok=True)
    path = out / "benchmarks.json"
    report = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    report = {"machine": machine(), "parts": report.get("parts", {}), "aims": []}
    for name in PARTS:
        if name in parts or not parts:
            report["parts"][name] = _measure(name, sizes, console)
            _write(report, path)
    figures = Figures(report)
    console.print(_aims_table(report["aims"] or aims.judged(figures)))
    console.print("written:", *[str(path), *map(str, plots.draw(figures, out))], sep="\n  ")


def _changed(sizes: Sizes, changes: Iterable[str]) -> Sizes:
    values = {}
    for change in changes:
        name, _, text = change.partition("=")
        if name not in vars(sizes):
            raise click.BadParameter(f"no size {name!r}; use one of {', '.join(vars(sizes))}")
        values[name] = type(getattr(sizes, name))(text)
    return dataclasses.replace(sizes, **values)


def _measure(name: str, sizes: Sizes, console: Console) -> dict[str, Any]:
    begin = time.perf_counter()
    with console.status(f"{name} …") as status:
        part = importlib.import_module(f"benchmarks.{name}").measure(
            sizes, lambda text: status.update(f"{name}: {text} …")
        )
    seconds = time.perf_counter() - begin
    console.rule(f"{name}, {seconds:.0f} s")
    for table in _tables(part.rows):
        console.print(table)
    for note in part.notes:
        console.print(f"- {note}", style="dim")
    return {
        "measured": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 1),
        "sizes": vars(sizes),
        **part.as_json(),
    }


def _write(report: dict[str, Any], path: Path) -> None:
    report["aims"] = aims.judged(Figures(report))
    path.write_text(to_text(report), encoding="utf-8")


def _tables(rows: list[Row]) -> Iterable[Table]:
    """Yields the tables of the rows, with a line for each case and a column for each competitor."""
    for title in dict.fromkeys(row.table for row in rows):
        here = [row for row in rows if row.table == title]
        names = list(dict.fromkeys(row.name for row in here))
        table = Table(title=f"{title} ({here[0].unit})", title_justify="left", title_style="bold")
        table.add_column("")
        for name in names:
            table.add_column(name, justify="right")
        for case in dict.fromkeys(row.case for row in here):
            found = {row.name: row for row in here if row.case == case}
            table.add_row(case, *(_cell(found.get(name)) for name in names))
        yield table


def _cell(row: Row | None) -> str:
    if row is None:
        return ""
    if len(row.runs) < PERCENTILE_RUNS:
        return _number(row.median)
    return f"{_number(row.median)} (p99 {_number(percentile(row.runs, 0.99))})"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _aims_table(judged: list[dict[str, Any]]) -> Table:
    table = Table("aim", "", "measured", "reached", title="aims", title_justify="left", title_style="bold")
    for aim in judged:
        reached = {True: "[green]yes", False: "[red]no", None: "[dim]not measured"}[aim["reached"]]
        measured = "" if aim["measured"] is None else f"{aim['measured']:g}"
        table.add_row(aim["what"], aim["aim"], measured, reached)
    return table


if __name__ == "__main__":
    main()
