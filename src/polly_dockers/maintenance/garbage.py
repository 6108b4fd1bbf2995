"""The garbage collector. It frees space while the server runs.

It applies retention policies, purges old items of the trash, and deletes unused blobs and abandoned uploads. Only one
collector runs at a time, in small transactions between those of pushes. It decides by rows alone, in the transaction
that changes them, and deletes files last. An error ends the run, and the next run continues with what is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Concatenate, Final, ParamSpec, TypeVar

import structlog

from polly_dockers import db
from polly_dockers.blobs import files
from polly_dockers.db import disk_errors
from polly_dockers.db.journal import compaction, state
from polly_dockers.db.sqlite import ERRORS, now
from polly_dockers.errors import StorageFull, Unavailable
from polly_dockers.registry import audit, retention
from polly_dockers.system import locks
from polly_dockers.system.durations import SECOND, SECONDS_PER_DAY, SECONDS_PER_HOUR

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sqlalchemy import Connection

    from polly_dockers.context import Context
    from polly_dockers.db.garbage import Collected

P = ParamSpec("P")
T = TypeVar("T")

log: Final = structlog.get_logger("polly.collector")

LOCK: Final = "collector.lock"
"""The lock file of the collector in a data folder; backups and rebuilds take it to keep the collector away."""
FILES: Final = 200
"""How many files are deleted at a time."""
TOGETHER: Final = 20
"""How many tags and commits one transaction purges: some milliseconds of the writer's time, and one sync."""
PARTS: Final = 32
"""In how many runs a server searches about all of the store for files without a row."""
COMPACTION: Final = "the journal, compacted"
"""The name of a failed compaction in the log."""
COMPACT_AGAIN: Final = 6.0 * SECONDS_PER_HOUR
"""Seconds that a server waits after a failed compaction, because it costs as much as one that succeeds."""
EXPIRE_EVERY: Final = SECONDS_PER_HOUR
"""Seconds between two runs of a server that apply all retention policies."""
ORPHAN_SECONDS: Final = SECONDS_PER_HOUR
"""A file without a row is garbage once it is this old, in seconds. A push takes at most half as long to add the row."""


@dataclass(slots=True)
class Report:
    """What a run did, or what it would do now."""

    expired: int = 0
    """Manifests that policies moved to the trash."""
    purged: int = 0
    """Items of the trash that were purged."""
    links: int = 0
    """Blobs that were removed from a repository."""
    blobs: int = 0
    """Blobs whose rows were deleted, because no repository had them."""
    size: int = 0
    """The size of these blobs in bytes."""
    files: int = 0
    """Files of blobs that were deleted."""
    freed: int = 0
    """Bytes that were freed on the disk, also by abandoned uploads."""
    orphans: int = 0
    """Files that no row named."""
    uploads: int = 0
    """Abandoned uploads that were deleted."""
    waiting: int = 0
    """Files that later runs delete, after their grace period."""
    dropped: int = 0
    """Entries of the audit log that were dropped because they were older than audit_days."""
    journal: int = 0
    """Bytes by which the journal is smaller."""


