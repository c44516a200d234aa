"""Writing many tensors at once to the memory of a GPU of this process."""

from __future__ import annotations

from collections.abc import Sequence

from seedbed_server.engine.backends.cupy import CupyBackend, Job
from seedbed_server.service.errors import ServiceError, to_status


def write_all(backend: CupyBackend, jobs: Sequence[Job], stream: object = None) -> None:
    """Begins to write elements of described regions, none of which is empty, in few launches.

    Args:
        backend: The GPU's.
        jobs: What to write, and where.
        stream: CuPy's, for the work that follows on it. Default the current one.

    Raises:
        ServiceError: The call failed.
    """
    try:
        with backend.cuda.use():
            backend.write_all(jobs, stream)
    except Exception as error:
        raise ServiceError(to_status(error)) from error
