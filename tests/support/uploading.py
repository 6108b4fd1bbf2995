"""Short ways to upload to a blob store."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from polly_dockers.blobs.filesystem import FileBlobStore
from polly_dockers.model import Digest
from support.memory_blob_store import MemoryBlobStore
from support.wire_client import sha256

if TYPE_CHECKING:
    from polly_dockers.blobs.store import BlobStore, Hasher, Segment

HELLO = b"hello, store"
DIGEST = Digest(sha256(HELLO))


def uploads_left(store: BlobStore) -> list[str]:
    """Uploads that take space."""
    if isinstance(store, MemoryBlobStore):
        return sorted(store.uploads)
    assert isinstance(store, FileBlobStore)
    return sorted(path.name for path in store._uploads.iterdir())


async def write(store: BlobStore, upload: str, *pieces: bytes) -> int:
    """Append to an upload; its size then."""
    async with store.append(upload) as segment:
        return await segment.keep(pieces, None)


async def begin(store: BlobStore, *pieces: bytes, upload: str = "upload") -> None:
    """Begin an upload with some bytes."""
    await store.start(upload)
    await write(store, upload, *pieces)


async def commit(
    store: BlobStore, *pieces: bytes, digest: str, upload: str = "upload", hasher: Hasher | None = None
) -> str:
    """Append the last bytes to an upload and make a blob of it; its key."""
    async with store.append(upload) as segment:
        key, _ = await segment.finish(pieces, hasher, Digest(digest))
        return key


async def keep(store: BlobStore, data: bytes, upload: str = "upload") -> str:
    """Make a blob; its key."""
    await store.start(upload)
    return await commit(store, data, digest=sha256(data), upload=upload)


async def push(store: BlobStore, data: bytes, upload: str = "upload") -> str:
    """Make a blob as a server does: its bytes are hashed and written when it is finished; its key."""
    await store.start(upload)
    return await commit(store, data, digest=sha256(data), upload=upload, hasher=hashlib.sha256())


async def end(segment: Segment, ending: str) -> None:
    """Append the rest of HELLO in one of three ways."""
    if ending == "write":
        await segment.write([b", store"], None)
    elif ending == "keep":
        await segment.keep([b", store"], None)
    else:
        await segment.finish([b", store"], None, DIGEST)


async def read(store: BlobStore, key: str) -> bytes:
    """A blob's bytes."""
    blob = await store.open(key)
    try:
        return await blob.read(0, blob.size + 1)
    finally:
        blob.close()
