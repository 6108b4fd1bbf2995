"""Rows of throttles: how often something has failed lately. A throttle's key says who failed at what."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import delete, insert, or_, select, update

from polly_dockers.db.schema import throttles
from polly_dockers.db.sqlite import now
from polly_dockers.system.durations import HOUR, MINUTE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

LONGEST_WINDOW: Final = HOUR
"""The longest window of any count; older rows are deleted."""
SKEW: Final = MINUTE
"""A row that is further in the future is from before the clock was set back, and does not count."""


def counts(connection: Connection, keys: Sequence[str], window: int) -> dict[str, tuple[int, int]]:
    """The failures of each key within ``window`` (microseconds), and when its window began; no entry for none."""
    at = now()
    query = select(throttles.c.key, throttles.c.failures, throttles.c.since).where(throttles.c.key.in_(keys))
    rows = connection.execute(query).all()
    return {row.key: (row.failures, row.since) for row in rows if -SKEW <= at - row.since < window}


def count(connection: Connection, key: str, window: int, number: int = 1) -> None:
    """Count ``number`` more failures of the key, within its window (microseconds)."""
    at = now()
    known = counts(connection, [key], window).get(key)
    if known is not None:
        connection.execute(update(throttles).where(throttles.c.key == key).values(failures=known[0] + number))
        return
    old = or_(throttles.c.key == key, throttles.c.since < at - LONGEST_WINDOW, throttles.c.since > at + SKEW)
    connection.execute(delete(throttles).where(old))
    connection.execute(insert(throttles), {"key": key, "failures": number, "since": at})


def pair(email: str, address: str) -> str:
    """The key of an account and an address together."""
    return f"pair:{email}:{address}"


def account(email: str) -> str:
    """The key of an account from any address."""
    return f"account:{email}"


def forgive(connection: Connection, key: str) -> None:
    """Delete the failures of a key."""
    connection.execute(delete(throttles).where(throttles.c.key == key))


def forgive_account(connection: Connection, email: str) -> None:
    """Delete all failures of an account, from all addresses."""
    pairs = throttles.c.key.startswith(pair(email, ""), autoescape=True)
    connection.execute(delete(throttles).where(or_(pairs, throttles.c.key == account(email))))
