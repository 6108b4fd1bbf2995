"""The front door: every request comes in here, and every answer goes out with its id, its headers and a log line."""

from __future__ import annotations

import asyncio
import itertools
import secrets
import time
from typing import TYPE_CHECKING, Final

import structlog

from polly_dockers.blobs.store import BlobMissing
from polly_dockers.errors import ClientGone, InternalError, NotFound, PollyError, Unsupported
from polly_dockers.registry.readiness import Readiness
from polly_dockers.system import addresses
from polly_dockers.web import blob_response, errors, memory, metrics
from polly_dockers.web.api import routes
from polly_dockers.web.fast_path import PromptRequest
from polly_dockers.web.request import COMMON, Exchange, dump
from polly_dockers.web.request_log import RequestLine, RequestLog
from polly_dockers.web.response import Answer
from polly_dockers.web.v2 import router, token

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiohttp import web

    from polly_dockers.context import Context
    from polly_dockers.web.metrics import Counts

    Handler = Callable[[Exchange], Awaitable[Answer | web.StreamResponse]]

log: Final = structlog.get_logger("polly.request")

_COMMON: Final = "".join(f"{name}: {value}\r\n" for name, value in COMMON.items())

GONE: Final = 499
"""What the log calls a request whose client went away before it was answered."""

CUT: Final = 503
"""What the log calls a request that the end of the server cut off."""

_FORWARDED: Final = ("X-Forwarded-For", "X-Real-IP", "Forwarded", "Via")
"""A request that carries one of these came through a proxy: its peer says nothing of who asks."""


