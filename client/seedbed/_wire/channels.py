"""The factory of gRPC channels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import grpc

    from seedbed._wire.credentials import Wire


def open_channel(wire: Wire) -> grpc.Channel:
    """Open a channel for threads."""
    import grpc  # noqa: PLC0415 - `import seedbed` stays fast

    channel: grpc.Channel = _open(grpc, wire)
    return channel


def open_aio_channel(wire: Wire) -> grpc.aio.Channel:
    """Open a channel for the running event loop."""
    import grpc.aio  # noqa: PLC0415 - `import seedbed` stays fast

    channel: grpc.aio.Channel = _open(grpc.aio, wire)
    return channel


def _open(grpc_api: Any, wire: Wire) -> Any:  # noqa: ANN401 - the modules grpc and grpc.aio have no common type
    address, options = wire.target
    if wire.credentials is None:
        return grpc_api.insecure_channel(address, options)
    return grpc_api.secure_channel(address, wire.credentials, options)
