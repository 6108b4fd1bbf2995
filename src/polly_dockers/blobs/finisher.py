"""Makes blobs of complete uploads: the bytes are synced, then the file gets its name, then the name is synced.

A sync waits for the disk, however little there is to write. So one thread takes the small uploads that wait, and goes
in rounds. A round names the files whose bytes the round before has synced, and then syncs the file system once: that
makes these names durable, and the bytes of the uploads that came since. Large uploads sync their own file and folder on
the store's threads. So do all uploads where such a round could take long, or would not report every error.

What an upload can lose, and who reports it:

* Its bytes. Its own file reports that, even if another program has seen the error: ``linux.check_written``. If Linux
  may have dropped the file from its memory between two requests, together with that error, the next request reads the
  bytes again: ``FileSegment.check_kept``.
* Its size and place on the disk, its name, a new folder. All of these are in the journal. If the journal fails, that is
  for good, and ``linux.sync_file_system`` reports it in each later round.

If a sync of the file system has failed once, no more syncs are shared until the server is restarted: bytes that another
program lost would make a whole round fail again and again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import threading
import time
from typing import TYPE_CHECKING, Final, NamedTuple

import structlog

from polly_dockers.blobs import linux
from polly_dockers.blobs.store import upload_missing
from polly_dockers.errors import Unavailable
from polly_dockers.system import disk

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from polly_dockers.blobs.threads import Threads

log: Final = structlog.get_logger("polly.blobs")

SMALL: Final = 256 << 10
"""Largest upload in bytes that the thread takes. It hashes one after the other, and others wait for the sync."""
DIRTY: Final = 32 << 20
"""The file system is synced only while fewer bytes than this, of all programs of the machine, wait to be written."""
PAUSE: Final = 1.0
"""Seconds for which no syncs are shared after more bytes than that were found."""
GROUP: Final = 256
"""The most uploads that one round takes."""


class Complete(NamedTuple):
    """A complete upload, whose digest was checked."""

    fd: int
    path: Path
    target: Path
    folder_of: Callable[[Path], int]
    """Returns a descriptor of the folder of ``target``, which is made if it is missing."""
    key: str
    size: int

    def sync(self) -> None:
        """Sync the bytes. If that fails, the upload is deleted.

        Linux reports a page that could not be written only once, and then takes it for written. Another sync would
        succeed, although the bytes are lost ("fsyncgate", LWN 752063).
        """
        try:
            linux.sync_file(self.fd, self.size)
        except OSError:
            self.delete()
            raise

    def check_written(self) -> None:
        """After a sync of the file system: check that the bytes are on the disk. If not, the upload is deleted."""
        try:
            linux.check_written(self.fd, self.size)
        except OSError:
            self.delete()
            raise

    def delete(self) -> None:
        """Delete the upload, whose bytes may be lost. If that fails, it stays until it is abandoned."""
        with contextlib.suppress(OSError):
            self.path.unlink()

    def rename(self) -> None:
        """Give the file its name. Raises BlobUploadUnknown if the upload was aborted meanwhile."""
        self.folder_of(self.target)
        try:
            self.path.rename(self.target)
        except FileNotFoundError:
            raise upload_missing() from None

    def sync_name(self) -> None:
        """Make the name durable."""
        os.fsync(self.folder_of(self.target))


class _Job:
    """An upload that waits, and what became of it."""

    __slots__ = ("_begun", "check", "complete", "error", "future")

    def __init__(self, check: Callable[[], Complete], future: asyncio.Future[Complete]) -> None:
        self.check = check
        self.future = future
        self.complete: Complete | None = None
        self.error: BaseException | None = None
        self._begun = threading.Lock()

    def begin(self) -> bool:
        """Whether the caller is the first to ask. Only that thread may finish the upload alone, or give it up."""
        return self._begun.acquire(blocking=False)

    def run(self, *steps: Callable[[Complete], object]) -> bool:
        """Take steps, the first of which is the check; whether all of them succeeded."""
        if self.error is None:
            try:
                with disk.reporting():
                    self.complete = self.complete or self.check()
                    for step in steps:
                        step(self.complete)
            except BaseException as error:  # noqa: BLE001 - it is the caller's, and is raised there
                self.error = error
        return self.error is None


class Finisher:
    """The thread, which starts with the first upload, and whether syncs can be shared."""

    def __init__(self, blobs: Path, threads: Threads) -> None:
        """``blobs`` is a folder of the file system that has the uploads too; ``threads`` are the store's."""
        self._blobs = blobs
        self._threads = threads
        self._queue: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._root: int | None = None
        """A descriptor in the file system, for its sync."""
        self._shares: bool | None = None
        """Whether syncs are shared; None before the first upload."""
        self._ended = False
        """Whether the thread has ended. The queue is no longer read then."""
        self._resume = 0.0
        """Not before this time, by the monotonic clock."""

    def takes(self, size: int) -> bool:
        """Whether an upload of so many bytes goes to the thread now; else it is for ``finish_alone``."""
        if size > SMALL:
            return False
        if self._shares is None:
            self._start()
        return self._shares is True and time.monotonic() >= self._resume

    def _start(self) -> None:
        """Start the thread, if there is room for one. It finds out whether the file system can be synced as a whole."""
        self._shares = True
        thread = threading.Thread(target=self._run, name="polly-finisher", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            self._shares = False
        else:
            self._thread = thread

    def put(self, check: Callable[[], Complete]) -> asyncio.Future[Complete]:
        """Make a blob of an upload that ``takes`` said yes to. ``check`` completes and checks it, on a thread.

        The result is set once the blob is durable. What ``check`` raises, StorageFull, Unavailable and
        BlobUploadUnknown are set as exceptions.
        """
        future: asyncio.Future[Complete] = asyncio.get_running_loop().create_future()
        job = _Job(check, future)
        self._queue.put(job)
        if self._ended and job.begin():
            future.set_exception(_given_up())
        return future

    def finish_alone(self, check: Callable[[], Complete]) -> Complete:
        """Make a blob of one upload, on the caller's thread; returns it. Raises what ``put`` sets."""
        with disk.reporting():
            complete = check()
            complete.sync()
            complete.rename()
            complete.sync_name()
        return complete

    def close(self, seconds: float) -> bool:
        """Finish what waits, and end the thread; False if it still waits for the disk after so many seconds."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join(seconds)
            if self._thread.is_alive():
                return False
        if self._root is not None:
            os.close(self._root)
            self._root = None
        return True

    def _run(self) -> None:
        """Run the thread until ``close``, or until it cannot go on."""
        waiting: list[_Job] = []
        failure = None
        try:
            self._go_in_rounds(waiting)
        except BaseException as error:  # noqa: BLE001 - whatever it was, all who wait have to know
            failure = error
        self._shares, self._ended = False, True
        while not self._queue.empty():
            if (job := self._queue.get()) is not None:
                waiting.append(job)
        self._give_up([job for job in waiting if job.begin()])
        if failure is not None:
            with contextlib.suppress(OSError):  # the log may be on a full disk
                log.error(
                    "the thread that shares syncs has failed; each upload syncs its own file from now on",
                    exc_info=failure,
                )

    def _give_up(self, jobs: Sequence[_Job]) -> None:
        """Refuse uploads."""
        for job in jobs:
            job.error = job.error or _given_up()
        if jobs:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                jobs[0].future.get_loop().call_soon_threadsafe(_send, jobs)

    def _go_in_rounds(self, waiting: list[_Job]) -> None:
        """Finish uploads until ``close``. ``waiting`` holds those that have no answer, and are not handed over."""
        with contextlib.suppress(OSError):
            self._root = linux.open_to_sync(self._blobs)
        if self._root is None:
            self._shares = False
        synced: list[_Job] = []
        going = True
        while going or synced:
            jobs: list[_Job] = []
            while going and len(jobs) < GROUP and not (self._queue.empty() and (jobs or synced)):
                if (job := self._queue.get()) is None:
                    going = False
                else:
                    jobs.append(job)
                    waiting.append(job)
            if self._shares and linux.dirty() >= DIRTY:
                self._resume = time.monotonic() + PAUSE
            if not self._shares or time.monotonic() < self._resume:
                for job in waiting:
                    self._threads.hand_over(self._run_alone, job)
                waiting.clear()
                synced = []
                continue
            done = [job for job in jobs if not job.run()]
            synced = self._round([job for job in jobs if job.error is None], synced, done)
            if done:
                done[0].future.get_loop().call_soon_threadsafe(_send, done)
            waiting[:] = synced

    def _run_alone(self, job: _Job) -> None:
        """Finish an upload on one of the store's threads; its bytes may be synced already."""
        if not job.begin():
            return
        if job.complete is not None:
            job.run(Complete.rename, Complete.sync_name)
        else:
            try:
                job.complete = self.finish_alone(job.check)
            except BaseException as error:  # noqa: BLE001 - it is the caller's, and is raised there
                job.error = error
        job.future.get_loop().call_soon_threadsafe(_send, [job])

    def _round(self, fresh: Sequence[_Job], synced: Sequence[_Job], done: list[_Job]) -> list[_Job]:
        """Name files whose bytes are synced, and sync; returns the uploads whose bytes are synced now.

        Adds those that are finished, or have failed, to ``done``.
        """
        for job in synced:
            job.run(Complete.rename)
        if len(fresh) + len(synced) < 2 or self._root is None:  # noqa: PLR2004 - nothing to share
            for job in fresh:
                job.run(Complete.sync, Complete.rename)
            for job in (*fresh, *synced):
                job.run(Complete.sync_name)
            done += (*fresh, *synced)
            return []
        try:
            with disk.reporting():
                linux.sync_file_system(self._root)
        except BaseException as error:  # noqa: BLE001 - all have to know
            self._shares = False
            for job in (*fresh, *synced):
                job.error = job.error or error
            for job in fresh:
                if job.complete is not None:
                    job.complete.delete()
            done += (*fresh, *synced)
            return []
        done += synced
        done += (job for job in fresh if not job.run(Complete.check_written))
        return [job for job in fresh if job.error is None]


def _given_up() -> Unavailable:
    msg = "The server could not finish this upload. Push it again."
    return Unavailable(msg)


def _send(done: Sequence[_Job]) -> None:
    for job in done:
        if job.future.done():
            continue
        if job.error is not None:
            job.future.set_exception(job.error)
        elif job.complete is not None:
            job.future.set_result(job.complete)
