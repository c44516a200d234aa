"""Processing several files at a time."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any, TypeVar

import click

import seedbed

Item = TypeVar("Item")
Result = TypeVar("Result")
Command = TypeVar("Command", bound=Callable[..., Any])


def jobs_option(command: Command) -> Command:
    """Adds the option ``--jobs``."""
    return click.option(
        "--jobs", type=click.IntRange(min=1), default=2, show_default=True, metavar="N",
        help="How many files of a directory to process at a time, each on all threads: one is sampled while another "
        "is synced to disk.",
    )(command)  # fmt: skip


def file_timeout(client: seedbed.Client, byte_count: int) -> float | None:
    """The seconds that all tensors of one file may take: the client's timeout for each GiB."""
    return None if client.timeout is None else client.timeout * (1 + (byte_count >> 30))


def run_jobs(client: seedbed.Client, jobs: int, work: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """The results of the work on each item, in no particular order.

    The first failure or interruption stops all jobs; closing the client cancels the calls that are still running.
    """
    with ThreadPoolExecutor(jobs) as pool:
        try:
            futures = [pool.submit(work, item) for item in items]
            return [future.result() for future in as_completed(futures)]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            client.close()
            raise
