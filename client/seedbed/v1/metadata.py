"""The metadata keys of calls of the contract."""

from __future__ import annotations

from typing import Final

MAY_MOVE: Final = "seedbed-may-move"
"""Request: how often a busy worker may have the call sent again over another connection."""
MOVE: Final = "seedbed-move"
"""Trailer: send this call again over another connection."""
TICKET: Final = "seedbed-ticket"
"""Request: lets a full server recognise a call that it refused before."""
