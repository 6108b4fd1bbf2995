"""The audit log: reading it, sealing new entries, and deleting old ones."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from polly_dockers import db
from polly_dockers.auth import permissions, refusals
from polly_dockers.db.audit import Event
from polly_dockers.model import Role
from polly_dockers.system.durations import DAY, SECOND, SECONDS_PER_DAY

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from polly_dockers.context import Context
    from polly_dockers.db.audit import Wanted
    from polly_dockers.db.journal.records import Audited
    from polly_dockers.model import Actor


async def page(
    context: Context,
    actor: Actor,
    organisation: str,
    *,
    wanted: Wanted,
    newest_first: bool,
    limit: int,
    after: int | None,
) -> tuple[list[Audited], int | None]:
    """A page of an organisation's audit log, and the cursor of the next page. For admins.

    A page may have fewer entries than ``limit``, or none, although a next page follows.
    """

    def query(connection: Connection) -> tuple[list[Audited], int | None]:
        organisation_id, _ = permissions.require_role(connection, actor, organisation, Role.admin)
        return db.audit.page(
            connection, organisation_id, wanted=wanted, newest_first=newest_first, limit=limit, after=after
        )

    return await context.database.read(query)


async def settle(context: Context, *, everything: bool = False) -> None:
    """Write the refused sign-ins that are remembered, and seal the entries that are not in the chain yet.

    ``everything`` as in ``refusals.write``. In a backup nothing is written: its last entries may be without a seal.
    """
    if context.database.only_read:
        return
    await refusals.write(context, everything=everything)
    await seal(context)


async def drop_old(context: Context) -> int:
    """Delete entries older than ``audit_days``, and append an entry about it. Returns how many were deleted.

    It does nothing until the oldest entry is a day older than that, so it deletes about once a day.
    """
    before = await context.database.read(db.clock.ago, context.config.audit_days * SECONDS_PER_DAY)
    oldest = await context.database.read(db.audit.oldest)
    if not context.config.audit_days or oldest is None or oldest >= before - DAY:
        return 0
    count, taken = 0, db.audit.DROPPED
    while taken == db.audit.DROPPED:
        taken = await context.database.write(_drop, before)
        count += taken
    return count


def _drop(connection: Connection, before: int) -> int:
    """Delete entries and append an entry about it, in one transaction."""
    count = db.audit.drop(connection, before)
    if count == 0:
        return 0
    day = dt.datetime.fromtimestamp(before / SECOND, dt.UTC).date().isoformat()
    detail = f"{count} entries from before {day}; the chain continues after {db.audit.start(connection)}"
    db.audit.append(connection, Event.audit_drop, "", organisation_id=None, by=None, detail=detail)
    return count


async def seal(context: Context) -> None:
    """Add all unsealed entries to the chain."""
    if await context.database.read(db.audit.unsealed):
        while await context.database.write(db.audit.seal) == db.audit.AT_ONCE:
            pass
