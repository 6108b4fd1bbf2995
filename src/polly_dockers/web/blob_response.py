"""Sending: small answers at once, large ones piece by piece, and blobs.

A blob goes through the kernel where the connection is plain and the blob is a file, else in pieces of 1 MiB.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Final

import structlog
from aiohttp import web
from multidict import CIMultiDict

from polly_dockers.blobs.store import BlobMissing
from polly_dockers.web.response import Answer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator, Sequence

    from polly_dockers.blobs.store import Blob
    from polly_dockers.web.ranges import Part, Parts
    from polly_dockers.web.request import Exchange

log: Final = structlog.get_logger("polly.request")

PIECE: Final = 1 << 20
SMALL: Final = 1 << 16
"""Bytes up to which a blob is read whole and answered in one go."""
PORTION: Final = 128 << 10
"""Bytes of a large answer that are given to its connection at once: more than aiohttp writes without waiting."""

TURN: Final = 50
"""Reads of an answer of many parts after which other requests have their turn."""

_SHORT: Final = "the file is shorter than its row says"


async def respond(exchange: Exchange, answer: Answer, *, close: bool) -> web.StreamResponse:
    """The answer for aiohttp to send, or one that was sent here, piece by piece, because it is large.

    ``close``: the connection ends with it. Raises ClientGone where the client left, or had to make room for others.
    """
    held = exchange.held
    large = held is not None and held.size == answer.length and not answer.body
    response = _empty(answer) if large else answer.response()
    response.headers.update(exchange.headers)
    if close:
        response.force_close()
    if held is not None and large:
        await response.prepare(exchange.request)
        for at in range(0, answer.length, PORTION):
            await response.write(held.part(at, PORTION))
        await response.write_eof()
    return response


def _empty(answer: Answer) -> web.StreamResponse:
    response = web.StreamResponse(status=answer.status, headers=CIMultiDict(answer.headers))
    response.content_length = answer.length
    return response


async def send(
    exchange: Exchange, blob: Blob, wanted: Parts, *, status: int, headers: dict[str, str]
) -> Answer | web.StreamResponse:
    """Answer with parts of the blob, or with the whole of it as its one part."""
    headers |= wanted.headers
    if wanted.length <= SMALL:
        pieces = [await _read(blob, group) async for group in in_turn(wanted.parts)]
        return Answer(b"".join((*pieces, wanted.end)), status=status, headers=headers)
    response = web.StreamResponse(status=status, headers=headers | exchange.headers)
    response.content_length, request = wanted.length, exchange.request
    await response.prepare(request)
    transport = request.transport
    if transport is None:
        raise ConnectionResetError
    fd = blob.fileno() if transport.get_extra_info("sslcontext") is None else None
    stalled = exchange.context.config.stalled_seconds
    try:
        async for group in in_turn(wanted.parts):
            part = group[0]
            if part.count <= SMALL:
                await response.write(await _read(blob, group))
                continue
            if part.head:
                await response.write(part.head)
            if fd is not None:
                await by_kernel(transport, blob, fd, part.offset, part.count, stalled)
            else:
                await _by_pieces(response, blob, part.offset, part.count)
        await response.write_eof(wanted.end)
    except BaseException as error:
        transport.abort()  # the head of the answer is out: whatever else is said would be taken for the blob
        if not isinstance(error, Exception) or isinstance(error, (asyncio.CancelledError, ConnectionError)):
            raise
        if not isinstance(error, TimeoutError):  # that is the client's; anything else is a fault of the server
            log.exception("a blob was not sent to its end", request_id=exchange.id)
        raise ConnectionResetError from error
    return response


def together(parts: Iterable[Part]) -> Iterator[list[Part]]:
    """Parts in their order, those that follow each other within SMALL bytes of the blob as one group."""
    group: list[Part] = []
    for part in parts:
        if group and not (_end(group[-1]) <= part.offset and _end(part) - group[0].offset <= SMALL):
            yield group
            group = []
        group.append(part)
    if group:
        yield group


def _end(part: Part) -> int:
    return part.offset + part.count


async def in_turn(parts: Iterable[Part]) -> AsyncIterator[list[Part]]:
    """Groups of parts, with turns for others between: what is cached is read without waiting."""
    for at, group in enumerate(together(parts), 1):
        yield group
        if at % TURN == 0:
            await asyncio.sleep(0)


async def _read(blob: Blob, group: Sequence[Part]) -> bytes:
    """The heads and the bytes of a group, by one read of the blob."""
    first, last = group[0].offset, _end(group[-1])
    data = await blob.read(first, last - first)
    if len(data) != last - first:
        raise BlobMissing(_SHORT)
    return b"".join(piece for part in group for piece in (part.head, data[part.offset - first : _end(part) - first]))


async def _by_pieces(response: web.StreamResponse, blob: Blob, offset: int, count: int) -> None:
    while count:
        piece = await blob.read(offset, min(PIECE, count))
        if not piece:
            raise BlobMissing(_SHORT)
        await response.write(piece)
        offset += len(piece)
        count -= len(piece)


async def by_kernel(transport: asyncio.Transport, blob: Blob, fd: int, offset: int, count: int, stalled: float) -> None:
    """Sendfile on a duplicate of the connection's descriptor: uvloop lends out none that a transport holds."""
    out = os.dup(transport.get_extra_info("socket").fileno())
    try:
        if transport.get_write_buffer_size():
            await asyncio.sleep(0)  # the head of the answer is written in the next turn
        while transport.get_write_buffer_size():  # the transport writes it, and is woken as this is
            await _writable(out, stalled)
            if transport.is_closing():
                raise ConnectionResetError
        warm = offset
        while count:
            if offset >= warm:
                await blob.warm(offset, ahead := min(count, PIECE))
                warm = offset + ahead
            try:
                sent = os.sendfile(out, fd, offset, min(count, warm - offset))
            except BlockingIOError:
                await _writable(out, stalled)
                continue
            if transport.is_closing():
                raise ConnectionResetError
            if sent == 0:
                raise BlobMissing(_SHORT)
            offset += sent
            count -= sent
            if count and offset >= warm:
                await asyncio.sleep(0)
    finally:
        os.close(out)


async def _writable(fd: int, stalled: float) -> None:
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    loop.add_writer(fd, _wake, ready)
    try:
        async with asyncio.timeout(stalled):
            await ready
    finally:
        loop.remove_writer(fd)


def _wake(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
