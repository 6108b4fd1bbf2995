"""Makes blobs of complete uploads: the bytes are synced, then the file gets its name, then the name is synced.

A sync waits for the disk, however little there is to write. So one thread takes all small uploads that wait, and goes
in rounds. A round names the files whose bytes the round before has synced, and then syncs the file system once: that
makes these names durable, and the bytes of the uploads that came since. Where that could take long or would not report
every error, and for an upload that is alone, each file and its folder are synced.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import threading
from typing import TYPE_CHECKING, Final, NamedTuple

from polly_dockers.blobs import disk_errors, linux
from polly_dockers.blobs.store import upload_missing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

SMALL: Final = 4 << 20
"""Largest upload in bytes that the thread takes: a sync of more would keep the others waiting."""
DIRTY: Final = 32 << 20
"""The file system is synced only while fewer bytes than this, of all programs of the machine, wait to be written."""
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
            os.fsync(self.fd)
        except OSError:
            with contextlib.suppress(OSError):
                self.path.unlink()
            raise

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


def finish_alone(complete: Complete) -> Complete:
    """Make a blob of one upload; returns it."""
    with disk_errors.reported():
        complete.sync()
        complete.rename()
        complete.sync_name()
    return complete


class _Job:
    """An upload that waits, and what became of it."""

    __slots__ = ("check", "complete", "error", "future")

    def __init__(self, check: Callable[[], Complete], future: asyncio.Future[Complete]) -> None:
        self.check = check
        self.future = future
        self.complete: Complete | None = None
        self.error: BaseException | None = None

    def run(self, *steps: Callable[[Complete], object]) -> bool:
        """Take steps, the first of which is the check; whether all of them succeeded."""
        if self.error is None:
            try:
                with disk_errors.reported():
                    self.complete = self.complete or self.check()
                    for step in steps:
                        step(self.complete)
            except BaseException as error:  # noqa: BLE001 - it is the caller's, and is raised there
                self.error = error
        return self.error is None


class Finisher:
    """The thread. It starts with the first upload."""

    def __init__(self, folder: Path) -> None:
        """``folder`` is the folder of the blobs."""
        self._folder = folder
        self._queue: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._root: int | None = None
        """A descriptor in the file system, for its sync; None if that must not be used."""

    def put(self, check: Callable[[], Complete]) -> asyncio.Future[Complete]:
        """Make a blob of a small upload. ``check`` completes and checks it, on the thread.

        The result is set once the blob is durable. What ``check`` raises, StorageFull and BlobUploadUnknown are set as
        exceptions.
        """
        if self._thread is None:
            self._root = linux.open_to_sync(self._folder)
            self._thread = threading.Thread(target=self._run, name="polly-finisher", daemon=True)
            self._thread.start()
        future: asyncio.Future[Complete] = asyncio.get_running_loop().create_future()
        self._queue.put(_Job(check, future))
        return future

    def close(self) -> None:
        """Finish what waits, and end the thread."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
        if self._root is not None:
            os.close(self._root)
            self._root = None

    def _run(self) -> None:
        synced: list[_Job] = []
        going = True
        while going or synced:
            jobs: list[_Job] = []
            while going and len(jobs) < GROUP and not (self._queue.empty() and (jobs or synced)):
                if (job := self._queue.get()) is None:
                    going = False
                else:
                    jobs.append(job)
            done = [job for job in jobs if not job.run()]
            fresh = [job for job in jobs if job.error is None]
            synced = self._round(fresh, synced, done)
            if done:
                done[0].future.get_loop().call_soon_threadsafe(_send, done)

    def _round(self, fresh: Sequence[_Job], synced: Sequence[_Job], done: list[_Job]) -> list[_Job]:
        """Name files whose bytes are synced, and sync; returns the uploads whose bytes are synced now.

        Adds those that are finished, or have failed, to ``done``.
        """
        for job in synced:
            job.run(Complete.rename)
        if len(fresh) + len(synced) > 1 and self._root is not None and linux.dirty() < DIRTY:
            try:
                with disk_errors.reported():
                    linux.sync_file_system(self._root)
            except BaseException as error:  # noqa: BLE001 - all have to know
                for job in (*fresh, *synced):
                    job.error = job.error or error
                for job in fresh:
                    _delete(job)
                fresh, synced = [], (*fresh, *synced)
            done += synced
            return list(fresh)
        for job in fresh:
            job.run(Complete.sync, Complete.rename)
        for job in (*fresh, *synced):
            job.run(Complete.sync_name)
        done += (*fresh, *synced)
        return []


def _delete(job: _Job) -> None:
    """Delete an upload whose bytes may be lost; see ``Complete.sync``."""
    if job.complete is not None:
        with contextlib.suppress(OSError):
            job.complete.path.unlink()


def _send(done: Sequence[_Job]) -> None:
    for job in done:
        if job.future.done():
            continue
        if job.error is not None:
            job.future.set_exception(job.error)
        elif job.complete is not None:
            job.future.set_result(job.complete)
