"""Small uploads that are finished together share their syncs, and none has a name or an answer before its bytes."""

from __future__ import annotations

import asyncio
import errno
import functools
import os
import secrets
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from polly_dockers.blobs import filesystem, finisher, linux, threads
from polly_dockers.blobs.filesystem import FileBlobStore
from polly_dockers.errors import BlobUploadUnknown, DigestInvalid, StorageFull, Unavailable
from support.uploading import begin, commit, keep, read, uploads_left
from support.wire_client import sha256

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

TOGETHER = 6
THREAD = "polly-finisher"


class Disk:
    """What the store's thread asks of the disk, in order. Its first sync of a file waits until ``free`` is set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.busy, self.free = threading.Event(), threading.Event()
        self.events: list[str] = []
        self.before: Callable[[], object] = lambda: None
        """Called before each sync of the file system."""
        self._sync, self._all, real_rename = os.fsync, linux.sync_file_system, Path.rename
        monkeypatch.setattr(os, "fsync", self._fsync)

        def rename(source: Path, target: Path) -> Path:
            self.events.append("rename")
            return real_rename(source, target)

        monkeypatch.setattr(Path, "rename", rename)
        monkeypatch.setattr(linux, "sync_file_system", self._sync_all)
        monkeypatch.setattr(filesystem, "ALONE", 0)
        monkeypatch.setattr(linux, "dirty", lambda: 0)
        monkeypatch.setattr(linux, "open_to_sync", lambda path: os.open(path, os.O_RDONLY))

    def _fsync(self, fd: int) -> None:
        if threading.current_thread().name == THREAD:
            self.busy.set()
            self.free.wait()
            self.events.append("one")
        self._sync(fd)

    def _sync_all(self, fd: int) -> None:
        self.before()
        self._all(fd)
        self.events.append("all")


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    """The disk, watched."""
    made = Disk(monkeypatch)
    yield made
    made.free.set()


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
        tasks = []
        for data in blobs:
            upload = secrets.token_hex(4)
            await store.start(upload)
            tasks.append(asyncio.create_task(commit(store, data, digest=sha256(data), upload=upload)))
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
    disk.events.clear()
    keys = await asyncio.gather(*tasks)
    shared = disk.events[disk.events.index("all") :]
    assert shared[0] == "all"
    assert [each for each in shared if each != "one"] == ["all", *["rename"] * TOGETHER, "all"]
    assert [await read(stored, key) for key in keys] == blobs


async def test_as_many_uploads_as_there_are_threads_share_nothing(
    stored: FileBlobStore, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They sync their own files at the same time, which takes less time; only the next one goes to the thread."""
    monkeypatch.setattr(filesystem, "ALONE", threads.FILES)
    disk.free.set()
    blobs = made(threads.FILES)
    await asyncio.gather(*map(keep, [stored] * len(blobs), blobs, map(str, range(len(blobs)))))
    assert not disk.busy.is_set()
    blobs = made(threads.FILES + 1)
    await asyncio.gather(*map(keep, [stored] * len(blobs), blobs, map(str, range(len(blobs)))))
    assert disk.busy.is_set()


async def test_an_upload_that_comes_meanwhile_joins_the_next_sync(stored: FileBlobStore, disk: Disk) -> None:
    """The sync of names is the sync of bytes for those that came since: two groups take three syncs."""
    entered, go = threading.Event(), threading.Event()

    def wait() -> None:
        entered.set()
        go.wait()

    disk.before = wait
    tasks = await together(stored, disk, made())
    await asyncio.to_thread(entered.wait)
    tasks += await enqueue(stored, made())
    go.set()
    assert len(set(await asyncio.gather(*tasks))) == 2 * TOGETHER
    assert disk.events.count("all") == 3


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


@pytest.mark.parametrize("size", [0, 10, finisher.SMALL + 1])
async def test_after_a_sync_that_failed_no_upload_of_before_is_trusted(
    stored: FileBlobStore, disk: Disk, size: int
) -> None:
    """It gets Unavailable, whatever its size, and is over. Later ones are stored, and sync their own files."""
    await begin(stored, b"x" * size, upload="open")

    def broken() -> None:
        raise OSError(errno.EIO, "Input/output error")

    disk.before = broken
    await asyncio.gather(*await together(stored, disk, made()), return_exceptions=True)
    with pytest.raises(Unavailable, match="may have lost bytes of it"):
        await commit(stored, b"y", digest=sha256(b"x" * size + b"y"), upload="open")
    assert uploads_left(stored) == []
    disk.before, blobs = lambda: None, made()
    keys = await asyncio.gather(*map(keep, [stored] * TOGETHER, blobs, map(str, range(TOGETHER))))
    assert "all" not in disk.events
    assert [await read(stored, key) for key in keys] == blobs


