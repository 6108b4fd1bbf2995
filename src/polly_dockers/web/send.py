"""Sending: small answers at once, large ones piece by piece, and blobs.

A blob goes through the kernel where the connection is plain and the blob is a file, else in pieces of 1 MiB.
"""

from __future__ import annotations

import asyncio
import os
import re
from typing import TYPE_CHECKING, Final

import structlog
from aiohttp import web
from multidict import CIMultiDict

from polly_dockers.blobs.store import BlobMissing
from polly_dockers.errors import RangeInvalid
from polly_dockers.web.answer import Answer

if TYPE_CHECKING:
    from polly_dockers.blobs.store import Blob
    from polly_dockers.web.exchange import Exchange

log: Final = structlog.get_logger("polly.request")

PIECE: Final = 1 << 20
SMALL: Final = 1 << 16
"""Bytes up to which a blob is read whole and answered in one go."""
PORTION: Final = 128 << 10
"""Bytes of a large answer that are given to its connection at once: more than aiohttp writes without waiting."""

_SHORT: Final = "the file is shorter than its row says"

_RANGE: Final = re.compile(r"bytes=\s*([0-9]{0,18})-([0-9]{0,18})\s*\Z")


def parse_range(header: str | None, size: int) -> tuple[int, int] | None:
    """First byte and count of a Range header; None: the whole (no header, or one of several ranges).

    "a server MAY ignore the Range header field" (RFC 9110, 14.2). Raises RangeInvalid where it can't be satisfied.
    """
    if header is None or not header.startswith("bytes=") or "," in header:
        return None
    match = _RANGE.match(header)
    if match is None or (not match[1] and not match[2]):
        msg = f"The range {header[:100]!r} is malformed; write bytes=FIRST-LAST."
        raise RangeInvalid(msg, total=size)
    if not match[1]:
        start, end = max(size - int(match[2]), 0), size - 1
        satisfiable = int(match[2]) > 0 and size > 0
    else:
        start = int(match[1])
        end = min(int(match[2]), size - 1) if match[2] else size - 1
        satisfiable = start < size and end >= start
    if not satisfiable:
        msg = f"The blob has {size} bytes; {header[:100]!r} lies outside of them."
        raise RangeInvalid(msg, total=size)
    return start, end - start + 1


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
    exchange: Exchange, blob: Blob, *, offset: int, count: int, status: int, headers: dict[str, str]
) -> Answer | web.StreamResponse:
    """Answer with ``count`` bytes of the blob from ``offset``."""
    if count <= SMALL:
        data = await blob.read(offset, count)
        if len(data) != count:
            raise BlobMissing(headers["Docker-Content-Digest"])
        return Answer(data, status=status, headers=headers)
    response = web.StreamResponse(status=status, headers=headers | exchange.headers)
    response.content_length, request = count, exchange.request
    await response.prepare(request)
    transport = request.transport
    if transport is None:
        raise ConnectionResetError
    fd = blob.fileno()
    try:
        if fd is not None and transport.get_extra_info("sslcontext") is None:
            await _by_kernel(transport, blob, fd, offset, count, exchange.registry.config.stalled_seconds)
        else:
            await _by_pieces(response, blob, offset, count)
        await response.write_eof()
    except BaseException as error:
        transport.abort()  # the head of the answer is out: whatever else is said would be taken for the blob
        if not isinstance(error, Exception) or isinstance(error, (asyncio.CancelledError, ConnectionError)):
            raise
        if not isinstance(error, TimeoutError):  # that is the client's; anything else is a fault of the server
            log.exception("a blob was not sent to its end", request_id=exchange.id)
        raise ConnectionResetError from error
    return response


async def _by_pieces(response: web.StreamResponse, blob: Blob, offset: int, count: int) -> None:
    while count:
        piece = await blob.read(offset, min(PIECE, count))
        if not piece:
            raise BlobMissing(_SHORT)
        await response.write(piece)
        offset += len(piece)
        count -= len(piece)


async def _by_kernel(
    transport: asyncio.Transport, blob: Blob, fd: int, offset: int, count: int, stalled: float
) -> None:
    """Sendfile on a duplicate of the connection's descriptor: uvloop lends out none that a transport holds."""
    pause = 0.0
    while transport.get_write_buffer_size():  # the connection's own deadline ends this
        await asyncio.sleep(pause)
        pause = 0.001
        if transport.is_closing():
            raise ConnectionResetError
    out = os.dup(transport.get_extra_info("socket").fileno())
    try:
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
