"""The front door: every request comes in here, and every answer goes out with its id, its headers and a log line."""

from __future__ import annotations

import asyncio
import ipaddress
import time
from typing import TYPE_CHECKING, Final

import structlog
from aiohttp import web

from polly_dockers.blobs.store import BlobMissing
from polly_dockers.config import split_address
from polly_dockers.db.accounts import organisation_list
from polly_dockers.errors import ClientGone, InternalError, NotFound, PollyError, Unsupported
from polly_dockers.logs import RequestLog
from polly_dockers.web import api, failures, metrics, oci, tokens
from polly_dockers.web.exchange import Exchange, dump

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from polly_dockers.registry import Registry
    from polly_dockers.web.metrics import Counts

log: Final = structlog.get_logger("polly.request")

GONE: Final = 499
"""What the log calls a request whose client went away before it was answered."""

_FORWARDED: Final = ("X-Forwarded-For", "X-Real-IP", "Forwarded", "Via")
"""A request that carries one of these came through a proxy: its peer says nothing of who asks."""


class Site:
    """Answers the requests of one process."""

    def __init__(self, registry: Registry, counts: Counts) -> None:
        self._registry = registry
        self._counts = counts
        self.requests = RequestLog(registry.config)
        self.draining = False
        """Whether the process is about to end: each answer then closes its connection."""
        listen = registry.config.metrics_listen
        self._metrics_port = split_address(listen)[1] if listen else None
        self._plain = not (listen or registry.config.public_url or registry.config.trusted_proxies)
        """Whether nothing says that a proxy stands before: then who comes from this machine may see /metrics."""

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request; a failure becomes the error envelope."""
        exchange = Exchange(request, self._registry)
        started = time.perf_counter()
        kind, handler = self._route(exchange)
        self._counts.in_flight += 1
        try:
            response = await self._answer(exchange, handler)
        except BaseException:
            self._note(exchange, kind, web.Response(status=GONE), time.perf_counter() - started)
            raise
        finally:
            self._counts.in_flight -= 1
        if not response.prepared:
            response.headers.update(exchange.headers())
            refused = "Expect" in request.headers and not exchange.continued
            if self.draining or refused:  # a client that was not told to go on may or may not send its body
                response.force_close()
        self._note(exchange, kind, response, time.perf_counter() - started)
        return response

    def _route(self, exchange: Exchange) -> tuple[str, Callable[[Exchange], Awaitable[web.StreamResponse]]]:
        path = exchange.path
        if self._metrics_port is not None and self._came_to_metrics(exchange):
            return "metrics", self._metrics if path == "/metrics" else _nothing
        if path.startswith("/v2/") or path == "/v2":
            return "v2", oci.answer
        if path.startswith("/api/"):
            return "api", api.answer
        if path == "/metrics" and self._plain and _came_from_here(exchange):
            return "metrics", self._metrics
        return _FIXED.get(path, ("other", _nothing))

    def _came_to_metrics(self, exchange: Exchange) -> bool:
        transport = exchange.request.transport
        name = transport.get_extra_info("sockname") if transport is not None else None
        return name is not None and name[1] == self._metrics_port

    async def _metrics(self, exchange: Exchange) -> web.StreamResponse:
        _only_get(exchange)
        return web.Response(body=self._counts.exposition(), headers={"Content-Type": metrics.CONTENT_TYPE})

    @staticmethod
    async def _answer(
        exchange: Exchange, handler: Callable[[Exchange], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        try:
            return await handler(exchange)
        except PollyError as error:
            return failures.answer(exchange, error)
        except (ClientGone, ConnectionError, asyncio.CancelledError):
            raise
        except BlobMissing as error:
            log.error("blob missing", request_id=exchange.id, key=str(error))  # noqa: TRY400 - says it all
            return failures.answer(exchange, InternalError("The server has lost these bytes; its operator is told."))
        except Exception:
            log.exception("fault", request_id=exchange.id, path=exchange.path[:500])
            msg = f"A fault of the server; its log tells more under {exchange.id}."
            return failures.answer(exchange, InternalError(msg))

    def _note(self, exchange: Exchange, kind: str, response: web.StreamResponse, seconds: float) -> None:
        request = exchange.request
        method = request.method if request.method in _METHODS else "OTHER"
        received, sent = request.content_length or 0, response.content_length or 0
        self._counts.note(kind, method, response.status, seconds, received, 0 if method == "HEAD" else sent)
        self.requests.add(
            request_id=exchange.id,
            method=method,
            path=exchange.path[:500],
            status=response.status,
            ms=round(seconds * 1000, 2),
            received=received,
            sent=sent,
            user=exchange.user_id,
            address=exchange.address,
        )


_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def _only_get(exchange: Exchange) -> None:
    if exchange.request.method not in {"GET", "HEAD"}:
        msg = f"{exchange.request.method} is not for this address; it takes GET."
        raise Unsupported(msg)


async def _nothing(exchange: Exchange) -> web.StreamResponse:
    msg = f"Nothing is at {exchange.path[:200]}. Images are under /v2/, the commands' interface is at /api/v1."
    raise NotFound(msg)


async def _welcome(exchange: Exchange) -> web.StreamResponse:
    """GET /: for a person who opens the address of the registry in a browser."""
    _only_get(exchange)
    host = exchange.registry.config.registry
    text = (
        f"Polly Docker Repository at {host}\n\n"
        "Images live at  " + host + "/<organisation>/<docker>:<tag>\n\n"
        f"  polly login --server {exchange.registry.config.url}\n"
        "  polly dockers login\n"
        "  polly dockers list --all\n"
    )
    return web.Response(text=text)


async def _alive(exchange: Exchange) -> web.StreamResponse:
    """GET /healthz: the process answers."""
    _only_get(exchange)
    return web.Response(body=b'{"status":"ok"}', content_type="application/json")


async def _ready(exchange: Exchange) -> web.StreamResponse:
    """GET /readyz: the database and the storage answer; raises Unavailable or StorageFull where they do not."""
    _only_get(exchange)
    await exchange.registry.db.read(organisation_list)
    await exchange.registry.blobs.check()
    return web.Response(body=dump({"status": "ok"}), content_type="application/json")


def _came_from_here(exchange: Exchange) -> bool:
    """Whether the client is on this machine and came by no proxy."""
    request = exchange.request
    peer = request.transport.get_extra_info("peername") if request.transport is not None else None
    here = peer is not None and ipaddress.ip_address(peer[0]).is_loopback
    return here and not any(header in request.headers for header in _FORWARDED)


_FIXED: Final[dict[str, tuple[str, Callable[[Exchange], Awaitable[web.StreamResponse]]]]] = {
    "/": ("welcome", _welcome),
    "/token": ("token", tokens.token),
    "/healthz": ("health", _alive),
    "/readyz": ("health", _ready),
}
