"""The connections of clients: one reader for all requests (llhttp, by httptools), and responses in the same order.

A connection reads one request at a time. ``_feed_head`` and ``_feed_body`` cut what arrives at the end of each head and
of each body, so the parser never sees bytes of a second request before the first one has its response. Where the parser
and these cuts do not agree on the end of a request, the connection is closed: nothing can be smuggled past either.
"""

from __future__ import annotations

import asyncio
import socket
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, cast

import httptools
import structlog

from polly_dockers.api_types import ErrorItem, Errors, encode
from polly_dockers.errors import BadRequest, ClientGone
from polly_dockers.web.body import PROGRESS_BYTES, Body
from polly_dockers.web.memory import hang_up
from polly_dockers.web.response import Response

if TYPE_CHECKING:
    import ssl

    from polly_dockers.web.app import App
    from polly_dockers.web.request import Request

log: Final = structlog.get_logger("polly.request")

HEAD_LIMIT: Final = 64 << 10
"""Largest head of a request in bytes, and the most that may arrive of a body without a byte of content."""
HEADERS_SECONDS: Final = 75.0
"""Seconds that a connection may be idle, and seconds within which a head must arrive once it has begun."""
LINGER_SECONDS: Final = 10.0
"""Seconds in which the rest of a refused body is read and dropped, so that the client sees the response."""
TLS_CLOSE_SECONDS: Final = 3.0
"""Seconds that a client has to finish its TLS connection when the server closes it."""
BACKLOG: Final = 4096
_END: Final = b"\r\n\r\n"
_FRAMING: Final = frozenset({b"content-length", b"transfer-encoding"})


