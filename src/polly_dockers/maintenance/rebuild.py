"""Rebuilding a database that was lost, or is older than the journal: the journal is applied to it again."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field
from shlex import quote
from typing import TYPE_CHECKING, Final, Self

from polly_dockers import db
from polly_dockers.auth.passwords import UNSET
from polly_dockers.blobs import files
from polly_dockers.blobs.filesystem import FileBlobStore
from polly_dockers.db import disk_errors
from polly_dockers.db.journal import compaction, frames, older, references, state, totals
from polly_dockers.db.journal.replay import Replay
from polly_dockers.db.sqlite import ERRORS, FILE, connect, exclusive, is_made
from polly_dockers.errors import Unavailable
from polly_dockers.formatting import to_paste
from polly_dockers.maintenance import damaged, garbage, histories, restoring
from polly_dockers.system import folders, locks, ownership
from polly_dockers.system.durations import HOUR, SECONDS_PER_DAY

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Connection


KEEP_SECONDS: Final = 30 * SECONDS_PER_DAY
"""How long blobs are kept that no manifest of the journal names: lost parts of the journal may be found again."""


@dataclass(slots=True)
class Rebuilt:
    """What a rebuilt database holds, and which blobs the store lacks."""

    batches: int = 0
    """Batches of the journal that were applied."""
    repositories: int = 0
    commits: int = 0
    manifests: int = 0
    """Manifests whose rows were made again."""
    blobs: int = 0
    """Blobs of the store whose rows were made again."""
    lost: list[references.Unlinked] = field(default_factory=list)
    """Blobs that a manifest had and the store lacks."""
    unproven: list[references.Unlinked] = field(default_factory=list)
    """What manifests name, and an older version did not record whether their repository had it."""
    without_password: int = 0
    """Accounts that have no password."""


def is_lost(folder: Path) -> bool:
    """Whether the database is missing or empty, although the data folder was in use.

    Raises Unavailable if this user may not look: a new database would hide what is there.
    """
    try:
        return not is_made(folder) and (frames.exists(folder) or any(files.keys(folder / "blobs")))
    except PermissionError as error:
        if why := ownership.obstacle(folder):
            raise Unavailable(why) from error
        raise


def rebuild(folder: Path) -> Rebuilt:
    """Make a lost database again, or bring one from a backup up to the end of the journal.

    All of it is one transaction, so a rebuild that was interrupted is just run again. Root acts as the owner of the
    folder from then on. It also ends a restore that was left unfinished. Raises Unavailable if a restore runs, if there
    is no journal, or if the database and the journal have different histories.
    """
    from polly_dockers.db import migrate  # noqa: PLC0415 - Alembic takes longer to import than most commands run

    ownership.become(folder)
    if why := folders.file_in_the_way(folder) or ownership.obstacle(folder):
        raise Unavailable(why)
    if not frames.exists(folder):
        restore = f"polly-server restore --from … --data {quote(str(folder))}"
        msg = f"{folder} has no journal to rebuild the database from. Restore a backup:{to_paste(restore)}"
        raise Unavailable(msg)
    try:
        with restoring.kept_away(folder):
            newest = frames.last(folder)
            if is_lost(folder) and not (newest and frames.is_whole(folder, newest)):
                raise histories.lacks(folder)
            if is_made(folder):
                damaged.refuse(folder)
            migrate.upgrade(folder)
            with _CollectorRests(folder) as collector, exclusive(folder) as connection:
                collector.stop()
                if histories.has_all(connection, folder):
                    compaction.rewrite(connection, folder)
                done = _catch_up(connection, folder, collector)
            restoring.end(folder)
            return done
    except ERRORS as error:
        if why := ownership.obstacle(folder) or disk_errors.trouble(folder, error) or damaged.of(folder, error):
            raise Unavailable(why) from error
        msg = f"The database of {folder} can't be rebuilt: {getattr(error, 'orig', error)}."
        raise Unavailable(msg) from error


def catch_up(folder: Path, *, thorough: bool = False) -> Rebuilt:
    """Bring the database and the journal together, before anything else is written.

    The database lacks changes of the journal after a crash between the two, or if it comes from a backup: they are
    applied to it. The journal lacks rows of the database if it was lost, or if the data folder is older than the
    journal: it is written again. A change that was written first would hide the difference, because its batch would
    be the last one of both. With ``thorough`` all of the journal is read, and it is also written again if batches in
    its middle are lost or damaged. Raises Unavailable as ``rebuild``.
    """
    is_whole = not thorough or _is_whole(folder)
    with _CollectorRests(folder) as collector, exclusive(folder) as connection:
        done, anew = Rebuilt(), histories.has_all(connection, folder)
        if not anew and frames.last(folder) != state.last_batch(connection):
            done = _catch_up(connection, folder, collector)
        if anew or not (is_whole or frames.is_whole(folder, state.last_batch(connection))):
            collector.stop()
            compaction.rewrite(connection, folder)
        return done


def _is_whole(folder: Path) -> bool:
    """Whether the journal has all that leads to the last batch of the database. Writers do not wait meanwhile."""
    with connect(folder / FILE) as connection:
        last = state.last_batch(connection)
    return frames.is_whole(folder, last)


def _catch_up(connection: Connection, folder: Path, collector: _CollectorRests) -> Rebuilt:
    after = last = state.last_batch(connection)
    replay = Replay(connection, UNSET)
    if histories.is_older(connection, folder, last):
        older.clear(connection)
        last = 0
    replay.apply(histories.chosen(folder, connection, after, last))
    result = Rebuilt(batches=replay.batches, manifests=len(replay.manifests))
    if last == 0:
        older.finish(connection)
        collector.stop()
        result.blobs = references.add_blobs(connection, _stored(folder))

    def add_rows() -> None:  # of blobs that were pushed after the backup of the database
        collector.stop()
        result.blobs += references.add_blobs(connection, _stored(folder))

    links = references.Links(connection, add_rows)
    totals.measure(connection, links.make(replay.to_link))
    result.lost, result.unproven = links.lost, links.unproven
    if replay.to_link.older:
        state.add_stale(connection, 1)  # the next compaction writes what a record of an older version lacks
    if result.blobs:
        result.blobs -= db.garbage.delete_unlinked(connection, KEEP_SECONDS)
    totals.count(connection)
    if frames.last(folder) - last > HOUR:
        db.last_pulls.record_all(connection)
    result.repositories, result.commits = db.repositories.count_all(connection)
    result.without_password = db.accounts.count_with(connection, UNSET)
    return result


def _stored(folder: Path) -> list[tuple[str, str, int]]:
    """Digest, storage key and size of each blob that is stored."""

    async def stored() -> list[tuple[str, str, int]]:
        store = FileBlobStore(folder)
        try:
            found = [each for part in store.parts() for each in await store.keys(part)]
            whole = [each for each in found if not each.key.endswith(files.PART)]
            return [(files.digest_of(each.key), each.key, each.size) for each in whole]
        finally:
            store.close()

    return asyncio.run(stored())


class _CollectorRests:
    """Keeps the garbage collector away from ``stop`` on: it must not delete blobs that get their rows again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._fd = -1

    def __enter__(self) -> Self:
        return self

    def stop(self) -> None:
        """Take the lock of the collector. Raises Unavailable if a collection or a backup is running."""
        if self._fd >= 0:
            return
        self._fd = locks.open_file(self._folder / garbage.LOCK)
        if not locks.try_acquire(self._fd):
            msg = f"A garbage collection or a backup is running on {self._folder}. Run this again when it has ended."
            raise Unavailable(msg)

    def __exit__(self, *_: object) -> None:
        if self._fd >= 0:
            os.close(self._fd)
