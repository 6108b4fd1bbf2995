"""Limits on guessing passwords, access tokens and codes: how many failures are allowed, and how many checks at once.

Failures are counted, not attempts. So any number of clients behind one address can sign in at once, as long as their
passwords are right. A burst of guesses must not pass before the first failure is counted. So a process checks only
PLACES secrets at once, reads the counts before each check, and writes a failure before the next check. With W worker
processes, at most PLACES x W - 1 checks above the limit are made.

Attempts that wait take turns by network and by address, so one network cannot hold up the others. If WAITING_ALL wait,
the newest of the largest network makes room for one of a smaller network. An attempt that is refused because of earlier
failures costs one read, no place and no write.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from polly_dockers import db
from polly_dockers.db.sqlite import now
from polly_dockers.errors import Busy, StorageFull, TooManyRequests, Unavailable
from polly_dockers.formatting import duration
from polly_dockers.system import addresses
from polly_dockers.system.durations import MINUTE, SECOND
from polly_dockers.system.gate import Gate

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from sqlalchemy import Connection

    from polly_dockers.db.sqlite import Database

WINDOW: Final = 15 * MINUTE
FAILURES_PAIR: Final = 10
FAILURES_WIDE: Final = 100
"""Failures allowed within the window: for one account from one address, and for either alone."""

PLACES: Final = 2
"""Secrets that a process checks at once. A password takes one core for about 20 ms."""
WAITING_EACH: Final = 200
WAITING_ALL: Final = 2000
"""Attempts that may wait for a place in a process, from one address and from all."""
PATIENCE: Final = 25.0
"""Seconds that an attempt waits for its place, at most."""
BUSY: Final = Busy("Too many sign-ins at once. Try again in 5 seconds.", retry_after=5)
WRITE_SECONDS: Final = 2.0
"""Seconds that writing a failure may take."""
UNWRITTEN: Final = 10_000
"""Keys with unwritten failures that a process remembers, at most."""


class Attempt:
    """One check of a secret. It holds a place until it is done."""

    def __init__(self, throttles: Throttles, keys: Sequence[str]) -> None:
        self._throttles = throttles
        self._keys = keys

    async def failed(self, database: Database) -> None:
        """Count a failure. If it cannot be written within WRITE_SECONDS, this process remembers it.

        It may still be written later; then it counts twice. So a disk that does not respond blocks no place.
        """
        try:
            async with asyncio.timeout(WRITE_SECONDS):
                await database.write(_count, self._keys)
        except (StorageFull, Unavailable, TimeoutError):
            self._throttles.remember(self._keys)

    def forgive(self, connection: Connection) -> None:
        """Delete the failures of this account from this address: the secret was right."""
        self._throttles.delete(self._keys[0])
        db.throttles.forgive(connection, self._keys[0])


def _count(connection: Connection, keys: Sequence[str]) -> None:
    for key in keys:
        db.throttles.count(connection, key, WINDOW)


class Throttles:
    """The checks of one process."""

    def __init__(self) -> None:
        self._gate = Gate(PLACES, BUSY, waiting_each=WAITING_EACH, waiting_all=WAITING_ALL, patience=PATIENCE)
        self._unwritten: OrderedDict[str, tuple[int, float]] = OrderedDict()

    @contextlib.asynccontextmanager
    async def attempt(self, database: Database, email: str, address: str) -> AsyncIterator[Attempt]:
        """Hold a place for checking a secret of an account from an address.

        Raises TooManyRequests after too many failures, and Busy if too many attempts wait for a place.
        """
        where = addresses.block(address)
        keys = [db.throttles.pair(email, where), db.throttles.account(email), f"address:{where}"]
        await database.read(self._refuse, keys)
        async with self._gate.place(where, addresses.neighbourhood(address)):
            await database.read(self._refuse, keys)
            yield Attempt(self, keys)

    def _refuse(self, connection: Connection, keys: Sequence[str]) -> None:
        known = db.throttles.counts(connection, keys, WINDOW)
        for key, allowed in zip(keys, (FAILURES_PAIR, FAILURES_WIDE, FAILURES_WIDE), strict=True):
            failures, since = known.get(key, (0, now()))
            if failures + self._remembered(key) >= allowed:
                wait = min(max(1, (since + WINDOW - now()) // SECOND), WINDOW // SECOND)
                msg = (
                    f"Too many wrong passwords. Wait {duration(wait)}, or ask the server's operator to run "
                    "polly-server user reset-password."
                )
                raise TooManyRequests(msg, retry_after=wait)

    def remember(self, keys: Sequence[str]) -> None:
        """Remember a failure that could not be written."""
        for key in keys:
            count, since = self._remembered(key), time.monotonic()
            if count:
                since = self._unwritten[key][1]
            self._unwritten[key] = (count + 1, since)
            if len(self._unwritten) > UNWRITTEN:
                self._unwritten.popitem(last=False)

    def _remembered(self, key: str) -> int:
        count, since = self._unwritten.get(key, (0, 0.0))
        if count and time.monotonic() - since > WINDOW / SECOND:
            del self._unwritten[key]
            return 0
        return count

    def delete(self, key: str) -> None:
        """Delete the remembered failures of a key."""
        self._unwritten.pop(key, None)
