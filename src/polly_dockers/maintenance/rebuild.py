"""The database lost, or older than the store: everything that the journal holds is carried out on it again."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Self

from polly_dockers import db
from polly_dockers.auth.passwords import UNSET
from polly_dockers.blobs.filesystem import FileBlobStore
from polly_dockers.db.journal import compaction, frames, older, records, references, snapshot, state
from polly_dockers.db.journal.replay import Replay
from polly_dockers.db.sqlite import ERRORS, FILE, disk_trouble, exclusive, now
from polly_dockers.errors import Unavailable
from polly_dockers.formatting import counted
from polly_dockers.maintenance import garbage
from polly_dockers.system import durable, locks, ownership
from polly_dockers.system.durations import HOUR, SECONDS_PER_DAY

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy import Connection


KEEP_SECONDS: Final = 30 * SECONDS_PER_DAY
"""How long blobs are kept that no manifest of the journal names: a part of it may be lost, and found again."""


@dataclass(slots=True)
class Rebuilt:
    """What the database holds after a rebuild, and what the store lacks."""

    batches: int = 0
    """Batches of the journal that were carried out."""
    repositories: int = 0
    commits: int = 0
    manifests: int = 0
    """Those whose rows were made again."""
    blobs: int = 0
    """Blobs of the store that have their rows again."""
    lost: list[tuple[str, str, str]] = field(default_factory=list)
    """Repository, manifest and digest of each blob that a manifest names and the store does not have."""


def is_lost(folder: Path) -> bool:
    """Whether the database is gone, or of 0 bytes, and the data folder was in use."""
    place = folder / FILE
    gone = not place.exists() or place.stat().st_size == 0
    return gone and (frames.exists(folder) or any((folder / "blobs").glob("*/*/*")))


def rebuild(folder: Path) -> Rebuilt:
    """Make the database anew where it is lost, or bring one that was restored from a backup up to the journal's end.

    All of it is one transaction: a rebuild that was stopped is begun again. Raises Unavailable where there is no
    journal, or where the database has another history than the journal. Root acts as the owner of the folder from then
    on.
    """
    from polly_dockers.db import migrate  # noqa: PLC0415 - Alembic takes longer to import than most commands run

    ownership.become(folder)
    if why := ownership.obstacle(folder):
        raise Unavailable(why)
    if not frames.exists(folder):
        msg = f"{folder} has no journal to rebuild the database from. Restore a backup: polly-server restore."
        raise Unavailable(msg)
    try:
        migrate.upgrade(folder)
        with _CollectorRests(folder) as collector, exclusive(folder) as connection:
            collector.stop()
            if _has_all(connection, folder):
                _begin_anew(connection, folder)
            return _catch_up(connection, folder, collector)
    except ERRORS as error:
        if why := ownership.obstacle(folder) or disk_trouble(folder, error):
            raise Unavailable(why) from error
        msg = f"The database of {folder} can't be rebuilt: {getattr(error, 'orig', error)}."
        raise Unavailable(msg) from error


def catch_up(folder: Path) -> Rebuilt:
    """Before anything is written: carry out what the journal holds and the database lacks; let it hold all of it.

    The first is so after a crash between the two, or with a database from a backup; the second with a data folder from
    before there was a journal, or with one whose journal was lost. A change that came before would hide either: its
    batch is the last one of both. Raises Unavailable as ``rebuild``.
    """
    with _CollectorRests(folder) as collector, exclusive(folder) as connection:
        if _has_all(connection, folder):
            collector.stop()
            _begin_anew(connection, folder)
        elif frames.last(folder) != state.last_batch(connection):
            return _catch_up(connection, folder, collector)
        return Rebuilt()


def _has_all(connection: Connection, folder: Path) -> bool:
    """Whether the journal lacks what the database has, and has nothing that the database lacks.

    So it is where the journal was lost, wholly or at either end, in a data folder from before there was one, and where
    writing it again was interrupted by a version that did so in place.
    """
    last, newest = state.last_batch(connection), frames.last(folder)
    if last == 0 and not db.accounts.has_organisations(connection):
        return False
    if newest <= last:
        first = next(frames.read(folder), None)
        return newest < last or first is None or first.previous != 0
    if (last and frames.has(folder, last)) or _is_older(connection, folder, last):
        return False
    return older.compare(connection, _of(folder, frames.chain(folder, last))).is_contained


def _catch_up(connection: Connection, folder: Path, collector: _CollectorRests) -> Rebuilt:
    last = state.last_batch(connection)
    wanted = frames.chain(folder, last)
    replay = Replay(connection, UNSET)
    if _is_older(connection, folder, last):
        older.clear(connection)
        last = 0
    replay.carry_out(_chosen(folder, connection, wanted, last))
    result = Rebuilt(batches=replay.batches, manifests=len(replay.manifests))
    if last == 0:
        older.finish(connection)
        collector.stop()
        result.blobs = references.add_blobs(connection, _keys(folder))
    result.lost = references.refer(connection, replay.manifests)
    if last and result.lost:  # blobs of pushes that came after the database was copied
        collector.stop()
        result.blobs = references.add_blobs(connection, _keys(folder))
        result.lost = references.refer(connection, replay.manifests)
    if result.blobs:
        result.blobs -= db.garbage.delete_unlinked(connection, KEEP_SECONDS)
    references.count(connection)
    if frames.last(folder) - last > HOUR:
        db.last_pulls.record_all(connection)
    result.repositories, result.commits = db.repositories.count_all(connection)
    return result


def _is_older(connection: Connection, folder: Path, last: int) -> bool:
    """Whether the database is an earlier state of what the snapshot of the journal holds."""
    newest = frames.files(folder)[0]
    if not last or not frames.is_snapshot(newest) or frames.number(newest) <= last:
        return False
    return older.is_ancestor(connection, frames.read_file(newest))


def _chosen(folder: Path, connection: Connection, wanted: list[int], last: int) -> Iterator[records.Batch]:
    first = True
    for batch in _of(folder, wanted):
        if first and batch.previous != last:
            raise _two_histories(folder, older.compare(connection, _of(folder, wanted)))
        first = False
        yield batch


def _of(folder: Path, wanted: list[int]) -> Iterator[records.Batch]:
    """The batches of these ids."""
    chosen = set(wanted)
    return (batch for batch in frames.read(folder) if batch.id in chosen)


def _two_histories(folder: Path, found: older.Compared) -> Unavailable:
    msg = (
        f"The database of {folder} has another history than its journal. Only the database has {_told(found.ours)}; "
        f"only the journal has {_told(found.theirs)}, some of which may have been deleted. Nothing was changed. Copy "
        f"the whole folder first. Then keep the one that holds more: to keep the database, move {frames.FOLDER} away "
        f"and start the server, which writes it again; to keep the journal, which has no passwords, roles or tokens, "
        f"move {FILE} and the files whose names begin so away, and run polly-server rebuild."
    )
    return Unavailable(msg)


def _told(counts: dict[str, int]) -> str:
    """How many there are of what."""
    return ", ".join(counted(count, name) for name, count in counts.items() if count) or "nothing"


def _begin_anew(connection: Connection, folder: Path) -> None:
    """Write all rows as they are to a snapshot, which takes the place of the journal; the transaction ends and begins.

    It gets its name when it is whole and on the disk, and after the row that tells its number: a crash between the two
    leaves a journal that is behind the database, and this is done again. The other way round, the database would seem
    to be behind. No process writes meanwhile, and no compaction runs.
    """
    place = folder / frames.FOLDER
    if not place.exists():
        place.mkdir(mode=0o700)
        durable.sync(folder)
    for left in place.glob("*" + compaction.PART):
        left.unlink()
    number = max(state.last_batch(connection) + 1, frames.last(folder) + 1, now())
    named = place / f"{number:020}{frames.SNAPSHOT}"
    part = named.with_name(named.name + compaction.PART)
    try:
        count = compaction.write(part, snapshot.batches(connection, 1, number), lambda _took: None)
        compaction.compare(part, count, number, lambda _took: None)
        state.advance(connection, number)
        state.begin_file(connection, number + 1)
        connection.exec_driver_sql("COMMIT")
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        part.rename(named)
        durable.sync(place)
    finally:
        part.unlink(missing_ok=True)


def _keys(folder: Path) -> list[tuple[str, int]]:
    async def keys() -> list[tuple[str, int]]:
        store = FileBlobStore(folder)
        try:
            return [(each.key, each.size) for part in store.parts() for each in await store.keys(part)]
        finally:
            store.close()

    return asyncio.run(keys())


class _CollectorRests:
    """Keeps the collector away, from ``stop`` to the end: a key that gets its row again must not be deleted then."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._fd = -1

    def __enter__(self) -> Self:
        return self

    def stop(self) -> None:
        """Take the lock of the collector; raises Unavailable where that is at work."""
        if self._fd >= 0:
            return
        self._fd = locks.open_file(self._folder / garbage.LOCK)
        if not locks.try_acquire(self._fd):
            msg = f"A collection of garbage, or a backup, is at work on {self._folder}. Run this again when it is over."
            raise Unavailable(msg)

    def __exit__(self, *_: object) -> None:
        if self._fd >= 0:
            os.close(self._fd)
