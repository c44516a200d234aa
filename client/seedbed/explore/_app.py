"""The page's web server: its routes, and the check that requests come from this machine."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.requests import Request as HttpRequest
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import seedbed
from seedbed.explore import _form
from seedbed.explore._calls import Connection
from seedbed.explore._view import view

_STATIC = Path(__file__).parent / "static"
_HOST = re.compile(r"\[?(?P<name>[^\[\]]*?)\]?(:\d*)?")
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}


def application(client: seedbed.Client, connection: Connection) -> Starlette:
    """The page and its API, as an ASGI application.

    ``GET /`` is the page. ``GET /api/schemes`` lists its forms. ``GET /api/tensor?scheme=…&shape=…`` is the view of one
    tensor, or status 422 with the errors by field, or status 502 if the service fails.

    Args:
        client: The client that samples tensors.
        connection: The connection that the page's calls show.
    """

    def page(_request: HttpRequest) -> Response:
        return FileResponse(_STATIC / "index.html")

    def schemes(_request: HttpRequest) -> Response:
        return JSONResponse({"schemes": _form.schemes(), "target": connection.target})

    def tensor(request: HttpRequest) -> Response:
        texts = dict(request.query_params)
        try:
            return JSONResponse(view(client, _form.read(texts), connection))
        except _form.FormError as error:
            return _invalid(error.errors)
        except seedbed.InvalidRequest as error:
            field = _form.field_of(texts["scheme"], error.field)
            return _invalid({field: error.description if field else str(error)})
        except seedbed.SeedbedError as error:
            return JSONResponse({"errors": [{"field": "", "message": str(error)}]}, 502)

    return Starlette(
        routes=[
            Route("/", page),
            Route("/api/schemes", schemes),
            Route("/api/tensor", tensor),
            Mount("/static", StaticFiles(directory=_STATIC)),
        ],
        middleware=[Middleware(_Guard)],
    )


def _invalid(errors: dict[str, str]) -> Response:
    content: list[dict[str, Any]] = [{"field": field, "message": message} for field, message in errors.items()]
    return JSONResponse({"errors": content}, 422)


class _Guard:
    """Serves only the page on this machine, and forbids the browser to load anything from elsewhere.

    DNS rebinding, a foreign name that resolves to this machine, is recognised by the header Host. A foreign page that
    requests data is recognised by the header Sec-Fetch-Site. Links to the page are allowed.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        reason = _forbidden_reason(Headers(scope=scope), scope["path"])
        respond = PlainTextResponse(reason, 403) if reason else self.app
        await respond(scope, receive, send_with_headers)


def _forbidden_reason(headers: Headers, path: str) -> str:
    host = _HOST.fullmatch(headers.get("host", ""))
    if host is None or not is_loopback(host["name"]):
        return "this page is accessible from this machine only, as localhost or 127.0.0.1"
    if path != "/" and headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return "other sites may not request this"
    return ""


def is_loopback(host: str) -> bool:
    """Whether a host is literally this machine; names are not resolved.

    >>> is_loopback("localhost"), is_loopback("::1"), is_loopback("0.0.0.0"), is_loopback("127.0.0.1.example.com")
    (True, True, False, False)
    """
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