class Site:
    """Answers the requests of one process."""

    def __init__(self, context: Context, counts: Counts) -> None:
        self._context = context
        self._counts = counts
        self._requests = RequestLog(context.config)
        self.room = memory.Room(memory.limit(context.config.max_manifest_bytes))
        """What this process holds in memory for its clients."""
        self.stalled_seconds = float(context.config.stalled_seconds)
        """Within which a client has to take all that it was sent, or a good part."""
        self._ids = secrets.token_hex(4)
        self._numbers = itertools.count()
        self.draining = False
        """Whether the process is about to end: each answer then closes its connection."""
        self._readiness = Readiness(context)
        config = context.config
        self._plain = not (config.metrics_listen or config.public_url or config.trusted_proxies)
        """Whether nothing says that a proxy stands before: then who comes from this machine may see /metrics."""

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request that aiohttp has read."""
        exchange = self._exchange(request)
        try:
            answer = await self._serve(exchange)
            assert answer is not None  # noqa: S101 - that is for a PromptRequest
            if not isinstance(answer, Answer):
                return answer
            refused = "Expect" in request.headers and not exchange.continued
            # A client that was not told to go on may or may not send its body.
            return await blob_response.respond(exchange, answer, close=self.draining or refused)
        finally:
            exchange.release()

    @property
    def prompt(self) -> bool:
        """Whether ``answer_promptly`` is there for what it can do."""
        return not self.draining

    def answer_promptly(self, request: PromptRequest) -> bytes | None:
        """Answer a request for which nothing has to be waited for: its handler only reads rows.

        None, and nothing is noted, where the answer is too large to be given to the connection at once.
        """
        exchange = self._exchange(request)
        serving = self._serve(exchange)
        try:
            serving.send(None)
        except StopIteration as done:
            answer: Answer | None = done.value
            if answer is None:
                return None
            return answer.wire(f"{_COMMON}X-Request-Id: {exchange.id}\r\n", head=request.method == "HEAD")
        serving.close()
        msg = f"{request.raw_path} waits for something, and can't be answered promptly."
        raise RuntimeError(msg)

    def _exchange(self, request: web.BaseRequest | PromptRequest) -> Exchange:
        return Exchange(request, self._context, self.room, f"{self._ids}{next(self._numbers):08x}")

    async def _serve(self, exchange: Exchange) -> Answer | web.StreamResponse | None:
        """Answer; a failure becomes the error envelope, and everything is noted.

        None, and nothing is noted, for a PromptRequest whose answer is large.
        """
        started = time.perf_counter()
        exchange.kind, handler = self._route(exchange)
        self._counts.in_flight += 1
        try:
            answer = await self._answer(exchange, handler)
        except BaseException as error:
            status = CUT if isinstance(error, asyncio.CancelledError) else GONE
            self._note(exchange, status, 0, time.perf_counter() - started)
            raise
        finally:
            self._counts.in_flight -= 1
        if isinstance(answer, Answer):
            sent = answer.length
            if (
                sent > memory.SMALL
                and isinstance(exchange.request, PromptRequest)
                and exchange.request.method != "HEAD"
            ):
                return None
        else:
            sent = answer.content_length or 0
        self._note(exchange, answer.status, sent, time.perf_counter() - started)
        return answer

    def _route(self, exchange: Exchange) -> tuple[str, Handler]:
        path = exchange.path
        if path.startswith("/v2/") or path == "/v2":
            return "v2", router.answer
        if path.startswith("/api/"):
            return "api", routes.answer
        if path == "/metrics" and self._plain and _came_from_here(exchange):
            return "metrics", self._metrics
        if path == "/readyz":
            return "health", self._ready
        return _FIXED.get(path, ("other", _nothing))

    async def _ready(self, exchange: Exchange) -> Answer:
        """GET /readyz: rows and files can be written; raises Unavailable or StorageFull where they cannot."""
        _only_get(exchange)
        await self._readiness.check()
        return Answer(dump({"status": "ok"}), content_type="application/json")

    async def _metrics(self, exchange: Exchange) -> Answer:
        _only_get(exchange)
        return Answer(self._counts.exposition(), headers={"Content-Type": metrics.CONTENT_TYPE})

    @staticmethod
    async def _answer(exchange: Exchange, handler: Handler) -> Answer | web.StreamResponse:
        try:
            answer = await handler(exchange)
            if isinstance(answer, Answer) and answer.length > memory.SMALL:
                exchange.keep(answer)
        except PollyError as error:
            return errors.answer(exchange, error)
        except (ClientGone, ConnectionError, asyncio.CancelledError):
            raise
        except BlobMissing as error:
            log.error("blob missing", request_id=exchange.id, key=str(error))  # noqa: TRY400 - says it all
            return errors.answer(
                exchange, InternalError("The server has lost these bytes. Its log says so to its operator.")
            )
        except Exception:
            log.exception("fault", request_id=exchange.id, path=exchange.path[:500])
            msg = f"A fault of the server; its log tells more under {exchange.id}."
            return errors.answer(exchange, InternalError(msg))
        else:
            return answer

    def _note(self, exchange: Exchange, status: int, sent: int, seconds: float) -> None:
        request = exchange.request
        method = request.method if request.method in _METHODS else "OTHER"
        received = 0 if isinstance(request, PromptRequest) else request.content.total_bytes
        if method == "HEAD":
            sent = 0
        self._counts.note(exchange.kind, method, status, seconds, received, sent)
        if self._requests.on:
            self._requests.add(
                RequestLine(
                    request_id=exchange.id,
                    method=method,
                    path=exchange.path[:500],
                    status=status,
                    ms=round(seconds * 1000, 2),
                    received=received,
                    sent=sent,
                    user=exchange.user_id,
                    address=exchange.address,
                )
            )

    def flush(self) -> None:
        """Write the lines of the log that wait."""
        self._requests.flush()


class MetricsSite(Site):
    """Answers what comes to the listener of the metrics, which knows /metrics and nothing else."""

    def _route(self, exchange: Exchange) -> tuple[str, Handler]:
        return "metrics", self._metrics if exchange.path == "/metrics" else _nothing


_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def _only_get(exchange: Exchange) -> None:
    if exchange.request.method not in {"GET", "HEAD"}:
        msg = f"{exchange.request.method} is not for this address; it takes GET."
        raise Unsupported(msg, ("GET", "HEAD"))


async def _nothing(exchange: Exchange) -> Answer:
    msg = f"Nothing is at {exchange.path[:200]}. Images are under /v2/, the commands' interface is at /api/v1."
    raise NotFound(msg)


async def _welcome(exchange: Exchange) -> Answer:
    """GET /: for a person who opens the address of the registry in a browser."""
    _only_get(exchange)
    host = exchange.context.config.registry
    text = (
        f"Polly Docker Repository at {host}\n\n"
        "Images live at  " + host + "/<organisation>/<docker>:<tag>\n\n"
        f"  polly login --server {exchange.context.config.url}\n"
        "  polly dockers login\n"
        "  polly dockers list --all\n"
    )
    return Answer(text.encode(), content_type="text/plain; charset=utf-8")


async def _alive(exchange: Exchange) -> Answer:
    """GET /healthz: the process answers."""
    _only_get(exchange)
    return Answer(b'{"status":"ok"}', content_type="application/json")


def _came_from_here(exchange: Exchange) -> bool:
    """Whether the client is on this machine and came by no proxy."""
    request = exchange.request
    peer = request.transport.get_extra_info("peername") if request.transport is not None else None
    here = isinstance(peer, tuple) and addresses.is_loopback(peer[0])
    return here and not any(header in request.headers for header in _FORWARDED)


_FIXED: Final[dict[str, tuple[str, Handler]]] = {
    "/": ("welcome", _welcome),
    "/token": ("token", token.token),
    "/healthz": ("health", _alive),
}
