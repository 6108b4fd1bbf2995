"""Giving space back, while everything runs: what policies let go, the trash whose time is over, blobs, uploads.

One collector works at a time, in small transactions between those of the pushes. It decides by the rows alone, inside
the transaction that changes them; bytes go last. Whatever fails ends the run: what is left is leaked for a while, and
the next run takes it up.
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
"""The lock file of a data folder that whoever deletes from it holds, and whoever must not be disturbed by that."""
FILES: Final = 200
"""Keys that are deleted in one go."""
TOGETHER: Final = 20
"""Tags and commits that are purged in one transaction: some milliseconds of the writer's time, and one sync."""
PARTS: Final = 32
"""Runs in which a server has searched about as much as all of the store for keys without a row."""
COMPACTION: Final = "the journal, compacted"
"""What the log calls a compaction that failed."""
COMPACT_AGAIN: Final = 6.0 * SECONDS_PER_HOUR
"""Seconds that a process of a server waits after a compaction that failed: it costs as much as one that does not."""
EXPIRE_EVERY: Final = SECONDS_PER_HOUR
"""Seconds between two runs of a server that judge all manifests that have a policy."""
ORPHAN_SECONDS: Final = SECONDS_PER_HOUR
"""Age of bytes from which a key that no row names is garbage: twice what a push may take between the two."""


@dataclass(slots=True)
class Report:
    """What a run did; for a dry run, what it would do now."""

    expired: int = 0
    """Manifests that a policy let go, into the trash."""
    purged: int = 0
    """Items of the trash whose time was over."""
    links: int = 0
    """Blobs that were taken out of a repository."""
    blobs: int = 0
    """Blobs whose rows went: no repository had them any more."""
    size: int = 0
    """Their bytes."""
    files: int = 0
    """Keys whose bytes went."""
    freed: int = 0
    """Bytes that the store has back, those of abandoned uploads included."""
    orphans: int = 0
    """Keys that no row named."""
    uploads: int = 0
    """Abandoned uploads."""
    waiting: int = 0
    """Keys that go in the next runs, after a while of grace."""
    dropped: int = 0
    """Entries of the audit log that were older than audit_days."""
    journal: int = 0
    """Bytes by which the journal is smaller."""


