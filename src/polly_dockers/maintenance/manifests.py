"""Manifests whose bytes in the database were damaged: which there are, and where the right bytes are."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from sqlalchemy.exc import DBAPIError

from polly_dockers import db
from polly_dockers.db.journal import bodies
from polly_dockers.db.sqlite import FILE, connect
from polly_dockers.system import ownership

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from sqlalchemy import Connection

    from polly_dockers.context import Context
    from polly_dockers.db.checks import ManifestRow


def damaged_in(connection: Connection) -> list[ManifestRow]:
    """All damaged manifests of a database. It reads every body."""
    found, after = list[db.checks.ManifestRow](), 0
    while rows := db.checks.manifests_after(connection, after):
        found += (row for row in rows if not row.whole)
        after = rows[-1].id
    return found


def right(folder: Path, digests: Collection[str]) -> dict[str, bytes]:
    """Undamaged bodies by their digests, from the database and the journal of a data folder or a backup.

    A database that can't be read counts as one that has none. Raises OSError.
    """
    found = dict[str, bytes]()
    if (folder / FILE).exists():
        with contextlib.suppress(DBAPIError), connect(folder / FILE) as connection:
            found = db.checks.right_bodies(connection, digests)
    return found | bodies.find(folder, set(digests) - set(found))


async def repair(context: Context, backup: Path | None, damaged: Collection[ManifestRow]) -> dict[int, str]:
    """Replace damaged bodies by right ones; returns what was done, by id, for the manifests that are right now.

    They come from another docker repository, from the journal, or from the folder of a backup.
    """
    database, folder, done = context.database, context.config.data, dict[int, str]()

    async def from_backup(digests: set[str]) -> dict[str, bytes]:
        if backup is None:
            return {}
        with ownership.acting(backup):
            return right(backup, digests)

    for source, find in (
        ("another docker repository", lambda digests: database.read(db.checks.right_bodies, digests)),
        ("the journal", lambda digests: asyncio.to_thread(bodies.find, folder, digests)),
        (f"the backup {backup}", from_backup),
    ):
        left = [each for each in damaged if each.id not in done]
        found = await find({each.digest for each in left})
        for each in left:
            if each.digest in found:
                await database.write(db.manifests.set_body, each.id, found[each.digest])
                done[each.id] = f"repaired from {source}"
    return done
