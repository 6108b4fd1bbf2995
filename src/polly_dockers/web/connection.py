"""The connections of clients: aiohttp's low-level server, with the fast path in front of it."""

from __future__ import annotations

import asyncio
import socket
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, cast

import structlog
from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from polly_dockers.api_types import ErrorItem, Errors, encode
from polly_dockers.errors import BadRequest, ClientGone, InternalError
from polly_dockers.web.fast_path import Framing
from polly_dockers.web.memory import hang_up
from polly_dockers.web.request import PROGRESS_BYTES

if TYPE_CHECKING:
    from polly_dockers.web.app import App

log: Final = structlog.get_logger("polly.request")

READ_BUFFER: Final = 256 << 10
"""Bytes of a request body that each connection buffers."""

HEADERS_SECONDS: Final = 75.0
"""Seconds within which the headers of a request must arrive; then the connection is closed."""

TLS_CLOSE_SECONDS: Final = 3.0
"""Seconds that an idle client has to finish its TLS connection when the server stops."""


def bound_unread(listener: socket.socket, seconds: float) -> None:
    """Let the system close connections of the listener whose client acknowledges nothing for ``seconds``.

    The system sees what this process does not: data that TLS has encrypted already, the end of a response that is in
    the system's buffer, and peers that are gone.
    """
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(seconds * 1000))


class _Protocol(RequestHandler):
    """One connection. aiohttp calls ``handle_error`` for a request that can't be parsed, or whose client left."""

    __slots__ = ("_app", "_framing", "_remote", "_sending", "_unsent", "_waiting")

    def __init__(self, app: App, manager: web.Server, loop: asyncio.AbstractEventLoop, **options: Any) -> None:  # noqa: ANN401 - the options of aiohttp
        super().__init__(manager, loop=loop, **options)
        self._app = app
        self._framing = Framing()
        self._remote: str | None = None
        self._sending: asyncio.Transport | None = None
        """The connection; also after aiohttp has closed it, while there is still data to send."""
        self._unsent = 0
        self._waiting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the client's address, and watch whether it reads."""
        super().connection_made(transport)
        self._sending = cast("asyncio.Transport", transport)
        self._sending.set_write_buffer_limits(high=1, low=0)  # writing is paused while anything is left unsent
        peer = transport.get_extra_info("peername")
        self._remote = str(peer[0]) if isinstance(peer, tuple) else None

    def pause_writing(self) -> None:
        """The client has not read everything yet: start to watch it."""
        super().pause_writing()
        self._watch()

    def resume_writing(self) -> None:
        """The client, or its system, has read everything: stop watching it."""
        super().resume_writing()
        self._unwatch()

    def _watch(self) -> None:
        if self._sending is not None:
            self._unsent = self._sending.get_write_buffer_size()
            self._waiting = self._loop.call_later(self._app.stalled_seconds, self._check_progress)

    def _unwatch(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _check_progress(self) -> None:
        """Close the connection of a client that has read less than PROGRESS_BYTES bytes since the last check."""
        if self._sending is None:
            return
        if self._unsent - self._sending.get_write_buffer_size() < PROGRESS_BYTES:
            hang_up(self._sending)
        else:
            self._watch()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Stop the task that waits for the rest of a refused body, which aiohttp leaves waiting."""
        responded = self._current_request is None and self._waiter is None
        task = self._task_handler
        self._unwatch()
        self._sending = None
        super().connection_lost(exc)
        if responded and task is not None:
            task.cancel()

    def data_received(self, data: bytes) -> None:
        """Respond at once to requests of the fast path, and give all others to aiohttp."""
        waiter, transport = self._waiter, self.transport
        closing = self._close or self._force_close
        idle = waiter is not None and not waiter.done() and not self._messages and not self._paused
        request = self._framing.parse(data, idle=idle and self._app.fast_path and not closing)
        if request is None or transport is None:
            super().data_received(data)
            return
        request.transport, request.remote = transport, self._remote
        response = self._app.respond_at_once(request)
        if response is None:  # it is large, so aiohttp sends it in pieces
            super().data_received(data)
            return
        transport.write(response)
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout

    def resume_reading(self, resume_parser: bool = True) -> None:  # noqa: FBT001, FBT002 - as aiohttp calls it
        """Resume reading only if it is paused: aiohttp calls this after each chunk, however small."""
        if self._reading_paused:
            super().resume_reading(resume_parser)

    def close_if_idle(self) -> None:
        """Close the connection if no request is in progress. Otherwise aiohttp would drop the rest of its body."""
        if self._waiter is not None:  # aiohttp waits for the next request
            self.close()
            if self.transport is not None:  # aiohttp stops waiting, but leaves the connection open
                self.transport.close()
                self._loop.call_later(TLS_CLOSE_SECONDS, self.transport.abort)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - it holds what the client sent
    ) -> web.StreamResponse:
        """Respond with an error and close the connection. Raises ConnectionResetError if a response has begun."""
        if request.writer.output_size > 0:
            raise ConnectionResetError
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR and not isinstance(exc, (ClientGone, ConnectionError)):
            log.error("internal error", exc_info=exc)
        bad = BadRequest("This is not an HTTP request, or one of its headers is longer than 64 KiB.")
        internal = InternalError("Internal server error. The log of the server has the details.")
        error = bad if status < HTTPStatus.INTERNAL_SERVER_ERROR else internal
        response = web.Response(
            status=status,
            body=encode(Errors([ErrorItem(error.code, error.message)])),
            content_type="application/json",
            headers={"Server": "polly"},
        )
        response.force_close()
        return response


class HttpServer(web.Server):
    """Creates a protocol object for each connection."""

    def __init__(self, app: App) -> None:
        self._app = app
        super().__init__(
            app,
            access_log=None,
            auto_decompress=False,
            read_bufsize=READ_BUFFER,
            keepalive_timeout=HEADERS_SECONDS,
            lingering_time=10.0,
            max_line_size=65_536,
            max_field_size=65_536,
        )

    async def drain(self, seconds: float) -> None:
        """Close idle connections at once, and wait at most ``seconds`` until all others are closed."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + seconds
        while self.connections and clock() < deadline:
            for connection in self.connections:
                cast("_Protocol", connection).close_if_idle()
            await asyncio.sleep(0.02)

    def __call__(self) -> RequestHandler:
        """Create the protocol object of a new connection."""
        return _Protocol(self._app, self, self._loop, **self._kwargs)
