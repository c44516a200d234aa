"""The keys of the metadata that calls of the contract carry beside their messages."""

from __future__ import annotations

from typing import Final

MAY_MOVE: Final = "seedbed-may-move"
"""Of a call: how often a busy worker may ask to have it sent again over another connection."""
MOVE: Final = "seedbed-move"
"""Of a trailer: this call is to be sent again over another connection."""
TICKET: Final = "seedbed-ticket"
"""Of a call: by which a full server recognises a call that it refused before."""
