"""What a connection may cost: the time of the loop, the time for which it is open, and memory."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from polly_dockers.config import Config
from polly_dockers.errors import ClientGone
from polly_dockers.web.app import App
from polly_dockers.web.body import MIN_PIECE, PROGRESS_BYTES, READ_BUFFER
from polly_dockers.web.connection import FIRST_SECONDS, HEADERS_SECONDS, Connection
from polly_dockers.web.metrics import Counts
from polly_dockers.web.reader import Reader
from polly_dockers.web.response import Response
from support.wire import EMPTY, GET, Client, Clock, answer, patch, put

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from polly_dockers.web.app import Send
    from polly_dockers.web.client import Client as AnyClient
    from polly_dockers.web.request import Request

CHUNKED = b"PATCH /c HTTP/1.1\r\nHost: polly\r\nTransfer-Encoding: chunked\r\n\r\n"
FRAMING = b"1\r\nx\r\n" * 40_000
"""One read of chunks of one byte."""


def answered_by(client: Client, respond: Callable[[Request, Send], Awaitable[None]]) -> None:
    """Let this function be the app of a client."""
    cast("Any", client.app).respond = respond


@pytest.mark.parametrize("pieces", [[b"\r\n" * 120_000], [b"\r", b"\n\r\n"] * 20, [b"\n"] * 20, [GET, b"\r\n" * 3]])
async def test_empty_lines_without_end(pieces: list[bytes]) -> None:
    """They are refused, however they arrive, before the first request and before the next one."""
    client = Client()
    await client.send(*pieces)
    assert client.app.refused == [400]
    assert client.wire.ended
    client.leave()


async def test_a_few_empty_lines() -> None:
    """They are ignored before each request, because old clients send one after a body."""
    client = Client()
    await client.send(b"\r\n", b"\r\n" + GET + b"\r\n\r\n" + put(b"abc") + b"\r\n", GET)
    assert client.answers() == [answer(GET), answer(put(b"abc")), answer(GET)]
    client.leave()


@pytest.mark.parametrize(("drip", "times"), [(b"\r", 4), (b"a", 30)])
async def test_a_connection_that_drips(monkeypatch: pytest.MonkeyPatch, drip: bytes, times: int) -> None:
    """26: neither empty lines nor bytes of a head give the rest of it more time."""
    clock, client = Clock(monkeypatch), Client()
    if drip != b"\r":
        await client.send(b"GET /")
    for _ in range(times):
        await client.send(drip)
        await clock.wait((HEADERS_SECONDS + 2) / times)
    assert client.wire.closed
    client.leave()


async def test_chunks_with_little_content_take_turns() -> None:
    """Of a body that is mostly the sizes of its chunks, one piece is read in a turn of the loop."""
    client = Client()
    client.connection.data_received(CHUNKED)
    for piece, goes_on in ((FRAMING, False), (b"1000\r\n" + b"x" * 4096 + b"\r\n", True), (FRAMING, False)):
        client.connection.data_received(piece)
        assert client.wire.reading is goes_on
        await client.send()
        assert client.wire.reading is True
    client.leave()


async def test_a_turn_does_not_end_another_pause() -> None:
    """Small chunks that nobody takes wait in memory up to the limit, as any others do."""
    client = Client()
    seen: list[Request] = []

    async def respond(request: Request, _send: Send) -> None:
        seen.append(request)
        await asyncio.Event().wait()

    answered_by(client, respond)
    client.connection.data_received(CHUNKED)
    for _ in range(20):
        if client.wire.reading:
            await client.send(FRAMING)
    assert not client.wire.reading
    assert seen[0].stream().received <= READ_BUFFER + len(FRAMING) // 6
    await client.connection.stop()
    client.leave()


async def test_a_refused_body_with_little_content() -> None:
    """Its chunks are not read to their end: the connection closes after the response, and what comes is not parsed."""
    client = Client()
    client.app.reads = False
    await client.send(CHUNKED)
    await client.send(FRAMING)
    assert client.wire.ended
    await client.send(b"0\r\n\r\n" + GET)
    assert client.answers() == [b"PATCH /c " + EMPTY]
    client.leave()


async def test_a_parser_that_sees_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the parser and the length of a body do not agree on its end, the request is refused."""
    monkeypatch.setattr(Reader, "on_message_complete", lambda _self: None)
    client = Client()
    assert (await client.send(put(b"abc") + GET)).startswith(b"HTTP/1.1 400 ")
    client.leave()


