"""Small uploads that are finished together share their syncs, and none has a name or an answer before its bytes."""

from __future__ import annotations

import asyncio
import errno
import functools
import os
import secrets
import stat
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from polly_dockers.blobs import filesystem, finisher, linux, threads
from polly_dockers.blobs.filesystem import FileBlobStore
from polly_dockers.errors import BlobUploadUnknown, DigestInvalid, StorageFull, Unavailable
from support.uploading import begin, commit, push, read, uploads_left
from support.wire_client import sha256

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

TOGETHER = 6
THREAD = "polly-finisher"


class Disk:
    """What the store's thread asks of the disk, in order. Its first sync of a file waits until ``free`` is set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.busy, self.free = threading.Event(), threading.Event()
        self.others_came, self.others_go = threading.Semaphore(0), threading.Event()
        """The same for each sync of the other threads."""
        self.others_go.set()
        self.events: list[str] = []
        self.unsynced: set[int] = set()
        """The inodes of folders in which a file got its name, and which were not synced since."""
        self.before: Callable[[], object] = lambda: None
        """Called before each sync of the file system."""
        self._sync, self._all, real_rename = os.fsync, linux.sync_file_system, Path.rename
        monkeypatch.setattr(os, "fsync", self._fsync)

        def rename(source: Path, target: Path) -> Path:
            self.events.append("rename")
            renamed = real_rename(source, target)
            self.unsynced.add(target.parent.stat().st_ino)
            return renamed

        monkeypatch.setattr(Path, "rename", rename)
        monkeypatch.setattr(linux, "sync_file_system", self._sync_all)
        monkeypatch.setattr(filesystem, "ALONE", 0)
        monkeypatch.setattr(linux, "dirty", lambda: 0)
        monkeypatch.setattr(linux, "open_to_sync", lambda path: os.open(path, os.O_RDONLY))

    def _fsync(self, fd: int) -> None:
        if threading.current_thread().name == THREAD:
            self.busy.set()
            self.free.wait()
            self.events.append("folder" if stat.S_ISDIR(os.fstat(fd).st_mode) else "bytes")
        else:
            self.others_came.release()
            self.others_go.wait()
        self._sync(fd)
        self.unsynced.discard(os.fstat(fd).st_ino)

    def _sync_all(self, fd: int) -> None:
        self.before()
        named = set(self.unsynced)
        self._all(fd)
        self.unsynced -= named
        self.events.append("all")


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    """The disk, watched."""
    made = Disk(monkeypatch)
    yield made
    made.free.set()
    made.others_go.set()


@pytest.fixture
def stored(tmp_path: Path, disk: Disk) -> Iterator[FileBlobStore]:
    """A store on that disk."""
    made = FileBlobStore(tmp_path)
    yield made
    disk.free.set()
    made.close()


async def enqueue(store: FileBlobStore, blobs: Sequence[bytes]) -> list[asyncio.Task[str]]:
    """Begin to finish uploads; returns when the thread has all of them before it."""
    count, all_there, real = 0, asyncio.Event(), store._finisher.put

    def put(check: Callable[[], finisher.Complete]) -> asyncio.Future[finisher.Complete]:
        nonlocal count
        future, count = real(check), count + 1
        if count == len(blobs):
            all_there.set()
        return future

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store._finisher, "put", put)
        tasks = [asyncio.create_task(push(store, data, secrets.token_hex(4))) for data in blobs]
        await all_there.wait()
    return tasks


async def together(store: FileBlobStore, disk: Disk, blobs: Sequence[bytes]) -> list[asyncio.Task[str]]:
    """Finish an upload, and many others while the disk syncs that one."""
    (first,) = await enqueue(store, [b"the first"])
    await asyncio.to_thread(disk.busy.wait)
    tasks = await enqueue(store, blobs)
    disk.free.set()
    await first
    return tasks


def made(count: int = TOGETHER) -> list[bytes]:
    """The bytes of some blobs."""
    return [secrets.token_bytes(1000) for _ in range(count)]


async def test_uploads_that_are_finished_together_share_two_syncs(stored: FileBlobStore, disk: Disk) -> None:
    """All bytes are synced before any file gets its name, and all names before any answer."""
    blobs = made()
    tasks = await together(stored, disk, blobs)
    keys = await asyncio.gather(*tasks)
    assert not disk.unsynced
    shared = disk.events[disk.events.index("all") :]
    assert [each for each in shared if each != "folder"] == ["all", *["rename"] * TOGETHER, "all"]
    assert [await read(stored, key) for key in keys] == blobs


async def test_an_upload_that_has_nobody_to_share_with_syncs_its_own_file_and_folder(
    stored: FileBlobStore, disk: Disk
) -> None:
    """Its bytes are on the disk before it gets its name, and its name before its answer."""
    disk.free.set()
    await asyncio.gather(*await enqueue(stored, made(1)))
    assert not disk.unsynced
    assert [each for each in disk.events if each != "folder"] == ["bytes", "rename"]


async def test_as_many_uploads_as_there_are_threads_share_nothing(
    stored: FileBlobStore, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They sync their own files at the same time, which takes less time; only the next one goes to the thread."""
    monkeypatch.setattr(filesystem, "ALONE", threads.FILES)
    disk.free.set()
    disk.others_came, disk.others_go = threading.Semaphore(0), threading.Event()
    tasks = [asyncio.create_task(push(stored, data, sha256(data))) for data in made(threads.FILES)]
    for _ in tasks:
        await asyncio.to_thread(disk.others_came.acquire)
    assert not disk.busy.is_set()
    tasks += await enqueue(stored, made(1))
    disk.others_go.set()
    await asyncio.gather(*tasks)
    assert disk.busy.is_set()
    assert not disk.unsynced


