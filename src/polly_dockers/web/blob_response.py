"""Sends responses: small ones at once, large ones and blobs in pieces.

On a connection without TLS, a blob that is a file is sent by the kernel (sendfile); otherwise in pieces of 1 MiB.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Final

import structlog
from aiohttp import web
from multidict import CIMultiDict

from polly_dockers.blobs.store import BlobMissing
from polly_dockers.web.response import Response

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator, Sequence

    from polly_dockers.blobs.store import Blob
    from polly_dockers.web.ranges import Part, Parts
    from polly_dockers.web.request import Request

log: Final = structlog.get_logger("polly.request")

PIECE: Final = 1 << 20
SMALL: Final = 1 << 16
"""Bytes up to which a blob is read and sent as a whole."""
PORTION: Final = 128 << 10
"""Bytes of a large response that are written to its connection at once: more than aiohttp writes without waiting."""

TURN: Final = 50
"""Reads for a response of many parts, after which other requests have a turn."""

_SHORT: Final = "the file is shorter than the database says"


async def respond(request: Request, response: Response, *, close: bool) -> web.StreamResponse:
    """Return a small response for aiohttp to send; send a large one in pieces, and return it too.

    ``close``: close the connection afterwards. Raises ClientGone if the client left, or others needed its memory.
    """
    held = request.held
    large = held is not None and held.size == response.length and not response.body
    sending = _without_body(response) if large else response.to_aiohttp()
    sending.headers.update(request.response_headers)
    if close:
        sending.force_close()
    if held is not None and large:
        await sending.prepare(request.raw)
        for at in range(0, response.length, PORTION):
            await sending.write(held.part(at, PORTION))
        await sending.write_eof()
    return sending


def _without_body(response: Response) -> web.StreamResponse:
    sending = web.StreamResponse(status=response.status, headers=CIMultiDict(response.headers))
    sending.content_length = response.length
    return sending


async def send(
    request: Request, blob: Blob, wanted: Parts, *, status: int, headers: dict[str, str]
) -> Response | web.StreamResponse:
    """Send parts of a blob, or the whole of it as one part."""
    headers |= wanted.headers
    if wanted.length <= SMALL:
        pieces = [await _read(blob, group) async for group in in_turn(wanted.parts)]
        return Response(b"".join((*pieces, wanted.end)), status=status, headers=headers)
    response = web.StreamResponse(status=status, headers=headers | request.response_headers)
    response.content_length = wanted.length
    await response.prepare(request.raw)
    transport = request.raw.transport
    if transport is None:
        raise ConnectionResetError
    fd = blob.fileno() if transport.get_extra_info("sslcontext") is None else None
    stalled = request.context.config.stalled_seconds
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
        transport.abort()  # the headers are sent already: anything more would be taken for the blob
        if not isinstance(error, Exception) or isinstance(error, (asyncio.CancelledError, ConnectionError)):
            raise
        if not isinstance(error, TimeoutError):  # a timeout is the client's fault; anything else is an internal error
            log.exception("a blob was not sent to its end", request_id=request.id)
        raise ConnectionResetError from error
    return response


def together(parts: Iterable[Part]) -> Iterator[list[Part]]:
    """Group consecutive parts that lie within SMALL bytes of the blob, keeping their order."""
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
    """Yield groups of parts, and let other requests run in between: reading cached data never waits."""
    for at, group in enumerate(together(parts), 1):
        yield group
        if at % TURN == 0:
            await asyncio.sleep(0)


async def _read(blob: Blob, group: Sequence[Part]) -> bytes:
    """Read the bytes of a group with one read of the blob, and put the head of each part before it."""
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
    """Send by sendfile, on a duplicate of the descriptor: uvloop does not share one that a transport uses."""
    out = os.dup(transport.get_extra_info("socket").fileno())
    try:
        if transport.get_write_buffer_size():
            await asyncio.sleep(0)  # the headers are written in the next turn of the loop
        while transport.get_write_buffer_size():  # the transport writes it, and is woken together with this
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
