"""gRPC's health service, with watches that the server can end."""

from __future__ import annotations

from collections.abc import Callable

import grpc
from grpc_health.v1 import health, health_pb2


class HealthServicer(health.HealthServicer):
    """gRPC's health service. Open watches would otherwise delay a shutdown until its grace period is over."""

    def __init__(self) -> None:
        super().__init__()
        self._watches: set[grpc.ServicerContext] = set()

    def Watch(  # noqa: N802
        self,
        request: health_pb2.HealthCheckRequest,
        context: grpc.ServicerContext,
        send_response_callback: Callable[..., None] | None = None,
    ) -> object:
        """Streams the status of a service; see the base class."""
        self._watches.add(context)
        context.add_callback(lambda: self._watches.discard(context))
        return super().Watch(request, context, send_response_callback)

    def cancel_watches(self) -> None:
        """Ends all open watches."""
        for context in tuple(self._watches):
            context.cancel()  # type: ignore[no-untyped-call]
