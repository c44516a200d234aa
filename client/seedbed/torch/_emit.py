"""From what torch's tensors hold to the messages of a model."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from seedbed._record import emit, patterns
from seedbed._record.boxes import Box
from seedbed._record.emit import Held
from seedbed._record.nodes import Literal, Node, is_drawn, leaves
from seedbed._types import Array
from seedbed.torch import _nodes
from seedbed.torch._module import as_array
from seedbed.v1 import TensorSpec


def specs(held: Sequence[Held], seed: int, independent_copies: bool) -> list[TensorSpec]:
    """The messages of a model's tensors.

    Args:
        held: The tensors; nothing in them is a `Problem`.
        seed: The seed of each.
        independent_copies: Whether copies draw values of their own.

    Raises:
        InvalidRequest: If no message describes a tensor; names it.
    """
    names = emit.Names(held, independent_copies)
    return [_Emitter(tensor.name, names).spec(tensor, seed) for tensor in held]


class _Emitter(emit.Emitter):
    """Integers are drawn in float64."""

    def served(self, dtype: torch.dtype) -> str:
        return str(dtype).removeprefix("torch.") if _nodes.is_served(dtype) else "float64"

    def is_float(self, dtype: torch.dtype) -> bool:
        return dtype.is_floating_point

    def array(self, node: Literal) -> Array:
        return as_array(node.values.contiguous())

    def viewed(self, node: Node, box: Box) -> Node:
        return _nodes.viewed(node, box)

    def recognised(self, node: Node) -> Node:
        return recognised(node)


def recognised(node: Node) -> Node:
    """Values that the code computes as the pattern that they follow; all else as it is."""
    if not isinstance(node, Literal) and not is_drawn(node) and any(isinstance(leaf, Literal) for leaf in leaves(node)):
        values = _nodes.evaluated(node).contiguous()
        node = Literal(node.shape, values.dtype, values)
    return patterns.recognised(node, as_array(node.values.contiguous())) if isinstance(node, Literal) else node
