"""A cache for functions of protobuf messages, which are not hashable."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, update_wrapper
from typing import Concatenate, Generic, ParamSpec, TypeVar

from google.protobuf.message import Message

M = TypeVar("M", bound=Message)
P = ParamSpec("P")
R = TypeVar("R")


class _Key(Generic[M]):
    """A message, compared by its bytes, which tell -0.0 from 0.0."""

    __slots__ = ("_bytes", "message")

    def __init__(self, message: M) -> None:
        self._bytes = message.SerializeToString(deterministic=True)
        self.message: M | None = message

    def __hash__(self) -> int:
        return hash(self._bytes)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and self._bytes == other._bytes


def cached_by_content(
    maxsize: int,
) -> Callable[[Callable[Concatenate[M, P], R]], Callable[Concatenate[M, P], R]]:
    """Decorates a function whose first argument is a message; the others must be hashable, results must not be changed.

    >>> from seedbed.v1 import Constant
    >>> @cached_by_content(maxsize=2)
    ... def value(message: Constant) -> list[float]:
    ...     return [message.val]
    >>> value(Constant(val=1.0)) is value(Constant(val=1.0)), value(Constant(val=0.0)) is value(Constant(val=-0.0))
    (True, False)
    """

    def decorate(function: Callable[Concatenate[M, P], R]) -> Callable[Concatenate[M, P], R]:
        @lru_cache(maxsize)
        def cached(key: _Key[M], *args: P.args, **kwargs: P.kwargs) -> R:
            message, key.message = key.message, None  # the cache keeps the key, but not the caller's message
            assert message is not None  # for mypy: a key is looked up once
            return function(message, *args, **kwargs)

        def call(message: M, /, *args: P.args, **kwargs: P.kwargs) -> R:
            return cached(_Key(message), *args, **kwargs)  # type: ignore[arg-type]  # lru_cache is typed without P

        update_wrapper(call, function)
        return call

    return decorate
