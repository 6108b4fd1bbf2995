"""The entry point of all requests: picks the handler, and gives every response its ID, headers and log line."""

from __future__ import annotations

import asyncio
import itertools
import secrets
import time
from typing import TYPE_CHECKING, Final

import structlog

from polly_dockers.blobs.store import BlobMissing
from polly_dockers.errors import ClientGone, InternalError, PollyError
from polly_dockers.registry.readiness import Readiness
from polly_dockers.system import addresses
from polly_dockers.web import errors, memory, metrics
from polly_dockers.web.api import routes
from polly_dockers.web.request import Request
from polly_dockers.web.request_log import RequestLine, RequestLog
from polly_dockers.web.response import COMMON, Response, dump
from polly_dockers.web.v2 import router, token

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from polly_dockers.context import Context
    from polly_dockers.web.body import Body
    from polly_dockers.web.client import Client
    from polly_dockers.web.metrics import Counts
    from polly_dockers.web.reader import Head

    Handler = Callable[[Request], Awaitable[Response]]
    Send = Callable[[Request, Response, str], Awaitable[None]]

log: Final = structlog.get_logger("polly.request")

CLIENT_GONE: Final = 499
"""The status in the log of a request whose client disconnected before the response."""

CANCELLED: Final = 503
"""The status in the log of a request that was cancelled because the server stops."""

_FORWARDED: Final = ("x-forwarded-for", "x-real-ip", "forwarded", "via")
"""A request with one of these headers came through a proxy, so the address of its peer is not the client's."""


class App:
    """Handles the requests of one process."""

    def __init__(self, context: Context, counts: Counts) -> None:
        self._context = context
        self._counts = counts
        self._requests = RequestLog(context.config)
        self.room = memory.Room(memory.limit_for(context.config.max_manifest_bytes))
        """The memory that this process may use for requests and responses."""
        self.stalled_seconds = float(context.config.stalled_seconds)
        """How long a client may read too little of its response before its connection is closed."""
        self._ids = secrets.token_hex(4)
        self._numbers = itertools.count()
        self.draining = False
        """Whether the process is stopping. Each response then closes its connection."""
        self._readiness = Readiness(context)
        config = context.config
        self._plain = not (config.metrics_listen or config.public_url or config.trusted_proxies)
        """True if the settings show no proxy. Then /metrics is open to this machine."""

    def request(self, client: Client, head: Head, body: Body | None) -> Request:
        """A request that a connection has read."""
        return Request(client, head, body, self._context, self.room, self._next_id())

    def _next_id(self) -> str:
        return f"{self._ids}{next(self._numbers):08x}"

    async def respond(self, request: Request, send: Send) -> None:
        """Call the handler, send its response with the header lines of every response, and record the result.

        Errors become error responses. Raises ClientGone or ConnectionError if the client left.
        """
        started = time.perf_counter()
        request.kind, handler = self._route(request)
        self._counts.in_flight += 1
        status, sent, content = CLIENT_GONE, 0, None
        try:
            response = await self._handle(request, handler)
            content = response.content
            await send(request, response, _header_lines(request.id))
            status, sent = response.status, response.length
        except asyncio.CancelledError:
            status = CANCELLED
            raise
        finally:
            self._counts.in_flight -= 1
            if content is not None:
                content.close()
            request.release()
            self._record(request, status, sent, time.perf_counter() - started)

    def refuse(self, address: str, status: int, message: str) -> tuple[Response, str]:
        """The response to what is not a request, and more header lines for it. Counts it, and adds it to the log."""
        request_id = self._next_id()
        response = errors.refusal(request_id, status, message)
        self._counts.record("other", "OTHER", status, 0.0, 0, response.length)
        if self._requests.on:
            self._requests.append(RequestLine(request_id, "", "", status, 0.0, 0, response.length, None, address))
        return response, _header_lines(request_id)

    def _route(self, request: Request) -> tuple[str, Handler]:
        """The kind of the request, as metrics name it, and its handler."""
        path = request.path
        if path.startswith("/v2/") or path == "/v2":
            return "v2", router.respond
        if path.startswith("/api/"):
            return "api", routes.respond
        if path == "/metrics" and self._plain and _is_local(request):
            return "metrics", self._metrics
        if path == "/readyz":
            return "health", self._ready
        return _FIXED.get(path, ("other", _not_found))

    async def _ready(self, request: Request) -> Response:
        """GET /readyz: the database and the files can be written; else raises Unavailable or StorageFull."""
        _require_get(request)
        await self._readiness.check()
        return Response(dump({"status": "ok"}), content_type="application/json")

    async def _metrics(self, request: Request) -> Response:
        _require_get(request)
        return Response(self._counts.exposition(), headers={"Content-Type": metrics.CONTENT_TYPE})

    @staticmethod
    async def _handle(request: Request, handler: Handler) -> Response:
        try:
            response = await handler(request)
            if len(response.body) > memory.SMALL:
                request.keep(response)
        except PollyError as error:
            return errors.response(request, error)
        except (ClientGone, ConnectionError, asyncio.CancelledError):
            raise
        except BlobMissing as error:
            log.error("blob missing", request_id=request.id, key=str(error))  # noqa: TRY400 - the key is all there is
            msg = f"The server has lost these bytes. Give the administrator this request ID: {request.id}"
            return errors.response(request, InternalError(msg))
        except Exception:
            log.exception("internal error", request_id=request.id, path=request.path[:500])
            msg = f"Internal server error. Give the administrator this request ID: {request.id}"
            return errors.response(request, InternalError(msg))
        else:
            return response

    def _record(self, request: Request, status: int, sent: int, seconds: float) -> None:
        """Count a request, and add it to the log."""
        method = request.method if request.method in _METHODS else "OTHER"
        received = request.body.received if request.body is not None else 0
        if method == "HEAD":
            sent = 0
        self._counts.record(request.kind, method, status, seconds, received, sent)
        if self._requests.on:
            self._requests.append(
                RequestLine(
                    request_id=request.id,
                    method=method,
                    path=request.path[:500],
                    status=status,
                    ms=round(seconds * 1000, 2),
                    received=received,
                    sent=sent,
                    user=request.user_id,
                    address=request.address,
                )
            )

    def flush(self) -> None:
        """Write the log lines that are still in memory."""
        self._requests.flush()


