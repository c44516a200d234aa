"""Writes checkpoints: a model sharded over several files of a directory, by any number of workers, resumably."""

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
from seedbed.cli._jobs import file_timeout, run_jobs
from seedbed.cli._progress import Add, Report, adder


def write_file(client: seedbed.Client, path: Path, shard: Shard, add: Add) -> None:
    """Writes one file, many pieces at a time; only those pieces are held in memory.

    Args:
        client: The client that samples the tensors.
        path: The file to write.
        shard: The file's tensors.
        add: Called with the bytes of each finished piece.
    """
    specs = shard.model.tensors
    layout = {spec.name: (dtypes.numpy_dtype(spec.dtype), tuple(spec.shape)) for spec in specs}
    with create_safetensors(path, layout, provenance.metadata(shard.model, shard.checkpoint)) as write:

        def write_piece(index: int, first: int, values: np.ndarray[Any, Any]) -> None:
            write(specs[index].name, first, values)
            add(values.nbytes)

        client.visit(shard.model, write_piece, timeout=file_timeout(client, shard.size))


def write_checkpoint(
    client: seedbed.Client, folder: Path, shards: Sequence[Shard], own: Sequence[Shard], jobs: int, report: Report
) -> tuple[list[Shard], int]:
    """Writes this worker's missing files of a checkpoint, and the index once all files are complete.

    The index therefore comes last, from whichever worker finds the other workers' files complete.

    Args:
        client: The client that samples the tensors.
        folder: The checkpoint's directory.
        shards: All files of the checkpoint.
        own: The files that this worker writes.
        jobs: How many files to write at a time.
        report: Called with the bytes done and the total bytes.

    Returns:
        The files that were written, and how many files of the checkpoint are still missing.

    Raises:
        click.ClickException: If the directory holds files of another checkpoint.
    """
    _check_folder(folder, shards)
    complete = _complete(folder, shards)
    to_write = [shard for shard in own if shard.name not in complete]
    folder.mkdir(parents=True, exist_ok=True)
    add = adder(report, sum(shard.size for shard in to_write))
    run_jobs(client, jobs, lambda shard: write_file(client, folder / shard.name, shard, add), to_write)
    missing = len(shards) - len(_complete(folder, shards))
    if len(shards) > 1 and not missing:
        with create_file(folder / INDEX) as file:
            file.write(checkpoints.index_text(shards).encode())
    return to_write, missing


def _complete(folder: Path, shards: Sequence[Shard]) -> set[str]:
    """The names of the files that are complete, judged by their headers and sizes.

    A file gets its name only once it is complete and synced, so its elements need not be compared; `seedbed verify`
    compares them. A file that was truncated since counts as missing.

    Raises:
        click.ClickException: If a file belongs to another checkpoint.
    """
    return {shard.name for shard in shards if _is_complete(folder / shard.name, shard)}


def _is_complete(path: Path, shard: Shard) -> bool:
    try:
        content = read_safetensors(path)
    except (FileNotFoundError, FileFormatError):
        return False
    if not _belongs_to(content, shard):
        raise _foreign(path)
    return True


def _belongs_to(content: SafetensorsFile, shard: Shard) -> bool:
    if content.metadata.get(provenance.CHECKPOINT) != shard.checkpoint:
        return False
    try:
        return provenance.read_request(content) == shard.model
    except FileFormatError:
        return False


def _check_folder(folder: Path, shards: Sequence[Shard]) -> None:
    """Refuses a directory with files that could be mistaken for files of this checkpoint."""
    names = {shard.name for shard in shards}
    for path in sorted(folder.glob("*.safetensors")):
        if checkpoints.file_count(path.name) and path.name not in names:
            raise _foreign(path)
    if not (folder / INDEX).exists():
        return
    if len(shards) == 1 or not _is_index(folder, shards):
        raise _foreign(folder / INDEX)


def _is_index(folder: Path, shards: Sequence[Shard]) -> bool:
    try:
        return checkpoints.read_index(folder) == checkpoints.index(shards)
    except FileFormatError:
        return False


def _foreign(path: Path) -> click.ClickException:
    return click.ClickException(f"{path} belongs to another checkpoint; remove it, or choose another directory")
