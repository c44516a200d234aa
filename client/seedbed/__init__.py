"""Seedbed serves the initial weights of neural networks: the same bits on every device, for every sharding.

A weight is a pure function of the seed, the tensor's name and the element's index. So any server can serve any region
of any tensor, and the regions fit together.

>>> import seedbed
>>> with seedbed.connect("local:") as client:
...     w = client.kaiming_normal((256, 128), mode="fan_out", nonlinearity="relu", seed=7, name="layers.0.weight")
>>> w.shape
(256, 128)

`connect` returns a `Client`, and `seedbed.aio.connect` its counterpart for asyncio. `spec` makes the messages that both
accept: from the name of a scheme, or from a recipe, a `Value` or `parts`, that combines draws and literals.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from seedbed import dtypes
from seedbed._ask.recipes import Parts, box, parts, spec
from seedbed._ask.schemes import SCHEMES, Schemes
from seedbed._ask.values import (
    Value,
    clamp,
    concatenate,
    cos,
    draw,
    equal,
    erf,
    erfinv,
    exp,
    expm1,
    floor,
    literal,
    log,
    log1p,
    maximum,
    minimum,
    rsqrt,
    sigmoid,
    sin,
    softplus,
    sqrt,
    stack,
    tanh,
    where,
)
from seedbed._client.sync import Client
from seedbed._connect import connect
from seedbed._show import descriptions
from seedbed._version import __version__
from seedbed.errors import (
    Cancelled,
    Corrupted,
    DeadlineExceeded,
    InternalError,
    InvalidRequest,
    Mismatch,
    PermissionDenied,
    ResourceExhausted,
    SeedbedError,
    Unauthenticated,
    Unavailable,
)

if TYPE_CHECKING:
    import seedbed.aio as aio  # noqa: PLR0402 - mypy loses the other form in its cache

__all__ = [
    "SCHEMES",
    "Cancelled",
    "Client",
    "Corrupted",
    "DeadlineExceeded",
    "InternalError",
    "InvalidRequest",
    "Mismatch",
    "Parts",
    "PermissionDenied",
    "ResourceExhausted",
    "Schemes",
    "SeedbedError",
    "Unauthenticated",
    "Unavailable",
    "Value",
    "__version__",
    "aio",
    "box",
    "clamp",
    "concatenate",
    "connect",
    "cos",
    "draw",
    "dtypes",
    "equal",
    "erf",
    "erfinv",
    "exp",
    "expm1",
    "floor",
    "literal",
    "log",
    "log1p",
    "maximum",
    "minimum",
    "parts",
    "rsqrt",
    "sigmoid",
    "sin",
    "softplus",
    "spec",
    "sqrt",
    "stack",
    "tanh",
    "where",
]


descriptions.show_readably()


def __getattr__(name: str) -> object:
    """Import `seedbed.aio` on first use, because it is slow to import."""
    if name == "aio":
        return importlib.import_module("seedbed.aio")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """List the names, including those that are imported late."""
    return sorted({*globals(), *__all__})
