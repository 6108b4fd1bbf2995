"""What a store of blobs guarantees (blobs/store.py): every implementation passes the same suite."""

from __future__ import annotations

import asyncio
import hashlib
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from contract.wire_client import EMPTY, sha256, sha512
from polly_dockers.blobs import files, kernel
from polly_dockers.blobs.files import FileBlobStore
from polly_dockers.blobs.memory import MemoryBlobStore
from polly_dockers.blobs.store import BlobMissing
from polly_dockers.errors import BlobUploadUnknown, StorageFull, TooManyRequests
from polly_dockers.model import Digest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from polly_dockers.blobs.store import BlobStore

HELLO = b"hello, store"
DIGEST = Digest(sha256(HELLO))
OPEN = Path("/proc/self/fd")
"""The descriptors of this process."""


@pytest.fixture(params=[FileBlobStore, MemoryBlobStore])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[BlobStore]:
    """Each store in turn, empty."""
    monkeypatch.setattr(files, "PATIENCE", 0.0)
    made: BlobStore = FileBlobStore(tmp_path) if request.param is FileBlobStore else MemoryBlobStore()
    yield made
    made.close()


def uploads_left(store: BlobStore) -> list[str]:
    """Uploads that take space."""
    if isinstance(store, MemoryBlobStore):
        return sorted(store.uploads)
    assert isinstance(store, FileBlobStore)
    return sorted(path.name for path in store._uploads.iterdir())


def descriptors() -> int:
    """How many files this process holds open."""
    return len(list(OPEN.iterdir()))


async def write(store: BlobStore, upload: str, offset: int, *pieces: bytes) -> None:
    """Append to an upload."""
    async with store.append(upload, offset) as segment:
        await segment.write(pieces, None)


async def keep(store: BlobStore, data: bytes, upload: str = "upload") -> str:
    """Make a blob; its key."""
    async with store.append(upload, 0) as segment:
        await segment.write([data], None)
        return await segment.commit(Digest(sha256(data)))


async def read(store: BlobStore, key: str) -> bytes:
    """A blob's bytes."""
    blob = await store.open(key)
    try:
        return await blob.read(0, blob.size + 1)
    finally:
        blob.close()


async def test_a_blob_comes_back(store: BlobStore) -> None:
    """What was committed opens under its key, and the upload is over."""
    key = await keep(store, HELLO)
    assert await read(store, key) == HELLO
    assert uploads_left(store) == []


async def test_a_key_tells_the_digest(store: BlobStore) -> None:
    """Rows can be rebuilt from keys."""
    assert (await keep(store, HELLO)).startswith(f"sha256/{DIGEST.hex[:2]}/{DIGEST.hex}.")


async def test_a_key_is_never_used_twice(store: BlobStore) -> None:
    """Two uploads of one digest have two keys, and deleting one leaves the other."""
    keys = [await keep(store, HELLO, f"upload-{number}") for number in range(5)]
    assert len(set(keys)) == 5
    await store.delete(keys[0])
    assert await read(store, keys[1]) == HELLO
    with pytest.raises(BlobMissing):
        await store.open(keys[0])


async def test_an_upload_in_pieces(store: BlobStore) -> None:
    """Several appends, of several pieces each, follow one another."""
    await write(store, "upload", 0, b"hel", b"", b"lo")
    await write(store, "upload", 5, b", ")
    async with store.append("upload", 7) as segment:
        await segment.write([b"store"], None)
        assert await segment.digest("sha256") == DIGEST
        key = await segment.commit(DIGEST)
    assert await read(store, key) == HELLO


async def test_the_hasher_takes_the_same_bytes(store: BlobStore) -> None:
    """The hasher sees every piece once, in order."""
    hasher = hashlib.sha256()
    async with store.append("upload", 0) as segment:
        await segment.write([b"hello", b", "], hasher)
        await segment.write([b"store"], hasher)
    assert f"sha256:{hasher.hexdigest()}" == DIGEST


async def test_the_digest_in_another_algorithm(store: BlobStore) -> None:
    """The upload up to here is read again."""
    await write(store, "upload", 0, HELLO)
    async with store.append("upload", len(HELLO)) as segment:
        assert await segment.digest("sha512") == sha512(HELLO)
        assert await segment.digest("sha256") == DIGEST


async def test_what_lies_beyond_is_forgotten(store: BlobStore) -> None:
    """An append at a smaller offset takes back what was not noted: it is neither in the digest nor in the blob."""
    await write(store, "upload", 0, b"hello, world and more than that")
    async with store.append("upload", 7) as segment:
        await segment.write([b"store"], None)
        assert await segment.digest("sha256") == DIGEST
        key = await segment.commit(DIGEST)
    assert await read(store, key) == HELLO


async def test_nothing_more_may_come(store: BlobStore) -> None:
    """An upload may be committed as it stands, without another byte."""
    await write(store, "upload", 0, HELLO, b"not noted")
    async with store.append("upload", len(HELLO)) as segment:
        key = await segment.commit(DIGEST)
    assert await read(store, key) == HELLO


