"""Runs the benchmarks, prints their table, and writes out/benchmarks.json."""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import engine
from benchmarks.measuring import machine, report


def main() -> None:
    console = Console()
    console.print("one core each, medians of interleaved runs:", machine())
    rows = engine.measure()
    table = Table("law", "", "million a second", "times torch")
    for row in rows:
        table.add_row(row.group, row.name, f"{row.million_per_second:.0f}", f"{row.ratio_to_peer:.2f}")
    console.print(table)
    out = Path("out/benchmarks.json")
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(report(rows), indent=1) + "\n", encoding="utf-8")
    console.print(f"written: {out}")


if __name__ == "__main__":
    main()
