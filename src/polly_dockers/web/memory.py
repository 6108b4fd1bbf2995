"""Memory that one process holds on behalf of its clients: bounded in bytes, whoever asks for how much.

A large answer stays in memory until its client has taken it, and a body until it is all there. Both are counted here.
Where there is no room, what has not moved for STALLED seconds makes room, then what belongs to whoever holds most; a
client that holds most itself is asked to come again. Bodies that the server works on make no room, so one address
never has all of it with several of them (SHARE). How long a client may take is bounded by its connection
(``protocol``).
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

SMALL: Final = 64 << 10
"""Bytes of an answer or a body that each connection may have; larger ones are counted, and sent piece by piece."""
ROOM: Final = 64 << 20
"""Bytes that a process holds for its clients, beside what each connection is given at once."""
LARGEST: Final = 5
"""Times the largest manifest, the largest answer: a page of referrers repeats annotations, escaped at worst."""
_RESET: Final = struct.pack("ii", 1, 0)
SHARE: Final = 0.75
"""Part of the room that one address may hold with more than one large answer or body: the rest is for others."""
STALLED: Final = 1.0
"""Seconds without a byte moving, after which a client has no right to the room that others ask for."""


def hang_up(transport: asyncio.Transport) -> None:
    """End a connection now, and give back what the system still has to send on it."""
    connection = transport.get_extra_info("socket")
    if connection is not None:
        with contextlib.suppress(OSError):  # closed already
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    transport.abort()


class Held:
    """Bytes of one request or answer. Those that had to make room are gone, and the connection is closed."""

    __slots__ = ("_end", "_pieces", "_room", "address", "counted", "moved", "settled", "size")

    def __init__(self, room: Room, address: str, end: Callable[[], None]) -> None:
        self._room: Room | None = room
        self._end = end
        self._pieces: list[bytes] = []
        self.address = address
        self.size = 0
        self.counted = 0
        """Bytes that the room counts: none while there are SMALL at most, so that small requests are always served."""
        self.moved = room.clock()
        self.settled = False
        """Whether it is the server that works on it now: then its client can't be blamed, and it makes no room."""

    def add(self, piece: bytes) -> None:
        """Hold more; raises Unavailable where there is no room, ClientGone for one that had to make room."""
        if self._room is None:
            raise ClientGone
        size = self.size + len(piece)
        if size > SMALL:
            self._room.make(self, size - self.counted)
            self.counted = size
        self.size = size
        self._pieces.append(piece)
        self.moved = self._room.clock()

    def whole(self) -> bytes:
        """All that was added, for the server to work on."""
        self.settled = True
        self._pieces = [b"".join(self._pieces)]
        return self._pieces[0]

    def part(self, at: int, count: int) -> bytes:
        """Some of the one piece that was added, to be sent now; raises ClientGone for one that had to make room."""
        if self._room is None:
            raise ClientGone
        self.moved = self._room.clock()
        return self._pieces[0][at : at + count]  # a copy: a view would keep all of it

    def release(self) -> None:
        """Hold nothing any more."""
        if self._room is not None:
            self._room.drop(self)
            self._room = None
        self._pieces = []

    def end(self) -> None:
        """Make room: let go of the bytes now, and close the connection."""
        self.release()
        self._end()


def limit(max_manifest_bytes: int) -> int:
    """Bytes that a process holds for its clients, at most: ROOM, or what one answer can take where that is more."""
    return max(ROOM, LARGEST * max_manifest_bytes)


class Room:
    """What a process may hold for all clients together."""

    def __init__(self, limit: int, clock: Callable[[], float] = time.monotonic) -> None:
        """``limit``: bytes; ``clock``: seconds."""
        self.limit = limit
        self.clock = clock
        self.total = 0
        self.ended = 0
        """How many had to make room."""
        self._held: set[Held] = set()
        self._of: Counter[str] = Counter()
        """Bytes by address."""

    def hold(self, address: str, end: Callable[[], None]) -> Held:
        """Room for a client at that address, nothing in it yet. ``end`` closes its connection at once.

        The addresses of an IPv6 network of one customer count as one, as everywhere (``addresses.block``).
        """
        held = Held(self, addresses.block(address), end)
        self._held.add(held)
        return held

    def make(self, asking: Held, size: int) -> None:
        """Count ``size`` more bytes for one that asks; raises Unavailable where others have a better right to them."""
        while self._too_much_for_one(asking, size):
            self._end(self._stalled_of(asking))
        while self.total + size > self.limit:
            self._end(self._victim(asking, size))
        self.total += size
        self._of[asking.address] += size

    def _end(self, victim: Held | None) -> None:
        if victim is None:
            msg = "The server holds as many large answers and manifests as it has room for. Try again in a moment."
            raise Unavailable(msg)
        self.ended += 1
        victim.end()

    def _too_much_for_one(self, asking: Held, size: int) -> bool:
        """Whether an address that holds something else as well would pass its share."""
        mine = self._of[asking.address]
        return mine > asking.counted and mine + size > self.limit * SHARE

    def _stalled_of(self, asking: Held) -> Held | None:
        """What makes room first of what the address of one that asks holds beside it."""
        still = self.clock() - STALLED
        mine = [held for held in self._others(asking) if held.address == asking.address and held.moved <= still]
        return min(mine, key=lambda held: held.moved, default=None)

    def _others(self, asking: Held) -> list[Held]:
        return [held for held in self._held if held is not asking and held.counted and not held.settled]

    def _victim(self, asking: Held, size: int) -> Held | None:
        others = self._others(asking)
        if not others:
            return None
        still = self.clock() - STALLED
        first = min(others, key=lambda held: (held.moved > still, -self._of[held.address], held.moved))
        if first.moved > still and self._of[first.address] <= self._of[asking.address] + size:
            return None
        return first

    def drop(self, held: Held) -> None:
        """Count one no longer."""
        self._held.discard(held)
        self.total -= held.counted
        self._of[held.address] -= held.counted
        if self._of[held.address] <= 0:
            del self._of[held.address]
        held.counted = 0