@dataclass(slots=True)
class Collector:
    """One run over everything. ``pace`` is how many times as long as each step took it then rests."""

    context: Context
    pace: float = 0.0
    thorough: bool = True
    """Whether policies are applied, and all of the store is searched for keys without a row.

    Otherwise policies only where it is time, and a part of the store, another each time.
    """
    progress: Callable[[Report], None] = lambda _report: None
    report: Report = field(default_factory=Report)

    async def run(self) -> Report | None:
        """Collect; None where another collector is at work."""
        with _alone(self.context) as held:
            if held is None:
                return None
            await self._look_at_clock()
            await self._purge()
            await self._links()
            await self._orphans()
            await self._files()
            await self._uploads()
            await self._expire(held)  # late: where it fails, what others need is done
            self.report.dropped = await audit.drop_old(self.context)
            await self._compact()
            self.report.waiting = await self.context.database.read(db.garbage.count_tombstones)
            return self.report

    async def look(self) -> Report:
        """What a run would do now, without doing it."""
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
        """Let the others have their turn; the longer the step was, the longer."""
        self.progress(self.report)
        took = asyncio.get_running_loop().time() - began
        await asyncio.sleep(took * self.pace)

    async def _expire(self, lock: int) -> None:
        """Let policies take what they no longer keep; the file of the lock bears the time of it."""
        if not self.thorough and 0 <= time.time() - os.stat(lock).st_mtime < EXPIRE_EVERY:
            return
        os.utime(lock)
        began = asyncio.get_running_loop().time()
        async for thrown in retention.apply(self.context):
            self.report.expired += thrown
            await self._rest(began)
            began = asyncio.get_running_loop().time()

    async def _compact(self) -> None:
        """Let what is gone for good leave the journal, where that is worth it.

        A server whose compaction fails says so, and goes on with the journal that it has.
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
        """Compact at this run's pace; how many bytes smaller the journal is.

        A run that is cancelled waits for the end of the step that the thread is at: until then, no other may begin.
        """
        ended = threading.Event()

        def rest(took: float) -> None:
            if ended.wait(took * self.pace):
                raise asyncio.CancelledError

        thread = asyncio.get_running_loop().run_in_executor(None, compaction.compact, folder, rest)
        try:
            return await asyncio.shield(thread)
        except ERRORS as error:
            msg = f"The journal can't be compacted, and was not changed: {getattr(error, 'orig', None) or error}."
            raise Unavailable(msg) from error
        finally:
            ended.set()
            while not thread.done():
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait([thread])

    async def _purge(self) -> None:
        """Delete what has been in the trash for long enough; first what an earlier run has begun to delete."""
        await self._purge_all(await self.context.database.read(db.trash.claimed))
        after, before = (0, 0), await self._deadline()  # what is deleted meanwhile is for the next run
        while items := await self.context.database.read(db.trash.older, before, after=after, limit=db.garbage.BATCH):
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
        """Purge tags and commits in one transaction: those that are gone, and those that it takes more than one for."""
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
        """What was deleted before this time is purged."""
        return await self.context.database.read(db.clock.ago, self.context.config.trash_days * SECONDS_PER_DAY)

    async def _look_at_clock(self) -> None:
        """Take care that a clock that was set ahead ends nothing early."""
        try:
            jump = await self.context.database.write(db.clock.observe)
        except StorageFull:
            if await self.context.database.read(db.clock.jumped):
                raise
            return  # on a full disk too, what may go gives its space back
        if jump:
            log.warning(
                "the clock was set ahead, or the machine was off: nothing is deleted early", seconds=jump // SECOND
            )

    async def _age(self, seconds: int) -> float:
        """By how many seconds of the wall clock something has to be older so that ``seconds`` have really passed."""
        return (now() - await self.context.database.read(db.clock.ago, seconds)) / SECOND

    async def _step(
        self, item: db.trash.Item, fn: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Carry out a part of the purge of a claimed item; the transaction that ends it notes it in the audit log."""

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
            taken = await self._step(item, db.garbage.purge_repository, item, repository_id, grace)
            if taken is None:
                return
            self._count(taken)
            await self._rest(began)

    async def _links(self) -> None:
        """Take the links that nobody needs, and the blobs that have none left."""
        for step in (db.garbage.collect_hidden, db.garbage.collect_expired):
            taken = None
            while taken is None or taken.seen == db.garbage.BATCH:
                began = asyncio.get_running_loop().time()
                taken = await self.context.database.write(_by_the_clock, step, self.context.config.grace_seconds)
                self._count(taken)
                await self._rest(began)

    def _count(self, taken: Collected) -> None:
        self.report.links += taken.links
        self.report.blobs += taken.blobs
        self.report.size += taken.size

    async def _files(self) -> None:
        """Delete the bytes of keys whose time has come. A key that a row names after all is only forgotten."""
        database, blobs = self.context.database, self.context.blobs
        while keys := await database.write(_by_the_clock, db.garbage.due, FILES):
            began = asyncio.get_running_loop().time()
            doomed = await database.read(db.garbage.unnamed, keys)
            self.report.freed += await blobs.delete_all(doomed)
            await database.write(db.garbage.delete_tombstones, keys)
            self.report.files += len(doomed)
            await self._rest(began)

    async def _orphans(self) -> None:
        """Find keys that no row names, such as those of pushes that were cut off before their row."""
        parts = self.context.blobs.parts()
        for part in parts if self.thorough else random.sample(parts, (len(parts) + PARTS - 1) // PARTS):
            began = asyncio.get_running_loop().time()
            keys = await self._orphans_of(part)
            if keys:
                await self.context.database.write(db.garbage.add_tombstones, keys, self.context.config.grace_seconds)
            self.report.orphans += len(keys)
            await self._rest(began)

    async def _orphans_of(self, part: str) -> list[str]:
        """Keys of a part of the store that are old enough and have neither a row nor a tombstone."""
        stored = await self.context.blobs.keys(part)
        age = await self._age(ORPHAN_SECONDS)
        old = [each.key for each in stored if each.age > age]
        found: list[str] = []
        for at in range(0, len(old), FILES):
            found += await self.context.database.read(db.garbage.orphans, old[at : at + FILES])
        return found

    async def _uploads(self) -> None:
        """Give back what abandoned uploads hold."""
        await self._look_at_clock()
        age = await self._age(self.context.config.upload_seconds)
        count, size = await self.context.blobs.abandoned(age, delete=True)
        self.report.uploads += count
        self.report.freed += size


def _by_the_clock(connection: Connection, step: Callable[[Connection, int], T], argument: int) -> T:
    """A step that asks what has ended, in one transaction with a look at the clock, which writes a jump only."""
    if db.clock.jumped(connection):
        db.clock.observe(connection)
    return step(connection, argument)


@contextlib.contextmanager
def _alone(context: Context) -> Iterator[int | None]:
    """The lock of the only collector of the data folder, None where another has it; it dies with its process."""
    fd = locks.open_file(context.config.data / LOCK)
    try:
        yield fd if locks.try_acquire(fd) else None
    finally:
        os.close(fd)