async def test_uploads_are_refused_while_it_is_unknown_which_were_there(
    stored: FileBlobStore, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the folder can't be read when the sync has failed, it is read for the next upload, which is refused too."""
    real, readable = Path.iterdir, True

    def iterdir(path: Path) -> Iterator[Path]:
        if not readable:
            raise OSError(errno.EIO, "Input/output error")
        return real(path)

    def broken() -> None:
        nonlocal readable
        readable = False
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Path, "iterdir", iterdir)
    await begin(stored, b"x", upload="open")
    disk.before = broken
    await asyncio.gather(*await together(stored, disk, made()), return_exceptions=True)
    with pytest.raises(StorageFull):
        await keep(stored, b"one", "one")
    readable = True
    with pytest.raises(Unavailable):
        await commit(stored, b"", digest=sha256(b"x"), upload="open")
    assert await keep(stored, b"two", "two")


async def test_while_much_waits_to_be_written_each_upload_syncs_its_file(
    stored: FileBlobStore, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then nobody waits for what other programs wrote: the thread hands the uploads to the others, for a while."""
    monkeypatch.setattr(linux, "dirty", lambda: finisher.DIRTY)
    disk.free.set()
    blobs = made()
    keys = await asyncio.gather(*map(keep, [stored] * TOGETHER, blobs, map(str, range(TOGETHER))))
    assert [await read(stored, key) for key in keys] == blobs
    assert "all" not in disk.events
    assert not disk.busy.is_set()
    assert not stored._finisher.takes(1)


async def test_names_are_synced_alone_when_much_waits_to_be_written_meanwhile(
    stored: FileBlobStore, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes that were synced together are not synced again."""
    disk.before = lambda: monkeypatch.setattr(linux, "dirty", lambda: finisher.DIRTY)
    blobs = made()
    keys = await asyncio.gather(*await together(stored, disk, blobs))
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
    keys = await asyncio.gather(*map(keep, [store] * TOGETHER, blobs, map(str, range(TOGETHER))))
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
        keys = await asyncio.gather(*map(keep, [stored] * TOGETHER, blobs, map(str, range(TOGETHER))))
        assert stored._finisher._thread is not None
        stored._finisher._thread.join()
    assert [await read(stored, key) for key in keys] == blobs
    assert [each["log_level"] for each in logs] == ["error"]
    assert [await stored.size(upload) for upload in uploads_left(stored)] == [0] * TOGETHER
    monkeypatch.setattr(stored._finisher, "takes", lambda _: True)  # as if it had been asked just before
    with pytest.raises(Unavailable, match="Push it again"):
        await keep(stored, b"the last", "last")


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


@pytest.mark.parametrize(("release", "able"), [("5.16.20-generic", False), ("5.17.0", True), ("6.12.1+deb13", True)])
def test_a_kernel_that_hides_errors_is_not_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, release: str, *, able: bool
) -> None:
    """Before Linux 5.8, syncfs does not report bytes that could not be written."""
    monkeypatch.setattr(linux, "_has_journal", lambda _: True)
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(release=release))
    fd = linux.open_to_sync(tmp_path)
    assert (fd is not None) == able
    if fd is not None:
        linux.sync_file_system(fd)
        os.close(fd)


def test_only_known_file_systems_are_synced_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On others such a sync may cost much more than that of a file."""
    monkeypatch.setattr(linux, "_type_of", lambda _: 0x9123683E)  # Btrfs
    assert linux.open_to_sync(tmp_path) is None


def test_a_folder_that_takes_no_changes_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That is how a journal that has failed shows itself."""

    def utime(_: int) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(linux, "_has_journal", lambda _: True)
    monkeypatch.setattr(os, "utime", utime)
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(OSError, match="Read-only"):
        linux.open_to_sync(tmp_path)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_sync_that_fails_is_an_error() -> None:
    """The number of the error is that of the system."""
    with pytest.raises(OSError, match="Bad file descriptor"):
        linux.sync_file_system(-1)


def test_what_waits_to_be_written_is_known() -> None:
    """The bytes of all file systems, as /proc/meminfo has them."""
    assert 0 <= linux.dirty() < 1 << 50
