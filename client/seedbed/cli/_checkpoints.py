"""Checkpoints: a model in several files of a directory, which any number of workers write, and resume."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

import seedbed
from seedbed import dtypes
from seedbed._files import checkpoints, provenance
from seedbed._files.checkpoints import INDEX, Shard
from seedbed._files.errors import FileFormatError
from seedbed._files.safetensors import SafetensorsFile, create_safetensors, read_safetensors
from seedbed._files.writing import create_file
from seedbed.cli._jobs import patience, run_jobs
from seedbed.cli._progress import Add, Report, adder


def write_file(client: seedbed.Client, path: Path, shard: Shard, add: Add) -> None:
    """Writes one file, many pieces at a time, in memory for no more than those.

    Args:
        client: makes the tensors.
        path: where the file shall be.
        shard: what shall be in it.
        add: told the bytes done with each piece.
    """
    specs = shard.model.tensors
    layout = {spec.name: (dtypes.numpy_dtype(spec.dtype), tuple(spec.shape)) for spec in specs}
    with create_safetensors(path, layout, provenance.metadata(shard.model, shard.checkpoint)) as write:

        def use(index: int, first: int, values: np.ndarray[Any, Any]) -> None:
            write(specs[index].name, first, values)
            add(values.nbytes)

        client.visit(shard.model, use, timeout=patience(client, shard.size))


def write_checkpoint(
    client: seedbed.Client, folder: Path, shards: Sequence[Shard], wanted: Sequence[Shard], jobs: int, report: Report
) -> tuple[list[Shard], int]:
    """Writes those files of a checkpoint that are wanted and not complete, and the index if all are complete then.

    So the index comes last, from whichever worker finds the others' files complete, too.

    Args:
        client: makes the tensors.
        folder: the checkpoint's directory.
        shards: all files of the checkpoint.
        wanted: those that this worker is to see to.
        jobs: how many to write at a time.
        report: told the bytes done and the bytes in all.

    Returns:
        The files that were written, and how many the checkpoint still lacks.

    Raises:
        click.ClickException: the directory holds files of another checkpoint.
    """
    _check_folder(folder, shards)
    done = _complete(folder, shards)
    missing = [shard for shard in wanted if shard.name not in done]
    folder.mkdir(parents=True, exist_ok=True)
    add = adder(report, sum(shard.size for shard in missing))
    run_jobs(client, jobs, lambda shard: write_file(client, folder / shard.name, shard, add), missing)
    lacking = len(shards) - len(_complete(folder, shards))
    if len(shards) > 1 and not lacking:
        with create_file(folder / INDEX) as file:
            file.write(checkpoints.index_text(shards).encode())
    return missing, lacking


def _complete(folder: Path, shards: Sequence[Shard]) -> set[str]:
    """Returns the names of the files that are complete, going by their headers and sizes.

    A file has its name only once it is complete and synced, so that its elements need not be compared; `seedbed verify`
    does. What was cut short since does not count.

    Raises:
        click.ClickException: a file is of another checkpoint.
    """
    return {shard.name for shard in shards if _is_complete(folder / shard.name, shard)}


def _is_complete(path: Path, shard: Shard) -> bool:
    try:
        content = read_safetensors(path)
    except (FileNotFoundError, FileFormatError):
        return False
    if not _is_of(content, shard):
        raise _another(path)
    return True


def _is_of(content: SafetensorsFile, shard: Shard) -> bool:
    if content.metadata.get(provenance.CHECKPOINT) != shard.checkpoint:
        return False
    try:
        return provenance.read_request(content) == shard.model
    except FileFormatError:
        return False


def _check_folder(folder: Path, shards: Sequence[Shard]) -> None:
    """Refuses files that would pass for parts of the checkpoint."""
    names = {shard.name for shard in shards}
    for path in sorted(folder.glob("*.safetensors")):
        if checkpoints.file_count(path.name) and path.name not in names:
            raise _another(path)
    if not (folder / INDEX).exists():
        return
    if len(shards) == 1 or not _is_index(folder, shards):
        raise _another(folder / INDEX)


def _is_index(folder: Path, shards: Sequence[Shard]) -> bool:
    try:
        return checkpoints.read_index(folder) == checkpoints.index(shards)
    except FileFormatError:
        return False


def _another(path: Path) -> click.ClickException:
    return click.ClickException(f"{path} is of another checkpoint; remove it, or choose another directory")
