"""Bodies as they arrive: a client decides how small its chunks and packets are, and not what each of them costs."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

import pytest
from aiohttp import ClientPayloadError, StreamReader
from aiohttp.base_protocol import BaseProtocol
from aiohttp.test_utils import make_mocked_request

from polly_dockers.errors import ClientGone
from polly_dockers.web.memory import Room
from polly_dockers.web.request import MIN_PIECE, Request

if TYPE_CHECKING:
    from polly_dockers.context import Context

TOGETHER = 1000
"""Chunks that come in one packet."""


class Sender:
    """A client that sends a chunked body, and what has been taken of it."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        protocol = BaseProtocol(loop)
        protocol.transport = asyncio.Transport()
        self._reader = StreamReader(protocol, 1 << 22, loop=loop)
        request = make_mocked_request("PUT", "/v2/", {"Transfer-Encoding": "chunked"}, payload=self._reader)
        self._body = Request(request, cast("Context", None), Room(1 << 20), "1").body()
        self.pieces: list[bytes] = []
        self._task = loop.create_task(self._take())

    async def _take(self) -> None:
        async for piece in self._body:
            self.pieces.append(piece)

    async def send(self, *chunks: bytes) -> None:
        """Send a packet, and wait until it is taken."""
        for chunk in chunks:
            self._reader.begin_http_chunk_receiving()
            self._reader.feed_data(chunk)
            self._reader.end_http_chunk_receiving()
        while self._reader._buffer:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0)

    async def end(self, error: Exception | None = None) -> None:
        """End the body, or cut it short; raises what its reader then raises."""
        if error is None:
            self._reader.feed_eof()
        else:
            self._reader.set_exception(error)
        await self._task


@pytest.mark.parametrize("together", [1, TOGETHER])
@pytest.mark.parametrize("size", [1, 100, MIN_PIECE + 1])
async def test_small_chunks_are_joined(size: int, together: int) -> None:
    """13: whatever chunks and packets a body comes in, each of its pieces but the last has at least MIN_PIECE bytes."""
    sender = Sender()
    chunk = bytes(range(256)) * (size // 256) + bytes(range(size % 256))
    count = 3 * TOGETHER if size < MIN_PIECE else TOGETHER // 100
    for _ in range(count // min(together, count)):
        await sender.send(*[chunk] * min(together, count))
    await sender.end()
    assert b"".join(sender.pieces) == chunk * count
    assert [piece for piece in sender.pieces[:-1] if len(piece) < MIN_PIECE] == []


async def test_what_came_before_a_body_was_cut_short() -> None:
    """13: it is given all the same, for an upload that goes on later."""
    sender = Sender()
    await sender.send(b"abc")
    await sender.send(b"de")
    with pytest.raises(ClientGone):
        await sender.end(ClientPayloadError())
    assert sender.pieces == [b"abcde"]
