"""Blobs as files of one folder.

::

    uploads/<upload>                        what has arrived of an upload, held by an flock while a request appends
    blobs/<algorithm>/<2 hex>/<hex>.<unique>    a blob; the file never changes

A commit writes nothing: it syncs the upload's file, renames it, and syncs the folder and each parent that is new.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import hashlib
import os
import secrets
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, TypeVar

from polly_dockers.blobs import kernel
from polly_dockers.blobs.store import BlobMissing
from polly_dockers.errors import BlobUploadUnknown, StorageFull, TooManyRequests, Unavailable
from polly_dockers.model import Digest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence
    from pathlib import Path

    from polly_dockers.blobs.store import Hasher

T = TypeVar("T")

THREADS: Final = 8
WRITE_EVERY: Final = 32 << 20
"""Bytes of a large upload after which the disk begins to write them, so that the sync at its end has little to do."""
READ: Final = 1 << 20
AHEAD: Final = 8 << 20
"""Bytes that the disk reads ahead of a pull of what is not in memory."""
PATIENCE: Final = 5.0
"""Seconds to wait for a request that still holds the upload: a client that lost its connection comes back quickly."""


@contextlib.contextmanager
def _disk() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EIO}:
            msg = "The server's disk has no room or does not answer; nothing was changed."
            raise StorageFull(msg) from error
        msg = "The server can't use its disk now; nothing was changed."
        raise Unavailable(msg) from error


class FileSegment:
    """The open end of an upload's file, locked."""

    def __init__(self, store: FileBlobStore, path: Path, fd: int, offset: int) -> None:
        self._store = store
        self._path = path
        self._fd = fd
        self._offset = offset
        self._given = offset

    async def write(self, data: Sequence[bytes], hasher: Hasher | None) -> None:
        """Append on a thread, hashing the same bytes there."""
        await self._store.run(self._write, data, hasher)

    def _write(self, data: Sequence[bytes], hasher: Hasher | None) -> None:
        with _disk():
            for piece in data:
                view = memoryview(piece)
                while view:
                    written = os.pwrite(self._fd, view, self._offset)
                    self._offset += written
                    view = view[written:]
        if self._offset - self._given >= WRITE_EVERY:
            kernel.begin_writing(self._fd, self._given, self._offset - self._given)
            self._given = self._offset
        if hasher is not None:
            for piece in data:
                hasher.update(piece)

    async def digest(self, algorithm: str) -> Digest:
        """Read the file again on a thread."""
        return await self._store.run(self._digest, algorithm)

    def _digest(self, algorithm: str) -> Digest:
        hasher = hashlib.new(algorithm)
        at = 0
        with _disk():
            while at < self._offset:
                piece = os.pread(self._fd, min(READ, self._offset - at), at)
                hasher.update(piece)
                at += len(piece)
        return Digest(f"{algorithm}:{hasher.hexdigest()}")

    async def commit(self, digest: Digest) -> str:
        """Sync, rename, sync the folders, on a thread."""
        return await self._store.run(self._commit, digest)

    def _commit(self, digest: Digest) -> str:
        key = f"{digest.algorithm}/{digest.hex[:2]}/{digest.hex}.{secrets.token_hex(8)}"
        target = self._store.blobs / key
        with _disk():
            if os.fstat(self._fd).st_size != self._offset:
                os.ftruncate(self._fd, self._offset)
            os.fsync(self._fd)
            self._store.make_folders(target)
            try:
                self._path.rename(target)
            except FileNotFoundError:
                raise _gone() from None
            _sync_folder(target.parent)
        return key


