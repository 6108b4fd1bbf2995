"""What a store of blobs guarantees; tests/contract holds every implementation to it.

* A key is never used twice. It tells the digest, so the rows of blobs can be rebuilt from the store.
* What ``commit`` has returned a key for is on the disk: it survives the power going away.
* A blob that is open can be read to its end, whatever happens to its key meanwhile.
* An upload that was never committed is invisible, and ``abort`` gives its space back.
* A disk that is full or broken raises StorageFull and leaves nothing half-done under a key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractAsyncContextManager

    from polly_dockers.model import Digest


class Hasher(Protocol):
    """What ``hashlib`` makes; ``update`` runs on a thread of the store."""

    def update(self, data: bytes, /) -> None:
        """Take the next bytes."""
        ...

    def hexdigest(self) -> str:
        """The digest of all bytes so far, in lower-case hexadecimal."""
        ...


class Segment(Protocol):
    """The end of an upload, held by one request at a time."""

    async def write(self, data: Sequence[bytes], hasher: Hasher | None) -> None:
        """Append, and let the hasher take the same bytes on the way; not durable before ``commit``."""
        ...

    async def digest(self, algorithm: str) -> Digest:
        """The digest of the whole upload up to here, read again."""
        ...

    async def commit(self, digest: Digest) -> str:
        """Make the upload up to here durable under a new key, and return the key; the upload is over.

        The caller vouches for the digest.
        """
        ...


class Blob(Protocol):
    """A blob that is open for reading."""

    @property
    def size(self) -> int:
        """Bytes in all."""
        ...

    def fileno(self) -> int | None:
        """The file that the kernel may send from, or None where there is no file."""
        ...

    async def read(self, offset: int, length: int) -> bytes:
        """Up to ``length`` bytes from ``offset``; fewer only at the end."""
        ...

    async def warm(self, offset: int, length: int) -> None:
        """Return once the kernel can send the range from ``fileno`` without waiting for a disk."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


class BlobStore(Protocol):
    """Where bytes are kept."""

    def append(self, upload: str, offset: int) -> AbstractAsyncContextManager[Segment]:
        """Hold the upload and continue it at ``offset``; bytes beyond it are forgotten.

        Raises TooManyRequests while another request holds it, BlobUploadUnknown where fewer bytes are there.
        """
        ...

    async def abort(self, upload: str) -> None:
        """Forget the upload; one that is not there is no error."""
        ...

    async def open(self, key: str) -> Blob:
        """The blob under the key; raises BlobMissing."""
        ...

    async def delete(self, key: str) -> None:
        """Give the space of the key back; one that is not there is no error."""
        ...

    async def check(self) -> None:
        """Raise Unavailable or StorageFull where a blob could not be written now."""
        ...

    def close(self) -> None:
        """Let go of threads and files."""
        ...


class BlobMissing(Exception):
    """A row names a key that the store does not have: a fault that ``check`` finds, never a client's."""
