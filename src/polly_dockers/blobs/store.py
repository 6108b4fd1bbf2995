"""What a store of blobs guarantees. The contract tests check it for every implementation.

* A storage key is never used twice. It contains the digest, so the rows of blobs can be rebuilt from the store.
* When ``finish`` has returned a storage key, the blob is on the disk and survives a power failure.
* An open blob can be read to its end, even if its key is deleted meanwhile.
* An upload that was never finished is invisible, and ``abort`` frees its space. All processes know its size. A power
  failure may lose the upload, but never makes a wrong blob.
* If the disk is full or broken, StorageFull is raised, and no incomplete blob has a key.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from polly_dockers.errors import BlobUploadUnknown, DigestInvalid, TooManyRequests

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractAsyncContextManager

    from polly_dockers.model import Digest


class Hasher(Protocol):
    """A hash object of ``hashlib``. The store calls ``update`` on a thread."""

    def update(self, data: bytes, /) -> None:
        """Hash the next bytes."""

    def hexdigest(self) -> str:
        """The digest of all bytes so far, in lower-case hexadecimal."""


class Segment(Protocol):
    """The end of an upload, held by one request at a time."""

    @property
    def size(self) -> int:
        """The size of the upload in bytes when this request began to hold it."""

    async def write(self, data: Sequence[bytes], hasher: Hasher | None) -> None:
        """Append bytes, and hash them as well. They are not durable before ``finish``."""

    async def keep(self, data: Sequence[bytes], hasher: Hasher | None) -> int:
        """Append the last bytes of this request, and store the size and digest; returns the size.

        Raises BlobUploadUnknown if the upload was aborted meanwhile.
        """

    async def cut(self) -> None:
        """Remove what this request appended."""

    async def finish(self, data: Sequence[bytes], hasher: Hasher | None, digest: Digest) -> tuple[str, int]:
        """Append the last bytes and make a durable blob; returns its new storage key and its size. The upload ends.

        ``hasher`` is the SHA-256 of all bytes before ``data``, if the caller has it. Otherwise the store uses the
        digest that ``keep`` stored, or reads the bytes again.

        Raises DigestInvalid if the digest differs, and StorageFull or Unavailable if the disk or the server fails.
        Then what this request appended is removed, so that it can be repeated. But the upload is ended if bytes of it
        may be lost, or if the digest differs and much of it had to be read again. Raises BlobUploadUnknown if the
        upload was aborted meanwhile.
        """


class Blob(Protocol):
    """A blob that is open for reading."""

    @property
    def size(self) -> int:
        """Its size in bytes."""

    def fileno(self) -> int | None:
        """The descriptor for sendfile; None if the store has no files."""

    async def read(self, offset: int, length: int) -> bytes:
        """Read ``length`` bytes at ``offset``; fewer only at the end of the blob."""

    async def warm(self, offset: int, length: int) -> None:
        """Load a range into memory, so that sendfile does not wait for a disk."""

    def close(self) -> None:
        """Close the blob."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A blob of the store, by its storage key."""

    key: str
    size: int
    age: float
    """Seconds since its upload was finished."""


class BlobStore(Protocol):
    """Where the bytes of blobs are stored."""

    async def start(self, upload: str) -> None:
        """Begin an upload under a new name. Raises Unavailable if the disk does not answer in time."""

    async def size(self, upload: str) -> int:
        """The size of the upload in bytes. Raises BlobUploadUnknown if there is no such upload.

        If another request holds the upload, this waits a little: that may be writing its last bytes.
        """

    def append(self, upload: str) -> AbstractAsyncContextManager[Segment]:
        """Hold the upload and continue it until the end of the block.

        Raises TooManyRequests while another request holds it, and BlobUploadUnknown if there is no such upload. Raises
        Unavailable or StorageFull, and ends the upload, if the disk has lost bytes of earlier requests.
        """

    async def abort(self, upload: str) -> bool:
        """Delete the upload; False if there is none."""

    async def open(self, key: str) -> Blob:
        """Open the blob of a storage key. Raises BlobMissing."""

    async def delete(self, key: str) -> None:
        """Delete a blob; a missing one is no error."""

    async def delete_all(self, keys: Sequence[str]) -> int:
        """Delete many blobs; returns how many bytes that freed."""

    async def set_aside(self, key: str) -> None:
        """Move a damaged blob to where nothing reads or deletes it; a missing one is no error."""

    def parts(self) -> Sequence[str]:
        """The parts in which the storage keys can be listed."""

    async def keys(self, part: str) -> Sequence[Stored]:
        """The blobs of a part."""

    async def abandoned(self, seconds: float, *, delete: bool) -> tuple[int, int]:
        """The number and bytes of uploads that no request has used for so long; with ``delete`` they are deleted."""

    async def trim(self, prefix: str, keep: int) -> None:
        """Delete the oldest uploads whose names have a prefix, until ``keep`` are left.

        Uploads that a request holds are not deleted.
        """

    async def check(self) -> None:
        """Raise Unavailable or StorageFull if a blob could not be written now."""

    def close(self, seconds: float = ...) -> bool:
        """Release threads and files; False if threads are still busy after so many seconds, as while the disk hangs."""


def upload_missing() -> BlobUploadUnknown:
    """The error for a missing upload."""
    msg = "You have no such upload in this repository: it has ended, or was cancelled. Start a new one."
    return BlobUploadUnknown(msg)


def upload_held() -> TooManyRequests:
    """The error for an upload that another request holds."""
    msg = "Another request is still sending bytes of this upload; wait for it, or start a new one."
    return TooManyRequests(msg, retry_after=1)


def check_digest(computed: str, given: Digest) -> None:
    """Raise DigestInvalid if the bytes of an upload do not match the digest of the client."""
    if computed != given:
        msg = f"The bytes that arrived have the digest {computed}, not {given}. Nothing was stored."
        raise DigestInvalid(msg, detail={"computed": computed, "given": given})


class BlobMissing(Exception):
    """A row names a storage key that the store lacks: damage that polly-server check finds, not a client's error."""