class Connection(asyncio.Protocol):
    """One connection. Methods named ``on_…`` are called by the parser, within ``feed_data``."""

    __slots__ = (
        *("_app", "_begun", "_body", "_chunked", "_close", "_complete", "_deadline", "_fields", "_fruitless", "_half"),
        *(
            "_head",
            "_headers",
            "_headers_done",
            "_known",
            "_left",
            "_loop",
            "_malformed",
            "_method",
            "_parser",
            "_paused",
        ),
        *("_pending", "_request", "_server", "_surplus", "_tail", "_target", "_task", "_timer", "_unsent", "_version"),
        *("_watching", "_written", "remote", "transport"),
    )

    def __init__(self, server: HttpServer) -> None:
        self._server = server
        self._app = server.app
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self.transport: asyncio.Transport | None = None
        """The connection; None after it was lost."""
        self.remote: str | None = None
        """The address of the peer."""
        self._target = b""
        self._method, self._version = b"", ""
        self._fields: list[tuple[bytes, bytes]] = []
        self._known: list[tuple[bytes, bytes]] | None = None
        self._headers: dict[str, str] = {}
        """The headers of ``_known``. Most clients send the same ones each time."""
        self._begun = self._headers_done = self._complete = False
        """How far the parser is with the current request."""
        self._surplus = False
        """Whether bytes of another request came with the end of a chunked body."""
        self._head = 0
        """Bytes of the current head so far."""
        self._tail = b""
        """The last bytes of an unfinished head, in which its end may begin."""
        self._left: int | None = None
        """Bytes of the current body that are missing; None for chunks."""
        self._fruitless = 0
        """Bytes of a chunked body since the last content: endless extensions and trailers are refused."""
        self._body: Body | None = None
        """The body that is arriving."""
        self._request: Request | None = None
        """The request that has no complete response yet."""
        self._task: asyncio.Task[None] | None = None
        self._pending = b""
        """Bytes that arrived after the current request."""
        self._close = False
        """Whether the connection closes after the current response."""
        self._half = False
        """Whether the client has sent its last byte."""
        self._malformed = False
        self._paused = False
        """Whether reading is paused."""
        self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._unsent = 0
        self._watching: asyncio.TimerHandle | None = None
        self._written: asyncio.Future[None] | None = None

    # --- the transport ---------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected."""
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(high=1, low=0)  # writing is paused while anything is left unsent
        peer = transport.get_extra_info("peername")
        self.remote = str(peer[0]) if isinstance(peer, tuple) else None
        self._server.connections.add(self)
        self._wait(HEADERS_SECONDS)
        self._timer = self._loop.call_later(HEADERS_SECONDS, self._check_deadline)

    def connection_lost(self, exc: BaseException | None) -> None:  # noqa: ARG002 - why does not matter
        """The connection is closed. A request whose body was complete is still worked on: it may be a push."""
        self.transport = None
        self._server.remove(self)
        for timer in (self._timer, self._watching):
            if timer is not None:
                timer.cancel()
        if self._body is not None:
            self._body.fail(ClientGone())
        if self._written is not None and not self._written.done():
            self._written.set_exception(ClientGone())
        self._pending = b""

    def eof_received(self) -> bool:
        """The client sends no more. A complete request still gets its response."""
        self._half = True
        if self._body is not None:
            self._body.fail(ClientGone())
        return self._request is not None

    def pause_writing(self) -> None:
        """The client has not read everything yet: start to watch it."""
        self._written = self._loop.create_future()
        self._watch()

    def resume_writing(self) -> None:
        """The client, or its system, has read everything: stop watching it."""
        if self._watching is not None:
            self._watching.cancel()
        if self._written is not None and not self._written.done():
            self._written.set_result(None)
        self._written = None

    def _watch(self) -> None:
        if self.transport is not None:
            self._unsent = self.transport.get_write_buffer_size()
            self._watching = self._loop.call_later(self._app.stalled_seconds, self._check_progress)

    def _check_progress(self) -> None:
        """Close the connection of a client that has read less than PROGRESS_BYTES bytes since the last check."""
        if self.transport is None:
            return
        if self._unsent - self.transport.get_write_buffer_size() < PROGRESS_BYTES:
            hang_up(self.transport)
        else:
            self._watch()

    def _wait(self, seconds: float) -> None:
        """Close the connection after ``seconds``, unless a request begins or ends before."""
        self._deadline = self._loop.time() + seconds

    def _check_deadline(self) -> None:
        """Close the connection if its deadline has passed while it waited for the client."""
        busy = self._request is not None and self._task is not None
        left = HEADERS_SECONDS if busy else self._deadline - self._loop.time()
        if left <= 0:
            self._shut()
        if self.transport is not None:
            self._timer = self._loop.call_later(min(max(left, 0.1), LINGER_SECONDS), self._check_deadline)

    # --- reading ---------------------------------------------------------------------------------------------------

    def pause(self) -> None:
        """Stop reading from the client."""
        if not self._paused and self.transport is not None:
            self._paused = True
            self.transport.pause_reading()

    def resume(self) -> None:
        """Go on reading from the client."""
        if self._paused and self.transport is not None:
            self._paused = False
            self.transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        """Read requests, as far as the connection may."""
        while data and not self._malformed:
            if self._body is not None:
                data = self._feed_body(self._body, data)
            elif self._request is not None:
                self._pending += data
                self.pause()
                return
            else:
                data = self._feed_head(data)

    def _feed_head(self, data: bytes) -> bytes:
        """Parse the head of a request, or a piece of it. Returns what follows it."""
        known = len(self._tail)
        joined = self._tail + data if known else data
        at = joined.find(_END)
        if at < 0:
            if not self._head:
                self._wait(HEADERS_SECONDS)
            self._tail, piece = joined[-3:], data
        else:
            self._tail, piece = b"", data[: at + len(_END) - known]
        self._head += len(piece)
        if self._head > HEAD_LIMIT:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"The head has more than {HEAD_LIMIT} bytes.")
        elif self._parse(piece) and at >= 0:
            if self._headers_done:
                self._start()
            elif self._begun:
                self._refuse(HTTPStatus.BAD_REQUEST, "The head of the request is malformed.")
            else:  # empty lines before a request, which are ignored (RFC 9112, section 2.2)
                self._head = 0
        return data[len(piece) :]

    def _parse(self, piece: bytes) -> bool:
        """Give bytes to the parser; False if they are not HTTP."""
        try:
            self._parser.feed_data(piece)
        except httptools.HttpParserUpgrade:  # "A server MAY ignore a received Upgrade" (RFC 9110, section 7.8)
            self._ignore_upgrade()
        except httptools.HttpParserError as error:
            if not self._complete:  # else the error is in what follows a chunked body
                self._refuse(HTTPStatus.BAD_REQUEST, f"This is not an HTTP request: {str(error)[:100]}.")
            self._surplus = True
        return not self._malformed

    def _ignore_upgrade(self) -> None:
        """Go on with HTTP/1.1. The parser took the body, if there is one, for another protocol."""
        self._parser = httptools.HttpRequestParser(self)
        framing = [f"{n.decode()}: {v.decode()}\r\n" for n, v in self._fields if n.lower() in _FRAMING]
        if framing and self._left is None:
            self._complete = False
            self._parser.feed_data(f"POST / HTTP/1.1\r\n{''.join(framing)}\r\n".encode())

    def on_message_begin(self) -> None:
        """A request begins."""
        self._surplus = self._complete
        self._begun = True

    def on_url(self, url: bytes) -> None:
        """A part of the target."""
        if not self._headers_done:
            self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; a trailer is dropped."""
        if not self._headers_done:
            self._fields.append((name, value))

    def on_headers_complete(self) -> None:
        """The end of the head."""
        if not self._headers_done:
            self._headers_done = True
            parser = self._parser
            self._method, self._version = parser.get_method(), parser.get_http_version()
            self._close = not parser.should_keep_alive()

    def on_body(self, data: bytes) -> None:
        """Content of the body."""
        if self._body is not None and not self._complete:
            self._body.feed(data)

    def on_message_complete(self) -> None:
        """The end of the request."""
        self._complete = True

    def _start(self) -> None:
        """Start to work on the request whose head is complete."""
        fields = self._fields
        if fields != self._known:
            self._known, self._headers = fields, _headers(fields)
        headers = self._headers
        if problem := self._problem(headers):
            self._refuse(HTTPStatus.BAD_REQUEST, problem)
            return
        body = None
        if not self._complete:
            length = headers.get("content-length")
            self._left = int(length) if length is not None else None
            expected = self._version == "1.1" and headers.get("expect", "").lower() == "100-continue"
            body = self._body = Body(self, self._left, expected=expected)
        target = self._target.decode("utf-8", "surrogateescape")
        self._request = request = self._app.request(self, self._method.decode(), target, headers, body)
        self._task = self._loop.create_task(self._serve(request))

    def _problem(self, headers: dict[str, str]) -> str | None:
        """What is wrong with a head that the parser takes, if anything."""
        if self._version not in {"1.1", "1.0"}:
            return "The server speaks HTTP/1.1."
        if self._version == "1.1" and "," in headers.get("host", ","):
            return "A request of HTTP/1.1 must have one header Host."
        if not self._complete and headers.get("transfer-encoding", "chunked").strip().lower() != "chunked":
            return "The only Transfer-Encoding that the server takes is chunked."
        return None

    def _feed_body(self, body: Body, data: bytes) -> bytes:
        """Parse a piece of the body. Returns what follows the body."""
        received = body.received
        if self._left is None:
            piece, rest = data, b""
        else:
            piece, rest = data[: self._left], data[self._left :]
            self._left -= len(piece)
        if not self._parse(piece):
            body.fail(ClientGone())
            return b""
        if self._complete:
            self._body = None
            self._close = self._close or self._surplus
            body.end()
            if self._task is None:
                self._next()
        elif self._left == 0:
            self._refuse(HTTPStatus.BAD_REQUEST, "The end of the body is unclear.")
            body.fail(ClientGone())
        elif body.received == received:
            self._fruitless += len(piece)
            if self._fruitless > HEAD_LIMIT:
                self._refuse(HTTPStatus.BAD_REQUEST, "The chunks have too little content.")
                body.fail(ClientGone())
        else:
            self._fruitless = 0
        return rest

    # --- responding ------------------------------------------------------------------------------------------------

    async def _serve(self, request: Request) -> None:
        """Have the request answered, and go on to the next one."""
        try:
            await self._app.respond(request)
        except (ClientGone, ConnectionError):
            self._close = True
            if self._malformed:
                self._request = None
                self._refuse(HTTPStatus.BAD_REQUEST, "The body of the request is malformed.")
        except asyncio.CancelledError:
            self._abort()
            raise
        except Exception:
            log.exception("internal error")
            self._abort()
        self._task = None
        if self._body is not None and not self._half:  # the rest of what was refused, or is not HTTP
            self._body.drop()
            self._linger()
        else:
            self._next()

    def _next(self) -> None:
        """Go on to the next request, or close the connection."""
        self._request = None
        self._begun = self._headers_done = self._complete = False
        self._fields, self._target = [], b""
        self._head = self._fruitless = 0
        if self._close or (self._half and not self._pending):
            self._shut()
            return
        self._wait(HEADERS_SECONDS)
        pending, self._pending = self._pending, b""
        self.data_received(pending)
        if not self._pending:
            self.resume()

    async def send(self, request: Request, response: Response, headers: str, *, close: bool) -> None:
        """Send a response; ``headers`` are lines for its head. Raises ClientGone if the client left."""
        if self.transport is None:
            raise ClientGone
        self._close = close = close or self._close
        if close:
            headers += "Connection: close\r\n"
        elif self._version == "1.0":
            headers += "Connection: keep-alive\r\n"
        head = response.head(headers)
        if request.method == "HEAD":
            self.transport.write(head)
        elif response.content is None:
            self.transport.write(head + response.body)
        else:
            self.transport.write(head)
            try:
                await response.content.send(self)
            except BaseException:
                self._abort()  # anything more would be taken for the content
                raise

    def write(self, data: bytes) -> None:
        """Send bytes; they wait in memory until the client reads them."""
        if self.transport is not None:
            self.transport.write(data)

    async def drain(self) -> None:
        """Wait until the system has taken everything that was written. Raises ClientGone if the client left."""
        if self._written is not None:
            await self._written
        if self.transport is None or self.transport.is_closing():
            raise ClientGone

    def _refuse(self, status: HTTPStatus, message: str) -> None:
        """Answer what is not HTTP, and read nothing more."""
        self._malformed = True
        if self._request is None and self.transport is not None:
            body = encode(Errors([ErrorItem(BadRequest.code, message)]))
            response = Response(body, status=status, content_type="application/json")
            self.transport.write(response.head("Server: polly\r\nConnection: close\r\n") + body)
            self._linger()
        self._close = True

    def _linger(self) -> None:
        """Drop what the client still sends: closing the connection meanwhile could lose the response."""
        self._wait(LINGER_SECONDS)
        if (self._close or self._malformed) and self.transport is not None and self.transport.can_write_eof():
            self.transport.write_eof()

    def _shut(self) -> None:
        """Close the connection once everything is sent."""
        if self.transport is not None:
            self.transport.close()

    def _abort(self) -> None:
        """Close the connection now."""
        if self.transport is not None:
            self.transport.abort()

    def close_if_idle(self) -> None:
        """Close the connection if no request is in progress."""
        if self._request is None:
            self._shut()

    async def stop(self) -> None:
        """Cancel the request in progress, and close the connection."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        self._abort()


