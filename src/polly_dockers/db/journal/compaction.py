"""Compaction: the journal is replaced by a snapshot of all rows, without what was purged.

It has four steps. A crash between any two of them loses nothing:

1. Under the writers' lock, the row of the journal is set so that later batches go to new files, and a read transaction
   begins. That transaction sees exactly what the files up to there tell.
2. While others write, its rows are written to a part file, which is synced and read again. If a manifest was damaged in
   the database, its bytes come from the older files, which are the only undamaged copy.
3. Under the lock, the part file gets its name, if the batches that came meanwhile lead back to it through the files
   that stay. From then on readers begin with it (``frames.files``).
4. Older files are deleted. If somebody is reading the journal, the next sweep deletes them.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import time
from typing import TYPE_CHECKING, Final, TypeVar

from polly_dockers.db.journal import bodies, frames, records, snapshot, state
from polly_dockers.db.sqlite import FILE, exclusive, now, open_engine
from polly_dockers.errors import StorageFull, Unavailable
from polly_dockers.formatting import size
from polly_dockers.system import durable, locks
from polly_dockers.system.durations import SECOND, SECONDS_PER_DAY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sqlalchemy import Connection

T = TypeVar("T")

PART: Final = ".part"
SLACK: Final = 64 << 20
"""Bytes by which a journal must be more than twice as large as its snapshot, to be compacted for its size alone."""
MARGIN: Final = 64 << 20
"""Bytes that a compaction leaves free on the disk, for the database and for pushes meanwhile."""
FEW: Final = 50
"""Batches that may be left to read under the writers' lock."""
ROUNDS: Final = 10
"""How often at most new batches are read before the lock is taken."""
WEEK: Final = 7 * SECONDS_PER_DAY
"""Seconds after which a server compacts a journal that holds purged things."""


def is_due(folder: Path, stale: int, now: float, *, thorough: bool) -> bool:
    """Whether the journal should be compacted: because of its size, or because it has held purged things for a WEEK.

    ``stale`` is how many things were purged since the last compaction; ``now`` is in seconds since 1970. With
    ``thorough``, any purged thing is enough. A journal from the future was written while the clock was ahead, nobody
    knows when, so it counts as old.
    """
    paths = frames.files(folder)
    if not paths:
        return False
    if stale and (thorough or not 0 <= now - _began(paths[0]) <= WEEK):
        return True
    held = paths[0].stat().st_size if frames.is_snapshot(paths[0]) else 0
    return sum(path.stat().st_size for path in paths) > 2 * held + SLACK


def _began(path: Path) -> float:
    """When the snapshot of the journal was written, or else when the journal was begun; in seconds since 1970.

    The number of a snapshot tells no time: if the clock was ahead once, all later numbers are ahead too.
    """
    return path.stat().st_mtime if frames.is_snapshot(path) else frames.number(path) / SECOND


def compact(folder: Path, rest: Callable[[float], None]) -> int:
    """Compact the journal of a data folder while a server runs; returns how many bytes smaller it is.

    The caller holds the collector's lock, so no other compaction and no backup runs. ``rest`` is called between small
    steps with the seconds that the last step took. If it raises, the compaction ends and nothing is changed.

    Raises StorageFull before anything is written if there is no room, Unavailable if the snapshot can't be read back,
    and what the disk and the database raise.
    """
    sweep(folder)
    before = _size(folder)
    lacking = before + MARGIN - shutil.disk_usage(folder).free
    if lacking > 0:
        msg = f"Compacting the journal needs {size(before + MARGIN)} for a while: {size(lacking)} more must be free."
        raise StorageFull(msg)
    with contextlib.closing(_Rows(folder)) as rows:
        last = rows.begin()
        if last == 0:
            return 0
        place = folder / frames.FOLDER / f"{last:020}{frames.SNAPSHOT}"
        part = place.with_name(f"{place.name}.{secrets.token_hex(4)}{PART}")
        try:
            count = write(part, bodies.undamaged(rows.batches(last), folder), rest)
            compare(part, count, last, rest)
            if not rows.publish(last, part, place, rest):
                return 0
        finally:
            part.unlink(missing_ok=True)
    sweep(folder)
    return before - _size(folder)


def sweep(folder: Path) -> None:
    """Delete files before the snapshot, and part files. Does nothing while somebody reads the journal."""
    place = folder / frames.FOLDER
    if not place.exists():
        return
    fd = durable.open_folder(place)
    try:
        if not locks.try_acquire(fd):
            return
        os.fsync(fd)  # the name of the snapshot must be durable before the other files are deleted
        first = next(iter(frames.files(folder)), None)
        if first is not None and frames.is_snapshot(first):
            for path in frames.listed(place):
                if path < first:
                    path.unlink()
        for part in place.glob("*" + PART):
            part.unlink()
    finally:
        os.close(fd)


