"""Makes the tables of docs/evidence.md from the results, so that no figure is written by hand."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from evidence.report import Result, to_text
from evidence.words import SOURCES

Results = dict[str, Result]

PARTS = ("bits", "laws", "peers")
_AGAIN = " --set seed=2"
PUBLISHED = Path(__file__).parent / "published"
DOCUMENT = Path(__file__).parent.parent / "docs" / "evidence.md"

_BLOCK = re.compile(r"(<!-- table: (?P<name>[a-z0-9-]+) -->\n)(?P<text>.*?)(<!-- end of table -->)", re.DOTALL)


def publish(out: Path) -> list[str]:
    """Copies the results of a folder into the published ones, key by key, and returns the keys."""
    PUBLISHED.mkdir(exist_ok=True)
    taken = []
    for part in PARTS:
        new = _read(out / f"{part}.json")
        if not new:
            continue
        merged = _read(PUBLISHED / f"{part}.json") | new
        (PUBLISHED / f"{part}.json").write_text(to_text(dict(sorted(merged.items()))), encoding="utf-8")
        taken += [f"{part}: {key}" for key in new]
    return taken


def published() -> dict[str, Results]:
    """The published results of each part."""
    return {part: _read(PUBLISHED / f"{part}.json") for part in PARTS}


def _read(path: Path) -> Results:
    if not path.exists():
        return {}
    results: Results = json.loads(path.read_text(encoding="utf-8"))
    return results


def filled(text: str, results: dict[str, Results]) -> str:
    """Returns the document with new tables. Text outside of their marks stays.

    Raises:
        ValueError: The document names an unknown table.

    >>> filled("Hello.", {})
    'Hello.'
    """

    def fill(match: re.Match[str]) -> str:
        name = match["name"]
        if name not in TABLES:
            raise ValueError(f"no table {name!r}; use one of {', '.join(TABLES)}")
        return f"{match[1]}\n{TABLES[name](results)}\n\n{match[4]}"

    return _BLOCK.sub(fill, text)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """A table in Markdown; the first ``left`` columns hold text, the others numbers."""
    marks = ["---"] * left + ["---:"] * (len(header) - left)
    lines = [header, marks, *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _made(results: Iterable[Result]) -> str:
    """The commands, the dates and the machines."""
    results = list(results)
    if not results:
        return "*Not measured yet.*"
    dates = sorted({result["date"] for result in results})
    machines = sorted({f"{result['machine']['cores']} cores of {result['machine']['cpu']}" for result in results})
    seconds = sum(result["seconds"] for result in results)
    when = " to ".join(dates[:: max(1, len(dates) - 1)])
    return f"{_commands(result['command'] for result in results)}; {when}; {', '.join(machines)}; {seconds:,.0f} s."


def _commands(commands: Iterable[str]) -> str:
    """The commands; those that differ in one name only are merged.

    >>> _commands(["python -m evidence laws a", "python -m evidence laws b", "python -m evidence laws a --set seed=2"])
    '`python -m evidence laws a b`, `python -m evidence laws a --set seed=2`'
    """
    names: dict[tuple[str, str], list[str]] = {}
    for command in commands:
        words = command.split(" ")
        names.setdefault((" ".join(words[:4]), " ".join(["", *words[5:]])), []).extend(words[4:5])
    return ", ".join(f"`{' '.join([begin, *found])}{end}`" for (begin, end), found in names.items())


def _count(n: float) -> str:
    """Formats a count, such as 2^24, 10^9 or 1,234.

    >>> _count(1 << 24), _count(10**9), _count(1234)
    ('2^24', '10^9', '1,234')
    """
    n = int(n)
    for base in (10, 2):
        exponent = round(math.log(n, base)) if n else 0
        if exponent >= 6 and base**exponent == n:
            return f"{base}^{exponent}"
    return f"{n:,}"


def _small(x: float) -> str:
    """Formats a number with three digits.

    >>> _small(0.49999997), _small(0), _small(1.5e-9), _small(3.9529)
    ('0.5000', '0', '1.5e-09', '3.95')
    """
    if x == 0:
        return "0"
    if abs(x) >= 100:
        return f"{x:,.0f}"
    if abs(x) >= 1:
        return f"{x:.2f}"
    return f"{x:.4f}" if abs(x) >= 1e-3 else f"{x:.1e}"


def _p(p: float) -> str:
    """Formats a p-value.

    >>> _p(0.25), _p(1e-50), _p(0.0), _p(0.0002)
    ('0.25', '**1e-50**', '**< 1e-300**', '0.0002')
    """
    if p < 1e-300:
        return "**< 1e-300**"
    text = f"{p:.2g}"
    return f"**{text}**" if p < 1e-6 else text


# The bits.


def _bits(results: dict[str, Results], *, good: bool) -> str:
    order = list(SOURCES)
    found = [result for result in results["bits"].values() if result["is_good"] == good]
    batteries = ("smallcrush", "crush", "bigcrush", "practrand")
    found.sort(key=lambda result: (batteries.index(result["battery"]), order.index(result["source"])))
    rows = [
        [
            f"{result['source']}: {result['what']}",
            result["battery"],
            str(result["statistics"]),
            f"{result['bytes'] / 2**30:,.1f}",
            f"{result['seconds']:,.0f}",
            str(len(result["failures"])),
            "; ".join(map(_suspect, result["suspect"])) or "none" if good else "–",
        ]
        for result in found
    ]
    header = ["words", "battery", "statistics", "GiB", "s", "failures", "suspect"]
    return _made(found) + "\n\n" + _table(header, rows, left=2)


def _suspect(test: Result) -> str:
    """A statistic and its p-value, which PractRand gives as text, with a verdict.

    >>> _suspect({"name": "Run", "p": 0.99951}), _suspect({"name": "Gap", "p": "1.3e-3", "verdict": "unusual"})
    ('Run 1 − 0.00049', 'Gap 1.3e-3 (unusual)')
    """
    if isinstance(test["p"], str):
        return f"{test['name']} {test['p']} ({test['verdict']})"
    return f"{test['name']} {test['p']:.2g}" if test["p"] < 0.5 else f"{test['name']} 1 − {1 - test['p']:.2g}"


# The laws.


def _rows(results: dict[str, Results], *parts: str) -> list[Result]:
    """The rows of these parts; those of a second run show its seed in their law."""
    rows = []
    for part in parts:
        if part in results["laws"]:
            mark = ", seed 2" if part.endswith(_AGAIN) else ""
            rows += [{**row, "mark": mark} for row in results["laws"][part]["rows"]]
    return rows


def _of(results: dict[str, Results], *parts: str) -> str:
    return _made(results["laws"][part] for part in parts if part in results["laws"])


def _references(results: dict[str, Results]) -> str:
    rows = [
        [row["reference"], row["dtype"], _count(row["inputs"]), _small(row["largest_error_ulp"])]
        for row in _rows(results, "references")
    ]
    return (
        _of(results, "references")
        + "\n\n"
        + _table(["reference of", "judges", "inputs", "largest error, ulp of that type"], rows, left=2)
    )


def _accuracy(results: dict[str, Results]) -> str:
    parts = ("functions", "uniforms", "normals")
    rows = [
        [
            row["law"],
            row["dtype"],
            _count(row["inputs"]),
            _small(row["largest_ulp"]),
            f"{_small(row['largest_ulp_by_mpmath'])} ({row['rechecked']})",
            row["note"],
        ]
        for row in _rows(results, *parts)
    ]
    header = ["function or law", "type", "values", "largest error, ulp", "by mpmath (cases)", "also seen"]
    return _of(results, *parts) + "\n\n" + _table(header, rows, left=2)


def _truncated(results: dict[str, Results]) -> str:
    rows = [
        [
            row["law"].removeprefix("trunc_normal, "),
            row["dtype"],
            _count(row["inputs"]),
            _small(row["largest_ulp"]),
            f"{_small(row['largest_ulp_by_mpmath'])} ({row['rechecked']})",
            _small(row["largest_in_std"]),
            row["note"],
        ]
        for row in _rows(results, "truncated")
    ]
    header = ["bounds", "type", "values", "largest error, ulp", "by mpmath (cases)", "largest error, std", "also seen"]
    return _of(results, "truncated") + "\n\n" + _table(header, rows, left=2)


def _quantile(results: dict[str, Results]) -> str:
    rows = [
        [
            f"[{row['bounds'][0]:g}, {row['bounds'][1]:g}]",
            row["of"],
            _count(row["words"]),
            row["dtype"],
            f"{row['falls']:,}",
            _small(row["largest_fall_ulp"]),
            "–" if row["asymmetries"] is None else str(row["asymmetries"]),
        ]
        for row in _rows(results, "quantile")
    ]
    header = ["bounds", "draws of", "draws", "type", "falls", "the largest, ulp", "asymmetric"]
    return _of(results, "quantile") + "\n\n" + _table(header, rows, left=2)


def _rounding(results: dict[str, Results]) -> str:
    rows = [[row["dtype"], _count(row["patterns"]), str(row["not_nearest"])] for row in _rows(results, "rounding")]
    return (
        _of(results, "rounding")
        + "\n\n"
        + _table(["to", "bit patterns of float32", "not rounded to nearest even"], rows)
    )


def _schemes(results: dict[str, Results]) -> str:
    rows = [[row["scheme"], f"{row['tensors']:,}", _small(row["largest_ulp"])] for row in _rows(results, "schemes")]
    return (
        _of(results, "schemes") + "\n\n" + _table(["scheme", "shapes", "largest error of its std or bound, ulp"], rows)
    )


def _elementary(results: dict[str, Results]) -> str:
    rows = [
        [
            row["function"],
            _count(row["inputs"]),
            f"{row['largest_ulp']:.3f}",
            ", ".join(f"`{x}`" for x in row["at"]),
            f"{row['claimed_ulp']:g}",
            f"{100 * row['not_nearest']:.2g} %",
        ]
        for row in _rows(results, "elementary")
    ]
    header = ["function", "inputs", "largest error, ulp", "at", "claimed maximum, ulp", "not the nearest"]
    return _of(results, "elementary") + "\n\n" + _table(header, rows)


def _distributions(results: dict[str, Results]) -> str:
    parts = ("distributions", "distributions" + _AGAIN, "built")
    rows = [
        [
            row["law"] + row["mark"],
            _count(row["elements"]),
            " ".join(f"{score:+.1f}" for score in row["moment_scores"]),
            f"{row['anderson_darling']:.2f}",
            _p(row["anderson_darling_p"]),
            _p(row["chi2_p"]),
        ]
        for row in _rows(results, *parts)
    ]
    header = ["law", "elements", "moments 1 to 6, in standard errors", "A²", "its p", "p of χ²"]
    return _of(results, *parts) + "\n\n" + _table(header, rows)


def _tails(results: dict[str, Results]) -> str:
    rows = [
        [row["law"] + row["mark"], str(tail["sigmas"]), f"{tail['count']:,}", f"{tail['expected']:,.1f}", _p(tail["p"])]
        for row in _rows(results, "distributions", "distributions" + _AGAIN)
        for tail in row.get("beyond", [])
    ]
    return _table(["law", "beyond, std", "elements", "expected", "p"], rows)


def _complex(results: dict[str, Results]) -> str:
    rows = [
        [
            row["law"],
            _count(row["elements"]),
            _p(row["modulus_p"]),
            _p(row["angle_p"]),
            _p(row["both_p"]),
            f"{row['largest_modulus']:.7f}",
        ]
        for row in _rows(results, "complex")
    ]
    header = ["law", "elements", "p of the moduli", "p of the angles", "p of both, χ²", "largest modulus"]
    return _of(results, "complex") + "\n\n" + _table(header, rows)


def _halves(results: dict[str, Results]) -> str:
    rows = [
        [
            row["law"],
            _count(row["elements"]),
            f"{row['values']:,}",
            f"{row['chi2_cells']:,}",
            _p(row["chi2_p"]),
            _p(row["chi2_p_of_real_line"]) if "chi2_p_of_real_line" in row else "the same",
            str(row["impossible"]),
        ]
        for row in _rows(results, "halves")
    ]
    header = ["law", "elements", "values seen", "cells", "p of χ²", "p against the real line", "impossible"]
    return _of(results, "halves") + "\n\n" + _table(header, rows)


def _others(results: dict[str, Results]) -> str:
    parts = ("orthogonal", "orthogonal" + _AGAIN)
    lines = [_sparse_line(row) for row in _rows(results, "sparse")]
    of_orthogonal = _rows(results, *parts)
    lines += [_orthogonal_line(row) for row in of_orthogonal if not row["mark"] or "trace_scores" in row]
    return "\n".join([_of(results, "sparse", *parts), "", *lines])


def _sparse_line(row: Result) -> str:
    rows, columns = row["shape"]
    wrong, off = row["columns_with_another_number_of_zeros"], row["largest_pair_score"]
    return (
        f"* sparse, {rows} × {columns:,} with 6 zeros per column: {wrong} columns have another number; "
        f"zeros by row, χ² p = {_p(row['rows_chi2_p'])}; of the {row['pairs']} pairs of rows, the one farthest from "
        f"its expected count of common zeros is {off:.1f} standard errors off; "
        f"the normals elsewhere, Kolmogorov and Smirnov's p = {_p(row['normals_ks_p'])}."
    )


def _orthogonal_line(row: Result) -> str:
    shape, defect = " × ".join(map(str, row["shape"])), f"QᵀQ is within {row['largest_defect']:.1e} of the identity"
    if "trace_scores" not in row:
        return f"* orthogonal, {shape}, {row['dtype']}: {defect}."
    scores = " ".join(f"{score:+.1f}" for score in row["trace_scores"])
    return (
        f"* orthogonal, {row['matrices']:,} of {shape}{row['mark']}: {defect}; of the {row['elements']} elements, "
        f"the smallest p against Haar's Beta law is {_p(row['smallest_p_of_elements'])}, of their signs "
        f"{_p(row['smallest_p_of_signs'])}; moments 1 to 4 of the trace, in standard errors: {scores}; as many "
        f"rotations as reflections, p = {_p(row['determinant_p'])}."
    )


# The peers.


def _peers(results: dict[str, Results]) -> str:
    if "peers" not in results["peers"]:
        return _made([])
    result = results["peers"]["peers"]
    rows, last = [], ""
    for row in result["rows"]:
        rows.append([row["case"] if row["case"] != last else "", row["peer"], *_peer_cells(row)])
        last = row["case"]
    packages = result["machine"]["packages"]
    versions = ", ".join(f"{name} {packages[name]}" for name in ("torch", "jax", "numpy", "scipy") if name in packages)
    header = [
        "case",
        "by",
        "outside",
        "at the bounds (expected)",
        "distinct",
        "error of std",
        "largest, std",
        "p of χ²",
    ]
    return f"{_made([result])} {_count(result['elements'])} elements each; {versions}.\n\n" + _table(
        header, rows, left=2
    )


def _peer_cells(row: Result) -> list[str]:
    if "error" in row:
        return [f"*{row['error']}*", "", "", "", "", ""]
    at = "–"
    if "at_bounds" in row:
        counts, means = row["at_bounds"], row["at_bounds_expected"]
        at = f"{', '.join(f'{count:,}' for count in counts)} ({', '.join(map(_near, means))})"
        if any(abs(count - mean) > 5 * math.sqrt(mean) + 5 for count, mean in zip(counts, means, strict=True)):
            at = f"**{at}**"
    error = row["std_error"]
    std = "–" if error is None else f"{100 * error:+.2f} %"
    if error is not None and abs(error) > 5 * row["std_error_by_chance"]:
        std = f"**{std}**"
    outside = f"**{row['outside']:,}**" if row["outside"] else "0"
    largest = f"{row['largest']:.2f}" if "largest" in row else "–"
    return [outside, at, f"{row['distinct']:,}", std, largest, _p(row["chi2_p"])]


def _near(expected: float) -> str:
    return f"{expected:,.0f}" if expected >= 0.5 else "0"


TABLES: dict[str, Callable[[dict[str, Results]], str]] = {
    "bits": lambda results: _bits(results, good=True),
    "bits-controls": lambda results: _bits(results, good=False),
    "references": _references,
    "accuracy": _accuracy,
    "truncated": _truncated,
    "quantile": _quantile,
    "rounding": _rounding,
    "schemes": _schemes,
    "elementary": _elementary,
    "distributions": _distributions,
    "tails": _tails,
    "halves": _halves,
    "complex": _complex,
    "others": _others,
    "peers": _peers,
}
