"""The command ``verify``: compares files with the recipe in their metadata."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

import seedbed
from seedbed import dtypes
from seedbed._ask.regions import extents
from seedbed._files import checkpoints as _checkpoints
from seedbed._files import provenance
from seedbed._files.checkpoints import INDEX, ONE_FILE, Shard
from seedbed._files.errors import FileFormatError, FileSizeError
from seedbed._files.safetensors import SAFETENSORS_DTYPES, SafetensorsFile, read_safetensors
from seedbed.cli._jobs import file_timeout, jobs_option, run_jobs
from seedbed.cli._options import FILE, bytes_text, connect, plural, progress_option, shape_text, target_options
from seedbed.cli._progress import Add, Report, adder, progress
from seedbed.v1 import Model

Array = np.ndarray[Any, Any]
_MAX_LISTED = 100  # missing files that are listed one by one
Verdict = tuple[list[SafetensorsFile], list[str]]  # the files that were checked, and the problems found


class Differs(Exception):  # noqa: N818
    """A file that does not match its metadata; the message says where."""


@click.command(short_help="Verify a safetensors file, or a directory of them, bit for bit")
@click.argument("path", metavar="FILE|DIR", type=FILE)
@jobs_option
@target_options
@progress_option
def verify(*, path: Path, jobs: int, target: str, timeout: float | None, show_progress: bool | None) -> None:
    """Verify a safetensors file: sample every tensor again from the recipe in its metadata, and compare each bit.

    Exit 0 if all bits are equal. Otherwise exit 1; the message names the first tensor and element that differ, with the
    expected and the found value.

    In a directory that `seedbed model` wrote, all files and the index are verified. There is a message for each file
    that is missing or wrong, or that does not belong to the checkpoint. To repair a checkpoint, remove the wrong files
    and run `seedbed model` again: it writes only the missing files.

    \b
    Examples:
      seedbed verify gpt2.safetensors --target localhost:50051
      seedbed verify llama
    """  # noqa: D301
    with connect(target, timeout) as client, progress(f"verify {path.name}", show_progress) as report:
        verify_path = _verify_directory if path.is_dir() else _verify_file
        files, problems = verify_path(client, path, jobs, report)
    if problems:
        for problem in problems:
            click.echo(f"seedbed: verification failed: {problem}", err=True)
        raise click.exceptions.Exit(1)
    count = f"{plural(len(files), 'file')}, " if path.is_dir() else ""
    tensors = plural(sum(len(file.tensors) for file in files), "tensor")
    click.echo(
        f"{path}: verified, {count}{tensors}, {bytes_text(sum(map(_size, files)))}, equal bit for bit "
        f"(seed {_union(files, 'seedbed.seed')}, algorithm version {_union(files, 'seedbed.algorithm_version')})"
    )


def _union(files: Sequence[SafetensorsFile], key: str) -> str:
    values = {value for file in files for value in file.metadata.get(key, "?").split(",")}
    return ",".join(sorted(values, key=lambda value: (len(value), value)))


def _size(file: SafetensorsFile) -> int:
    return sum(entry.stop - entry.start for entry in file.tensors.values())


def _verify_file(client: seedbed.Client, path: Path, _jobs: int, report: Report) -> Verdict:
    try:
        file = _open(path)
        _check_tensors(client, file, adder(report, _size(file)))
    except (Differs, FileSizeError) as error:
        return [], [str(error)]
    return [file], []


def _verify_directory(client: seedbed.Client, folder: Path, jobs: int, report: Report) -> Verdict:
    index, index_problem = _read_index(folder)
    names = _file_names(folder, index, index_problem)
    files, problems = _open_all(folder, names)
    problems += [
        f"{path}: does not belong to the checkpoint"
        for path in sorted(folder.glob("*.safetensors"))
        if path.name not in names
    ]
    problems += _check_digests(files)
    problems += [index_problem] if index_problem else _check_index(folder, index, files, names)
    add = adder(report, sum(map(_size, files)))

    def check(file: SafetensorsFile) -> str | None:
        try:
            _check_tensors(client, file, add)
        except (Differs, FileSizeError) as error:
            return str(error)
        return None

    problems += filter(None, run_jobs(client, jobs, check, files))
    return files, problems


def _read_index(folder: Path) -> tuple[object, str | None]:
    """The index's content, and the problem if it cannot be read."""
    try:
        return _checkpoints.read_index(folder), None
    except FileFormatError as error:
        return None, str(error)


def _file_names(folder: Path, index: object, index_problem: str | None) -> list[str]:
    """The names of all files that the checkpoint should have, according to the index, or else to the files present."""
    counts = list(filter(None, map(_checkpoints.file_count, _weight_map(index).values())))
    counts = counts or list(filter(None, (_checkpoints.file_count(path.name) for path in folder.iterdir())))
    if not counts and index_problem:
        raise FileFormatError(index_problem)
    if not counts:
        raise FileFormatError(f"{folder}: not a checkpoint: it has neither {ONE_FILE} nor {INDEX}")
    return _checkpoints.file_names(max(counts))


def _open_all(folder: Path, names: Sequence[str]) -> Verdict:
    present = {path.name for path in folder.iterdir()}  # one listing: an index may name millions of files
    missing = [name for name in names if name not in present]
    files: list[SafetensorsFile] = []
    problems = [f"{folder / name}: missing" for name in missing[:_MAX_LISTED]]
    if len(missing) > _MAX_LISTED:
        problems.append(f"{folder}: {plural(len(missing) - _MAX_LISTED, 'more file')} missing")
    for name in filter(present.__contains__, names):
        try:
            files.append(_open(folder / name))
        except (Differs, FileFormatError) as error:
            problems.append(str(error))
    return files, problems


