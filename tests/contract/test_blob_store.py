"""What a store of blobs guarantees (blobs/store.py): every implementation passes the same suite."""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING

import pytest

from polly_dockers.blobs import filesystem
from polly_dockers.blobs.filesystem import FileBlobStore
from polly_dockers.blobs.store import BlobMissing
from polly_dockers.errors import BlobUploadUnknown, DigestInvalid, TooManyRequests
from polly_dockers.model import Digest
from support.memory_blob_store import MemoryBlobStore
from support.uploading import DIGEST, HELLO, begin, commit, end, keep, read, uploads_left, write
from support.wire_client import EMPTY, sha256, sha512

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from polly_dockers.blobs.store import BlobStore


@pytest.fixture(params=[FileBlobStore, MemoryBlobStore])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[BlobStore]:
    """Each store in turn, empty."""
    monkeypatch.setattr(filesystem, "PATIENCE", 0.0)
    made: BlobStore = FileBlobStore(tmp_path) if request.param is FileBlobStore else MemoryBlobStore()
    yield made
    made.close()


async def test_a_blob_comes_back(store: BlobStore) -> None:
    """A finished upload opens under its storage key, and the upload is gone."""
    key = await keep(store, HELLO)
    assert await read(store, key) == HELLO
    assert uploads_left(store) == []


async def test_a_key_tells_the_digest(store: BlobStore) -> None:
    """A storage key contains the digest, so rows can be rebuilt from keys."""
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
    """Several requests append several pieces each; each request knows the size of the upload."""
    await store.start("upload")
    assert await store.size("upload") == 0
    assert await write(store, "upload", b"hel", b"", b"lo") == 5
    assert await store.size("upload") == 5
    async with store.append("upload") as segment:
        assert segment.size == 5
        await segment.write([b","], None)
        await segment.write([b" "], None)
        assert await segment.keep([b"st"], None) == 9
    assert await read(store, await commit(store, b"o", b"re", digest=DIGEST)) == HELLO


async def test_a_commit_tells_the_size(store: BlobStore) -> None:
    """The size is that of the whole upload."""
    await begin(store, b"hello")
    async with store.append("upload") as segment:
        await segment.write([b", "], None)
        assert (await segment.finish([b"store"], None, DIGEST))[1] == len(HELLO)


async def test_the_hasher_takes_the_same_bytes(store: BlobStore) -> None:
    """The hasher sees every piece once, in order."""
    hasher = hashlib.sha256()
    await store.start("upload")
    async with store.append("upload") as segment:
        await segment.write([b"hello", b", "], hasher)
        await segment.keep([b"store"], hasher)
    assert f"sha256:{hasher.hexdigest()}" == DIGEST


@pytest.mark.parametrize("hashed", [True, False])
@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
async def test_the_digest_is_checked(store: BlobStore, algorithm: str, *, hashed: bool) -> None:
    """With a running hash or without, for each algorithm; a wrong digest leaves the upload as it was."""
    digest_of = {"sha256": sha256, "sha512": sha512}[algorithm]
    await begin(store, b"hello")
    for wrong in (b"", b", stare", b", store and more"):
        async with store.append("upload") as segment:
            hasher = hashlib.sha256(b"hello") if hashed else None
            with pytest.raises(DigestInvalid, match=digest_of(b"hello" + wrong)):
                await segment.finish([wrong], hasher, Digest(digest_of(HELLO)))
        assert await store.size("upload") == 5
    async with store.append("upload") as segment:
        hasher = hashlib.sha256(b"hello") if hashed else None
        key, _ = await segment.finish([b", store"], hasher, Digest(digest_of(HELLO)))
    assert key.startswith(f"{algorithm}/")
    assert await read(store, key) == HELLO


async def test_a_request_may_be_forgotten(store: BlobStore) -> None:
    """Cutting removes what this request appended, and nothing else."""
    await begin(store, b"hello, ")
    async with store.append("upload") as segment:
        await segment.write([b"world and more than that"], None)
        await segment.cut()
    assert await store.size("upload") == 7
    assert await read(store, await commit(store, b"store", digest=DIGEST)) == HELLO


async def test_nothing_more_may_come(store: BlobStore) -> None:
    """An upload can be finished without further bytes."""
    await begin(store, HELLO)
    assert await read(store, await commit(store, digest=DIGEST)) == HELLO


async def test_a_blob_of_nothing(store: BlobStore) -> None:
    """An upload without any bytes becomes an empty blob."""
    await store.start("upload")
    blob = await store.open(await commit(store, digest=EMPTY))
    assert (blob.size, await blob.read(0, 10)) == (0, b"")
    blob.close()