class _Rows:
    """The database of the compaction, both as of its begin and as it is now. The process's writer is not used."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._engine = open_engine(folder / FILE)
        self._reader = self._engine.connect()
        self._stale = 0

    def begin(self) -> int:
        """Begin the read transaction; returns its last batch, or 0 if there is none. Later batches go to new files."""
        with exclusive(self._folder) as connection:
            last = state.last_batch(connection)
            state.begin_file(connection, last + 1)
            connection.exec_driver_sql("COMMIT")
            self._reader.exec_driver_sql("BEGIN")
            self._stale = state.stale(self._reader)
        return last

    def batches(self, last: int) -> Iterator[records.Batch]:
        """All rows of the read transaction as batches; the last one has the number ``last``."""
        return snapshot.batches(self._reader, 1, last)

    def publish(self, last: int, part: Path, place: Path, rest: Callable[[float], None]) -> bool:
        """Name the part file, if all batches since then are in files that stay; returns whether it did.

        Most of those files are read before the lock is taken, so that writers wait only for the rest.
        """
        self._reader.exec_driver_sql("ROLLBACK")
        behind = _Behind(self._folder, last)
        for _ in range(ROUNDS):
            if behind.read(rest) <= FEW:
                break
        with exclusive(self._folder) as connection:
            behind.read(lambda _took: None)
            at = state.last_batch(connection)
            while at in behind.before:
                at = behind.before[at]
            if at == last:
                part.rename(place)
                durable.sync(place.parent)
                state.add_stale(connection, -self._stale)
        return at == last

    def close(self) -> None:
        """Close the connections."""
        self._reader.close()
        self._engine.dispose()


class _Behind:
    """The batches after a snapshot, read from the files that stay."""

    def __init__(self, folder: Path, last: int) -> None:
        self.before: dict[int, int] = {}
        """Ids of batches, each with the id of the batch before it."""
        self._folder = folder
        self._last = last
        self._seen: dict[Path, int] = {}
        """Where the last batch that was read begins in each file. Only that one may have been removed since."""

    def read(self, rest: Callable[[float], None]) -> int:
        """Read what was appended since; returns the number of new batches. ``rest`` is as in ``compact``."""
        known = len(self.before)
        for path in frames.files(self._folder):
            if frames.number(path) <= self._last:
                continue
            for batch, previous, begin in _paced(frames.heads_from(path, self._seen.get(path, 0)), rest):
                self.before[batch], self._seen[path] = previous, begin
        return len(self.before) - known


def _paced(found: Iterator[T], rest: Callable[[float], None]) -> Iterator[T]:
    """The items, with a call of ``rest`` after each: as in ``compact``, with the seconds that the item took."""
    began = time.monotonic()
    for each in found:
        yield each
        rest(time.monotonic() - began)
        began = time.monotonic()


def write(part: Path, found: Iterator[records.Batch], rest: Callable[[float], None]) -> int:
    """Write batches to a new file and sync it; returns their number."""
    fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    count = 0
    with os.fdopen(fd, "wb") as file:
        for batch in _paced(found, rest):
            file.write(frames.frame(batch.id, batch.previous, batch.records))
            count += 1
        file.flush()
        os.fsync(fd)
    return count


def compare(part: Path, count: int, last: int, rest: Callable[[float], None]) -> None:
    """Raise Unavailable if the file does not hold ``count`` batches that follow each other up to ``last``."""
    at, seen = 0, 0
    for head, previous, _ in _paced(frames.heads_from(part, 0), rest):
        if previous != at:
            break
        at, seen = head, seen + 1
    if (at, seen) != (last, count):
        msg = f"{part} can't be read back as it was written. The journal was not changed."
        raise Unavailable(msg)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in frames.listed(folder / frames.FOLDER))


def rewrite(connection: Connection, folder: Path) -> None:
    """Replace the journal by a snapshot of all rows; ends the transaction of the connection and begins another.

    No other process may write or compact meanwhile. The snapshot gets its name when it is complete and synced, and
    after the row with its number. A crash between the two leaves a journal that is behind the database, and the next
    start does this again. In the other order the database would seem to be behind.
    """
    place = folder / frames.FOLDER
    durable.make_folder(place, parents=False)
    for left in place.glob("*" + PART):
        left.unlink()
    number = max(state.last_batch(connection) + 1, frames.last(folder) + 1, now())
    named = place / f"{number:020}{frames.SNAPSHOT}"
    part = named.with_name(named.name + PART)
    try:
        batches = bodies.undamaged(snapshot.batches(connection, 1, number), folder)
        count = write(part, batches, lambda _took: None)
        compare(part, count, number, lambda _took: None)
        state.advance(connection, number)
        state.begin_file(connection, number + 1)
        connection.exec_driver_sql("COMMIT")
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        part.rename(named)
        durable.sync(place)
    finally:
        part.unlink(missing_ok=True)