def _headers(fields: list[tuple[bytes, bytes]]) -> dict[str, str]:
    """Headers by their names in lower case. Values of one name are joined (RFC 9110, section 5.3)."""
    headers: dict[str, str] = {}
    for raw, value in fields:
        name, text = raw.decode().lower(), value.decode("utf-8", "surrogateescape")
        headers[name] = f"{headers[name]}, {text}" if name in headers else text
    return headers


class HttpServer:
    """Listens for clients, and knows their connections."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.connections: set[Connection] = set()
        self._listening: list[asyncio.Server] = []
        self._closed: asyncio.Future[None] | None = None

    async def listen(self, listener: socket.socket, context: ssl.SSLContext | None) -> None:
        """Serve on a socket. Connections are closed whose clients acknowledge nothing for ``stalled_seconds``.

        The system sees what this process does not: data that TLS has encrypted already, the end of a response that is
        in the system's buffer, and peers that are gone.
        """
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(self.app.stalled_seconds * 1000))
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            lambda: Connection(self),
            sock=listener,
            ssl=context,
            backlog=BACKLOG,
            ssl_shutdown_timeout=None if context is None else TLS_CLOSE_SECONDS,
        )
        self._listening.append(server)

    def remove(self, connection: Connection) -> None:
        """Forget a connection that is closed."""
        self.connections.discard(connection)
        if self._closed is not None and not self.connections and not self._closed.done():
            self._closed.set_result(None)

    async def drain(self, seconds: float) -> None:
        """Stop listening, close idle connections at once, and wait at most ``seconds`` for the others."""
        for listening in self._listening:
            listening.close()
        self._closed = asyncio.get_running_loop().create_future()
        for connection in list(self.connections):
            connection.close_if_idle()
        if self.connections:
            await asyncio.wait([self._closed], timeout=seconds)

    async def stop(self) -> None:
        """Cancel the requests in progress, and close all connections."""
        await asyncio.gather(*(connection.stop() for connection in list(self.connections)))
