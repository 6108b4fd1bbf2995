"""The audit log: what its readers see, and the part of it that is written on the side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from polly_dockers import access
from polly_dockers.db import accounts as account_rows
from polly_dockers.db import audit as rows
from polly_dockers.db import throttles
from polly_dockers.db.audit import Event
from polly_dockers.model import Role

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection

    from polly_dockers.db.audit import Entry, Wanted
    from polly_dockers.model import Actor
    from polly_dockers.registry import Registry

UNKNOWN: Final = 1000
"""Entries in an hour about emails that have no account, at most: whoever reaches the server can cause them."""
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


async def settle(registry: Registry) -> None:
    """Write the refusals that are remembered, and seal what has no place in the chain yet."""
    waiting = dict(registry.refused)
    registry.refused.clear()
    if waiting:
        try:
            await registry.db.write(_refused, waiting)
        except BaseException:
            registry.refused.update(waiting)
            raise
    await seal(registry)


def _refused(connection: Connection, waiting: Mapping[tuple[str, str], int]) -> None:
    for (email, address), count in waiting.items():
        unknown = account_rows.user(connection, email) is None
        if unknown and throttles.count(connection, "audit:unknown", throttles.HOUR) > UNKNOWN:
            continue
        detail = f"{count} times" if count > 1 else ""
        rows.note_account(connection, Event.sign_in_refused, email, address, detail=detail)


async def seal(registry: Registry) -> None:
    """Lead the chain on to the newest entry."""
    if await registry.db.read(rows.unsealed):
        while await registry.db.write(rows.seal) == rows.BATCH:
            pass
