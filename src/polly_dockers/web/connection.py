"""aiohttp's low-level server, with our own words for what is no HTTP at all."""

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
from polly_dockers.web.request import SLOWEST

if TYPE_CHECKING:
    from polly_dockers.web.app import Site

log: Final = structlog.get_logger("polly.request")

READ_BUFFER: Final = 256 << 10
"""Bytes of a body that wait for their reader, for each connection."""

IDLE: Final = 75.0
"""Seconds in which the head of a request has to come: a connection without one is closed."""

GOODBYE: Final = 3.0
"""Seconds within which an idle client has to take part in the end of its TLS connection, where the server ends."""


def bound_unread(listener: socket.socket, seconds: float) -> None:
    """Let the system end each connection of the listener whose client takes nothing for so long.

    It sees what the process does not: what TLS has encrypted already, the end of an answer, and peers that are gone.
    """
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(seconds * 1000))


class _Protocol(RequestHandler):
    """One connection. A request that can't be parsed, or whose client left, comes to ``handle_error``."""

    __slots__ = ("_framing", "_line", "_remote", "_site", "_unsent", "_waiting")

    def __init__(self, site: Site, manager: web.Server, loop: asyncio.AbstractEventLoop, **options: Any) -> None:  # noqa: ANN401 - they are aiohttp's
        super().__init__(manager, loop=loop, **options)
        self._site = site
        self._framing = Framing()
        self._remote: str | None = None
        self._line: asyncio.Transport | None = None
        """The connection, also after aiohttp has closed it and it still has something to send."""
        self._unsent = 0
        self._waiting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note who it is."""
        super().connection_made(transport)
        self._line = cast("asyncio.Transport", transport)
        self._line.set_write_buffer_limits(high=1, low=0)  # writing is paused while anything is left unsent
        peer = transport.get_extra_info("peername")
        self._remote = str(peer[0]) if isinstance(peer, tuple) else None

    def pause_writing(self) -> None:
        """The client has not taken all that it was sent: see within how long it does."""
        super().pause_writing()
        self._watch()

    def resume_writing(self) -> None:
        """The client, or its system, has taken everything."""
        super().resume_writing()
        self._unwatch()

    def _watch(self) -> None:
        if self._line is not None:
            self._unsent = self._line.get_write_buffer_size()
            self._waiting = self._loop.call_later(self._site.stalled_seconds, self._look)

    def _unwatch(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _look(self) -> None:
        """Hang up on a client that took less than SLOWEST bytes since the last look."""
        if self._line is None:
            return
        if self._unsent - self._line.get_write_buffer_size() < SLOWEST:
            hang_up(self._line)
        else:
            self._watch()

    def connection_lost(self, exc: BaseException | None) -> None:
        """End what waits for the rest of a refused body: it comes no more, and aiohttp goes on waiting."""
        answered = self._current_request is None and self._waiter is None
        task = self._task_handler
        self._unwatch()
        self._line = None
        super().connection_lost(exc)
        if answered and task is not None:
            task.cancel()

    def data_received(self, data: bytes) -> None:
        """Answer at once what can be, and give the rest to aiohttp."""
        waiter, transport = self._waiter, self.transport
        closing = self._close or self._force_close
        idle = waiter is not None and not waiter.done() and not self._messages and not self._paused
        request = self._framing.take(data, idle=idle and self._site.prompt and not closing)
        if request is None or transport is None:
            super().data_received(data)
            return
        request.transport, request.remote = transport, self._remote
        answer = self._site.answer_promptly(request)
        if answer is None:  # it is large, and sent piece by piece there
            super().data_received(data)
            return
        transport.write(answer)
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout

    def resume_reading(self, resume_parser: bool = True) -> None:  # noqa: FBT001, FBT002 - as aiohttp calls it
        """Read again where reading was paused; aiohttp asks for it after each chunk that was read, however small."""
        if self._reading_paused:
            super().resume_reading(resume_parser)

    def close_if_idle(self) -> None:
        """Close the connection between two requests; not in one, for then aiohttp drops what comes of its body."""
        if self._waiter is not None:  # aiohttp waits for the next request
            self.close()
            if self.transport is not None:  # aiohttp ends its wait alone, and leaves the connection open
                self.transport.close()
                self._loop.call_later(GOODBYE, self.transport.abort)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - it holds what the client sent
    ) -> web.StreamResponse:
        """The envelope, and the end of the connection; nothing where an answer has begun already."""
        if request.writer.output_size > 0:
            raise ConnectionResetError
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR and not isinstance(exc, (ClientGone, ConnectionError)):
            log.error("fault of the server", exc_info=exc)
        what = BadRequest("This is not an HTTP request, or a header of it is longer than 64 KiB.")
        error = what if status < HTTPStatus.INTERNAL_SERVER_ERROR else None
        told = error or InternalError("A fault of the server; its log tells more.")
        response = web.Response(
            status=status,
            body=encode(Errors([ErrorItem(told.code, told.message)])),
            content_type="application/json",
            headers={"Server": "polly"},
        )
        response.force_close()
        return response


class HttpServer(web.Server):
    """Makes a protocol for each connection."""

    def __init__(self, site: Site) -> None:
        self._site = site
        super().__init__(
            site,
            access_log=None,
            auto_decompress=False,
            read_bufsize=READ_BUFFER,
            keepalive_timeout=IDLE,
            lingering_time=10.0,
            max_line_size=65_536,
            max_field_size=65_536,
        )

    async def drain(self, seconds: float) -> None:
        """Wait until every connection is closed, for ``seconds`` at most; idle ones are closed at once."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + seconds
        while self.connections and clock() < deadline:
            for connection in self.connections:
                cast("_Protocol", connection).close_if_idle()
            await asyncio.sleep(0.02)

    def __call__(self) -> RequestHandler:
        """A protocol."""
        return _Protocol(self._site, self, self._loop, **self._kwargs)