@pytest.mark.parametrize(("later", "syncs"), [(1, 2), (TOGETHER, 3)])
async def test_an_upload_that_comes_meanwhile_joins_the_next_sync(
    stored: FileBlobStore, disk: Disk, later: int, syncs: int
) -> None:
    """The sync of names is that of the bytes that came since: two groups take three syncs. One name is synced alone."""
    entered, go = threading.Event(), threading.Event()

    def wait() -> None:
        entered.set()
        go.wait()

    disk.before = wait
    tasks = await together(stored, disk, made())
    await asyncio.to_thread(entered.wait)
    tasks += await enqueue(stored, made(later))
    go.set()
    assert len(set(await asyncio.gather(*tasks))) == TOGETHER + later
    assert not disk.unsynced
    assert disk.events.count("all") == syncs


async def test_a_sync_that_fails_fails_for_all_of_its_round(stored: FileBlobStore, disk: Disk) -> None:
    """All get StorageFull, nothing has a key, and the uploads are over: another sync would say that all is well."""

    def broken() -> None:
        raise OSError(errno.EIO, "Input/output error")

    disk.before = broken
    tasks = await together(stored, disk, made())
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(result) for result in results} == {StorageFull}
    assert uploads_left(stored) == []
    assert len([file for file in stored.blobs.rglob("*") if file.is_file()]) == 1  # the first


async def test_an_upload_that_fails_does_not_disturb_the_others(stored: FileBlobStore, disk: Disk) -> None:
    """A wrong digest, and an upload that is aborted before it has its name, get their own errors."""
    blobs = made()

    def abort() -> None:
        if "all" not in disk.events:
            for file in (stored.blobs.parent / "uploads").iterdir():
                if file.read_bytes() == blobs[0]:
                    file.unlink()

    await stored.start("wrong")
    wrong = asyncio.create_task(commit(stored, b"x", digest=sha256(b"y"), upload="wrong"))
    disk.before = abort
    tasks = await together(stored, disk, blobs)
    with pytest.raises(DigestInvalid):
        await wrong
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [BlobUploadUnknown, *[str] * (TOGETHER - 1)]


