"""Sends blobs: small ones at once, large ones in pieces.

On a connection without TLS, a blob that is a file is sent by the kernel (sendfile); otherwise in pieces of 1 MiB.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Final

import structlog

from polly_dockers.blobs.store import BlobMissing
from polly_dockers.errors import ClientGone
from polly_dockers.web.response import Response

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator, Sequence

    from polly_dockers.blobs.store import Blob
    from polly_dockers.web.client import Client
    from polly_dockers.web.ranges import Part, Parts
    from polly_dockers.web.request import Request

log: Final = structlog.get_logger("polly.request")

PIECE: Final = 1 << 20
SMALL: Final = 1 << 16
"""Bytes up to which a blob is read and sent as a whole."""

TURN: Final = 50
"""Reads for a response of many parts, after which other requests have a turn."""

_SHORT: Final = "the file is shorter than the database says"


async def respond(request: Request, blob: Blob, wanted: Parts, *, status: int, headers: dict[str, str]) -> Response:
    """The response with parts of a blob, or the whole of it as one part. It closes the blob."""
    headers |= wanted.headers
    content = BlobContent(request, blob, wanted)
    if wanted.length > SMALL:
        return Response(status=status, headers=headers, length=wanted.length, content=content)
    try:
        pieces = [await _read(blob, group) async for group in in_turn(wanted.parts)]
    finally:
        content.close()
    return Response(b"".join((*pieces, wanted.end)), status=status, headers=headers)


class BlobContent:
    """Parts of a blob as the body of a response."""

    def __init__(self, request: Request, blob: Blob, wanted: Parts) -> None:
        self._request = request
        self._blob = blob
        self._wanted = wanted

    async def send(self, client: Client) -> None:
        """Send the parts. Raises ClientGone if the client left, and after a failure, which is logged."""
        try:
            await self._send(client)
        except (ClientGone, ConnectionError, asyncio.CancelledError):
            raise
        except TimeoutError as error:  # the client does not read
            raise ClientGone from error
        except Exception as error:
            log.exception("a blob was not sent to its end", request_id=self._request.id)
            raise ClientGone from error

    async def _send(self, client: Client) -> None:
        transport, blob = client.transport, self._blob
        if transport is None:
            raise ClientGone
        fd = blob.fileno() if transport.get_extra_info("sslcontext") is None else None
        stalled = self._request.context.config.stalled_seconds
        async for group in in_turn(self._wanted.parts):
            part = group[0]
            if part.count <= SMALL:
                client.write(await _read(blob, group))
                await client.drain()
                continue
            if transport.is_closing():
                raise ClientGone
            if part.head:
                client.write(part.head)
            if fd is not None:
                await by_kernel(transport, blob, fd, part.offset, part.count, stalled)
            else:
                await _by_pieces(client, blob, part.offset, part.count)
        client.write(self._wanted.end)

    def close(self) -> None:
        """Close the blob."""
        self._blob.close()


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
    """Yield groups of parts. After every TURN of them other requests run: reading cached data alone never lets them."""
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


async def _by_pieces(client: Client, blob: Blob, offset: int, count: int) -> None:
    while count:
        piece = await blob.read(offset, min(PIECE, count))
        if not piece:
            raise BlobMissing(_SHORT)
        client.write(piece)
        await client.drain()
        offset += len(piece)
        count -= len(piece)


async def by_kernel(transport: asyncio.Transport, blob: Blob, fd: int, offset: int, count: int, stalled: float) -> None:
    """Send ``count`` bytes of a file from ``offset``, with sendfile.

    It waits on a duplicate of the socket's descriptor: uvloop refuses one that a transport uses. Raises TimeoutError if
    the client takes nothing for ``stalled`` seconds, and ConnectionResetError if it left.
    """
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
