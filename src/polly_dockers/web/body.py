"""The body of a request while it arrives: bounded in bytes and in time, whatever packets and chunks it comes in."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from polly_dockers.errors import BadRequest, ClientGone, RequestTimeout

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from polly_dockers.web.client import Client

READ_BUFFER: Final = 256 << 10
"""Bytes of a body that wait in memory before the connection stops reading."""
MIN_PIECE: Final = 8 << 10
"""Smallest piece of a body: each one costs time and memory, and a client may send arbitrarily small ones. The last
piece may be smaller."""
PROGRESS_SECONDS: Final = 60.0
PROGRESS_BYTES: Final = 64 << 10
"""At least this many bytes of a body, or its end, must arrive in every PROGRESS_SECONDS."""
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class Body:
    """The body of one request, as ``registry.uploads.Body`` wants it.

    The connection calls ``feed``, ``end`` and ``fail``. One handler iterates, once.
    """

    __slots__ = (
        *("_checked", "_expected", "_failure", "_large", "_loop", "_small", "_client", "_timer", "_waiter", "_waiting"),
        *("complete", "dropped", "length", "received", "wanted"),
    )

    def __init__(self, client: Client, length: int | None, *, expected: bool = False) -> None:
        """``length``: of Content-Length; None for chunks. ``expected``: the client waits for 100 Continue."""
        self._client = client
        self._loop = asyncio.get_running_loop()
        self._expected = expected
        self.length = length
        self.received = 0
        """Bytes that have arrived."""
        self.wanted = False
        """Whether a handler reads it. A client that waits for 100 Continue gets it only then."""
        self.complete = False
        """Whether all of it has arrived."""
        self.dropped = False
        """Whether what arrives is dropped, because nobody will read it."""
        self._large: list[bytes] = []
        self._small = bytearray()
        """Bytes that arrived after those in ``_large``, and are fewer than MIN_PIECE so far."""
        self._waiting = 0
        self._failure: ClientGone | BadRequest | RequestTimeout | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._checked = 0

    def feed(self, data: bytes) -> None:
        """Add bytes that have arrived. If too many wait for the handler, the connection stops reading."""
        self.received += len(data)
        if self.dropped:
            return
        self._waiting += len(data)
        if len(data) >= MIN_PIECE and not self._small:
            self._large.append(data)
        else:
            self._small += data
            if len(self._small) >= MIN_PIECE:
                self._large.append(bytes(self._small))
                self._small = bytearray()
        if self._waiting > READ_BUFFER:
            self._client.pause()
        if self._large:
            self._wake()

    def end(self) -> None:
        """Record that all of it has arrived."""
        self.complete = True
        self._wake()

    def fail(self, failure: ClientGone | BadRequest | RequestTimeout) -> None:
        """Record that it was cut short. The handler gets what has arrived, and then the failure."""
        self._failure = self._failure or failure
        self._wake()

    def drop(self) -> None:
        """Drop what has arrived and what will: the response is sent, and nobody reads the rest."""
        self.dropped = True
        self._large, self._small, self._waiting = [], bytearray(), 0
        self._stop_timer()
        self._client.resume()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    @property
    def withheld(self) -> bool:
        """Whether the client waits for 100 Continue and did not get it. It may send the body or not."""
        return self._expected and not self.wanted and not self.received

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield pieces of at least MIN_PIECE bytes; the last may be smaller.

        Raises ClientGone, BadRequest or RequestTimeout for a body that is cut short, after what arrived was yielded.
        """
        self.wanted = True
        if self._expected and not self.received:
            self._client.write(CONTINUE)
        try:
            while True:
                while self._large:
                    pieces, self._large = self._large, []
                    self._waiting -= sum(map(len, pieces))
                    self._client.resume()
                    for piece in pieces:
                        yield piece
                if self.complete or self._failure is not None:
                    break
                await self._arrival()
            if self._small:
                yield bytes(self._small)
            if not self.complete:
                raise self._take_failure()
        finally:
            self._stop_timer()

    def _take_failure(self) -> ClientGone | BadRequest | RequestTimeout:
        """The failure, which is not kept: its traceback would keep this body in memory."""
        failure, self._failure = self._failure, None
        return failure or ClientGone()

    async def _arrival(self) -> None:
        """Wait until there is a piece, the end or a failure."""
        if self._timer is None:
            self._start_timer()
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _start_timer(self) -> None:
        self._checked = self.received
        self._timer = self._loop.call_later(PROGRESS_SECONDS, self._check)

    def _check(self) -> None:
        """Fail if too little arrived while the handler waited for it."""
        slow = self._waiter is not None and self.received - self._checked < PROGRESS_BYTES
        self._start_timer()
        if slow:
            self.fail(too_slow())

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def too_slow() -> RequestTimeout:
    """The error for a body that does not arrive."""
    return RequestTimeout("The body of the request arrived too slowly. Send it again on a faster connection.")
