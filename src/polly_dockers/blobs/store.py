"""What a store of blobs guarantees; tests/contract holds every implementation to it.

* A key is never used twice. It tells the digest, so the rows of blobs can be rebuilt from the store.
* What ``finish`` has returned a key for is on the disk: it survives the power going away.
* A blob that is open can be read to its end, whatever happens to its key meanwhile.
* An upload that was never finished is invisible, and ``abort`` gives its space back. The store keeps how far it is,
  for every process; the power going away may take that, and then the upload with it, but never make a wrong blob.
* A disk that is full or broken raises StorageFull and leaves nothing half-done under a key.
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
    """What ``hashlib`` makes; ``update`` runs on a thread of the store."""

    def update(self, data: bytes, /) -> None:
        """Take the next bytes."""
        ...

    def hexdigest(self) -> str:
        """The digest of all bytes so far, in lower-case hexadecimal."""
        ...


class Segment(Protocol):
    """The end of an upload, held by one request at a time."""

    @property
    def size(self) -> int:
        """Bytes of the upload when this request came to hold it."""
        ...

    async def write(self, data: Sequence[bytes], hasher: Hasher | None) -> None:
        """Append, and let the hasher take the same bytes on the way; not durable before ``finish``."""
        ...

    async def keep(self, data: Sequence[bytes], hasher: Hasher | None) -> int:
        """Append the last of this request, and note how far the upload is, with its digest; its size now.

        Raises BlobUploadUnknown where it was aborted meanwhile.
        """
        ...

    async def cut(self) -> None:
        """Forget what this request appended."""
        ...

    async def finish(self, data: Sequence[bytes], hasher: Hasher | None, digest: Digest) -> tuple[str, int]:
        """Append the last bytes, and make the upload durable under a new key; the key and its size. The upload is over.

        ``hasher`` is a SHA-256 of all its bytes before ``data``, where the caller has one; else the store looks for
        what was noted, or reads them again. Raises DigestInvalid where the digest is another, and then has forgotten
        what this request appended, or ended the upload where it had to read much of it for that; BlobUploadUnknown
        where the upload was aborted meanwhile.
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


@dataclass(frozen=True, slots=True)
class Stored:
    """A key of the store."""

    key: str
    size: int
    age: float
    """Seconds since its upload was finished."""


class BlobStore(Protocol):
    """Where bytes are kept."""

    async def start(self, upload: str) -> None:
        """Begin an upload under a name that no other has had."""
        ...

    async def size(self, upload: str) -> int:
        """How many bytes of the upload are here; raises BlobUploadUnknown where it is over, or never began.

        Where another request holds it, that is waited for a little: it may be writing the last of what came.
        """
        ...

    def append(self, upload: str) -> AbstractAsyncContextManager[Segment]:
        """Hold the upload and continue it.

        Raises TooManyRequests while another request holds it, BlobUploadUnknown where there is no such upload.
        """
        ...

    async def abort(self, upload: str) -> bool:
        """Forget the upload; False where there is none."""
        ...

    async def open(self, key: str) -> Blob:
        """The blob under the key; raises BlobMissing."""
        ...

    async def delete(self, key: str) -> None:
        """Give the space of the key back; one that is not there is no error."""
        ...

    async def delete_all(self, keys: Sequence[str]) -> int:
        """Give the space of many keys back; how many bytes that were."""
        ...

    async def set_aside(self, key: str) -> None:
        """Keep the bytes of the key where nothing reads or deletes them; one that is not there is no error."""
        ...

    def parts(self) -> Sequence[str]:
        """The parts that the keys of the store can be listed by."""
        ...

    async def keys(self, part: str) -> Sequence[Stored]:
        """The keys of a part."""
        ...

    async def abandoned(self, seconds: float, *, delete: bool) -> tuple[int, int]:
        """How many uploads no request has touched for so long, and their bytes; with ``delete``, they are over."""
        ...

    async def trim(self, prefix: str, keep: int) -> None:
        """End uploads whose names begin so, those untouched for longest first, until ``keep`` are left.

        One that a request holds goes on.
        """
        ...

    async def check(self) -> None:
        """Raise Unavailable or StorageFull where a blob could not be written now."""
        ...

    def close(self) -> None:
        """Let go of threads and files."""
        ...


def gone() -> BlobUploadUnknown:
    """What is raised for an upload that is not there."""
    msg = "There is no such upload of yours in this repository: it is over, or was cancelled. Start a new one."
    return BlobUploadUnknown(msg)


def held() -> TooManyRequests:
    """What is raised for an upload that another request holds."""
    msg = "Another request is still sending bytes of this upload; wait for it, or start a new one."
    return TooManyRequests(msg, retry_after=1)


def check_digest(computed: str, given: Digest) -> None:
    """Raise DigestInvalid where the bytes of an upload have another digest than the client's."""
    if computed != given:
        msg = f"The bytes that arrived have the digest {computed}, not {given}; nothing was stored."
        raise DigestInvalid(msg, detail={"computed": computed, "given": given})


class BlobMissing(Exception):
    """A row names a key that the store does not have: a fault that ``check`` finds, never a client's."""
