"""What every use case receives: the settings, the database, the blob store, and what the process remembers."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from shlex import quote
from typing import TYPE_CHECKING, Concatenate, Final, ParamSpec

import structlog

from polly_dockers.db.sqlite import CLOSE_SECONDS
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
"""Running hashes of uploads that a process keeps, at most."""
PREVIEWING: Final = TooManyRequests(
    "The server is busy with other previews of policies. Try again in 20 seconds.", retry_after=20
)
PREVIEW_PATIENCE: Final = 25.0
"""Seconds that a preview waits for its turn."""
SIDE_SECONDS: Final = 2.0
"""Seconds that a request waits for a side write, at most."""
WARN_EVERY: Final = 60.0
"""Seconds between two log lines about the same side write that fails."""


class Hashers:
    """The running SHA-256 of each upload of this process, which the upload's next request continues.

    If the next request comes to another process, the upload is hashed again from the store when it is finished. That is
    rare: every common client sends a blob in one request, and the store records its digest.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[str, tuple[int, Hasher]] = OrderedDict()

    def take(self, upload: str, size: int) -> Hasher | None:
        """Remove and return the hasher of an upload, if it has seen exactly ``size`` bytes; else None."""
        at, hasher = self._kept.pop(upload, (-1, None))
        return hasher if at == size else None

    def keep(self, upload: str, size: int, hasher: Hasher) -> None:
        """Keep a hasher for the next request; the least recently used one makes room."""
        self._kept[upload] = (size, hasher)
        if len(self._kept) > KEPT:
            self._kept.popitem(last=False)


@dataclass(frozen=True, slots=True)
class Context:
    """The registry, as one process has it."""

    config: Config
    database: Database
    blobs: BlobStore
    signer: Signer
    passwords: Passwords
    throttles: Throttles
    hashers: Hashers = field(default_factory=Hashers)
    begun: Counter[int] = field(default_factory=Counter)
    """Uploads that each user has started in this process."""
    refused: dict[tuple[str, str], tuple[int, int, int]] = field(default_factory=dict)
    """Refused sign-ins by email and address, until they are written to the audit log: how many, the first, the last."""
    refused_at: dict[tuple[str, str], float] = field(default_factory=dict)
    """When each was last written, if that was less than ``refusals.EVERY`` ago."""
    previews: Gate = field(
        default_factory=lambda: Gate(1, PREVIEWING, waiting_each=1, waiting_all=16, patience=PREVIEW_PATIENCE)
    )
    """Places for previews of policies: one at a time, organisations in turn."""
    large_manifest: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while a large manifest is parsed, which may take 20 times its size in memory, and until it is stored: it may
    name 10,000 things, so other writes go between two of them."""
    pulled: set[int] = field(default_factory=set)
    """Ids of pulled manifests, until their last pulls are recorded."""

    warned: dict[str, float] = field(default_factory=dict)
    """When each failure was last logged: that of a side write, or of the database."""

    async def write_aside(
        self, what: str, fn: Callable[Concatenate[Connection, P], object], *args: P.args, **kwargs: P.kwargs
    ) -> bool:
        """Make a side write, such as the last use of a token; returns whether it was written.

        If the disk is full or does not respond, the request goes on without it, and the log names ``what``.
        """
        try:
            async with asyncio.timeout(SIDE_SECONDS):
                await self.database.write(fn, *args, **kwargs)
        except (StorageFull, Unavailable) as error:
            self.warn(what, error)
            return False
        except TimeoutError:
            self.warn(what, Unavailable(f"The database did not respond within {SIDE_SECONDS:g} seconds."))
            return False
        return True

    def warn(self, what: str, error: PollyError) -> None:
        """Log that a side write failed, at most once in WARN_EVERY seconds."""
        if self._is_due(what):
            with contextlib.suppress(OSError):  # the log may be on the disk that is full
                log.warning("a side write failed", what=what, reason=error.message)

    def log_damage(self, reason: str) -> None:
        """Log that the database is damaged, with what SQLite says, at most once in WARN_EVERY seconds."""
        if self._is_due("the database"):
            with contextlib.suppress(OSError):
                command = f"polly-server check --data {quote(str(self.config.data))}"
                log.error("the database is damaged; this command says what to do", reason=reason, command=command)

    def _is_due(self, what: str) -> bool:
        """Whether the log named this failure last so long ago that it names it again."""
        at = time.monotonic()
        is_due = at - self.warned.get(what, at - WARN_EVERY) >= WARN_EVERY
        if is_due:
            self.warned[what] = at
        return is_due

    @property
    def allow_public(self) -> bool:
        """Whether repositories may be public on this server."""
        return self.config.public_repositories == "allow"

    def close(self) -> bool:
        """Finish waiting writes, and close threads and files.

        False if threads are still busy after CLOSE_SECONDS, as while the disk hangs. All threads have these together.
        """
        deadline = time.monotonic() + CLOSE_SECONDS
        closed = self.database.close()
        closed = self.blobs.close(max(0.0, deadline - time.monotonic())) and closed
        self.passwords.close()
        return closed
