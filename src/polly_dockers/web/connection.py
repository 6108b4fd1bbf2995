"""The connections of clients: requests are read one at a time, and get their responses in the same order."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Final, cast

import structlog

from polly_dockers.errors import BadRequest, ClientGone
from polly_dockers.system import addresses
from polly_dockers.web.body import PROGRESS_BYTES, Body
from polly_dockers.web.listener import Listener
from polly_dockers.web.memory import hang_up
from polly_dockers.web.reader import Malformed, Reader

if TYPE_CHECKING:
    import ssl

    from polly_dockers.system.balance import Balance
    from polly_dockers.web.app import App
    from polly_dockers.web.reader import Head
    from polly_dockers.web.request import Request
    from polly_dockers.web.response import Response

log: Final = structlog.get_logger("polly.request")

HEADERS_SECONDS: Final = 75.0
"""Seconds that a connection may be idle, and seconds within which a head must arrive once it has begun."""
FIRST_SECONDS: Final = 1.0
"""Seconds within which the first request of a connection must begin when the server stops."""
LINGER_SECONDS: Final = 10.0
"""Seconds in which what a client still sends is read and dropped, so that it sees the response."""
STOP_SECONDS: Final = 1.0
"""Seconds that a cancelled request has to end when the server stops."""
FRAMING: Final = 8 << 10
"""If one read has more bytes of chunk headers than this, it costs too much time. The next read then waits for the next
turn of the loop. Otherwise there would be up to 32 reads in one turn."""


class Connection(asyncio.Protocol):
    """One connection.

    It reads a head, gives the request to the app in a task, reads the body for it, and only then the next head.
    """

    def __init__(self, server: HttpServer) -> None:
        self._server = server
        self._app = server.app
        self._loop = asyncio.get_running_loop()
        self._reader = Reader()
        self.transport: asyncio.Transport | None = None
        """The connection; None after it was lost."""
        self.remote = addresses.UNKNOWN
        """The address of the peer."""
        self._head: Head | None = None
        """The head of the request that has no complete response yet, or whose body is still arriving."""
        self._body: Body | None = None
        """The body of that request, until all of it has arrived."""
        self._task: asyncio.Task[None] | None = None
        """The task that makes the response to that request; None without a request."""
        self._pending = b""
        """Bytes that arrived after that request."""
        self._deaf = False
        """Whether what arrives is dropped, because the connection is about to close."""
        self._new = True
        """Whether no request has arrived."""
        self._close = False
        """Whether the connection closes after the response."""
        self._half = False
        """Whether the client has sent its last byte."""
        self._paused = False
        """Whether reading is paused."""
        self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._written: asyncio.Future[None] | None = None
        """Set while the system has not taken everything that was written."""
        self._unsent = 0
        self._watching: asyncio.TimerHandle | None = None

    # --- the transport ---------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected."""
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(high=1, low=0)  # writing is paused while anything is left unsent
        peer = transport.get_extra_info("peername")
        self.remote = addresses.client(str(peer[0]) if isinstance(peer, tuple) else None, (), ())
        self._server.add(self)
        # While the server stops, this may be a client that connected before, or whose TLS handshake took until now.
        self._wait_at_most(FIRST_SECONDS if self._app.draining else HEADERS_SECONDS)

    def connection_lost(self, exc: BaseException | None) -> None:  # noqa: ARG002 - why does not matter
        """The connection is closed. A request whose body was complete is still worked on: it may be a push."""
        self.transport = None
        self._reader.close()
        self._server.remove(self)
        for timer in (self._timer, self._watching):
            if timer is not None:
                timer.cancel()
        if self._body is not None:
            self._body.fail(ClientGone())
            self._body = None
        if self._written is not None and not self._written.done():
            self._written.set_result(None)  # ``drain`` sees that there is no transport
        self._pending = b""

    def eof_received(self) -> bool:
        """The client sends no more. A complete request still gets its response, except over TLS."""
        self._half = True
        if self._body is not None:
            self._body.fail(ClientGone())
        return self._task is not None and self.transport is not None and self.transport.can_write_eof()

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

    def _wait_at_most(self, seconds: float) -> None:
        """Close the connection after ``seconds``, even if this is earlier than what was set before."""
        self._wait(seconds)
        if self._timer is not None:
            self._timer.cancel()
        if self.transport is not None:
            self._timer = self._loop.call_later(seconds, self._check_deadline)

    def _check_deadline(self) -> None:
        """Close the connection if its deadline has passed while it waited for the client."""
        left = HEADERS_SECONDS if self._task is not None else self._deadline - self._loop.time()
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
        if self._paused and not self._pending and self.transport is not None:
            self._paused = False
            self.transport.resume_reading()

    def _rest(self) -> None:
        """Read no more from the client in this turn of the loop, so that others have theirs."""
        if self.transport is not None:
            self.transport.pause_reading()
            self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        if not self._paused and self.transport is not None:
            self.transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        """Parse what arrived, until a request is in progress or the connection closes."""
        while data and not self._deaf:
            try:
                if self._body is not None:
                    data = self._read_body(self._body, data)
                elif self._head is None:
                    data = self._read_head(data)
                else:
                    self._pending += data
                    self.pause()
                    return
            except Malformed as error:
                self._close = self._deaf = True
                self._reader.close()
                if self._body is None:
                    self._refuse(error.status, error.message)
                else:
                    self._body.fail(BadRequest(error.message))
                if self._task is None:
                    self._linger()

    def _read_head(self, data: bytes) -> bytes:
        begun = self._reader.begun
        head, data = self._reader.head(data)
        if head is not None:
            self._start(head)
        elif self._reader.begun and not begun and not self._app.draining:
            self._wait(HEADERS_SECONDS)
        return data

    def _start(self, head: Head) -> None:
        """Give a request to the app, in a task of its own."""
        self._new, self._head, self._close = False, head, not head.keep_alive
        if head.has_body:
            expected = head.version == "1.1" and head.headers.get("expect", "").lower() == "100-continue"
            self._body = Body(self, head.length, expected=expected)
        self._task = self._loop.create_task(self._serve(self._app.request(self, head, self._body)))

    def _read_body(self, body: Body, data: bytes) -> bytes:
        content, complete, rest = self._reader.body(data)
        body.feed(content)
        if len(data) - len(content) - len(rest) > FRAMING:
            if body.dropped:
                msg = "The chunks of the body have too little content."
                raise Malformed(msg)
            self._rest()
        if complete:
            self._body = None
            self._close = self._close or self._reader.surplus
            body.end()
            if self._task is None:
                self._next()
        return rest

    # --- responding ------------------------------------------------------------------------------------------------

    async def _serve(self, request: Request) -> None:
        """Have the request answered, and go on to the next one."""
        try:
            await self._app.respond(request, self.send)
            if self._written is not None:  # no more than one response waits for a client that does not read
                await self.drain()
        except (ClientGone, ConnectionError):
            self._close = True
        except asyncio.CancelledError:
            self._abort()
            raise
        except Exception:
            log.exception("internal error")
            self._abort()
        self._task = None
        if self._body is None or self._half:
            self._next()
        else:  # the rest of what was refused
            self._body.drop()
            self._linger()

    def _next(self) -> None:
        """Go on to the next request, or close the connection."""
        self._head = None
        if self._close or self._app.draining or (self._half and not self._pending):
            self._shut()
            return
        self._wait(HEADERS_SECONDS)
        pending, self._pending = self._pending, b""
        self.data_received(pending)
        self.resume()

    async def send(self, request: Request, response: Response, headers: str) -> None:
        """Send a response; ``headers`` are lines for its head. Raises ClientGone if the client left."""
        if self.transport is None or self._head is None:
            raise ClientGone
        # A client that got no 100 Continue may send its body or not, so the connection can't be used again.
        self._close = self._close or self._app.draining or (request.body is not None and request.body.withheld)
        if self._close:
            headers += "Connection: close\r\n"
        elif self._head.version == "1.0":
            headers += "Connection: keep-alive\r\n"
        head = response.head(headers)
        self.transport.write(head if request.method == "HEAD" else head + response.body)
        if response.content is not None and request.method != "HEAD":
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

    def _refuse(self, status: int, message: str) -> None:
        """Send an error, because what arrived is not a request."""
        if self.transport is not None:
            response, headers = self._app.refuse(self.remote, status, message)
            self.transport.write(response.head(f"{headers}Connection: close\r\n") + response.body)

    def _linger(self) -> None:
        """Drop what the client still sends: closing the connection meanwhile could lose the response."""
        self._wait_at_most(LINGER_SECONDS)
        transport = self.transport
        if self._close and transport is not None and transport.can_write_eof() and not transport.is_closing():
            transport.write_eof()

    def _shut(self) -> None:
        """Close the connection once everything is sent."""
        self._deaf = True
        if self.transport is not None:
            self.transport.close()

    def _abort(self) -> None:
        """Close the connection now."""
        if self.transport is not None:
            self.transport.abort()

    def close_if_idle(self) -> None:
        """Close the connection if no request is in progress. A new one has FIRST_SECONDS for its first request."""
        if self._new:
            self._wait_at_most(FIRST_SECONDS)
        elif self._head is None:
            self._shut()

    async def stop(self) -> None:
        """Cancel the request in progress, and close the connection."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task], timeout=STOP_SECONDS)
        self._abort()


class HttpServer:
    """Listens for clients, and knows their connections."""

    def __init__(self, app: App, balance: Balance) -> None:
        """``balance`` is where all processes that serve the app write how many connections they have."""
        self.app = app
        self.connections: set[Connection] = set()
        self._balance = balance
        self._listening: list[Listener] = []
        self._closed: asyncio.Future[None] | None = None

    def listen(self, listener: socket.socket, context: ssl.SSLContext | None) -> None:
        """Serve on a socket; ``context`` is for TLS.

        The system closes a connection if the client acknowledges nothing for ``stalled_seconds``. It sees what this
        process does not: data that TLS has encrypted already, the end of a response that is in the system's buffer, and
        peers that are gone.
        """
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(self.app.stalled_seconds * 1000))
        self._listening.append(Listener(listener, context, lambda: Connection(self), self._balance, self._count))
        self._count()

    def _count(self) -> None:
        """Tell other processes how many connections this one has, with those whose TLS handshake is under way."""
        if self._listening:
            self._balance.write(len(self.connections) + sum(len(each.beginning) for each in self._listening))

    def add(self, connection: Connection) -> None:
        """Note a connection that is open."""
        self.connections.add(connection)
        self._count()

    def remove(self, connection: Connection) -> None:
        """Forget a connection that is closed."""
        self.connections.discard(connection)
        self._count()
        if self._closed is not None and not self.connections and not self._closed.done():
            self._closed.set_result(None)

    async def drain(self, seconds: float) -> None:
        """Stop listening, close idle connections, and wait at most ``seconds`` for the others.

        A connection that was accepted just before, or whose TLS handshake is under way, may still bring a request.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        for listening in self._listening:
            listening.close()
        beginning = [task for listening in self._listening for task in listening.beginning]
        self._listening.clear()
        self._balance.leave()
        for connection in list(self.connections):
            connection.close_if_idle()
        if beginning:
            await asyncio.wait(beginning, timeout=min(seconds, FIRST_SECONDS))
        self._closed = loop.create_future()
        if self.connections:
            await asyncio.wait([self._closed], timeout=until - loop.time())

    async def stop(self) -> None:
        """Cancel the requests in progress, and close all connections."""
        await asyncio.gather(*(connection.stop() for connection in list(self.connections)))
