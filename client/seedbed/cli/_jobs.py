"""Work on several files at a time."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any, TypeVar

import click

import seedbed

Item = TypeVar("Item")
Result = TypeVar("Result")
Command = TypeVar("Command", bound=Callable[..., Any])


def jobs_option(command: Command) -> Command:
    """Adds how many files are worked on at a time."""
    return click.option(
        "--jobs", type=click.IntRange(min=1), default=2, show_default=True, metavar="N",
        help="How many files of a directory to work on at a time, each on all threads: one is made while another is "
        "synced.",
    )(command)  # fmt: skip


def patience(client: seedbed.Client, byte_count: int) -> float | None:
    """Seconds that all tensors of one file may take: the client's timeout for each GiB."""
    return None if client.timeout is None else client.timeout * (1 + (byte_count >> 30))


def run_jobs(client: seedbed.Client, jobs: int, work: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """Returns what the work on each item gives, in no particular order.

    The first failure, or an interruption, ends all: calls that still run are cancelled by closing the client.
    """
    with ThreadPoolExecutor(jobs) as pool:
        try:
            futures = [pool.submit(work, item) for item in items]
            return [future.result() for future in as_completed(futures)]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            client.close()
            raise