async def test_bytes_that_an_earlier_sync_lost_are_missed(
    stored: FileBlobStore, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each file is asked after the shared sync, which succeeds; only the upload that lost bytes fails, and it ends."""
    blobs, real = made(), linux.check_written

    def check_written(fd: int, size: int) -> None:
        if os.pread(fd, size, 0) == blobs[0]:
            raise OSError(errno.EIO, "Input/output error")
        real(fd, size)

    monkeypatch.setattr(linux, "check_written", check_written)
    tasks = await together(stored, disk, blobs)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [StorageFull, *[str] * (TOGETHER - 1)]
    assert uploads_left(stored) == []


async def test_bytes_for_which_the_disk_had_no_room_are_missed(stored: FileBlobStore, disk: Disk) -> None:
    """Linux says nothing of them, and leaves a hole in the file."""
    blobs = made()

    def lose() -> None:
        for file in (stored.blobs.parent / "uploads").iterdir():
            if file.read_bytes() == blobs[0]:
                os.truncate(file, 0)
                os.truncate(file, len(blobs[0]))

    disk.before = lose
    tasks = await together(stored, disk, blobs)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [StorageFull, *[str] * (TOGETHER - 1)]


async def test_a_large_upload_for_which_the_disk_had_no_room_is_missed_too(
    stored: FileBlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own sync does not report what Linux left out before. It gets StorageFull, and is over."""
    monkeypatch.setattr(linux, "_type_of", lambda _: linux._EXT4)
    data, real = secrets.token_bytes(finisher.SMALL + 1), os.fsync

    def lose(fd: int) -> None:
        if stat.S_ISREG(os.fstat(fd).st_mode):
            os.truncate(fd, 0)
            os.truncate(fd, len(data))
        real(fd)

    monkeypatch.setattr(os, "fsync", lose)
    with pytest.raises(StorageFull):
        await push(stored, data)
    assert uploads_left(stored) == []


async def test_an_upload_that_gets_no_name_can_be_finished_again(
    stored: FileBlobStore, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of the round whose rename failed are as before their last request, which then succeeds."""
    blobs, real = made(), Path.rename

    def rename(source: Path, target: Path) -> Path:
        if source.read_bytes() == blobs[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", rename)
        results = await asyncio.gather(*await together(stored, disk, blobs), return_exceptions=True)
    assert [type(result) for result in results] == [StorageFull, *[str] * (TOGETHER - 1)]
    (left,) = uploads_left(stored)
    assert await read(stored, await commit(stored, blobs[0], digest=sha256(blobs[0]), upload=left)) == blobs[0]


async def test_after_a_sync_that_failed_each_upload_syncs_its_own_file(stored: FileBlobStore, disk: Disk) -> None:
    """Those that were open are stored too: each file reports what it has lost."""
    await begin(stored, b"x", upload="open")

    def broken() -> None:
        raise OSError(errno.EIO, "Input/output error")

    disk.before = broken
    await asyncio.gather(*await together(stored, disk, made()), return_exceptions=True)
    disk.before, blobs = lambda: None, made()
    keys = await asyncio.gather(*map(push, [stored] * TOGETHER, blobs, map(str, range(TOGETHER))))
    keys.append(await commit(stored, b"y", digest=sha256(b"xy"), upload="open"))
    assert "all" not in disk.events
    assert [await read(stored, key) for key in keys] == [*blobs, b"xy"]


async def test_while_much_waits_to_be_written_each_upload_syncs_its_file(
    stored: FileBlobStore, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then nobody waits for what other programs wrote: the thread hands the uploads to the others, for a while."""
    monkeypatch.setattr(linux, "dirty", lambda: finisher.DIRTY)
    disk.free.set()
    blobs = made()
    keys = await asyncio.gather(*map(push, [stored] * TOGETHER, blobs, map(str, range(TOGETHER))))
    assert [await read(stored, key) for key in keys] == blobs
    assert "all" not in disk.events
    assert not disk.busy.is_set()
    assert not disk.unsynced
    assert not stored._finisher.takes(1)


async def test_names_are_synced_alone_when_much_waits_to_be_written_meanwhile(
    stored: FileBlobStore, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes that were synced together are not synced again."""
    disk.before = lambda: monkeypatch.setattr(linux, "dirty", lambda: finisher.DIRTY)
    blobs = made()
    keys = await asyncio.gather(*await together(stored, disk, blobs))
    assert not disk.unsynced
    assert disk.events.count("all") == 1
    assert [await read(stored, key) for key in keys] == blobs


@pytest.mark.parametrize("why", ["large", "another file system", "no descriptor", "no thread"])
async def test_where_no_syncs_can_be_shared_the_usual_threads_do_it(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    """Uploads that are large, and all of a store that can't sync its file system, sync their own files."""

    def start(thread: threading.Thread) -> None:
        if thread.name == THREAD:
            msg = "can't start new thread"
            raise RuntimeError(msg)
        real_start(thread)

    def no_descriptor(_: Path) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    real_start = threading.Thread.start
    if why == "another file system":
        monkeypatch.setattr(linux, "open_to_sync", lambda _: None)
    elif why == "no descriptor":
        monkeypatch.setattr(linux, "open_to_sync", no_descriptor)
    elif why == "no thread":
        monkeypatch.setattr(threading.Thread, "start", start)
    disk.free.set()
    store = FileBlobStore(tmp_path)
    blobs = [secrets.token_bytes(finisher.SMALL + (why == "large")) for _ in range(TOGETHER)]
    keys = await asyncio.gather(*map(push, [store] * TOGETHER, blobs, map(str, range(TOGETHER))))
    assert [await read(store, key) for key in keys] == blobs
    assert "all" not in disk.events
    assert not disk.busy.is_set()
    assert not store._finisher.takes(len(blobs[0]))
    store.close()


@pytest.mark.parametrize("where", ["dirty", "hand_over"])
async def test_uploads_are_refused_if_the_thread_can_not_go_on(
    stored: FileBlobStore, disk: Disk, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """All who wait get Unavailable and can repeat their request; the log says it once, and later uploads sync alone."""

    def fails(*_: object) -> int:
        msg = "can't start new thread"
        raise RuntimeError(msg)

    (first,) = await enqueue(stored, [b"the first"])
    await asyncio.to_thread(disk.busy.wait)
    tasks, blobs = await enqueue(stored, made()), made()
    monkeypatch.setattr(linux, "dirty", lambda: finisher.DIRTY)
    monkeypatch.setattr(linux if where == "dirty" else stored.threads, where, fails)
    with capture_logs() as logs:
        disk.free.set()
        await first
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(result) for result in results} == {Unavailable}
        keys = await asyncio.gather(*map(push, [stored] * TOGETHER, blobs, map(str, range(TOGETHER))))
        assert stored._finisher._thread is not None
        stored._finisher._thread.join()
    assert [await read(stored, key) for key in keys] == blobs
    assert [each["log_level"] for each in logs] == ["error"]
    assert [await stored.size(upload) for upload in uploads_left(stored)] == [0] * TOGETHER
    monkeypatch.setattr(stored._finisher, "takes", lambda _: True)  # as if it had been asked just before
    with pytest.raises(Unavailable, match="Push it again"):
        await push(stored, b"the last", "last")


async def test_uploads_whose_bytes_were_synced_can_be_finished_again_if_the_thread_can_not_go_on(
    stored: FileBlobStore, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They get Unavailable. What their last request appended is removed, so that it can be repeated."""

    def fails() -> int:
        msg = "can't start new thread"
        raise RuntimeError(msg)

    disk.before = lambda: monkeypatch.setattr(linux, "dirty", fails)
    results = await asyncio.gather(*await together(stored, disk, made()), return_exceptions=True)
    assert disk.events.count("all") == 1
    assert {type(result) for result in results} == {Unavailable}
    assert [await stored.size(upload) for upload in uploads_left(stored)] == [0] * TOGETHER


async def test_an_upload_that_comes_after_the_store_was_closed_is_refused(stored: FileBlobStore, disk: Disk) -> None:
    """It gets an answer, though the thread is gone."""
    disk.free.set()
    await asyncio.gather(*await enqueue(stored, made(1)))
    assert stored._finisher.close(60)
    assert not stored._finisher.takes(1)
    with pytest.raises(Unavailable, match="Push it again"):
        await stored._finisher.put(lambda: pytest.fail("the check was called"))


async def test_an_upload_that_was_handed_over_is_finished_though_the_thread_fails(
    stored: FileBlobStore, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its file stays open as long as the other thread writes to it, and its answer is that thread's."""
    begun, go, real = threading.Event(), threading.Event(), stored.threads.hand_over

    def slow(check: Callable[[], finisher.Complete]) -> finisher.Complete:
        begun.set()
        go.wait()
        return check()

    def hand_over(fn: Callable[..., object], job: finisher._Job) -> None:
        job.check = functools.partial(slow, job.check)
        real(fn, job)
        begun.wait()
        msg = "can't start new thread"
        raise RuntimeError(msg)

    (first,) = await enqueue(stored, [b"the first"])
    await asyncio.to_thread(disk.busy.wait)
    blobs = made()
    tasks = await enqueue(stored, blobs)
    monkeypatch.setattr(linux, "dirty", lambda: finisher.DIRTY)
    monkeypatch.setattr(stored.threads, "hand_over", hand_over)
    disk.free.set()
    await first
    handed, *others = tasks
    results = await asyncio.gather(*others, return_exceptions=True)
    assert {type(result) for result in results} == {Unavailable}
    assert not handed.done()
    go.set()
    assert await read(stored, await handed) == blobs[0]


async def test_closing_the_store_finishes_what_waits(tmp_path: Path, disk: Disk) -> None:
    """An answer that was promised is given, and no thread is left."""
    store = FileBlobStore(tmp_path)
    disk.free.set()
    before = threading.active_count()
    tasks = await together(store, disk, made())
    closing = asyncio.create_task(asyncio.to_thread(store.close))
    assert len(set(await asyncio.gather(*tasks))) == TOGETHER
    await closing
    assert not [thread for thread in threading.enumerate() if thread.name == THREAD]
    assert threading.active_count() <= before + 1
