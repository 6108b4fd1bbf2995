"""What the store of files guarantees in addition: order of syncs, several processes, descriptors, recorded digests."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from polly_dockers.blobs import filesystem, linux, upload_digest
from polly_dockers.blobs.filesystem import FileBlobStore
from polly_dockers.blobs.store import BlobMissing
from polly_dockers.errors import BlobUploadUnknown, DigestInvalid, StorageFull, TooManyRequests, Unavailable
from polly_dockers.model import Digest
from polly_dockers.system import boot, durable
from support.uploading import DIGEST, HELLO, begin, commit, end, keep, read, uploads_left, write
from support.wire_client import sha256, sha512

if TYPE_CHECKING:
    from collections.abc import Iterator

OPEN = Path("/proc/self/fd")
"""The descriptors of this process."""


def descriptors() -> int:
    """How many files this process holds open."""
    return len(list(OPEN.iterdir()))


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[tuple[FileBlobStore, Path]]:
    """A store of files, and its folder."""
    made = FileBlobStore(tmp_path)
    yield made, tmp_path
    made.close()


@pytest.fixture
def stored(folder: tuple[FileBlobStore, Path]) -> FileBlobStore:
    """A store of files."""
    return folder[0]


async def test_a_commit_is_durable_before_it_returns(
    folder: tuple[FileBlobStore, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is synced before the rename, and its folder after it, with each new parent; only then finish returns."""
    store, path = folder
    events: list[str] = []
    real_sync, real_rename = os.fsync, type(path).rename

    def sync(fd: int) -> None:
        real_sync(fd)
        events.append("sync " + str((OPEN / str(fd)).readlink()).removeprefix(str(path)))

    def rename(source: Path, target: Path) -> Path:
        events.append("rename")
        return real_rename(source, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(type(path), "rename", rename)
    key = await keep(store, HELLO)
    parent = f"/blobs/sha256/{DIGEST.hex[:2]}"
    assert events.index("sync /uploads/upload") < events.index("rename") < events.index(f"sync {parent}")
    assert {"sync /blobs", "sync /blobs/sha256"} <= set(events[: events.index("rename")])
    events.clear()
    other = await keep(store, HELLO)
    assert events == ["sync /uploads/upload", "rename", f"sync {parent}"]
    assert key != other


async def test_a_sync_that_fails_is_no_commit(
    folder: tuple[FileBlobStore, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full or broken disk raises StorageFull, and nothing is stored under a key.

    The upload is over, because another sync would succeed for pages that were never written.
    """
    store, path = folder

    def broken(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(StorageFull):
        await keep(store, HELLO)
    with pytest.raises(StorageFull):
        await store.check()
    assert [item for item in (path / "blobs").rglob("*") if item.is_file()] == []
    assert uploads_left(store) == []
    monkeypatch.undo()
    with pytest.raises(BlobUploadUnknown):
        await commit(store, digest=DIGEST)


@pytest.mark.parametrize("ending", ["write", "keep", "commit"])
async def test_a_write_that_fails(
    folder: tuple[FileBlobStore, Path], monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    """A write without room, also in its middle, raises StorageFull; the upload does not change and can go on."""
    store, _ = folder
    await begin(store, b"hello")
    real = os.pwrite

    def full(fd: int, data: bytes, offset: int) -> int:
        if offset == 5:
            return real(fd, data[:2], offset)
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        async with store.append("upload") as segment:
            with pytest.raises(StorageFull):
                await end(segment, ending)
    assert await store.size("upload") == 5
    assert await read(store, await commit(store, b", store", digest=DIGEST)) == HELLO


@pytest.mark.parametrize("before", [b"", b"hello", HELLO])
@pytest.mark.parametrize("call", ["rename", "fsync", "open_folder", "pread"])
async def test_the_same_last_request_succeeds_once_the_disk_works(
    folder: tuple[FileBlobStore, Path], monkeypatch: pytest.MonkeyPatch, call: str, before: bytes
) -> None:
    """If a blob gets no name, the upload is as before, however many requests it has: containerd repeats the last one.

    The sync that fails is that of a new folder. Bytes can't be read for a digest that was not known on arrival.
    """
    store, _ = folder
    await begin(store, before)
    real = os.fsync

    def fail(first: object, *_: object) -> None:
        if call == "fsync" and isinstance(first, int) and stat.S_ISREG(os.fstat(first).st_mode):
            return real(first)
        raise OSError(errno.EMFILE if call == "open_folder" else errno.ENOSPC, "no")

    digest = sha512(HELLO) if call == "pread" else DIGEST
    with monkeypatch.context() as patch:
        patch.setattr({"rename": Path, "open_folder": durable}.get(call, os), call, fail)
        for _ in range(2):
            with pytest.raises((StorageFull, Unavailable)):
                await commit(store, HELLO.removeprefix(before), digest=digest)
            assert await store.size("upload") == len(before)
    assert await read(store, await commit(store, HELLO.removeprefix(before), digest=digest)) == HELLO
    assert uploads_left(store) == []


async def test_an_upload_that_can_not_be_cut_is_over(stored: FileBlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A repeated request then finds no upload. Otherwise it would append its bytes to those of the one that failed."""

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "no")

    await begin(stored, b"hello")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", fail)
        patch.setattr(os, "ftruncate", fail)
        with pytest.raises(StorageFull):
            await commit(stored, b", store", digest=DIGEST)
    assert uploads_left(stored) == []


async def test_short_writes_go_on(folder: tuple[FileBlobStore, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """If the kernel takes three bytes at a time, all bytes are written."""
    store, _ = folder
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: real(fd, data[:3], offset))
    assert await read(store, await keep(store, HELLO)) == HELLO


async def test_permissions(folder: tuple[FileBlobStore, Path]) -> None:
    """Only the owner can read files and folders."""
    store, path = folder
    old = os.umask(0)
    try:
        await keep(store, HELLO)
        await begin(store, b"x", upload="unfinished")
        for item in (path / "blobs", path / "uploads", *path.rglob("*")):
            assert stat.S_IMODE(item.stat().st_mode) == (0o700 if item.is_dir() else 0o600), item
    finally:
        os.umask(old)


async def test_nothing_is_left_open(folder: tuple[FileBlobStore, Path]) -> None:
    """Finished uploads, failures, refusals and pulls close every descriptor."""
    store, _ = folder
    await keep(store, HELLO)
    before = descriptors()
    for _ in range(5):
        await read(store, await keep(store, HELLO))
        with pytest.raises(BlobUploadUnknown):
            await write(store, "never", b"x")
        with pytest.raises(BlobMissing):
            await store.open("sha256/00/absent")
    assert descriptors() == before


async def test_a_cancelled_caller_waits_for_its_thread(folder: tuple[FileBlobStore, Path]) -> None:
    """A request that is cancelled in a write ends after it, so no descriptor is closed while a thread uses it."""
    store, _ = folder
    await store.start("upload")
    task = asyncio.create_task(write(store, "upload", *[b"x" * 65536] * 100))
    await asyncio.sleep(0)  # one step of the task: the upload is open, and a thread has its bytes
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await write(store, "upload", b"free again") == 65536 * 100 + 10


HOLD = """
import asyncio, sys
from pathlib import Path
from polly_dockers.blobs.filesystem import FileBlobStore

async def hold():
    async with FileBlobStore(Path(sys.argv[1])).append("upload") as segment:
        await segment.write([b"hello"], None)
        print("held", flush=True)
        sys.stdin.readline()

asyncio.run(hold())
"""


@pytest.mark.parametrize("ending", ["lets go", "is killed"])
async def test_two_processes(folder: tuple[FileBlobStore, Path], monkeypatch: pytest.MonkeyPatch, ending: str) -> None:
    """An upload that another process holds is refused; it goes on once that process closes it or is killed."""
    store, path = folder
    await store.start("upload")
    command = [sys.executable, "-c", HOLD, str(path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as other:  # noqa: ASYNC220 - nothing else runs
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with monkeypatch.context() as patch:
            patch.setattr(filesystem, "PATIENCE", 0.0)
            with pytest.raises(TooManyRequests):
                await write(store, "upload", b"x")
        if ending == "is killed":
            other.kill()
        else:
            other.stdin.write("\n")
        other.stdin.close()
        other.wait()
    assert await read(store, await commit(store, b", store", digest=DIGEST)) == HELLO


async def test_who_waits_is_next(folder: tuple[FileBlobStore, Path]) -> None:
    """A request that comes while another one ends waits for it, and continues the upload."""
    store, _ = folder
    await store.start("upload")
    async with store.append("upload") as segment:
        await segment.write([b"hello"], None)
        waiting = asyncio.create_task(write(store, "upload", b", "))
        await asyncio.sleep(0)
        assert not waiting.done()
    assert await waiting == 7
    assert await read(store, await commit(store, b"store", digest=DIGEST)) == HELLO


async def test_the_size_is_told_once_nobody_writes(folder: tuple[FileBlobStore, Path]) -> None:
    """A client that lost its connection asks for the size while its last bytes are still being written."""
    store, _ = folder
    await store.start("upload")
    async with store.append("upload") as segment:
        await segment.write([b"hello"], None)
        waiting = asyncio.create_task(store.size("upload"))
        await asyncio.sleep(0)
        assert not waiting.done()
        await segment.keep([b", store"], None)
    assert await waiting == len(HELLO)


async def noted(path: Path, data: bytes, *, hasher: bool = True) -> None:
    """Make an upload with a recorded digest, in a store that is then closed."""
    store = FileBlobStore(path)
    await store.start("upload")
    async with store.append("upload") as segment:
        await segment.keep([data], hashlib.sha256() if hasher else None)
    store.close()


async def test_another_process_knows_the_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If one process has hashed the bytes, the process of the next request does not read them again."""
    await noted(tmp_path, HELLO)
    store = FileBlobStore(tmp_path)
    monkeypatch.delattr(os, "pread")
    key = await commit(store, digest=DIGEST)
    monkeypatch.undo()
    assert await read(store, key) == HELLO
    store.close()


@pytest.mark.parametrize("why", ["bytes came", "another boot", "no attributes", "a damaged note"])
async def test_a_note_that_may_be_wrong_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    """If the recorded digest is of another size, from before the last boot, or missing, the bytes are read again."""
    if why == "no attributes":
        monkeypatch.setattr(os, "setxattr", lambda *_: (_ for _ in ()).throw(OSError(95, "Not supported")))
    await noted(tmp_path, b"hello" if why == "bytes came" else b"hello, stare")
    with (tmp_path / "uploads/upload").open("r+b") as file:
        if why == "bytes came":
            file.seek(0, os.SEEK_END)
            file.write(b", store")
        else:
            file.write(HELLO)
        file.flush()
        if why == "a damaged note":
            os.setxattr(file.fileno(), upload_digest._NAME, b"?")
    if why == "another boot":
        monkeypatch.setattr(boot, "THIS", os.urandom(16))
    store = FileBlobStore(tmp_path)
    with pytest.raises(DigestInvalid):
        await commit(store, digest=sha256(b"hello, stare"))
    assert await read(store, await commit(store, digest=DIGEST)) == HELLO
    store.close()


async def test_what_is_not_in_memory_is_read_without_the_loop(tmp_path: Path) -> None:
    """A file outside of the page cache is recognised, and a thread reads it before the kernel sends it."""
    store = FileBlobStore(tmp_path)
    try:
        data = os.urandom(1 << 20)
        key = await keep(store, data)
        blob = await store.open(key)
        fd = blob.fileno()
        assert fd is not None
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        assert linux.read_cached(fd, len(data), 0) is None
        await blob.warm(0, len(data))
        assert linux.is_cached(fd, 0, len(data))
        assert linux.read_cached(fd, len(data), 0) == await blob.read(0, len(data)) == data
        blob.close()
    finally:
        store.close()


async def test_a_wrong_digest_is_read_for_once(stored: FileBlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large upload that was read again for a wrong digest is over, so trying again costs the server nothing."""
    read = count_reads(monkeypatch)
    for digest in ("sha512:" + "0" * 128, "sha256:" + "0" * 64):
        await begin(stored, b"a" * (filesystem.AGAIN + 1), upload=digest[:6])
        read.clear()
        with pytest.raises(DigestInvalid):
            await commit(stored, b"b", digest=digest, upload=digest[:6])
        assert sum(read) == filesystem.AGAIN + 2
        for _ in range(3):
            with pytest.raises(BlobUploadUnknown):
                await commit(stored, b"b", digest=digest, upload=digest[:6])
        assert sum(read) == filesystem.AGAIN + 2
    assert uploads_left(stored) == []


async def test_a_small_upload_survives_a_wrong_digest(stored: FileBlobStore) -> None:
    """A small upload does not change, and can be finished with the right digest."""
    await begin(stored, b"a" * 1000)
    for _ in range(3):
        with pytest.raises(DigestInvalid):
            await commit(stored, b"b", digest="sha512:" + "0" * 128)
    await commit(stored, b"b", digest=sha512(b"a" * 1000 + b"b"))


async def test_reading_again_keeps_nobody_waiting(stored: FileBlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many uploads are read again, others are pushed and pulled meanwhile."""
    going, reading, data = threading.Event(), os.pread, b"a" * 1000

    def slow(fd: int, length: int, offset: int) -> bytes:
        if length == len(data):
            going.wait()
        return reading(fd, length, offset)

    monkeypatch.setattr(os, "pread", slow)
    for number in range(20):
        await begin(stored, data, upload=f"upload-{number}")
    commits = [
        asyncio.create_task(commit(stored, digest=sha512(data), upload=f"upload-{number}")) for number in range(20)
    ]
    await stored.start("another")
    async with stored.append("another") as segment:
        key, _ = await segment.finish([HELLO], hashlib.sha256(), Digest(sha256(HELLO)))
    blob = await stored.open(key)
    assert await blob.read(0, 100) == HELLO
    blob.close()
    going.set()
    assert len(set(await asyncio.gather(*commits))) == 20


async def test_pulls_go_on_while_all_writes_hang(stored: FileBlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is frozen takes no bytes and makes no file, but what is not in memory can still be read."""
    key, going, in_time = await keep(stored, HELLO), threading.Event(), list[bool]()
    writing, opening = os.pwrite, FileBlobStore._start

    def hang(fd: int, data: bytes, offset: int) -> int:
        in_time.append(going.wait(10))
        return writing(fd, data, offset)

    def hang_too(path: Path) -> None:
        in_time.append(going.wait(10))
        opening(path)

    for number in range(8):
        await stored.start(f"upload-{number}")
    monkeypatch.setattr(os, "pwrite", hang)
    monkeypatch.setattr(stored, "_start", hang_too)
    hung = [asyncio.create_task(write(stored, f"upload-{number}", b"x")) for number in range(8)]
    begun = asyncio.create_task(stored.start("another"))
    await asyncio.sleep(0)  # all of them have begun
    monkeypatch.setattr(linux, "open_cached", lambda _path: None)
    monkeypatch.setattr(linux, "read_cached", lambda *_: None)
    assert await read(stored, key) == HELLO
    going.set()
    await asyncio.gather(*hung, begun)
    assert set(in_time) == {True}


async def test_an_upload_that_became_shorter(stored: FileBlobStore, tmp_path: Path) -> None:
    """Reading it again ends, with an error that says what is wrong."""
    await begin(stored, b"a" * 3000)
    async with stored.append("upload") as segment:
        with (tmp_path / "uploads/upload").open("r+b") as file:
            file.truncate(1000)
        with pytest.raises(Unavailable, match="1000 of 3000 are left"):
            await segment.finish([], None, Digest("sha512:" + "0" * 128))
    assert uploads_left(stored) == []


def count_reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Record how many bytes each later call of pread reads."""
    read, reading = list[int](), os.pread

    def counting(fd: int, length: int, offset: int) -> bytes:
        data = reading(fd, length, offset)
        read.append(len(data))
        return data

    monkeypatch.setattr(os, "pread", counting)
    return read


async def test_what_is_not_a_file_is_no_abandoned_upload(folder: tuple[FileBlobStore, Path]) -> None:
    """A folder such as lost+found, or a link, stays among the uploads and causes no error."""
    store, path = folder
    (path / "uploads" / "lost+found").mkdir()
    (path / "uploads" / "link").symlink_to(path / "elsewhere")
    (path / "uploads" / "old").write_bytes(HELLO)
    for each in (path / "uploads").iterdir():
        os.utime(each, (0, 0), follow_symlinks=False)
    assert await store.abandoned(60, delete=True) == (1, len(HELLO))
    assert {each.name for each in (path / "uploads").iterdir()} == {"lost+found", "link"}
