"""Blobs in memory: the smallest BlobStore, for tests of use cases and as the measure of the contract."""

from __future__ import annotations

import contextlib
import hashlib
import secrets
from typing import TYPE_CHECKING

from polly_dockers.blobs.store import BlobMissing
from polly_dockers.errors import BlobUploadUnknown, TooManyRequests
from polly_dockers.model import Digest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from polly_dockers.blobs.store import Hasher


class MemorySegment:
    """The end of a bytearray."""

    def __init__(self, store: MemoryBlobStore, upload: str, offset: int) -> None:
        self._store = store
        self._upload = upload
        self._offset = offset

    async def write(self, data: Sequence[bytes], hasher: Hasher | None) -> None:
        """Append."""
        for piece in data:
            self._store.uploads[self._upload][self._offset :] = piece
            self._offset += len(piece)
            if hasher is not None:
                hasher.update(piece)

    async def digest(self, algorithm: str) -> Digest:
        """Hash the bytes again."""
        return Digest(f"{algorithm}:{hashlib.new(algorithm, self._bytes()).hexdigest()}")

    async def commit(self, digest: Digest) -> str:
        """Move the bytes under a new key."""
        key = f"{digest.algorithm}/{digest.hex[:2]}/{digest.hex}.{secrets.token_hex(8)}"
        self._store.blobs[key] = self._bytes()
        del self._store.uploads[self._upload]
        return key

    def _bytes(self) -> bytes:
        return bytes(self._store.uploads[self._upload][: self._offset])


class MemoryBlob:
    """Bytes that are open."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size = len(data)

    def fileno(self) -> int | None:
        """No file."""
        return None

    async def warm(self, offset: int, length: int) -> None:
        """It is."""

    async def read(self, offset: int, length: int) -> bytes:
        """A slice."""
        return self._data[offset : offset + length]

    def close(self) -> None:
        """Nothing to let go of."""


class MemoryBlobStore:
    """A BlobStore that lives as long as its process."""

    def __init__(self) -> None:
        self.uploads: dict[str, bytearray] = {}
        self.blobs: dict[str, bytes] = {}
        self._held: set[str] = set()

    @contextlib.asynccontextmanager
    async def append(self, upload: str, offset: int) -> AsyncIterator[MemorySegment]:
        """Hold the upload by its name."""
        if upload in self._held:
            msg = "Another request is still sending bytes of this upload; wait for it, or start a new one."
            raise TooManyRequests(msg, retry_after=1)
        if len(self.uploads.get(upload, b"")) < offset:
            raise _gone()
        self.uploads.setdefault(upload, bytearray())
        self._held.add(upload)
        try:
            yield MemorySegment(self, upload, offset)
        finally:
            self._held.discard(upload)

    async def abort(self, upload: str) -> None:
        """Forget the upload."""
        self.uploads.pop(upload, None)

    async def open(self, key: str) -> MemoryBlob:
        """The bytes under the key."""
        try:
            return MemoryBlob(self.blobs[key])
        except KeyError:
            raise BlobMissing(key) from None

    async def delete(self, key: str) -> None:
        """Forget the key."""
        self.blobs.pop(key, None)

    async def check(self) -> None:
        """Memory is there."""

    def close(self) -> None:
        """Nothing to let go of."""


def _gone() -> BlobUploadUnknown:
    return BlobUploadUnknown("The bytes of this upload are not here any more; start it again.")
