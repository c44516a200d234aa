"""The command verify: a file against what its own metadata tell of its making."""

from pathlib import Path
from typing import Any

import click
import numpy as np

import seedbed
from seedbed import dtypes
from seedbed._files import SAFETENSORS_DTYPES, FileSizeError, SafetensorsFile, read_safetensors
from seedbed._regions import extents
from seedbed.cli import _provenance
from seedbed.cli._options import FILE, bytes_text, connect, plural, progress_option, shape_text, target_options
from seedbed.cli._progress import Report, progress
from seedbed.v1 import TensorSlice

Array = np.ndarray[Any, Any]


class Differs(Exception):  # noqa: N818
    """A file that is not what its metadata say; the message tells where."""


@click.command(short_help="Prove a safetensors file, bit for bit")
@click.argument("file", type=FILE)
@target_options
@progress_option
def verify(*, file: Path, target: str, timeout: float | None, show_progress: bool | None) -> None:
    """Prove a safetensors file: make every tensor again from the file's metadata and compare each bit.

    Exit 0 if all are equal. Otherwise exit 1, and the message names the first tensor and element that differ, what was
    expected there and what was found.

    \b
    Example:
      seedbed verify gpt2.safetensors --target localhost:50051
    """  # noqa: D301
    try:
        content = read_safetensors(file)
        wanted = _provenance.slices(_provenance.made_by(content))
        _check_layout(content, wanted)
        with connect(target, timeout) as client, progress(f"verify {file.name}", show_progress) as report:
            size = _check_tensors(client, content, wanted, report)
    except (Differs, FileSizeError) as error:
        click.echo(f"seedbed: verification failed: {error}", err=True)
        raise click.exceptions.Exit(1) from error
    seeds, versions = (content.metadata.get(key, "?") for key in ("seedbed.seed", "seedbed.algorithm_version"))
    click.echo(
        f"{file}: verified, {plural(len(wanted), 'tensor')}, {bytes_text(size)}, equal bit for bit "
        f"(seed {seeds}, algorithm version {versions})"
    )


def _check_layout(content: SafetensorsFile, wanted: dict[str, TensorSlice]) -> None:
    for name in content.tensors:
        if name not in wanted:
            raise Differs(f"{content.path}: tensor {name!r} is in the file, but not in its metadata")
    for name, part in wanted.items():
        if name not in content.tensors:
            raise Differs(f"{content.path}: tensor {name!r} is in the metadata, but not in the file")
        found = content.tensors[name]
        dtype, shape = SAFETENSORS_DTYPES[dtypes.numpy_dtype(part.spec.dtype)], extents(part)
        if (found.dtype, found.shape) != (dtype, shape):
            raise Differs(
                f"{content.path}: tensor {name!r}: expected {dtype} {shape_text(shape)}, "
                f"found {found.dtype} {shape_text(found.shape)}"
            )


def _check_tensors(
    client: seedbed.Client, content: SafetensorsFile, wanted: dict[str, TensorSlice], report: Report
) -> int:
    total = sum(entry.stop - entry.start for entry in content.tensors.values())
    done = 0
    for name, part in wanted.items():
        found = content.open_tensor(name)
        for first, expected in client.iter_chunks(part.spec, _provenance.region_of(part)):
            difference = _difference(expected, found.reshape(-1)[first : first + expected.size])
            if difference is not None:
                index, words = difference
                element = ", ".join(str(int(i)) for i in np.unravel_index(first + index, found.shape))
                raise Differs(f"{content.path}: tensor {name!r}, element [{element}]: {words}")
            done += expected.nbytes
            report(done, total)
    return total


def _difference(expected: Array, found: Array) -> tuple[int, str] | None:
    """Returns the first index at which the bits differ, and what they are; None if all are equal."""
    words = np.dtype(f"u{expected.itemsize}")
    differing = np.flatnonzero(expected.view(words) != found.view(words))
    if not differing.size:
        return None
    index = int(differing[0])
    return index, f"expected {_bits(expected, index)}, found {_bits(found, index)}"


def _bits(values: Array, index: int) -> str:
    word = int(values.view(np.dtype(f"u{values.itemsize}"))[index])
    return f"{values[index]} (0x{word:0{2 * values.itemsize}x})"
