"""Limits the memory that one process uses for its clients.

A large response stays in memory until its client has read it, and a request body until it is complete. Both count.
When the limit is reached, the process closes connections to free memory: first those without progress for STALLED
seconds, then those of the address that uses most. A client whose own address uses most gets the error Unavailable.
Bodies that the server is working on are never freed. Therefore one address may use only the part SHARE of the limit.
How long a client may take is limited in ``connection.py``.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections import Counter
from typing import TYPE_CHECKING, Final

from polly_dockers.errors import ClientGone, Unavailable
from polly_dockers.system import addresses

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from polly_dockers.web.client import Client

SMALL: Final = 64 << 10
"""Up to this many bytes of a response or body do not count towards the limit. Larger ones count, and are sent in
pieces."""
PORTION: Final = 128 << 10
"""Bytes of a large response that are written to its connection at once."""
ROOM: Final = 64 << 20
"""Bytes that a process uses for its clients, without the SMALL bytes that each connection may use."""
LARGEST: Final = 5
"""A response may be up to this many times as large as the largest manifest. Referrers repeat annotations, and JSON
escapes may lengthen them."""
_RESET: Final = struct.pack("ii", 1, 0)
"""SO_LINGER of 0 s: closing sends a reset and drops unsent data."""
SHARE: Final = 0.75
"""Part of the limit that one address may use with several large responses or bodies; the rest is for others."""
STALLED: Final = 1.0
"""Seconds without progress, after which a client's memory may be freed for others."""


def hang_up(transport: asyncio.Transport | None) -> None:
    """Close a connection now, and drop the data that the system has not sent yet. None: it is closed already."""
    if transport is None:
        return
    connection = transport.get_extra_info("socket")
    if connection is not None:
        with contextlib.suppress(OSError):  # it is closed already
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    transport.abort()


class Held:
    """The memory of one request or response. When it is freed for others, the connection is closed too."""

    __slots__ = ("_close", "_pieces", "_room", "address", "counted", "in_use", "moved", "size")

    def __init__(self, room: Room, address: str, close: Callable[[], None]) -> None:
        self._room: Room | None = room
        self._close = close
        self._pieces: list[bytes] = []
        self.address = address
        self.size = 0
        self.counted = 0
        """Bytes that count towards the limit: none up to SMALL, so that small requests always succeed."""
        self.moved = room.clock()
        """When it last made progress: bytes were added, or handed to the connection. By the clock of the room."""
        self.in_use = False
        """Whether the server is working on it. Then the memory is never freed for others."""

    def add(self, piece: bytes) -> None:
        """Add bytes. Raises Unavailable at the limit, and ClientGone if the memory was freed for others."""
        if self._room is None:
            raise ClientGone
        size = self.size + len(piece)
        if size > SMALL:
            self._room.reserve(self, size - self.counted)
            self.counted = size
        self.size = size
        self._pieces.append(piece)
        self.moved = self._room.clock()

    def whole(self) -> bytes:
        """Return all bytes, and mark them as in use, so that they are not freed."""
        self.in_use = True
        self._pieces = [b"".join(self._pieces)]
        return self._pieces[0]

    def part(self, at: int, count: int) -> bytes:
        """``count`` bytes from ``at``, to be sent now. Raises ClientGone if the memory was freed for others."""
        if self._room is None:
            raise ClientGone
        self.moved = self._room.clock()
        return self._pieces[0][at : at + count]  # a copy: a view would keep the whole piece in memory

    def release(self) -> None:
        """Free the memory."""
        if self._room is not None:
            self._room.drop(self)
            self._room = None
        self._pieces = []

    def evict(self) -> None:
        """Free the memory for others, and close the connection."""
        self.release()
        self._close()


class HeldContent:
    """A large response in memory, which is sent in pieces."""

    def __init__(self, held: Held, length: int) -> None:
        self._held = held
        self._length = length

    async def send(self, client: Client) -> None:
        """Write PORTION bytes at a time. Raises ClientGone if the client left, or others needed the memory."""
        for at in range(0, self._length, PORTION):
            client.write(self._held.part(at, PORTION))
            await client.drain()

    def close(self) -> None:
        """Free the memory."""
        self._held.release()


def limit_for(max_manifest_bytes: int) -> int:
    """Largest number of bytes for all clients of a process: ROOM, or the largest response if that is more."""
    return max(ROOM, LARGEST * max_manifest_bytes)


class Room:
    """The memory that a process may use for all of its clients together."""

    def __init__(self, limit: int, clock: Callable[[], float] = time.monotonic) -> None:
        """``limit``: bytes; ``clock``: seconds."""
        self.limit = limit
        self.clock = clock
        self.total = 0
        self.evicted = 0
        """How many connections were closed to free their memory."""
        self._held: set[Held] = set()
        self._of: Counter[str] = Counter()
        """Bytes by address."""

    def hold(self, address: str, close: Callable[[], None]) -> Held:
        """Start to count the memory of a request from that address. ``close`` closes its connection at once.

        All addresses of one customer's IPv6 network count as one (``addresses.block``).
        """
        held = Held(self, addresses.block(address), close)
        self._held.add(held)
        return held

    def reserve(self, asking: Held, size: int) -> None:
        """Count ``size`` more bytes for ``asking``, freeing others if needed. Raises Unavailable at the limit."""
        while self._too_much_for_one(asking, size):
            self._evict(self._stalled_of(asking))
        while self.total + size > self.limit:
            self._evict(self._victim(asking, size))
        self.total += size
        self._of[asking.address] += size

    def _evict(self, victim: Held | None) -> None:
        if victim is None:
            msg = "The server has no memory for more large responses and manifests now. Try again in a moment."
            raise Unavailable(msg)
        self.evicted += 1
        victim.evict()

    def _too_much_for_one(self, asking: Held, size: int) -> bool:
        """Whether the address would exceed its share.

        The first response or body of an address may be larger than the share; the second may not.
        """
        mine = self._of[asking.address]
        return mine > asking.counted and mine + size > self.limit * SHARE

    def _stalled_of(self, asking: Held) -> Held | None:
        """The other request of the same address that has been without progress the longest."""
        still = self.clock() - STALLED
        mine = [held for held in self._others(asking) if held.address == asking.address and held.moved <= still]
        return min(mine, key=lambda held: held.moved, default=None)

    def _others(self, asking: Held) -> list[Held]:
        return [held for held in self._held if held is not asking and held.counted and not held.in_use]

    def _victim(self, asking: Held, size: int) -> Held | None:
        """The request whose memory is freed for ``asking``; None if ``asking`` is refused.

        A request without progress for STALLED seconds comes first. Among several, or if there is none, it is one of the
        address that uses most, and there the one whose last progress is the oldest. A request that makes progress is
        freed only if its address uses more than the one of ``asking`` would.
        """
        others = self._others(asking)
        if not others:
            return None
        still = self.clock() - STALLED
        first = min(others, key=lambda held: (held.moved > still, -self._of[held.address], held.moved))
        if first.moved > still and self._of[first.address] <= self._of[asking.address] + size:
            return None
        return first

    def drop(self, held: Held) -> None:
        """Stop counting the memory of a request."""
        self._held.discard(held)
        self.total -= held.counted
        self._of[held.address] -= held.counted
        if self._of[held.address] <= 0:
            del self._of[held.address]
        held.counted = 0
