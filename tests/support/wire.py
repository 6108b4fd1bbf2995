"""A client of one connection, without a network: its bytes arrive in pieces that the test chooses."""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING, cast

from polly_dockers.errors import BadRequest
from polly_dockers.system.balance import Balance
from polly_dockers.web.connection import Connection, HttpServer
from polly_dockers.web.memory import Room
from polly_dockers.web.request import Request
from polly_dockers.web.response import Response

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

    from polly_dockers.context import Context
    from polly_dockers.web.app import App, Send
    from polly_dockers.web.body import Body
    from polly_dockers.web.reader import Head


class Clock:
    """Lets time pass at once, for the timers of the running loop."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        loop = asyncio.get_running_loop()
        self._time, self._passed = loop.time, 0.0
        monkeypatch.setattr(loop, "time", lambda: self._time() + self._passed)

    async def wait(self, seconds: float) -> None:
        """Let this time pass, and the timers run that are due."""
        self._passed += seconds
        for _ in range(5):
            await asyncio.sleep(0)


class Echo:
    """An app that answers each request with its method, its target and the digest of its body."""

    stalled_seconds = 60.0
    draining = False

    def __init__(self) -> None:
        self.reads = True
        self.refused: list[int] = []
        self.seen: list[Request] = []
        self._room = Room(1 << 20)

    def request(self, made: Connection, head: Head, body: Body | None) -> Request:
        """A request as the app sees it."""
        return Request(made, head, body, cast("Context", None), self._room, "1")

    def refuse(self, _address: str, status: int, message: str) -> tuple[Response, str]:
        """Remember what was refused, and answer it."""
        self.refused.append(status)
        return Response(message.encode(), status=status), ""

    async def respond(self, request: Request, send: Send) -> None:
        """Answer it."""
        self.seen.append(request)
        content = b""
        if self.reads:
            try:
                async for piece in request.stream():
                    content += piece
            except BadRequest as error:
                await send(request, Response(error.message.encode(), status=400), "")
                return
        await send(request, _echo(request, content), "")


def _echo(request: Request, content: bytes) -> Response:
    return Response(f"{request.method} {request.path} {hashlib.sha256(content).hexdigest()}\n".encode())


class Wire(asyncio.Transport):
    """The other end of a connection: what was written to it, and whether it is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = self.aborted = self.ended = False
        self.reading = True
        self.unsent = 0
        self.on_write: Callable[[], None] = lambda: None
        """Called after each write, as the system does that can't take the bytes yet."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Keep the bytes."""
        self.written += bytes(data)
        self.on_write()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Do nothing: all bytes are sent at once."""

    def get_write_buffer_size(self) -> int:
        """What the test says: bytes that the client has not read."""
        return self.unsent

    def can_write_eof(self) -> bool:
        """Yes, as TCP can."""
        return True

    def write_eof(self) -> None:
        """Record that nothing more is written."""
        self.ended = True

    def is_closing(self) -> bool:
        """Whether it is closed."""
        return self.closed

    def close(self) -> None:
        """Close it."""
        self.closed = True

    def abort(self) -> None:
        """Close it, and drop what is not sent."""
        self.closed = self.aborted = True

    def pause_reading(self) -> None:
        """Record that reading is paused."""
        self.reading = False

    def resume_reading(self) -> None:
        """Record that reading continues."""
        self.reading = True


class Client:
    """A client whose bytes arrive in pieces that the test chooses."""

    def __init__(self) -> None:
        self.app = Echo()
        self.wire = Wire()
        self.connection = Connection(HttpServer(cast("App", self.app), Balance()))
        self.connection.connection_made(self.wire)

    async def send(self, *pieces: bytes) -> bytes:
        """Send pieces as fast as the server reads them; returns all that the server has written."""
        for piece in pieces:
            while not self.wire.reading and not self.wire.closed:  # noqa: ASYNC110 - one turn of the loop at a time
                await asyncio.sleep(0)
            if self.wire.closed:
                break
            self.connection.data_received(piece)
        for _ in range(20):
            await asyncio.sleep(0)
        return self.wire.written

    def leave(self) -> None:
        """Close the connection."""
        self.connection.connection_lost(None)

    def answers(self) -> list[bytes]:
        """The lines of the app, in order."""
        return [part.split(b"\n")[0] for part in self.wire.written.split(b"\r\n\r\n")[1:]]


GET = b"GET /a HTTP/1.1\r\nHost: polly\r\n\r\n"
EMPTY = hashlib.sha256(b"").hexdigest().encode()


def put(body: bytes, *headers: bytes) -> bytes:
    """A request whose body has a length."""
    fields = b"".join(b"%s\r\n" % header for header in headers)
    return b"PUT /b HTTP/1.1\r\nHost: polly\r\n%sContent-Length: %d\r\n\r\n%s" % (fields, len(body), body)


def patch(*chunks: bytes) -> bytes:
    """A request whose body comes in chunks, with an extension and a trailer."""
    head = b"PATCH /c HTTP/1.1\r\nHost: polly\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"".join(b"%x;e=1\r\n%s\r\n" % (len(each), each) for each in chunks) + b"0\r\nTrailer: x\r\n\r\n"


def answer(request: bytes) -> bytes:
    """What the app answers."""
    if request == GET:
        return b"GET /a " + EMPTY
    method, rest = request.split(b" ", 1)
    body = rest.split(b"\r\n\r\n", 1)[1]
    if method == b"PATCH":
        parts, body = body.split(b"\r\n"), b""
        body = b"".join(parts[1:-4:2])
    return b"%s %s %s" % (method, rest[:2], hashlib.sha256(body).hexdigest().encode())
