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

    def __init__(self, data: bytearray) -> None:
        self._data = data

    async def write(self, data: Sequence[bytes], hasher: Hasher | None) -> None:
        """Append."""
        for piece in data:
            self._data += piece
            if hasher is not None:
                hasher.update(piece)


class MemoryBlob:
    """Bytes that are open."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size = len(data)

    def fileno(self) -> int | None:
        """No file."""
        return None

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
        data = self.uploads.setdefault(upload, bytearray())
        if len(data) < offset:
            raise _gone()
        del data[offset:]
        self._held.add(upload)
        try:
            yield MemorySegment(data)
        finally:
            self._held.discard(upload)

    async def digest(self, upload: str, algorithm: str, size: int) -> Digest:
        """Hash the bytes again."""
        return Digest(f"{algorithm}:{hashlib.new(algorithm, self._first(upload, size)).hexdigest()}")

    async def commit(self, upload: str, digest: Digest, size: int) -> str:
        """Move the bytes under a new key."""
        key = f"{digest.algorithm}/{digest.hex[:2]}/{digest.hex}.{secrets.token_hex(8)}"
        self.blobs[key] = self._first(upload, size)
        self.uploads.pop(upload, None)
        return key

    def _first(self, upload: str, size: int) -> bytes:
        data = self.uploads.get(upload, bytearray())
        if len(data) < size:
            raise _gone()
        return bytes(data[:size])

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