class FileBlob:
    """A blob's file, open."""

    def __init__(self, store: FileBlobStore, fd: int) -> None:
        self._store = store
        self._fd = fd
        self.size = os.fstat(fd).st_size

    def fileno(self) -> int | None:
        """The descriptor, for sendfile."""
        return self._fd

    async def read(self, offset: int, length: int) -> bytes:
        """Read; on a thread where the bytes are not in memory."""
        if (data := kernel.read_cached(self._fd, length, offset)) is not None:
            return data
        return await self._store.run(os.pread, self._fd, length, offset)

    async def warm(self, offset: int, length: int) -> None:
        """Have a range in memory, and let the disk go on with what follows; on a thread where a disk is asked."""
        if not kernel.is_cached(self._fd, offset, length):
            await self._store.run(self._warm, offset, length)

    def _warm(self, offset: int, length: int) -> None:
        os.posix_fadvise(self._fd, offset + length, AHEAD, os.POSIX_FADV_WILLNEED)
        with _disk():
            os.pread(self._fd, length, offset)

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)


class FileBlobStore:
    """A BlobStore in a folder of a local file system, shared by the processes of one machine."""

    def __init__(self, folder: Path) -> None:
        self.blobs = folder / "blobs"
        self._blobs = str(self.blobs)
        self._uploads = folder / "uploads"
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="polly-files")
        self._durable: set[Path] = set()
        for made in (self.blobs, self._uploads):
            made.mkdir(mode=0o700, exist_ok=True)
        _sync_folder(folder)

    async def run(self, fn: Callable[..., T], *args: object) -> T:
        """``fn(*args)`` on one of the store's threads.

        A caller that is cancelled waits for it all the same, so that no descriptor is closed under a thread.
        """
        future = asyncio.get_running_loop().run_in_executor(self._pool, fn, *args)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            while not future.done():
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait([future])
            raise

    def make_folders(self, target: Path) -> None:
        """Make the folders of a blob durable. Another process may have made one and not synced it yet."""
        for folder in (target.parent.parent, target.parent):
            if folder not in self._durable:
                with contextlib.suppress(FileExistsError):
                    folder.mkdir(mode=0o700)
                _sync_folder(folder.parent)
                self._durable.add(folder)

    @contextlib.asynccontextmanager
    async def append(self, upload: str, offset: int) -> AsyncIterator[FileSegment]:
        """Open the upload's file and lock it. What lies beyond ``offset`` is written over, or cut off by commit."""
        fd = await self._hold(path := self._uploads / upload, make=offset == 0)
        try:
            if os.fstat(fd).st_size < offset:
                raise _gone()
            yield FileSegment(self, path, fd, offset)
        finally:
            os.close(fd)

    async def _hold(self, path: Path, *, make: bool) -> int:
        """The upload's file, locked. The lock dies with its descriptor, and so with its process."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + PATIENCE
        while True:
            try:
                with _disk():
                    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if make else 0), 0o600)
            except FileNotFoundError:
                raise _gone() from None
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is_still(path, fd):
                    return fd
            except (BlockingIOError, FileNotFoundError):
                pass  # another request holds it, or has just made a blob of it
            os.close(fd)
            if clock() > deadline:
                msg = "Another request is still sending bytes of this upload; wait for it, or start a new one."
                raise TooManyRequests(msg, retry_after=1)
            await asyncio.sleep(0.02)

    async def abort(self, upload: str) -> None:
        """Unlink the upload's file."""
        await self.run(self._unlink, self._uploads / upload)

    async def open(self, key: str) -> FileBlob:
        """Open the file; on a thread where a disk has to be asked."""
        path = f"{self._blobs}/{key}"
        try:
            fd = kernel.open_cached(path)
            if fd is None:
                fd = await self.run(os.open, path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise BlobMissing(key) from None
        return FileBlob(self, fd)

    async def delete(self, key: str) -> None:
        """Unlink the blob's file."""
        await self.run(self._unlink, self.blobs / key)

    @staticmethod
    def _unlink(path: Path) -> None:
        with _disk(), contextlib.suppress(FileNotFoundError):
            path.unlink()

    async def check(self) -> None:
        """Write a file, sync it, and take it away again."""
        await self.run(self._check)

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


def _is_still(path: Path, fd: int) -> bool:
    """Whether the path names the file that is open: another request may have made a blob of it."""
    return path.stat().st_ino == os.fstat(fd).st_ino


def _gone() -> BlobUploadUnknown:
    return BlobUploadUnknown("The bytes of this upload are not here any more; start it again.")


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
