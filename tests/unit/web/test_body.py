"""Request bodies as they arrive: small chunks and packets must not cost much."""

from __future__ import annotations

import asyncio

import pytest

from polly_dockers.errors import ClientGone, RequestTimeout
from polly_dockers.web import body as module
from polly_dockers.web.body import CONTINUE, MIN_PIECE, READ_BUFFER, Body
from support.wire import Clock


class Sender:
    """A client that sends a body, and what the handler has received."""

    def __init__(self, *, expected: bool = False) -> None:
        self.transport: asyncio.Transport | None = None
        self.remote = "203.0.113.1"
        self.body = Body(self, None, expected=expected)
        self.pieces: list[bytes] = []
        self.written = b""
        self.calls = ["resume"]
        self.task: asyncio.Task[None] | None = None

    def write(self, data: bytes) -> None:
        """What the server sends."""
        self.written += data

    async def drain(self) -> None:
        """Everything is taken at once."""

    def pause(self) -> None:
        """The server takes no more for now."""
        self.calls.append("pause")

    def resume(self) -> None:
        """The server takes more."""
        self.calls.append("resume")

    def paused(self) -> bool:
        """Whether the server takes no more for now."""
        return self.calls[-1] == "pause"

    async def _take(self) -> None:
        async for piece in self.body:
            self.pieces.append(piece)

    async def send(self, *chunks: bytes) -> None:
        """Send chunks in one packet, and let the handler run."""
        self.task = self.task or asyncio.create_task(self._take())
        for chunk in chunks:
            self.body.feed(chunk)
        for _ in range(3):
            await asyncio.sleep(0)

    async def end(self, failure: ClientGone | None = None) -> None:
        """End the body, or cut it short; raises what its handler then gets."""
        if failure is None:
            self.body.end()
        else:
            self.body.fail(failure)
        assert self.task is not None
        await self.task


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that wants progress in each hundredth of a second."""
    monkeypatch.setattr(module, "PROGRESS_SECONDS", 0.01)


@pytest.mark.parametrize("together", [1, 1000])
@pytest.mark.parametrize("size", [1, 100, MIN_PIECE + 1])
async def test_small_chunks_are_joined(size: int, together: int) -> None:
    """13: however a body is split into chunks and packets, each piece except the last has at least MIN_PIECE bytes."""
    sender = Sender()
    chunk = bytes(range(256)) * (size // 256) + bytes(range(size % 256))
    count = 3000 if size < MIN_PIECE else 10
    for _ in range(count // min(together, count)):
        await sender.send(*[chunk] * min(together, count))
    await sender.end()
    assert b"".join(sender.pieces) == chunk * count
    assert [piece for piece in sender.pieces[:-1] if len(piece) < MIN_PIECE] == []


async def test_what_came_before_a_body_was_cut_short() -> None:
    """13: the handler still receives it, so that an upload can continue later."""
    sender = Sender()
    await sender.send(b"abc")
    await sender.send(b"de")
    with pytest.raises(ClientGone):
        await sender.end(ClientGone())
    assert sender.pieces == [b"abcde"]


async def test_what_waits_is_bounded() -> None:
    """More than READ_BUFFER bytes stop the connection, until the handler takes them."""
    sender = Sender()
    sender.body.feed(bytes(READ_BUFFER))
    assert not sender.paused()
    sender.body.feed(b"x")
    assert sender.paused()
    await sender.send()
    assert not sender.paused()
    await sender.end()
    assert sum(map(len, sender.pieces)) == READ_BUFFER + 1


async def test_a_body_that_nobody_wants_takes_no_memory() -> None:
    """What arrived is dropped, and so is what follows; the connection continues to read."""
    sender = Sender()
    sender.body.feed(bytes(READ_BUFFER + 1))
    sender.body.drop()
    assert not sender.paused()
    sender.body.feed(bytes(READ_BUFFER + 1))
    assert not sender.paused()
    assert sender.body.received == 2 * READ_BUFFER + 2


async def test_continue_is_sent_once_and_only_if_needed() -> None:
    """A client that waits for 100 Continue gets it when the handler reads, unless the body comes already."""
    sender = Sender(expected=True)
    assert sender.body.withheld
    await sender.send()
    await sender.send(b"a")
    await sender.end()
    assert (sender.written, sender.body.withheld) == (CONTINUE, False)
    sender = Sender(expected=True)
    await sender.send(b"a")
    await sender.end()
    assert sender.written == b""


@pytest.mark.usefixtures("impatient")
async def test_a_body_that_drips() -> None:
    """26: if too few bytes arrive in the time, RequestTimeout is raised after what did arrive."""
    sender = Sender()
    await sender.send(b"a")
    assert sender.task is not None
    with pytest.raises(RequestTimeout):
        await sender.task
    assert sender.pieces == [b"a"]


async def test_time_in_which_the_server_does_not_read_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """26: a client does not count as slow while the handler works on what it sent."""
    clock, sender = Clock(monkeypatch), Sender()
    pieces = aiter(sender.body)
    waiting = asyncio.ensure_future(anext(pieces))
    await asyncio.sleep(0)
    sender.body.feed(bytes(MIN_PIECE))
    assert len(await waiting) == MIN_PIECE
    await clock.wait(module.PROGRESS_SECONDS + 1)
    rest = asyncio.ensure_future(anext(pieces, None))
    await asyncio.sleep(0)
    sender.body.end()
    assert await rest is None
