"""A cache for functions of protobuf messages, which are not hashable."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

from google.protobuf.message import Message

M = TypeVar("M", bound=Message)
P = ParamSpec("P")
R = TypeVar("R")


def cached_by_content(maxsize: int) -> Callable[[Callable[Concatenate[M, P], R]], Callable[Concatenate[M, P], R]]:
    """Decorates a function of a message and hashable positional arguments; do not modify its results.

    The key is the message's bytes, which distinguish -0.0 from 0.0. The oldest result is dropped first. (`lru_cache`
    needs a hashable wrapper, whose methods in Python take longer than the rest of a lookup.)

    >>> from seedbed.v1 import Constant
    >>> @cached_by_content(maxsize=2)
    ... def value(message: Constant) -> list[float]:
    ...     return [message.val]
    >>> value(Constant(val=1.0)) is value(Constant(val=1.0)), value(Constant(val=0.0)) is value(Constant(val=-0.0))
    (True, False)
    """

    def decorate(function: Callable[Concatenate[M, P], R]) -> Callable[Concatenate[M, P], R]:
        results: dict[tuple[Any, ...], R] = {}
        lock = threading.Lock()

        def call(message: M, /, *args: object) -> R:
            key = (message.SerializeToString(deterministic=True), *args)
            try:
                return results[key]
            except KeyError:
                pass
            result = cast(Any, function)(message, *args)
            with lock:
                if len(results) >= maxsize:
                    del results[next(iter(results))]
                results[key] = result
            return cast(R, result)

        return cast(Callable[Concatenate[M, P], R], call)

    return decorate