async def test_a_blob_of_nothing(store: BlobStore) -> None:
    """No bytes at all are a blob."""
    async with store.append("upload", 0) as segment:
        assert await segment.digest("sha256") == EMPTY
        key = await segment.commit(Digest(EMPTY))
    blob = await store.open(key)
    assert (blob.size, await blob.read(0, 10)) == (0, b"")
    blob.close()


async def test_reading_parts(store: BlobStore) -> None:
    """Any offset and length; fewer bytes only at the end."""
    blob = await store.open(await keep(store, HELLO))
    assert blob.size == len(HELLO)
    assert [await blob.read(*part) for part in ((0, 5), (7, 3), (7, 99), (12, 5), (0, 0))] == [
        b"hello",
        b"sto",
        b"store",
        b"",
        b"",
    ]
    blob.close()


async def test_an_open_blob_survives_its_deletion(store: BlobStore) -> None:
    """It can be read to its end, whatever happens to its key meanwhile."""
    key = await keep(store, HELLO)
    blob = await store.open(key)
    await store.delete(key)
    await store.delete(key)
    assert await blob.read(0, 100) == HELLO
    blob.close()
    with pytest.raises(BlobMissing):
        await store.open(key)


async def test_an_upload_too_short_is_refused(store: BlobStore) -> None:
    """Where fewer bytes are there than were noted, BlobUploadUnknown, and what is there stays as it was."""
    await write(store, "upload", 0, b"12")
    with pytest.raises(BlobUploadUnknown):
        await write(store, "upload", 3, b"4")
    async with store.append("upload", 2) as segment:
        assert await segment.digest("sha256") == sha256(b"12")


async def test_an_upload_that_is_not_there_leaves_nothing(store: BlobStore) -> None:
    """An append behind the end of an upload that was never begun, or is over, makes no file."""
    with pytest.raises(BlobUploadUnknown):
        await write(store, "never", 1, b"x")
    assert uploads_left(store) == []


async def test_an_upload_is_held_by_one(store: BlobStore) -> None:
    """While one request holds it another gets TooManyRequests; afterwards it goes on."""
    async with store.append("upload", 0) as segment:
        await segment.write([b"12"], None)
        with pytest.raises(TooManyRequests):
            await write(store, "upload", 0, b"x")
        await write(store, "other", 0, b"x")
    await write(store, "upload", 2, b"34")
    async with store.append("upload", 4) as segment:
        assert await segment.digest("sha256") == sha256(b"1234")


async def test_a_failure_lets_go(store: BlobStore) -> None:
    """A request that fails while it holds an upload holds it no longer, and what it wrote may be continued."""

    async def fail() -> None:
        async with store.append("upload", 0) as segment:
            await segment.write([b"12"], None)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    await write(store, "upload", 2, b"3")


async def test_an_abort_gives_the_space_back(store: BlobStore) -> None:
    """Once, twice, or of what was never there; the next append begins anew."""
    await write(store, "upload", 0, HELLO)
    for upload in ("upload", "upload", "never"):
        await store.abort(upload)
    assert uploads_left(store) == []
    with pytest.raises(BlobUploadUnknown):
        await write(store, "upload", len(HELLO), b"x")


async def test_an_upload_is_invisible(store: BlobStore) -> None:
    """Before its commit no key opens it."""
    await write(store, "upload", 0, HELLO)
    for key in ("upload", f"sha256/{DIGEST.hex[:2]}/{DIGEST.hex}", "../uploads/never"):
        with pytest.raises(BlobMissing):
            await store.open(key)


async def test_many_at_once(store: BlobStore) -> None:
    """Thirty uploads at a time, each in pieces, are thirty blobs."""

    async def one(number: int) -> bool:
        data = bytes([number]) * 50_000
        for at in range(0, len(data), 10_000):
            await write(store, f"upload-{number}", at, data[at : at + 10_000])
        async with store.append(f"upload-{number}", len(data)) as segment:
            key = await segment.commit(await segment.digest("sha256"))
        return await read(store, key) == data

    assert all(await asyncio.gather(*(one(number) for number in range(30))))
    assert uploads_left(store) == []


async def test_a_check_leaves_nothing(store: BlobStore) -> None:
    """A store that works says so without a trace."""
    await store.check()
    assert uploads_left(store) == []


# --- files alone -------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[tuple[FileBlobStore, Path]]:
    """A store of files, and where it lies."""
    made = FileBlobStore(tmp_path)
    yield made, tmp_path
    made.close()


