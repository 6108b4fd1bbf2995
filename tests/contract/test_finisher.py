"""Small uploads that are finished together share their syncs, and none has a name or an answer before its bytes."""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from polly_dockers.blobs import finisher, linux
from polly_dockers.blobs.filesystem import FileBlobStore
from polly_dockers.errors import BlobUploadUnknown, DigestInvalid, StorageFull
from support.uploading import commit, read, uploads_left
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


@pytest.mark.parametrize("why", ["much waits to be written", "the file system is another"])
async def test_where_a_sync_of_all_could_take_long_each_file_is_synced(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    """Then nobody waits for what other programs wrote."""
    if why == "much waits to be written":
        monkeypatch.setattr(linux, "dirty", lambda: finisher.DIRTY)
    else:
        monkeypatch.setattr(linux, "open_to_sync", lambda _: None)
    store = FileBlobStore(tmp_path)
    blobs = made()
    keys = await asyncio.gather(*await together(store, disk, blobs))
    assert "all" not in disk.events
    assert [await read(store, key) for key in keys] == blobs
    store.close()


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


@pytest.mark.parametrize(("release", "able"), [("5.7.19-generic", False), ("5.8.0", True), ("6.12.1+deb13", True)])
def test_a_kernel_that_hides_errors_is_not_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, release: str, *, able: bool
) -> None:
    """Before Linux 5.8, syncfs does not report bytes that could not be written."""
    monkeypatch.setattr(linux, "_SYNCED_AS_A_WHOLE", {linux._type_of(os.open(tmp_path, os.O_RDONLY))})
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(release=release))
    fd = linux.open_to_sync(tmp_path)
    assert (fd is not None) == able
    if fd is not None:
        linux.sync_file_system(fd)
        os.close(fd)


def test_only_known_file_systems_are_synced_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On others such a sync may cost much more than that of a file."""
    monkeypatch.setattr(linux, "_SYNCED_AS_A_WHOLE", frozenset())
    assert linux.open_to_sync(tmp_path) is None


def test_a_sync_that_fails_is_an_error() -> None:
    """The number of the error is that of the system."""
    with pytest.raises(OSError, match="Bad file descriptor"):
        linux.sync_file_system(-1)


def test_what_waits_to_be_written_is_known() -> None:
    """The bytes of all file systems, as /proc/meminfo has them."""
    assert 0 <= linux.dirty() < 1 << 50