async def test_reading_parts(store: BlobStore) -> None:
    """Any offset and length can be read; there are fewer bytes only at the end."""
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
    """An open blob can be read to its end, even if its key is deleted meanwhile."""
    key = await keep(store, HELLO)
    blob = await store.open(key)
    await store.delete(key)
    await store.delete(key)
    assert await blob.read(0, 100) == HELLO
    blob.close()
    with pytest.raises(BlobMissing):
        await store.open(key)


async def test_an_upload_that_is_not_there_leaves_nothing(store: BlobStore) -> None:
    """An upload that never began, or is over, has no size and accepts no bytes."""
    await keep(store, HELLO, "over")
    await begin(store, b"x", upload="aborted")
    await store.abort("aborted")
    for upload in ("never", "over", "aborted"):
        with pytest.raises(BlobUploadUnknown):
            await write(store, upload, b"x")
        with pytest.raises(BlobUploadUnknown):
            await store.size(upload)
    assert uploads_left(store) == []


async def test_an_upload_is_held_by_one(store: BlobStore) -> None:
    """While one request holds an upload, another gets TooManyRequests; afterwards the upload can go on."""
    await store.start("upload")
    await store.start("other")
    async with store.append("upload") as segment:
        await segment.write([b"hello"], None)
        with pytest.raises(TooManyRequests):
            await write(store, "upload", b"x")
        await write(store, "other", b"x")
    await write(store, "upload", b", ")
    assert await read(store, await commit(store, b"store", digest=DIGEST)) == HELLO


async def test_a_failure_lets_go(store: BlobStore) -> None:
    """If a request fails, it releases the upload, and what it wrote can be continued."""
    await store.start("upload")

    async def fail() -> None:
        async with store.append("upload") as segment:
            await segment.write([b"12"], None)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert await write(store, "upload", b"3") == 3


async def test_an_abort_gives_the_space_back(store: BlobStore) -> None:
    """An upload can be aborted once, twice, or without having begun."""
    await begin(store, HELLO)
    for upload in ("upload", "upload", "never"):
        await store.abort(upload)
    assert uploads_left(store) == []


async def test_the_oldest_uploads_make_room(store: BlobStore) -> None:
    """Only the newest uploads of a prefix stay, and those that a request holds; other prefixes are not affected."""
    for upload in ("a-1", "b-1", "a-2", "a-3", "a-4"):
        await begin(store, b"x", upload=upload)
    await store.trim("a-", 4)
    assert uploads_left(store) == ["a-1", "a-2", "a-3", "a-4", "b-1"]
    async with store.append("a-1"):
        await store.trim("a-", 2)
        assert uploads_left(store) == ["a-1", "a-4", "b-1"]
    await store.trim("a-", 0)
    assert uploads_left(store) == ["b-1"]


@pytest.mark.parametrize("ending", ["keep", "commit"])
async def test_an_upload_that_is_aborted_while_its_bytes_arrive(store: BlobStore, ending: str) -> None:
    """The request that appends to it fails, because the upload is over, and there is no blob."""
    await store.start("upload")
    async with store.append("upload") as segment:
        await segment.write([b"hello"], None)
        await store.abort("upload")
        with pytest.raises(BlobUploadUnknown):
            await end(segment, ending)
    assert uploads_left(store) == []


async def test_an_upload_is_invisible(store: BlobStore) -> None:
    """No key opens an upload before it is finished."""
    await begin(store, HELLO)
    for key in ("upload", f"sha256/{DIGEST.hex[:2]}/{DIGEST.hex}", "../uploads/never"):
        with pytest.raises(BlobMissing):
            await store.open(key)


async def test_many_at_once(store: BlobStore) -> None:
    """Thirty uploads at the same time, each in pieces, become thirty blobs."""

    async def one(number: int) -> bool:
        data, upload = bytes([number]) * 50_000, f"upload-{number}"
        await store.start(upload)
        for at in range(0, len(data), 10_000):
            await write(store, upload, data[at : at + 10_000])
        return await read(store, await commit(store, digest=sha256(data), upload=upload)) == data

    assert all(await asyncio.gather(*(one(number) for number in range(30))))
    assert uploads_left(store) == []


async def test_a_check_leaves_nothing(store: BlobStore) -> None:
    """The check of a store that works leaves no file behind."""
    await store.check()
    assert uploads_left(store) == []