def _check_digests(files: Sequence[SafetensorsFile]) -> Iterator[str]:
    """Reports the files that were written from another model file, or with other options, than most files."""
    digests = [file.metadata.get(provenance.CHECKPOINT) for file in files]
    for [most_common, _] in Counter(digests).most_common(1):
        for file, digest in zip(files, digests, strict=True):
            if digest != most_common:
                yield f"{file.path}: belongs to another checkpoint than the other files"


def _check_index(folder: Path, index: object, files: Sequence[SafetensorsFile], names: Sequence[str]) -> Iterator[str]:
    """Compares the index with the headers of the files, except for missing files."""
    path = folder / INDEX
    if len(names) == 1:
        if path.exists():
            yield f"{path}: does not belong to a checkpoint of one file"
        return
    if index is None:
        yield f"{path}: {'is null' if path.exists() else 'missing'}"
        return
    expected_index = _checkpoints.index(list(map(_shard, files)))
    expected, found = expected_index["weight_map"], _weight_map(index)
    missing = {*names} - {file.path.name for file in files}
    for name in sorted({*expected, *found}):
        if expected.get(name) != found.get(name) and (name in expected or found[name] not in missing):
            yield f"{path}: tensor {name!r}: expected {expected.get(name)}, found {found.get(name)}"
    metadata = index.get("metadata") if isinstance(index, dict) else None
    if len(files) == len(names) and metadata != expected_index["metadata"]:
        yield f"{path}: metadata: expected {expected_index['metadata']}, found {metadata}"


def _weight_map(index: object) -> dict[str, str]:
    match index:
        case {"weight_map": dict(entries)}:
            return {str(name): str(file) for name, file in entries.items()}
    return {}


def _shard(file: SafetensorsFile) -> Shard:
    specs = [tensor.spec for tensor in provenance.slices(provenance.read_request(file)).values()]
    return Shard(file.path.name, Model(tensors=specs), _size(file), file.metadata.get(provenance.CHECKPOINT))


def _open(path: Path) -> SafetensorsFile:
    """Reads a file's header, and compares its layout with the tensors in its metadata."""
    file = read_safetensors(path)
    expected = provenance.slices(provenance.read_request(file))
    for name in file.tensors:
        if name not in expected:
            raise Differs(f"{path}: tensor {name!r} is in the file, but not in its metadata")
    for name, tensor in expected.items():
        if name not in file.tensors:
            raise Differs(f"{path}: tensor {name!r} is in the metadata, but not in the file")
        found = file.tensors[name]
        dtype, shape = SAFETENSORS_DTYPES[dtypes.numpy_dtype(tensor.spec.dtype)], extents(tensor)
        if (found.dtype, found.shape) != (dtype, shape):
            raise Differs(
                f"{path}: tensor {name!r}: expected {dtype} {shape_text(shape)}, "
                f"found {found.dtype} {shape_text(found.shape)}"
            )
    return file


def _check_tensors(client: seedbed.Client, file: SafetensorsFile, add: Add) -> None:
    tensors = provenance.slices(provenance.read_request(file))
    with file.path.open("rb") as data:
        comparison = _Comparison(file, list(tensors), data.fileno(), add)
        client.visit(list(tensors.values()), comparison.compare, timeout=file_timeout(client, _size(file)))
    comparison.raise_first()


class _Comparison:
    """Compares pieces, which arrive in any order and from several threads, with a file's content.

    Args:
        file: The file.
        names: The names of the tensors; the first difference is the first in this order.
        descriptor: The open file. It is read rather than mapped, so that truncation meanwhile is an error, not a crash.
        add: Called with the bytes of each compared piece.
    """

    def __init__(self, file: SafetensorsFile, names: Sequence[str], descriptor: int, add: Add) -> None:
        self._file = file
        self._names = names
        self._descriptor = descriptor
        self._add = add
        self._differences: list[tuple[int, int, str]] = []

    def compare(self, tensor: int, first: int, expected: Array) -> None:
        """Compares a piece of a tensor that begins with this element."""
        start = self._file.tensors[self._names[tensor]].start + first * expected.itemsize
        content = os.pread(self._descriptor, expected.nbytes, start)
        if len(content) < expected.nbytes:
            raise FileSizeError(f"{self._file.path}: truncated while it was read")
        difference = _difference(expected, np.frombuffer(content, expected.dtype))
        if difference is not None:
            index, text = difference
            self._differences.append((tensor, first + index, text))
        self._add(expected.nbytes)

    def raise_first(self) -> None:
        """Raises the first of all differences, if there are any.

        Raises:
            Differs: If any element differs.
        """
        if not self._differences:
            return
        tensor, index, text = min(self._differences)
        name = self._names[tensor]
        shape = self._file.tensors[name].shape
        element = ", ".join(str(int(i)) for i in np.unravel_index(index, shape))
        raise Differs(f"{self._file.path}: tensor {name!r}, element [{element}]: {text}")


def _difference(expected: Array, found: Array) -> tuple[int, str] | None:
    """The first index at which the bits differ, with the values as text; None if all are equal."""
    if np.array_equal(_wide_words(expected), _wide_words(found)):
        return None
    words = np.dtype(f"u{expected.itemsize}")
    differing = np.flatnonzero(expected.view(words) != found.view(words))
    index = int(differing[0])
    return index, f"expected {_bits(expected, index)}, found {_bits(found, index)}"


def _wide_words(values: Array) -> Array:
    """The bits as wide words, which compare faster."""
    return values.view(np.uint64 if values.nbytes % 8 == 0 else f"u{values.itemsize}")


def _bits(values: Array, index: int) -> str:
    word = int(values.view(np.dtype(f"u{values.itemsize}"))[index])
    return f"{values[index]} (0x{word:0{2 * values.itemsize}x})"
