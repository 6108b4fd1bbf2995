"""A journal without what is gone for good: all rows as they are now, in a file that takes the place of those before it.

A compaction and the writers of all processes agree in four steps, and a crash between any two of them loses nothing:

1. Under the writers' lock, the row of the journal says that batches behind the last one go to files of their own, and
   a snapshot of the database is taken: it holds exactly what the files up to there tell.
2. While others write, that snapshot is written to a part file, synced, and read again.
3. Under the lock, the part gets its name, if the batches that came meanwhile lead back to it through the files that
   stay. From then on readers begin with it (``journal.files``).
4. Files before it are deleted, unless somebody reads the journal; then the next sweep does it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import time
from typing import TYPE_CHECKING, Final

from polly_dockers.db.journal import frames, records, snapshot, state
from polly_dockers.db.sqlite import FILE, exclusive, open_engine
from polly_dockers.errors import StorageFull, Unavailable
from polly_dockers.formatting import size
from polly_dockers.system import durable, locks
from polly_dockers.system.durations import SECOND, SECONDS_PER_DAY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PART: Final = ".part"
SLACK: Final = 64 << 20
"""Bytes by which a journal is more than twice as large as its snapshot before that alone is a reason to compact it."""
MARGIN: Final = 64 << 20
"""Bytes that a compaction leaves free on the disk: for pushes meanwhile, and for the database."""
FEW: Final = 50
"""Batches that are read under the writers' lock without a thought."""
ROUNDS: Final = 10
"""Times that what came meanwhile is read before the lock is taken, at most."""
WEEK: Final = 7 * SECONDS_PER_DAY
"""Seconds after which what is gone for good is no longer kept in the journal of a server."""


def is_due(folder: Path, stale: int, now: float, *, thorough: bool) -> bool:
    """Whether a compaction is worth it: by size, or since something is gone for good for so long.

    ``stale`` is how many things are gone since the last compaction, ``now`` seconds since 1970. ``thorough``: at once.
    What seems to be of the future was written while the clock was ahead: nobody knows when, so it is due.
    """
    paths = frames.files(folder)
    if not paths:
        return False
    if stale and (thorough or not 0 <= now - _began(paths[0]) <= WEEK):
        return True
    held = paths[0].stat().st_size if frames.is_snapshot(paths[0]) else 0
    return sum(path.stat().st_size for path in paths) > 2 * held + SLACK


def _began(path: Path) -> float:
    """Since when the journal grows: when its snapshot was written, else when it was begun; seconds since 1970.

    The number of a snapshot may be far ahead for ever: each batch has a higher one than those before it.
    """
    return path.stat().st_mtime if frames.is_snapshot(path) else frames.number(path) / SECOND


def compact(folder: Path, rest: Callable[[float], None]) -> int:
    """Compact the journal of a data folder, beside a server that runs; how many bytes smaller it is.

    Only the collector does this: one at a time, and not while a backup is made. ``rest`` is called between small steps
    with the seconds that the last one took; what it raises ends the compaction, and nothing is changed then. Raises
    StorageFull, before anything is written, where there is no room; Unavailable where what was written is not what is
    read; and what the disk and the database raise.
    """
    sweep(folder)
    before = _size(folder)
    lacking = before + MARGIN - shutil.disk_usage(folder).free
    if lacking > 0:
        msg = f"Compacting the journal takes {size(before + MARGIN)} for a while: {size(lacking)} more must be free."
        raise StorageFull(msg)
    with contextlib.closing(_Rows(folder)) as rows:
        last = rows.begin()
        if last == 0:
            return 0
        place = folder / frames.FOLDER / f"{last:020}{frames.SNAPSHOT}"
        part = place.with_name(f"{place.name}.{secrets.token_hex(4)}{PART}")
        try:
            count = write(part, rows.batches(last), rest)
            compare(part, count, last, rest)
            if not rows.publish(last, part, place, rest):
                return 0
        finally:
            part.unlink(missing_ok=True)
    sweep(folder)
    return before - _size(folder)


def sweep(folder: Path) -> None:
    """Delete files that have no meaning any more: those before a snapshot, and parts. Not while somebody reads."""
    place = folder / frames.FOLDER
    if not place.exists():
        return
    fd = durable.open_folder(place)
    try:
        if not locks.try_acquire(fd):
            return
        os.fsync(fd)  # the name of the snapshot is on the disk before the others are taken off it
        kept = set(frames.files(folder))
        for path in (*sorted(place.glob("*.log")), *place.glob("*" + PART)):
            if path not in kept:
                path.unlink()
    finally:
        os.close(fd)


class _Rows:
    """The database, as one moment of it and as it is; nothing here goes through the writer of the process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._engine = open_engine(folder / FILE)
        self._reader = self._engine.connect()
        self._stale = 0

    def begin(self) -> int:
        """Begin the snapshot; the batch that it is of, behind which others go to new files. 0 where there is none."""
        with exclusive(self._folder) as connection:
            last = state.last_batch(connection)
            state.begin_file(connection, last + 1)
            connection.exec_driver_sql("COMMIT")
            self._reader.exec_driver_sql("BEGIN")
            self._stale = state.stale(self._reader)
        return last

    def batches(self, last: int) -> Iterator[records.Batch]:
        """All rows of the snapshot; the last batch is the one that it is of."""
        return snapshot.batches(self._reader, 1, last)

    def publish(self, last: int, part: Path, place: Path, rest: Callable[[float], None]) -> bool:
        """Name the part, if all that was committed since stands in files that stay; whether that is so.

        What those files hold is read before the lock is taken, so that nobody waits for more than the last of it.
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
        """Release the file."""
        self._reader.close()
        self._engine.dispose()


class _Behind:
    """Batches behind a snapshot, as the files that stay tell them."""

    def __init__(self, folder: Path, last: int) -> None:
        self.before: dict[int, int] = {}
        """Ids, each with that of the batch before it."""
        self._folder = folder
        self._last = last
        self._seen: dict[Path, int] = {}
        """Where the last batch that was read of a file begins: it alone may have been taken back meanwhile."""

    def read(self, rest: Callable[[float], None]) -> int:
        """Read what was appended since; how many batches that are new. ``rest`` as in ``compact``."""
        known, began = len(self.before), time.monotonic()
        for path in frames.files(self._folder):
            if frames.number(path) <= self._last:
                continue
            for batch, previous, begin in frames.heads_from(path, self._seen.get(path, 0)):
                self.before[batch], self._seen[path] = previous, begin
                rest(time.monotonic() - began)
                began = time.monotonic()
        return len(self.before) - known


def write(part: Path, found: Iterator[records.Batch], rest: Callable[[float], None]) -> int:
    """Write batches to a new file and sync it; how many there were."""
    fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    count = 0
    with os.fdopen(fd, "wb") as file:
        began = time.monotonic()
        for batch in found:
            file.write(frames.frame(batch.id, batch.previous, batch.records))
            count += 1
            rest(time.monotonic() - began)
            began = time.monotonic()
        file.flush()
        os.fsync(fd)
    return count


def compare(part: Path, count: int, last: int, rest: Callable[[float], None]) -> None:
    """Raise Unavailable where the file does not hold so many batches, each behind the one before, up to the last."""
    at, seen, began = 0, 0, time.monotonic()
    for head, previous, _ in frames.heads_from(part, 0):
        if previous != at:
            break
        at, seen = head, seen + 1
        rest(time.monotonic() - began)
        began = time.monotonic()
    if (at, seen) != (last, count):
        msg = f"{part} can't be read as it was written; the journal stays as it was."
        raise Unavailable(msg)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in (folder / frames.FOLDER).glob("*.log"))
