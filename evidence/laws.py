"""The laws, part by part."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from evidence import accuracy, distributions, elementary, schemes
from evidence.report import Report, Result, Say
from evidence.sizes import Sizes

Part = Callable[[Sizes, Say], list[Result]]


def _normals(sizes: Sizes, say: Say) -> list[Result]:
    return accuracy.normals32(sizes, say) + accuracy.normals64(sizes, say)


PARTS: dict[str, Part] = {
    "references": accuracy.references,
    "functions": accuracy.functions,
    "uniforms": accuracy.uniforms,
    "normals": _normals,
    "truncated": accuracy.truncated,
    "quantile": accuracy.quantile_shape,
    "rounding": accuracy.rounding,
    "schemes": schemes.parameters,
    "elementary": elementary.elementary,
    "distributions": distributions.continuous,
    "halves": distributions.halves,
    "built": distributions.built,
    "complex": distributions.complexes,
    "sparse": distributions.sparse,
    "orthogonal": distributions.orthogonal,
}


def run(parts: Iterable[str], sizes: Sizes, options: str, report: Report, say: Say) -> None:
    """Runs each part, and writes its results.

    Args:
        parts: Names of `PARTS`.
        sizes: The sizes of the tests.
        options: The command-line options behind the sizes, for the report.
        report: The report to add the results to.
        say: Shows the progress.

    Raises:
        evidence.reference.UnsupportedError: This machine lacks what a reference needs.
    """
    for name in parts:
        say(f"{name}:")
        begin = time.perf_counter()
        rows = PARTS[name](sizes, say)
        seconds = time.perf_counter() - begin
        report.add(
            name + options, f"python -m evidence laws {name}{options}", {"seconds": round(seconds, 1), "rows": rows}
        )
        say(f"  {seconds:.1f} s")
