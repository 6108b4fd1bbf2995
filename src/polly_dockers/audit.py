"""The audit log: what its readers see, and the part of it that is written on the side."""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from typing import TYPE_CHECKING, Final

from polly_dockers import access
from polly_dockers.db import accounts as account_rows
from polly_dockers.db import audit as rows
from polly_dockers.db import clock, throttles
from polly_dockers.db.audit import Event
from polly_dockers.model import Role

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection

    from polly_dockers.db.audit import Entry, Wanted
    from polly_dockers.model import Actor
    from polly_dockers.registry import Registry

DAY: Final = 24 * 3600 * 1_000_000
UNKNOWN: Final = 1000
"""Entries in an hour about emails that have no account, at most: whoever reaches the server can cause them."""
UNKNOWN_KEY: Final = "audit:unknown"
"""What they are counted under."""
EVERY: Final = 60.0
"""Seconds between two entries about refusals of one email and address: whoever goes on guessing fills no disk."""
CHUNK: Final = 100
"""Refusals of one transaction."""
WAITING: Final = 10_000
"""Refusals that a process remembers until it writes them, at most."""


async def page(
    registry: Registry,
    actor: Actor,
    organisation: str,
    *,
    wanted: Wanted,
    newest_first: bool,
    limit: int,
    after: int | None,
) -> tuple[list[Entry], int | None]:
    """A page of an organisation's entries for its admins, and the key of the next page.

    A page may have fewer entries than ``limit``, or none, and one may follow all the same.
    """

    def query(connection: Connection) -> tuple[list[Entry], int | None]:
        found, _ = access.member(connection, actor, organisation, Role.admin)
        return rows.page(connection, found, wanted=wanted, newest_first=newest_first, limit=limit, after=after)

    return await registry.db.read(query)


def refused(registry: Registry, email: str, address: str) -> None:
    """Remember a refused sign-in. It is written later, so that the answer takes the same time for every email."""
    if len(registry.refused) < WAITING or (email, address) in registry.refused:
        registry.refused[email, address] += 1


async def settle(registry: Registry, *, everything: bool = False) -> None:
    """Write the refusals that are remembered, and seal what has no place in the chain yet.

    Refusals are written in small transactions, and those that are not to be written cost a read: however many there
    are, pushes go on between. Of one email and address there is an entry in EVERY seconds at most, which says how
    often, but where ``everything`` is written, as at the end of a process.
    """
    waiting = _due(registry, everything=everything)
    try:
        while waiting:
            some = {key: waiting[key] for key in list(waiting)[:CHUNK]}
            known, unknown = await registry.db.read(_sorted, some)
            if known or unknown:
                await registry.db.write(_refused, known, unknown)
            entries = {(email, address) for email, address, _ in known + unknown}
            for key in some:
                del waiting[key]
                if key not in entries:  # nothing was written, so there is nothing to remember
                    del registry.refused_at[key]
            await asyncio.sleep(0)
    except BaseException:
        registry.refused.update(waiting)
        for key in waiting:
            del registry.refused_at[key]
        raise
    await seal(registry)


def _due(registry: Registry, *, everything: bool) -> dict[tuple[str, str], int]:
    """Take the refusals that are to be written now."""
    at, written = time.monotonic(), registry.refused_at
    for key in [key for key, before in written.items() if at - before >= EVERY]:
        del written[key]
    due = {key: count for key, count in registry.refused.items() if everything or key not in written}
    for key in due:
        del registry.refused[key]
        written[key] = at
    return due


_Refusals = list[tuple[str, str, int]]
"""Email, address, and how often."""


def _sorted(connection: Connection, waiting: Mapping[tuple[str, str], int]) -> tuple[_Refusals, _Refusals]:
    """Refusals of emails that have an account, and of others, as many of these as may be written this hour."""
    written = throttles.counts(connection, [UNKNOWN_KEY], throttles.HOUR).get(UNKNOWN_KEY, (0, 0))[0]
    known: _Refusals = []
    unknown: _Refusals = []
    for (email, address), count in waiting.items():
        if account_rows.user(connection, email) is not None:
            known.append((email, address, count))
        elif written + len(unknown) < UNKNOWN:
            unknown.append((email, address, count))
    return known, unknown


def _refused(connection: Connection, known: _Refusals, unknown: _Refusals) -> None:
    for email, address, count in known + unknown:
        detail = f"{count} times" if count > 1 else ""
        rows.note_account(connection, Event.sign_in_refused, email, address, detail=detail)
    if unknown:
        throttles.count(connection, UNKNOWN_KEY, throttles.HOUR, len(unknown))


async def drop_old(registry: Registry) -> int:
    """Drop entries that are older than audit_days, and say so in the log; how many there were.

    Once a day at most: only where the oldest entry is a day older than that.
    """
    before = await registry.db.read(clock.ago, registry.config.audit_days * DAY // 1_000_000)
    oldest = await registry.db.read(rows.oldest)
    if not registry.config.audit_days or oldest is None or oldest >= before - DAY:
        return 0
    count, taken = 0, rows.DROPPED
    while taken == rows.DROPPED:
        taken = await registry.db.write(_drop, before)
        count += taken
    return count


def _drop(connection: Connection, before: int) -> int:
    """Drop entries and say so in one transaction, so that a crash leaves none that are gone without a word."""
    count = rows.drop(connection, before)
    if count == 0:
        return 0
    day = dt.datetime.fromtimestamp(before / 1_000_000, dt.UTC).date().isoformat()
    detail = f"{count} entries of before {day}; the chain goes on behind {rows.start(connection)}"
    rows.note(connection, Event.audit_drop, "", organisation_id=None, by=None, detail=detail)
    return count


async def seal(registry: Registry) -> None:
    """Lead the chain on to the newest entry."""
    if await registry.db.read(rows.unsealed):
        while await registry.db.write(rows.seal) == rows.BATCH:
            pass