async def test_what_follows_waits_until_its_turn() -> None:
    """A handler that reads its body late does not make the connection read more requests."""
    client = Client()
    read, done = asyncio.Event(), asyncio.Event()

    async def respond(request: Request, send: Send) -> None:
        await read.wait()
        async for _ in request.stream():
            pass
        await done.wait()
        await send(request, Response(), "")

    answered_by(client, respond)
    client.connection.data_received(put(bytes(2 * MIN_PIECE)) + GET)
    read.set()
    await client.send()
    reading = [client.wire.reading]
    done.set()
    await client.send()
    assert client.wire.written.count(b"HTTP/1.1 200 ") == 2
    assert [*reading, client.wire.reading] == [False, True]
    client.leave()


@pytest.mark.parametrize(("read", "closed"), [(PROGRESS_BYTES - 1, True), (PROGRESS_BYTES, False)])
async def test_a_client_that_reads_slowly(monkeypatch: pytest.MonkeyPatch, read: int, closed: bool) -> None:  # noqa: FBT001 - a parameter
    """25: it must read PROGRESS_BYTES in ``stalled_seconds``, or its connection closes."""
    clock, client = Clock(monkeypatch), Client()
    client.wire.unsent = 10 * PROGRESS_BYTES
    client.connection.pause_writing()
    for _ in range(2):
        client.wire.unsent -= read
        await clock.wait(client.app.stalled_seconds + 1)
    assert client.wire.aborted is closed
    client.leave()


class Broken:
    """The content of a response, of which half can be sent."""

    async def send(self, client: AnyClient) -> None:
        """Send half."""
        client.write(b"half")
        raise ClientGone

    def close(self) -> None:
        """Do nothing."""


async def test_a_response_that_ends_early() -> None:
    """The connection closes at once, even if a body still arrives: anything more would be taken for the content."""
    client = Client()

    async def respond(request: Request, send: Send) -> None:
        await send(request, Response(length=8, content=Broken()), "")

    answered_by(client, respond)
    await client.send(put(b"abc")[:-1])
    assert client.wire.aborted
    assert client.wire.written.endswith(b"half")
    client.leave()


async def test_a_content_is_closed_if_its_client_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It holds a file, or memory, which is free again as soon as the response is over."""
    closed: list[bool] = []
    content = Broken()
    monkeypatch.setattr(content, "close", lambda: closed.append(True))

    async def handler(_request: Request) -> Response:
        return Response(length=8, content=content)

    config = cast("Any", SimpleNamespace(config=Config(data=tmp_path)))
    app = App(config, Counts(tmp_path, tmp_path))
    monkeypatch.setattr(app, "_route", lambda _request: ("other", handler))
    client = Client()
    cast("Any", client.app).respond = app.respond
    await client.send(GET)
    assert closed == [True]
    client.leave()


async def test_a_malformed_body_has_one_response() -> None:
    """The app answers it, so that it has an ID and one line in the log, and the connection closes."""
    client = Client()
    await client.send(patch(b"hello")[:-20] + b"ZZZ\r\n")
    assert client.wire.written.startswith(b"HTTP/1.1 400 ")
    assert (client.wire.written.count(b"HTTP/1.1"), client.app.refused) == (1, [])
    assert b"\r\nConnection: close\r\n" in client.wire.written
    assert client.wire.ended
    client.leave()


async def test_a_server_that_stops_closes_what_is_over() -> None:
    """34: while the server stops, a connection closes after its request, and one that is idle at once."""
    busy, idle = Client(), Client()
    await idle.send(GET)
    busy.connection.data_received(GET)
    for client in (busy, idle):
        client.app.draining = True
        client.connection.close_if_idle()
    assert (busy.wire.closed, idle.wire.closed) == (False, True)
    await busy.send()
    assert busy.answers() == [answer(GET)]
    assert busy.wire.closed
    for client in (busy, idle):
        client.leave()


@pytest.mark.parametrize("connected", ["before", "meanwhile"])
@pytest.mark.parametrize("start", [b"", GET[:9]])
async def test_a_new_connection_of_a_server_that_stops(
    monkeypatch: pytest.MonkeyPatch, connected: str, start: bytes
) -> None:
    """34: its request may be on its way, so it is answered if it comes soon; else the connection closes."""
    clock, served, silent = Clock(monkeypatch), Client(), Client()
    for client in (served, silent):
        client.app.draining = True
        if connected == "meanwhile":
            client.leave()
            client.connection = Connection(client.connection._server)
            client.connection.connection_made(client.wire)
        client.connection.close_if_idle()
        assert not client.wire.closed
        await client.send(start)
    await served.send(GET[len(start) :])
    assert served.answers() == [answer(GET)]
    assert b"\r\nConnection: close\r\n" in served.wire.written
    assert served.wire.closed
    await clock.wait(FIRST_SECONDS + 0.1)
    assert silent.wire.closed
    for client in (served, silent):
        client.leave()
