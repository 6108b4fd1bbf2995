"""Blobs as files of one folder.

::

    uploads/<upload>                        what has arrived of an upload, held by an flock while a request appends
    blobs/<algorithm>/<2 hex>/<hex>.<unique>    a blob; the file never changes

A commit writes nothing: it syncs the upload's file, renames it, and syncs the folder and each parent that is new.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import os
import secrets
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, TypeVar

from polly_dockers.blobs.store import BlobMissing
from polly_dockers.errors import BlobUploadUnknown, StorageFull, TooManyRequests
from polly_dockers.model import Digest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence
    from pathlib import Path

    from polly_dockers.blobs.store import Hasher

T = TypeVar("T")

THREADS: Final = 8
READ: Final = 1 << 20
PATIENCE: Final = 5.0
"""Seconds to wait for a request that still holds the upload: a client that lost its connection comes back quickly."""


@contextlib.contextmanager
def _disk() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        msg = "The server's disk has no room or does not answer; nothing was changed."
        raise StorageFull(msg) from error


class FileSegment:
    """The open end of an upload's file."""

    def __init__(self, run: Callable[..., Any], fd: int, offset: int) -> None:
        self._run_in_thread = run
        self._fd = fd
        self._offset = offset

    async def write(self, data: Sequence[bytes], hasher: Hasher | None) -> None:
        """Append on a thread, hashing the same bytes there."""
        await self._run_in_thread(self._write, data, hasher)

    def _write(self, data: Sequence[bytes], hasher: Hasher | None) -> None:
        with _disk():
            for piece in data:
                view = memoryview(piece)
                while view:
                    written = os.pwrite(self._fd, view, self._offset)
                    self._offset += written
                    view = view[written:]
        if hasher is not None:
            for piece in data:
                hasher.update(piece)


class FileBlob:
    """A blob's file, open."""

    def __init__(self, run: Callable[..., Any], fd: int) -> None:
        self._run_in_thread = run
        self._fd = fd
        self.size = os.fstat(fd).st_size

    def fileno(self) -> int | None:
        """The descriptor, for sendfile."""
        return self._fd

    async def read(self, offset: int, length: int) -> bytes:
        """Read on a thread: the file may not be in memory."""
        data: bytes = await self._run_in_thread(os.pread, self._fd, length, offset)
        return data

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)


class FileBlobStore:
    """A BlobStore in a folder of a local file system, shared by the processes of one machine."""

    def __init__(self, folder: Path) -> None:
        self._blobs = folder / "blobs"
        self._uploads = folder / "uploads"
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="polly-files")
        for made in (self._blobs, self._uploads):
            made.mkdir(mode=0o700, exist_ok=True)
        _sync_folder(folder)

    async def _run(self, fn: Callable[..., T], *args: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, fn, *args)

    @contextlib.asynccontextmanager
    async def append(self, upload: str, offset: int) -> AsyncIterator[FileSegment]:
        """Open the upload's file, lock it, and cut it to ``offset``."""
        with _disk():
            fd = os.open(self._uploads / upload, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            await _lock(fd)
            with _disk():
                present = os.fstat(fd).st_size
                if present > offset:
                    os.ftruncate(fd, offset)
            if present < offset:
                raise _gone()
            yield FileSegment(self._run, fd, offset)
        finally:
            os.close(fd)

    async def digest(self, upload: str, algorithm: str, size: int) -> Digest:
        """Read the upload's file again."""
        return await self._run(self._digest, upload, algorithm, size)

    def _digest(self, upload: str, algorithm: str, size: int) -> Digest:
        hasher = hashlib.new(algorithm)
        try:
            with _disk(), (self._uploads / upload).open("rb") as file:
                while size and (piece := file.read(min(READ, size))):
                    hasher.update(piece)
                    size -= len(piece)
        except FileNotFoundError:
            if size:
                raise _gone() from None
        if size:
            raise _gone()
        return Digest(f"{algorithm}:{hasher.hexdigest()}")

    async def commit(self, upload: str, digest: Digest, size: int) -> str:
        """Sync, rename, sync the folders."""
        return await self._run(self._commit, upload, digest, size)

    def _commit(self, upload: str, digest: Digest, size: int) -> str:
        key = f"{digest.algorithm}/{digest.hex[:2]}/{digest.hex}.{secrets.token_hex(8)}"
        target = self._blobs / key
        source = self._uploads / upload
        with _disk():
            fd = os.open(source, os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if size == 0 else 0), 0o600)
            try:
                present = os.fstat(fd).st_size
                if present < size:
                    raise _gone()
                if present > size:
                    os.ftruncate(fd, size)
                os.fsync(fd)
            finally:
                os.close(fd)
            for folder in (target.parent.parent, target.parent):
                with contextlib.suppress(FileExistsError):
                    folder.mkdir(mode=0o700)
                    _sync_folder(folder.parent)
            source.rename(target)
            _sync_folder(target.parent)
        return key

    async def abort(self, upload: str) -> None:
        """Unlink the upload's file."""
        await self._run(self._unlink, self._uploads / upload)

    async def open(self, key: str) -> FileBlob:
        """Open the file; in the usual case that touches no disk, so it needs no thread."""
        try:
            fd = os.open(self._blobs / key, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise BlobMissing(key) from None
        return FileBlob(self._run, fd)

    async def delete(self, key: str) -> None:
        """Unlink the blob's file."""
        await self._run(self._unlink, self._blobs / key)

    @staticmethod
    def _unlink(path: Path) -> None:
        with _disk(), contextlib.suppress(FileNotFoundError):
            path.unlink()

    async def check(self) -> None:
        """Write a file, sync it, and take it away again."""
        await self._run(self._check)

    def _check(self) -> None:
        probe = self._uploads / f"check-{secrets.token_hex(8)}"
        with _disk():
            try:
                fd = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
                try:
                    os.write(fd, b"\0")
                    os.fsync(fd)
                finally:
                    os.close(fd)
            finally:
                probe.unlink(missing_ok=True)

    def close(self) -> None:
        """Wait for the threads."""
        self._pool.shutdown()


def _gone() -> BlobUploadUnknown:
    return BlobUploadUnknown("The bytes of this upload are not here any more; start it again.")


async def _lock(fd: int) -> None:
    """Wait for the request that holds the upload; its lock dies with its descriptor."""
    deadline = asyncio.get_running_loop().time() + PATIENCE
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if asyncio.get_running_loop().time() > deadline:
                msg = "Another request is still sending bytes of this upload; wait for it, or start a new one."
                raise TooManyRequests(msg, retry_after=1) from None
            await asyncio.sleep(0.02)
        else:
            return


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
