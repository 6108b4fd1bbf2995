"""The client of a request, as handlers see it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import asyncio


class Client(Protocol):
    """What ``connection.Connection`` offers to requests and responses."""

    transport: asyncio.Transport | None
    """The connection; None after it was lost."""
    remote: str
    """The address of the peer, as ``addresses.client`` writes it."""

    def write(self, data: bytes) -> None:
        """Send bytes; they wait in memory until the client reads them."""

    async def drain(self) -> None:
        """Wait until the system has taken everything that was written. Raises ClientGone if the client left."""

    def pause(self) -> None:
        """Stop reading from the client."""

    def resume(self) -> None:
        """Go on reading from the client."""
