"""Refused sign-ins: counted in memory at once, and written to the audit log later."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import time
from typing import TYPE_CHECKING, Final

from polly_dockers import db
from polly_dockers.db.audit import Event
from polly_dockers.db.sqlite import now
from polly_dockers.errors import Busy, TooManyRequests, Unauthorized
from polly_dockers.formatting import counted
from polly_dockers.system.durations import HOUR, SECOND

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from sqlalchemy import Connection

    from polly_dockers.auth.throttles import Attempt
    from polly_dockers.context import Context

UNKNOWN: Final = 1000
"""Entries in an hour for emails without an account, at most: anybody can cause them."""
UNKNOWN_KEY: Final = "audit:unknown"
"""The key under which those entries are counted."""
EVERY: Final = 60.0
"""Seconds between two entries for one email and address, so that guessing does not fill the disk."""
CHUNK: Final = 100
"""Refusals that one transaction writes, at most."""
WAITING: Final = 10_000
"""Different refusals that a process remembers until it writes them, at most."""


def remember(context: Context, email: str, address: str) -> None:
    """Remember a refused sign-in. It is written later, so that the response takes the same time for every email."""
    if len(context.refused) < WAITING or (email, address) in context.refused:
        at = now()
        count, first, _ = context.refused.get((email, address), (0, at, at))
        context.refused[email, address] = count + 1, first, at


@contextlib.asynccontextmanager
async def attempt(context: Context, email: str, address: str) -> AsyncIterator[Attempt]:
    """``Throttles.attempt``, which remembers a refusal if the block or the limits refuse the sign-in."""
    try:
        async with context.throttles.attempt(context.database, email, address) as begun:
            yield begun
    except Busy:  # no secret was checked, so none was refused
        raise
    except (TooManyRequests, Unauthorized):
        remember(context, email, address)
        raise


async def write(context: Context, *, everything: bool = False) -> None:
    """Write the remembered refusals to the audit log, in small transactions between which pushes go on.

    For one email and address there is one entry in EVERY seconds, with the number of refusals and their times.
    With ``everything``, as at the end of a process, all refusals are written.
    """
    waiting = _due(context, everything=everything)
    try:
        while waiting:
            some = {key: waiting[key] for key in list(waiting)[:CHUNK]}
            known, unknown = await context.database.read(_sorted, some)
            if known or unknown:
                await context.database.write(_refused, known, unknown)
            entries = {(email, address) for email, address, _ in known + unknown}
            for key in some:
                del waiting[key]
                if key not in entries:  # nothing was written, so there is nothing to remember
                    del context.refused_at[key]
            await asyncio.sleep(0)
    except BaseException:
        for key, (count, first, last) in waiting.items():
            more, _, end = context.refused.get(key, (0, first, last))
            context.refused[key] = count + more, first, end
            del context.refused_at[key]
        raise


def _due(context: Context, *, everything: bool) -> dict[tuple[str, str], tuple[int, int, int]]:
    """Remove and return the refusals to write now."""
    at, written = time.monotonic(), context.refused_at
    for key in [key for key, before in written.items() if at - before >= EVERY]:
        del written[key]
    due = {key: seen for key, seen in context.refused.items() if everything or key not in written}
    for key in due:
        del context.refused[key]
        written[key] = at
    return due


_Refusals = list[tuple[str, str, tuple[int, int, int]]]
"""Email, address, and the refusals: how many, and when the first and the last were."""


def _sorted(
    connection: Connection, waiting: Mapping[tuple[str, str], tuple[int, int, int]]
) -> tuple[_Refusals, _Refusals]:
    """Refusals of emails with an account, and of those without, as many as may still be written this hour."""
    written = db.throttles.counts(connection, [UNKNOWN_KEY], HOUR).get(UNKNOWN_KEY, (0, 0))[0]
    known: _Refusals = []
    unknown: _Refusals = []
    for (email, address), seen in waiting.items():
        if db.accounts.user(connection, email) is not None:
            known.append((email, address, seen))
        elif written + len(unknown) < UNKNOWN:
            unknown.append((email, address, seen))
    return known, unknown


def _refused(connection: Connection, known: _Refusals, unknown: _Refusals) -> None:
    for email, address, (count, first, last) in known + unknown:
        detail = (
            f"{counted(count, 'time')} at {_clock(first)} UTC"
            if _clock(first) == _clock(last)
            else f"{counted(count, 'time')} from {_clock(first)} to {_clock(last)} UTC"
        )
        db.audit.append_for_account(connection, Event.sign_in_refused, email, address, detail=detail)
    if unknown:
        db.throttles.count(connection, UNKNOWN_KEY, HOUR, len(unknown))


def _clock(at: int) -> str:
    return dt.datetime.fromtimestamp(at / SECOND, dt.UTC).strftime("%H:%M:%S")