class MetricsApp(App):
    """Handles the requests of the metrics listener, which serves only /metrics."""

    def _route(self, request: Request) -> tuple[str, Handler]:
        return "metrics", self._metrics if request.path == "/metrics" else _not_found


_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def _header_lines(request_id: str) -> str:
    """The header lines of every response: COMMON and the ID of its request."""
    return f"{COMMON}X-Request-Id: {request_id}\r\n"


def _require_get(request: Request) -> None:
    if request.method not in {"GET", "HEAD"}:
        raise errors.method_not_allowed(request, ("GET", "HEAD"))


async def _not_found(request: Request) -> Response:
    raise errors.not_found(request)


async def _welcome(request: Request) -> Response:
    """GET /: for a person who opens the address of the registry in a browser."""
    _require_get(request)
    config = request.context.config
    text = (
        f"Polly Docker Repository at {config.registry}\n\n"
        f"Images live at  {config.registry}/<organisation>/<docker>:<tag>\n\n"
        f"  polly login --server {config.url}\n"
        "  polly dockers login\n"
        "  polly dockers list --all\n"
    )
    return Response(text.encode(), content_type="text/plain; charset=utf-8")


async def _alive(request: Request) -> Response:
    """GET /healthz: the process responds."""
    _require_get(request)
    return Response(b'{"status":"ok"}', content_type="application/json")


def _is_local(request: Request) -> bool:
    """Whether the client is on this machine, and no proxy passed the request on."""
    transport = request.client.transport
    peer = transport.get_extra_info("peername") if transport is not None else None
    local = isinstance(peer, tuple) and addresses.is_loopback(peer[0])
    return local and not any(header in request.headers for header in _FORWARDED)


_FIXED: Final[dict[str, tuple[str, Handler]]] = {
    "/": ("welcome", _welcome),
    "/token": ("token", token.token),
    "/healthz": ("health", _alive),
}