async def test_a_commit_is_durable_before_it_returns(
    folder: tuple[FileBlobStore, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is synced before its rename; its folder after; each new parent too; and then commit returns."""
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
    """A disk that is full or broken raises StorageFull and leaves nothing under a key."""
    store, path = folder

    def broken(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(StorageFull):
        await keep(store, HELLO)
    with pytest.raises(StorageFull):
        await store.check()
    assert [item for item in (path / "blobs").rglob("*") if item.is_file()] == []
    assert uploads_left(store) == ["upload"]


async def test_a_write_that_fails(folder: tuple[FileBlobStore, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """A write without room raises StorageFull, the upload is let go, and goes on where it was."""
    store, _ = folder

    def full(_fd: int, _data: bytes, _offset: int) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(StorageFull):
            await write(store, "upload", 0, HELLO)
    assert await read(store, await keep(store, HELLO)) == HELLO


async def test_short_writes_go_on(folder: tuple[FileBlobStore, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that takes three bytes at a time gets them all."""
    store, _ = folder
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: real(fd, data[:3], offset))
    assert await read(store, await keep(store, HELLO)) == HELLO


async def test_permissions(folder: tuple[FileBlobStore, Path]) -> None:
    """Files are for their owner alone, folders too."""
    store, path = folder
    old = os.umask(0)
    try:
        await keep(store, HELLO)
        await write(store, "unfinished", 0, b"x")
        for item in (path / "blobs", path / "uploads", *path.rglob("*")):
            assert stat.S_IMODE(item.stat().st_mode) == (0o700 if item.is_dir() else 0o600), item
    finally:
        os.umask(old)


async def test_nothing_is_left_open(folder: tuple[FileBlobStore, Path]) -> None:
    """Commits, failures, refusals and pulls give every descriptor back."""
    store, _ = folder
    await keep(store, HELLO)
    before = descriptors()
    for _ in range(5):
        await read(store, await keep(store, HELLO))
        with pytest.raises(BlobUploadUnknown):
            await write(store, "short", 5, b"x")
        with pytest.raises(BlobMissing):
            await store.open("sha256/00/absent")
    assert descriptors() == before


async def test_a_cancelled_caller_waits_for_its_thread(folder: tuple[FileBlobStore, Path]) -> None:
    """A request that is cancelled in a write ends after the write: no descriptor closes under a thread."""
    store, _ = folder
    task = asyncio.create_task(write(store, "upload", 0, *[b"x" * 65536] * 100))
    await asyncio.sleep(0)  # one step of it: the upload is open and its bytes are with a thread
    assert uploads_left(store) == ["upload"]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await write(store, "upload", 0, b"free again")


HOLD = """
import asyncio, sys
from pathlib import Path
from polly_dockers.blobs.files import FileBlobStore

async def hold():
    async with FileBlobStore(Path(sys.argv[1])).append("upload", 0) as segment:
        await segment.write([b"12"], None)
        print("held", flush=True)
        sys.stdin.readline()

asyncio.run(hold())
"""


@pytest.mark.parametrize("ending", ["lets go", "is killed"])
async def test_two_processes(folder: tuple[FileBlobStore, Path], monkeypatch: pytest.MonkeyPatch, ending: str) -> None:
    """An upload that another process holds is refused; once that lets go, or is killed, it goes on."""
    store, path = folder
    command = [sys.executable, "-c", HOLD, str(path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as other:  # noqa: ASYNC220 - nothing else runs
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with monkeypatch.context() as patch:
            patch.setattr(files, "PATIENCE", 0.0)
            with pytest.raises(TooManyRequests):
                await write(store, "upload", 2, b"x")
        if ending == "is killed":
            other.kill()
        else:
            other.stdin.write("\n")
        other.stdin.close()
        other.wait()
    async with store.append("upload", 2) as segment:
        assert await segment.digest("sha256") == sha256(b"12")


async def test_who_waits_is_next(folder: tuple[FileBlobStore, Path]) -> None:
    """A request that comes while another is ending waits for it, and continues."""
    store, _ = folder
    async with store.append("upload", 0) as segment:
        await segment.write([b"12"], None)
        waiting = asyncio.create_task(write(store, "upload", 2, b"34"))
        await asyncio.sleep(0)
        assert not waiting.done()
    await waiting
    async with store.append("upload", 4) as segment:
        assert await segment.digest("sha256") == sha256(b"1234")


async def test_what_is_not_in_memory_is_read_without_the_loop(tmp_path: Path) -> None:
    """A file that has left the memory is known as such, and read on a thread before the kernel sends it."""
    store = FileBlobStore(tmp_path)
    try:
        data = os.urandom(1 << 20)
        async with store.append("upload", 0) as segment:
            await segment.write([data], None)
            key = await segment.commit(Digest(sha256(data)))
        blob = await store.open(key)
        fd = blob.fileno()
        assert fd is not None
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        assert kernel.read_cached(fd, len(data), 0) is None
        await blob.warm(0, len(data))
        assert kernel.is_cached(fd, 0, len(data))
        assert kernel.read_cached(fd, len(data), 0) == await blob.read(0, len(data)) == data
        blob.close()
    finally:
        store.close()
