"""Manifests whose bytes in the database were damaged: which there are, and where the right bytes are."""

from __future__ import annotations

import asyncio
import contextlib
from shlex import quote
from typing import TYPE_CHECKING

from sqlalchemy.exc import DBAPIError

from polly_dockers import db
from polly_dockers.db.journal import bodies
from polly_dockers.db.sqlite import FILE, connect, is_backup
from polly_dockers.errors import Unavailable
from polly_dockers.formatting import counted, is_, to_paste
from polly_dockers.system import ownership

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

    from polly_dockers.context import Context
    from polly_dockers.db.checks import ManifestRow


def damaged_in(file: Path) -> list[ManifestRow]:
    """All damaged manifests of a database. It reads every body. Raises what ``sqlite.ERRORS`` lists."""
    found, after = list[db.checks.ManifestRow](), 0
    with connect(file) as connection:
        while rows := db.checks.manifests_after(connection, after):
            found += (row for row in rows if not row.whole)
            after = rows[-1].id
    return found


def refuse_repairable(data: Path, target: Path, damaged: Sequence[ManifestRow]) -> None:
    """Raise Unavailable if damaged manifests of a data folder can be repaired, before a backup of it to ``target``.

    The backup would replace the database, and perhaps the journal, of an earlier one that has the right bytes. If
    nobody has them, a backup loses nothing. Root reads each folder as its owner.
    """
    for at in range(0, len(damaged), db.checks.PAGE):
        digests = {each.digest for each in damaged[at : at + db.checks.PAGE]}
        with ownership.acting(data):
            found = set(right(data, digests))
        with ownership.acting(target):
            in_target = set(right(target, digests - found) if (target / FILE).exists() else ())
        for each in damaged:
            if each.digest in found | in_target:
                raise _repairable(data, target, each, len(damaged), from_target=bool(in_target))


def _repairable(data: Path, target: Path, first: ManifestRow, count: int, *, from_target: bool) -> Unavailable:
    more = f" and {count - 1} more" if count > 1 else ""
    msg = (
        f"No new backup was made, and an earlier one did not change: {counted(count, 'manifest')} {is_(count)} damaged "
        f"in {data}: {first}{more}."
    )
    with ownership.acting(data):
        copies_backup = is_backup(data)
    if copies_backup:
        msg += " Repair the registry itself, make another backup of it to that folder, and copy that one."
    else:
        source = f" --from {quote(str(target))}" if from_target else ""
        msg += f"\nTo repair {'it' if count == 1 else 'them'}:"
        msg += to_paste(f"polly-server check --data {quote(str(data))} --repair{source}")
    return Unavailable(msg)


def right(folder: Path, digests: Collection[str]) -> dict[str, bytes]:
    """Undamaged bodies by their digests, from the database and the journal of a data folder or a backup.

    A database that can't be read counts as one that has none. Raises OSError.
    """
    found = dict[str, bytes]()
    if (folder / FILE).exists():
        with contextlib.suppress(DBAPIError, UnicodeDecodeError), connect(folder / FILE) as connection:
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
                done[each.id] = f"repaired from {'its own bytes' if each.body_is_right else source}"
    return done