@dataclass(slots=True)
class Collector:
    """One run over everything. After each step it rests for ``pace`` times as long as the step took."""

    context: Context
    pace: float = 0.0
    thorough: bool = True
    """Whether to apply all policies and to search all of the store for files without a row.

    Otherwise policies are applied only if it is time, and each run searches another part of the store.
    """
    progress: Callable[[Report], None] = lambda _report: None
    report: Report = field(default_factory=Report)

    async def run(self) -> Report | None:
        """Collect; returns None if another collector is running."""
        with _alone(self.context) as held:
            if held is None:
                return None
            await self._observe_clock()
            try:
                await self._rows()
                full = False
            except StorageFull:
                full = True
            await self._files()  # these two need no room on the disk
            await self._uploads()
            if full:
                await self._rows()
                await self._files()
            await self._expire(held)  # late: if it fails, the rest is done already
            self.report.dropped = await audit.drop_old(self.context)
            await self._compact()
            self.report.waiting = await self.context.database.read(db.garbage.count_tombstones)
            return self.report

    async def preview(self) -> Report:
        """Return what a run would do now; changes nothing."""
        config, report = self.context.config, self.report
        report.expired = await retention.count(self.context)
        overdue = await self.context.database.read(
            db.trash.older, await self._deadline(), after=(0, 0), limit=1_000_000
        )
        begun = await self.context.database.read(db.trash.claimed)
        report.purged = len({item.id for item in (*begun, *overdue)})
        found = await self.context.database.read(db.garbage.waiting)
        report.links, report.blobs, report.size, report.waiting = found.links, found.blobs, found.size, found.tombstones
        for part in self.context.blobs.parts():
            report.orphans += len(await self._orphans_of(part))
        age = await self._age(config.upload_seconds)
        report.uploads, report.freed = await self.context.blobs.abandoned(age, delete=False)
        return report

    async def _rest(self, began: float) -> None:
        """Let other work run, for a time in proportion to the length of the step."""
        self.progress(self.report)
        took = asyncio.get_running_loop().time() - began
        await asyncio.sleep(took * self.pace)

    async def _expire(self, lock: int) -> None:
        """Apply the retention policies. The modification time of the lock file says when this was done last."""
        if not self.thorough and 0 <= time.time() - os.stat(lock).st_mtime < EXPIRE_EVERY:
            return
        os.utime(lock)
        began = asyncio.get_running_loop().time()
        async for moved in retention.apply(self.context):
            self.report.expired += moved
            await self._rest(began)
            began = asyncio.get_running_loop().time()

    async def _compact(self) -> None:
        """Compact the journal if that is due, so that it no longer holds purged things.

        If that fails in a server, it logs a warning and keeps the journal as it is.
        """
        failed = self.context.warned.get(COMPACTION)
        if not self.thorough and failed is not None and time.monotonic() - failed < COMPACT_AGAIN:
            return
        folder, stale = self.context.config.data, await self.context.database.read(state.stale)
        if not await asyncio.to_thread(compaction.is_due, folder, stale, time.time(), thorough=self.thorough):
            return
        try:
            self.report.journal = await self._compacted(folder)
        except (StorageFull, Unavailable) as error:
            if self.thorough:
                raise
            self.context.warn(COMPACTION, error)

    async def _compacted(self, folder: Path) -> int:
        """Compact at this run's pace; returns how many bytes smaller the journal is.

        A run that is cancelled waits for the current step of the thread, because no other run may begin before that.
        """
        ended = threading.Event()

        def rest(took: float) -> None:
            if ended.wait(took * self.pace):
                raise asyncio.CancelledError

        thread = asyncio.get_running_loop().run_in_executor(None, compaction.compact, folder, rest)
        try:
            return await asyncio.shield(thread)
        except ERRORS as error:
            if disk_errors.is_damage(error):
                raise disk_errors.reported(error) from error
            msg = f"The journal can't be compacted, and was not changed: {getattr(error, 'orig', None) or error}."
            raise Unavailable(msg) from error
        finally:
            ended.set()
            while not thread.done():
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait([thread])

    async def _rows(self) -> None:
        """Delete the rows that are garbage, and find the files that no row names. On the disk this needs some room."""
        await self._purge()
        await self._links()
        await self._orphans()

    async def _purge(self) -> None:
        """Purge old items of the trash, first those that an earlier run has begun to purge."""
        await self._purge_all(await self.context.database.read(db.trash.claimed))
        after, before = (0, 0), await self._deadline()  # the next run purges what is deleted meanwhile
        while items := await self.context.database.read(db.trash.older, before, after=after, limit=db.garbage.AT_ONCE):
            await self._purge_all(items)
            after = items[-1].deleted_at, items[-1].id

    async def _purge_all(self, items: list[db.trash.Item]) -> None:
        small = [item for item in items if item.kind in {db.trash.TAG, db.trash.COMMIT}]
        while small:
            began = asyncio.get_running_loop().time()
            some, small = small[:TOGETHER], small[TOGETHER:]
            gone, more = await self.context.database.write(self._purge_some, some)
            self.report.purged += len(gone)
            small += more
            await self._rest(began)
        for item in items:
            if item.kind in {db.trash.TAG, db.trash.COMMIT}:
                continue
            if not await self.context.database.write(db.trash.claim, item):  # it was restored meanwhile
                continue
            if item.kind == db.trash.REPOSITORY:
                await self._purge_repository(item, item.repository_id or 0)
            else:
                for repository_id in await self.context.database.read(db.garbage.repositories_of, item.organisation_id):
                    await self._purge_repository(item, repository_id)
                await self._step(item, db.garbage.purge_organisation, item)

    def _purge_some(
        self, connection: Connection, items: list[db.trash.Item]
    ) -> tuple[list[db.trash.Item], list[db.trash.Item]]:
        """Purge tags and commits in one transaction; returns the purged ones, and those that need another one."""
        gone, more = [], []
        for item in items:
            if not db.trash.is_there(connection, item):  # it was restored meanwhile
                continue
            if item.kind == db.trash.TAG:
                db.trash.delete_item(connection, item.id)
            elif not db.garbage.purge_manifest(connection, item, self.context.config.lease_seconds):
                more.append(item)
            if db.trash.record_purge(connection, item):
                gone.append(item)
        return gone, more

    async def _deadline(self) -> int:
        """The time of deletion before which items are purged, in microseconds since 1970."""
        return await self.context.database.read(db.clock.ago, self.context.config.trash_days * SECONDS_PER_DAY)

    async def _observe_clock(self) -> None:
        """Record a jump of the clock, so that a clock that was set ahead deletes nothing early."""
        try:
            jump = await self.context.database.write(db.clock.observe)
        except StorageFull:
            if await self.context.database.read(db.clock.jumped):
                raise
            return  # the disk is full: deleting must go on to free space
        if jump:
            log.warning(
                "the clock was set ahead, or the machine was off: nothing is deleted early", seconds=jump // SECOND
            )

    async def _age(self, seconds: int) -> float:
        """The age by the wall clock, in seconds, of something that is really ``seconds`` old."""
        return (now() - await self.context.database.read(db.clock.ago, seconds)) / SECOND

    async def _step(
        self, item: db.trash.Item, fn: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Do one step of the purge of a claimed item; the transaction of the last step appends it to the audit log."""

        def change(connection: Connection) -> tuple[T, bool]:
            there = db.trash.is_there(connection, item)
            done = fn(connection, *args, **kwargs)
            return done, there and db.trash.record_purge(connection, item)

        done, gone = await self.context.database.write(change)
        self.report.purged += gone
        return done

    async def _purge_repository(self, item: db.trash.Item, repository_id: int) -> None:
        while True:
            began = asyncio.get_running_loop().time()
            grace = self.context.config.grace_seconds
            collected = await self._step(item, db.garbage.purge_repository, item, repository_id, grace)
            if collected is None:
                return
            self._count(collected)
            await self._rest(began)

    async def _links(self) -> None:
        """Delete links that nothing needs, and the rows of blobs that have none left."""
        for step in (db.garbage.collect_hidden, db.garbage.collect_expired):
            collected = None
            while collected is None or collected.seen == db.garbage.AT_ONCE:
                began = asyncio.get_running_loop().time()
                collected = await self.context.database.write(_with_clock, step, self.context.config.grace_seconds)
                self._count(collected)
                await self._rest(began)

    def _count(self, collected: Collected) -> None:
        self.report.links += collected.links
        self.report.blobs += collected.blobs
        self.report.size += collected.size

    async def _files(self) -> None:
        """Delete the files whose grace period has ended. If a row names a file again, only its tombstone is deleted."""
        database, blobs = self.context.database, self.context.blobs
        while keys := await database.write(_with_clock, db.garbage.due, FILES):
            began = asyncio.get_running_loop().time()
            doomed = await database.read(db.garbage.without_row, keys)
            await database.read(db.garbage.confirm, {key: files.digest_of(key) for key in doomed if files.is_key(key)})
            self.report.freed += await blobs.delete_all(doomed)
            await database.write(db.garbage.delete_tombstones, keys)
            self.report.files += len(doomed)
            await self._rest(began)

    async def _orphans(self) -> None:
        """Find files that no row names, such as those of interrupted pushes."""
        parts = self.context.blobs.parts()
        for part in parts if self.thorough else random.sample(parts, (len(parts) + PARTS - 1) // PARTS):
            began = asyncio.get_running_loop().time()
            keys = await self._orphans_of(part)
            if keys:
                await self.context.database.write(db.garbage.add_tombstones, keys, self.context.config.grace_seconds)
            self.report.orphans += len(keys)
            await self._rest(began)

    async def _orphans_of(self, part: str) -> list[str]:
        """Storage keys of a part of the store that are old and have neither a row nor a tombstone."""
        stored = await self.context.blobs.keys(part)
        age = await self._age(ORPHAN_SECONDS)
        old = [each.key for each in stored if each.age > age]
        found: list[str] = []
        for at in range(0, len(old), FILES):
            found += await self.context.database.read(db.garbage.orphans, old[at : at + FILES])
        return found

    async def _uploads(self) -> None:
        """Delete abandoned uploads."""
        await self._observe_clock()
        age = await self._age(self.context.config.upload_seconds)
        count, size = await self.context.blobs.abandoned(age, delete=True)
        self.report.uploads += count
        self.report.freed += size


def _with_clock(connection: Connection, step: Callable[[Connection, int], T], argument: int) -> T:
    """Do a step that compares times, in one transaction with an observation of the clock."""
    if db.clock.jumped(connection):
        db.clock.observe(connection)
    return step(connection, argument)


@contextlib.contextmanager
def _alone(context: Context) -> Iterator[int | None]:
    """Take the collector's lock for the block: its descriptor, or None if another process holds it."""
    fd = locks.open_file(context.config.data / LOCK)
    try:
        yield fd if locks.try_acquire(fd) else None
    finally:
        os.close(fd)
