"""A backend with predictable numbers that records its calls."""

import threading
import time
from collections.abc import Callable
from functools import partial

import numpy as np

from seedbed.v1 import TensorDescription
from seedbed_server import engine
from seedbed_server.engine.backends.base import done


class FakeBackend(engine.Backend):
    """Fills element i with i mod 2048, which float16 and wider dtypes hold exactly (bfloat16 rounds it).

    Args:
        seconds: How long a call of a sampler takes; it checks for cancellation every millisecond.
        error: The exception that a sampler raises.
    """

    name = "fake"
    device = "nothing"
    reason = "a test"
    threads = 1

    def __init__(self, seconds: float = 0.0, error: Exception | None = None) -> None:
        self.seconds = seconds
        self.error = error
        self.fills: list[tuple[str, int, int]] = []
        self.buffers: set[int] = set()
        self.cancelled = threading.Event()

    def sampler(self, description: TensorDescription) -> engine.Sampler:
        return partial(self._fill, description)

    def _fill(
        self, description: TensorDescription, first_element: int, out: np.ndarray, cancelled: Callable[[], bool]
    ) -> Callable[[], None]:
        self.fills.append((description.spec.name, first_element, len(out)))
        self.buffers.add(out.ctypes.data)
        if self.error:
            raise self.error
        end = time.monotonic() + self.seconds
        while time.monotonic() < end:
            if cancelled():
                self.cancelled.set()
                raise engine.Cancelled
            time.sleep(0.001)
        out[...] = np.arange(first_element, first_element + len(out)) % 2048
        return done
