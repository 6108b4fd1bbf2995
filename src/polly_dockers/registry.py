"""What every use case works with: the settings, the rows, the bytes, and what a process keeps in its memory."""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from polly_dockers.throttles import Throttles

if TYPE_CHECKING:
    import asyncio

    from polly_dockers.blobs.store import BlobStore, Hasher
    from polly_dockers.config import Config
    from polly_dockers.db.engine import Database
    from polly_dockers.passwords import Passwords
    from polly_dockers.signer import Signer

KEPT: Final = 1024


class Hashers:
    """The running SHA-256 of uploads that this process has fed, so that the next request goes on with them.

    An upload whose next request brings bytes to another process is hashed again from the store at its end: that is
    rare, for one request of every common client carries the whole blob, and the store notes its digest.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[str, tuple[int, Hasher]] = OrderedDict()

    def take(self, upload: str, size: int) -> Hasher | None:
        """The hasher that has seen exactly the first ``size`` bytes; the caller has it alone."""
        at, hasher = self._kept.pop(upload, (-1, None))
        return hasher if at == size else None

    def keep(self, upload: str, size: int, hasher: Hasher) -> None:
        """Keep it for the next request; the one unused for longest makes room."""
        self._kept[upload] = (size, hasher)
        if len(self._kept) > KEPT:
            self._kept.popitem(last=False)


@dataclass(frozen=True, slots=True)
class Registry:
    """A running registry in one process."""

    config: Config
    db: Database
    blobs: BlobStore
    signer: Signer
    passwords: Passwords
    throttles: Throttles = field(default_factory=Throttles)
    hashers: Hashers = field(default_factory=Hashers)
    refused: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Refused sign-ins by email and address, until they are in the audit log."""
    looking: dict[int, asyncio.Lock] = field(default_factory=dict)
    """Held while this process looks for what a policy would let go: one preview of an organisation at a time."""
    pulled: set[int] = field(default_factory=set)
    """Ids of manifests that were answered, until it is written when each was pulled last."""

    @property
    def public(self) -> bool:
        """Whether repositories may be public here."""
        return self.config.public_repositories == "allow"

    def close(self) -> None:
        """Finish what waits, and let go of threads and files."""
        self.db.close()
        self.blobs.close()
        self.passwords.close()
