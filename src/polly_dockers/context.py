"""What every use case works with: the settings, the rows, the bytes, and what a process keeps in its memory."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Concatenate, Final, ParamSpec

import structlog

from polly_dockers.errors import PollyError, StorageFull, TooManyRequests, Unavailable
from polly_dockers.system.gate import Gate

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from polly_dockers.auth.passwords import Passwords
    from polly_dockers.auth.registry_tokens import Signer
    from polly_dockers.auth.throttles import Throttles
    from polly_dockers.blobs.store import BlobStore, Hasher
    from polly_dockers.config import Config
    from polly_dockers.db.sqlite import Database

P = ParamSpec("P")

log: Final = structlog.get_logger("polly.registry")

KEPT: Final = 1024
PREVIEWING: Final = TooManyRequests(
    "Other previews of policies are under way. Try again in 20 seconds.", retry_after=20
)
PREVIEW_PATIENCE: Final = 25.0
"""Seconds that a preview waits for its turn."""
SIDE_SECONDS: Final = 2.0
"""How long a request waits for what it writes on the side."""
WARN_EVERY: Final = 60.0
"""Seconds between two lines of the log about the same thing that can't be written."""


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
class Context:
    """A running registry in one process."""

    config: Config
    database: Database
    blobs: BlobStore
    signer: Signer
    passwords: Passwords
    throttles: Throttles
    hashers: Hashers = field(default_factory=Hashers)
    begun: Counter[int] = field(default_factory=Counter)
    """Uploads that each user has begun at this process."""
    refused: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Refused sign-ins by email and address, until they are in the audit log."""
    refused_at: dict[tuple[str, str], float] = field(default_factory=dict)
    """When they were written last, while that was lately."""
    previews: Gate = field(
        default_factory=lambda: Gate(1, PREVIEWING, waiting_each=1, waiting_all=16, patience=PREVIEW_PATIENCE)
    )
    """Where this process looks for what a policy would let go: one preview at a time, organisations in turn."""
    parsing: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while a large manifest is parsed: its objects may take 20 times its bytes."""
    pulled: set[int] = field(default_factory=set)
    """Ids of manifests that were answered, until it is written when each was pulled last."""

    warned: dict[str, float] = field(default_factory=dict)
    """When the log was last told of what can't be written."""

    async def write_aside(
        self, what: str, fn: Callable[Concatenate[Connection, P], object], *args: P.args, **kwargs: P.kwargs
    ) -> bool:
        """Write what a request causes and does not need, such as when a token was used; whether it was written.

        Where the disk is full or does not answer, the request goes on without it; the log names ``what``.
        """
        try:
            async with asyncio.timeout(SIDE_SECONDS):
                await self.database.write(fn, *args, **kwargs)
        except (StorageFull, Unavailable) as error:
            self.warn(what, error)
            return False
        except TimeoutError:
            self.warn(what, Unavailable(f"The database did not answer within {SIDE_SECONDS:g} seconds."))
            return False
        return True

    def warn(self, what: str, error: PollyError) -> None:
        """Log that something can't be written now, once in WARN_EVERY seconds."""
        at = time.monotonic()
        if at - self.warned.get(what, at - WARN_EVERY) >= WARN_EVERY:
            self.warned[what] = at
            with contextlib.suppress(OSError):  # the log may be on the disk that is full
                log.warning("something can't be written now", what=what, reason=error.message)

    @property
    def public(self) -> bool:
        """Whether repositories may be public here."""
        return self.config.public_repositories == "allow"

    def close(self) -> None:
        """Finish what waits, and let go of threads and files."""
        self.database.close()
        self.blobs.close()
        self.passwords.close()
