"""The smallest BlobStore, in memory: for tests of use cases, and to show what the contract asks for."""

from __future__ import annotations

import contextlib
import hashlib
import time
from typing import TYPE_CHECKING

from polly_dockers.blobs import files
from polly_dockers.blobs.store import BlobMissing, Stored, check_digest, upload_held, upload_missing
from polly_dockers.errors import DigestInvalid

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from polly_dockers.blobs.store import Hasher
    from polly_dockers.model import Digest


class MemorySegment:
    """An upload, as a bytearray that grows."""

    def __init__(self, store: MemoryBlobStore, upload: str) -> None:
        self._store = store
        self._upload = upload
        self._bytes = store.uploads[upload]
        self.size = len(self._bytes)

    async def write(self, data: Sequence[bytes], hasher: Hasher | None) -> None:
        """Append."""
        for piece in data:
            self._bytes += piece
            if hasher is not None:
                hasher.update(piece)

    async def keep(self, data: Sequence[bytes], hasher: Hasher | None) -> int:
        """Append, and return the size of the upload."""
        await self.write(data, hasher)
        self._check()
        return len(self._bytes)

    async def cut(self) -> None:
        """Drop what this request appended."""
        del self._bytes[self.size :]

    async def finish(self, data: Sequence[bytes], hasher: Hasher | None, digest: Digest) -> tuple[str, int]:
        """Compare the digest, and move the bytes under a new storage key."""
        await self.write(data, hasher)
        try:
            check_digest(f"{digest.algorithm}:{hashlib.new(digest.algorithm, self._bytes).hexdigest()}", digest)
        except DigestInvalid:
            await self.cut()
            raise
        self._check()
        key = files.new_key(digest)
        self._store.put(key, bytes(self._bytes))
        del self._store.uploads[self._upload]
        return key, len(self._bytes)

    def _check(self) -> None:
        if self._store.uploads.get(self._upload) is not self._bytes:
            raise upload_missing()


class MemoryBlob:
    """An open blob."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size = len(data)

    def fileno(self) -> int | None:
        """Return None: there is no file."""
        return None

    async def warm(self, offset: int, length: int) -> None:
        """Do nothing: all bytes are in memory."""

    async def read(self, offset: int, length: int) -> bytes:
        """Return the bytes of the range."""
        return self._data[offset : offset + length]

    def close(self) -> None:
        """Do nothing."""


class MemoryBlobStore:
    """A BlobStore that keeps all bytes in memory."""

    def __init__(self) -> None:
        self.uploads: dict[str, bytearray] = {}
        self.blobs: dict[str, bytes] = {}
        self.aside: dict[str, bytes] = {}
        self._held: set[str] = set()
        self._began: dict[str, float] = {}
        self._since: dict[str, float] = {}

    def put(self, key: str, data: bytes) -> None:
        """Store the bytes under the storage key."""
        self.blobs[key] = data
        self._since[key] = time.monotonic()

    async def start(self, upload: str) -> None:
        """Begin an empty upload."""
        self.uploads[upload] = bytearray()
        self._began[upload] = time.monotonic()

    async def size(self, upload: str) -> int:
        """Return the size of the upload in bytes."""
        if upload not in self.uploads:
            raise upload_missing()
        return len(self.uploads[upload])

    @contextlib.asynccontextmanager
    async def append(self, upload: str) -> AsyncIterator[MemorySegment]:
        """Hold the upload until the end of the block."""
        if upload in self._held:
            raise upload_held()
        await self.size(upload)
        self._held.add(upload)
        try:
            yield MemorySegment(self, upload)
        finally:
            self._held.discard(upload)

    async def abort(self, upload: str) -> bool:
        """Delete the upload; whether it was there."""
        return self.uploads.pop(upload, None) is not None

    async def open(self, key: str) -> MemoryBlob:
        """Open the blob of the storage key."""
        try:
            return MemoryBlob(self.blobs[key])
        except KeyError:
            raise BlobMissing(key) from None

    async def delete(self, key: str) -> None:
        """Delete the blob."""
        self.blobs.pop(key, None)

    async def delete_all(self, keys: Sequence[str]) -> int:
        """Delete the blobs; how many bytes they had."""
        return sum(len(self.blobs.pop(key, b"")) for key in keys)

    async def set_aside(self, key: str) -> None:
        """Move the blob to ``aside``."""
        if key in self.blobs:
            self.aside[key] = self.blobs.pop(key)

    def parts(self) -> Sequence[str]:
        """Return the one part that there is."""
        return ("all",)

    async def keys(self, _part: str) -> Sequence[Stored]:
        """List all blobs."""
        now = time.monotonic()
        return [Stored(key, len(data), now - self._since[key]) for key, data in self.blobs.items()]

    async def abandoned(self, seconds: float, *, delete: bool) -> tuple[int, int]:
        """Count uploads that began so long ago and that no request holds; delete them if asked to."""
        old = [
            name
            for name, began in self._began.items()
            if name in self.uploads and name not in self._held and time.monotonic() - began > seconds
        ]
        size = sum(len(self.uploads[name]) for name in old)
        for name in old if delete else ():
            del self.uploads[name]
        return len(old), size

    async def trim(self, prefix: str, keep: int) -> None:
        """Delete the oldest uploads with the prefix that no request holds, until ``keep`` are left."""
        found = [name for name in self.uploads if name.startswith(prefix)]
        free = sorted((name for name in found if name not in self._held), key=self._began.__getitem__)
        for name in free[: max(0, len(found) - keep)]:
            del self.uploads[name]

    async def check(self) -> None:
        """Do nothing: memory always works."""

    def close(self, seconds: float = 0.0) -> bool:  # noqa: ARG002 - as of every store
        """Do nothing."""
        return True
