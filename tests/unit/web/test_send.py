"""Sending parts of a blob: a client that does not read costs nothing, and many small parts need few reads."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polly_dockers.web import blob_response
from polly_dockers.web.ranges import Part

if TYPE_CHECKING:
    from pathlib import Path


class Behind:
    """A transport that has something to write first, and a blob that is always in memory."""

    def __init__(self, out: socket.socket) -> None:
        self.out = out
        self.left = 1
        self.asked = 0
        self.closing = False

    def get_write_buffer_size(self) -> int:
        """The number of bytes left; counts how often it was called."""
        self.asked += 1
        return self.left

    def is_closing(self) -> bool:
        """Whether the connection is about to close."""
        return self.closing

    def get_extra_info(self, _name: str) -> socket.socket:
        """Return the socket."""
        return self.out

    async def warm(self, _offset: int, _count: int) -> None:
        """Do nothing, because the blob is in memory."""


async def test_who_does_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is done for a connection until it accepts bytes again; then the blob follows what was written before."""
    path, at_once = tmp_path / "blob", asyncio.sleep
    path.write_bytes(b"blob" * 1000)
    ours, theirs = socket.socketpair()
    with ours, theirs, path.open("rb") as file:
        ours.settimeout(0)
        filled = 0
        try:
            while True:
                filled += ours.send(bytes(1 << 16))
        except BlockingIOError:
            pass
        transport: Any = Behind(ours)
        with monkeypatch.context() as patched:
            patched.setattr(asyncio, "sleep", lambda _seconds: at_once(0))
            sending = asyncio.create_task(blob_response.by_kernel(transport, transport, file.fileno(), 0, 4000, 60.0))
            for _ in range(500):
                await at_once(0)
            assert transport.asked < 5
        transport.left = 0
        theirs.settimeout(0)
        loop, got = asyncio.get_running_loop(), b""
        while len(got) < filled + 4000:
            got += await loop.sock_recv(theirs, 1 << 20)
        await sending
        assert got[filled:] == path.read_bytes()


async def test_a_connection_that_closes_meanwhile(tmp_path: Path) -> None:
    """It gets nothing more, although the duplicate of its descriptor is still open."""
    path = tmp_path / "blob"
    path.write_bytes(bytes(4 * blob_response.PIECE))
    ours, theirs = socket.socketpair()
    with ours, theirs, path.open("rb") as file:
        ours.settimeout(0)
        transport: Any = Behind(ours)
        transport.left, transport.closing = 0, True
        with pytest.raises(ConnectionResetError):
            await blob_response.by_kernel(transport, transport, file.fileno(), 0, 1000, 60.0)


@given(st.lists(st.tuples(st.integers(0, 5 * blob_response.SMALL), st.integers(1, 2 * blob_response.SMALL))))
def test_groups(wanted: list[tuple[int, int]]) -> None:
    """All parts keep their order; those of a group follow each other within one read."""
    parts = [Part(offset, count) for offset, count in wanted]
    groups = list(blob_response.together(parts))
    assert [part for group in groups for part in group] == parts
    for group in groups:
        if len(group) > 1:
            places = [place for part in group for place in (part.offset, part.offset + part.count)]
            assert places == sorted(places)
            assert places[-1] - places[0] <= blob_response.SMALL


def test_neighbours_are_read_together() -> None:
    """1,000 parts of 10 bytes, one after another, are one read."""
    assert len(list(blob_response.together(Part(20 * number, 10) for number in range(1000)))) == 1


async def test_others_have_their_turn() -> None:
    """Other requests run between the reads of a response of 1,000 parts that are far apart."""
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    parts = [Part(1 << 20 << number % 9, 10) for number in range(1000)]
    assert len([group async for group in blob_response.in_turn(parts)]) == 1000
    task.cancel()
    assert turns >= 1000 // blob_response.TURN - 1
