"""The page's server: what it answers, to whom."""

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
    """Returns the page and what it asks for, as an ASGI application.

    ``GET /`` is the page; ``GET /api/schemes`` are its forms; ``GET /api/tensor?scheme=…&shape=…`` is what there is to
    see of one tensor, or status 422 with the errors by field, or 502 if the service fails.

    Args:
        client: whom to ask for tensors.
        connection: how the calls that are shown connect.
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
            return _refusal(error.errors)
        except seedbed.InvalidRequest as error:
            field = _form.field_of(texts["scheme"], error.field)
            return _refusal({field: error.description if field else str(error)})
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


def _refusal(errors: dict[str, str]) -> Response:
    found: list[dict[str, Any]] = [{"field": field, "message": message} for field, message in errors.items()]
    return JSONResponse({"errors": found}, 422)


class _Guard:
    """Answers this machine's own page only, and tells the browser to load nothing from elsewhere.

    A name of another's that points to this machine (DNS rebinding) shows in the header Host; another's page that asks
    for data shows in Sec-Fetch-Site. Links to the page are allowed.
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

        refusal = _objection(Headers(scope=scope), scope["path"])
        answer = PlainTextResponse(refusal, 403) if refusal else self.app
        await answer(scope, receive, send_with_headers)


def _objection(headers: Headers, path: str) -> str:
    host = _HOST.fullmatch(headers.get("host", ""))
    if host is None or not is_loopback(host["name"]):
        return "this page is for the machine it runs on: call it localhost or 127.0.0.1"
    if path != "/" and headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return "another page may not ask for this"
    return ""


def is_loopback(host: str) -> bool:
    """Whether a host, as it is written, is this machine and nothing else; what a name service says does not count.

    >>> is_loopback("localhost"), is_loopback("::1"), is_loopback("0.0.0.0"), is_loopback("127.0.0.1.example.com")
    (True, True, False, False)
    """
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
