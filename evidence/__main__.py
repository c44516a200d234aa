"""The command line of the evidence."""

from __future__ import annotations

import sys
from collections.abc import Collection
from pathlib import Path

import click

from evidence import experiment, training
from evidence.report import Report
from evidence.sizes import TINY, Sizes, changed

_OUT = click.option(
    "--out", type=click.Path(path_type=Path), default=Path("out/evidence"), show_default=True, help="Output folder."
)

_TINY = click.option("--tiny", is_flag=True, help="The smallest sizes, for the tests.")
_SET = click.option("--set", "changes", multiple=True, metavar="SIZE=VALUE", help="Change a size, such as words=65536.")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
def main() -> None:
    """Collect the evidence for Seedbed's numbers; docs/evidence.md has the results."""


@main.command()
@click.argument("sources", nargs=-1)
@click.option(
    "--battery", default="smallcrush", help="smallcrush (7 s), crush (half an hour), bigcrush (hours) or practrand."
)
@click.option("--minutes", type=click.FloatRange(min=0), default=5.0, help="Minutes of practrand for each source.")
@_OUT
def bits(*, sources: tuple[str, ...], battery: str, minutes: float, out: Path) -> None:
    r"""Run a battery of statistical tests on the words of SOURCES (by default all).

    \b
    straight   one tensor, in order
    names      4096 names under one seed, element by element
    seeds      4096 adjacent seeds, element by element
    first      the first 4 elements under the seeds 0, 1, 2, …
    uniforms   the 24 bits of served uniforms, packed
    randu, rounds-2, rounds-3   must fail

    The exit code is 1 if a source that must pass fails, or the other way round.
    """
    from evidence import bits, practrand, testu01  # noqa: PLC0415 - Numba takes a second
    from evidence.words import SOURCES  # noqa: PLC0415

    _must_be_one_of(sources, SOURCES, "SOURCES")
    _must_be_one_of((battery,), bits.BATTERIES, "--battery")
    try:
        wrong = bits.run(sources or tuple(SOURCES), battery, minutes, Report("bits", out), click.echo)
    except (practrand.NotInstalledError, testu01.NotInstalledError) as error:
        raise click.ClickException(str(error)) from error
    if wrong:
        click.echo(f"UNEXPECTED RESULT: {', '.join(wrong)}")
        sys.exit(1)


@main.command()
@click.argument("parts", nargs=-1)
@_TINY
@_SET
@_OUT
def laws(*, parts: tuple[str, ...], tiny: bool, changes: tuple[str, ...], out: Path) -> None:
    r"""Compare each law with its exact values, and large samples with its distribution.

    \b
    PARTS, by default all:
    references      the references of the other parts, against mpmath
    functions       float32's radius and angle, over all 2^32 words
    uniforms        all 2^24 of float32, and float64
    normals         float32, float64, bfloat16 and float16
    truncated       truncated normals with ordinary, far, narrow and one-sided bounds
    quantile        whether it rises and is symmetric, over all 2^32 words
    rounding        all float32 to bfloat16 and float16
    schemes         the std and bounds of xavier, kaiming and variance_scaling
    elementary      the functions of expressions (exp, log, …), against mpmath
    distributions   moments, Anderson and Darling, χ² of 10^9 elements
    halves          χ² over every value of bfloat16 and float16
    built           the same as distributions, for xavier, kaiming and variance_scaling
    complex         normals and disks of complex64: moduli, angles, and both at once
    sparse          the places of the zeros
    orthogonal      orthogonality, and Haar's measure
    """
    from evidence import laws, reference  # noqa: PLC0415

    _must_be_one_of(parts, laws.PARTS, "PARTS")
    sizes, options = _sizes(changes, tiny=tiny)
    try:
        laws.run(parts or tuple(laws.PARTS), sizes, options, Report("laws", out), click.echo)
    except reference.UnsupportedError as error:
        raise click.ClickException(str(error)) from error


@main.command()
def fit() -> None:
    """Fit the polynomials of engine/constants.py again, and print their errors."""
    from evidence import fitting  # noqa: PLC0415 - needs SciPy
    from seedbed_server.engine import constants  # noqa: PLC0415

    for name in fitting.NAMES:
        found = fitting.fitted(name)
        agrees = "the same as" if fitting.is_constant(name, found) else "NOT those of"
        click.echo(f"{name}: {fitting.error_text(name, fitting.error(name, getattr(constants, name)))}")
        click.echo(
            f"  fitted again: {fitting.error_text(name, fitting.error(name, found))}, {agrees} engine/constants.py"
        )
        click.echo("  " + ", ".join(map(fitting.shortest(name), found)))


@main.command()
@_TINY
@_SET
@_OUT
def peers(*, tiny: bool, changes: tuple[str, ...], out: Path) -> None:
    """Sample the same cases with Seedbed, torch, JAX, NumPy and SciPy, and test each sample against its law."""
    from evidence import peers  # noqa: PLC0415

    sizes, options = _sizes(changes, tiny=tiny)
    peers.run(sizes, options, Report("peers", out), click.echo)


@main.command()
@click.option("--check", is_flag=True, help="Write nothing; exit code 1 if the document would change.")
@click.option("--publish", is_flag=True, help="First copy the results of the folder --out.")
@_OUT
def tables(*, check: bool, publish: bool, out: Path) -> None:
    """Make the tables of docs/evidence.md from the published results."""
    from evidence import tables  # noqa: PLC0415

    if publish:
        for line in tables.publish(out):
            click.echo(f"published {line}")
    before = tables.DOCUMENT.read_text(encoding="utf-8")
    after = tables.filled(before, tables.published())
    if check and after != before:
        raise click.ClickException(f"{tables.DOCUMENT.name} differs from the results; run python -m evidence tables")
    if after != before:
        tables.DOCUMENT.write_text(after, encoding="utf-8")
        click.echo(f"written: {tables.DOCUMENT.name}")


main.add_command(experiment.main, "experiment")
main.add_command(training.main, "training")


def _sizes(changes: tuple[str, ...], *, tiny: bool) -> tuple[Sizes, str]:
    """The sizes, and the options that they came from."""
    try:
        sizes = changed(TINY if tiny else Sizes(), changes)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--set") from error
    return sizes, "".join([" --tiny" if tiny else "", *(f" --set {change}" for change in changes)])


def _must_be_one_of(given: tuple[str, ...], known: Collection[str], what: str) -> None:
    for name in given:
        if name not in known:
            raise click.BadParameter(f"no {name!r}; use one of {', '.join(known)}", param_hint=what)


if __name__ == "__main__":
    main(prog_name="python -m evidence")
