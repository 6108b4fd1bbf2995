"""A store of blobs as files in a folder.

::

    uploads/<upload>                            the bytes of an upload so far; locked while a request appends
    blobs/<algorithm>/<2 hex>/<hex>.<unique>    a blob; the file never changes
    damaged/                                    damaged blobs that a check has set aside

Finishing an upload copies nothing: it syncs the upload's file, renames it, and syncs the folder and each new parent.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import secrets
import stat
import threading
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from polly_dockers.blobs import files, linux, threads, upload_digest
from polly_dockers.blobs.finisher import Complete, Finisher
from polly_dockers.blobs.store import BlobMissing, Stored, check_digest, upload_held, upload_missing
from polly_dockers.blobs.threads import Threads
from polly_dockers.errors import PollyError, TooManyRequests, Unavailable
from polly_dockers.model import Digest
from polly_dockers.system import disk, durable, locks

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from polly_dockers.blobs.store import Hasher

ALONE: Final = threads.FILES
"""So many uploads sync their own files at the same time, which takes them less time. Only more share their syncs."""
WRITE_EVERY: Final = 32 << 20
"""After so many bytes of an upload the disk begins to write them, so that the sync at the end is short."""
JOIN: Final = 1 << 18
"""Pieces are joined up to so many bytes before they are written: each call releases the interpreter's lock."""
READ: Final = 1 << 20
AGAIN: Final = 1 << 20
"""Uploads up to so many bytes may be read again for each digest that a client tries: it costs less than a sync."""
AHEAD: Final = 8 << 20
"""How many bytes the disk reads ahead of a pull, if they are not in memory."""
PATIENCE: Final = 5.0
"""Seconds to wait for a request that holds the upload: a client that lost its connection comes back quickly."""


class FileSegment:
    """The open end of an upload's file, locked."""

    def __init__(self, store: FileBlobStore, path: Path, fd: int) -> None:
        self._store = store
        self._path = path
        self._fd = fd
        self.size = os.fstat(fd).st_size
        self._offset = self._given = self.size
        self._unchecked = False  # True: earlier bytes have left memory, and no digest of them is stored

    async def check_kept(self) -> None:
        """Read the bytes of earlier requests again if they have left memory, and compare them with their digest.

        A disk may lose bytes after they were written to memory, which the file then reports to the sync. But if nobody
        has the file open, Linux may drop it from memory, together with that error. Then its last byte has left memory
        too, as nobody reads an upload. Without a stored digest, a caller's hasher has it, or ``finish`` reads all.

        Raises Unavailable or StorageFull if bytes are lost; the upload is deleted.
        """
        if self.size and linux.has_left_memory(self._fd, self.size - 1):
            if known := upload_digest.read(self._fd, self.size):
                await self._store.threads.run_apart(self._check_kept, Digest(f"sha256:{known}"))
            self._unchecked = not known

    async def _check_hashed(self, hasher: Hasher | None) -> None:
        """Compare the bytes of earlier requests with what a hasher got of them, if that was not done before."""
        if self._unchecked and hasher is not None:
            await self._store.threads.run_apart(self._check_kept, Digest(f"sha256:{hasher.hexdigest()}"))
            self._unchecked = False

    def _check_kept(self, known: Digest) -> None:
        """Read the bytes, and delete the upload if they have another digest or can't be read.

        A later request would not notice: some of the bytes are in memory now, as if Linux had never dropped the file.
        """
        try:
            if self._read_again(known) == known.hex:
                return
            msg = "The server's disk may have lost bytes of this upload. Push it again."
            raise Unavailable(msg)
        except PollyError:
            with contextlib.suppress(OSError):
                self._path.unlink()
            raise

    async def write(self, data: Sequence[bytes], hasher: Hasher | None) -> None:
        """Append on a thread, hashing the same bytes there."""
        await self._check_hashed(hasher)
        await self._store.threads.run(self._write, data, hasher)

    def _write(self, data: Sequence[bytes], hasher: Hasher | None) -> None:
        if sum(map(len, data)) <= JOIN:
            data = [b"".join(data)]
        try:
            with disk.reporting():
                for piece in data:
                    self._write_piece(piece)
        except PollyError:
            self._cut()
            raise
        if self._offset - self._given >= WRITE_EVERY:
            linux.begin_writing(self._fd, self._given, self._offset - self._given)
            self._given = self._offset
        if hasher is not None:
            for piece in data:
                hasher.update(piece)

    def _write_piece(self, piece: bytes) -> None:
        view = memoryview(piece)
        while view:
            written = os.pwrite(self._fd, view, self._offset)
            self._offset += written
            view = view[written:]

    async def keep(self, data: Sequence[bytes], hasher: Hasher | None) -> int:
        """Append, and store size and digest, on a thread."""
        await self._check_hashed(hasher)
        return await self._store.threads.run(self._keep, data, hasher)

    def _keep(self, data: Sequence[bytes], hasher: Hasher | None) -> int:
        self._write(data, hasher)
        if hasher is not None:
            upload_digest.write(self._fd, self._offset, hasher.hexdigest())
        if os.fstat(self._fd).st_nlink == 0:
            raise upload_missing()
        return self._offset

    async def cut(self) -> None:
        """Shorten the file, on a thread."""
        await self._store.threads.run(self._cut)

    def _cut(self) -> None:
        with disk.reporting():
            os.ftruncate(self._fd, self.size)
        self._offset = self.size

    async def finish(self, data: Sequence[bytes], hasher: Hasher | None, digest: Digest) -> tuple[str, int]:
        """Append, check, sync, rename and sync the folders, on a thread; reading the file again has its own threads.

        If that fails, and the upload has not ended, it is as before this request: containerd and BuildKit repeat a PUT
        that got 500, 503 or 504, once, at the same address and with the same bytes. If the bytes of the failed one were
        kept, the digest would never match again; if the upload was deleted, they would give up at the 404.
        """
        try:
            return await self._finish(data, hasher, digest)
        except BaseException:
            await self._store.threads.run(self._undo)
            raise

    async def _finish(self, data: Sequence[bytes], hasher: Hasher | None, digest: Digest) -> tuple[str, int]:
        await self._check_hashed(hasher)
        known = None
        if hasher is None or digest.algorithm != "sha256":
            await self._store.threads.run(self._write, data, hasher)
            data = []
            known = upload_digest.read(self._fd, self._offset) if digest.algorithm == "sha256" else None
            known = known or await self._store.threads.run_apart(self._read_again, digest)
        blob = await self._store.finish(
            partial(self._complete, data, hasher, known, digest), self._offset + sum(map(len, data))
        )
        return blob.key, blob.size

    def _complete(self, data: Sequence[bytes], hasher: Hasher | None, known: str | None, digest: Digest) -> Complete:
        """Append the last bytes and check the digest, which is ``known`` or that of ``hasher``."""
        self._write(data, hasher)
        computed = known if known is not None or hasher is None else hasher.hexdigest()
        check_digest(f"{digest.algorithm}:{computed}", digest)
        key = files.new_key(digest)
        return Complete(self._fd, self._path, self._store.blobs / key, self._store.folder_of, key, self._offset)

    def _undo(self) -> None:
        """Remove what this request appended, or delete the upload if that fails. One that has ended is left alone."""
        with contextlib.suppress(OSError):
            try:
                self._path.stat()  # else the file is that of a blob, or of nothing
                os.ftruncate(self._fd, self.size)
            except OSError:
                self._path.unlink()

    def _read_again(self, digest: Digest) -> str:
        """The digest of the file, in hexadecimal. If it is not the given one, a large upload is deleted.

        Otherwise a client could have the same bytes read any number of times, by requests without a body.
        """
        again, at = hashlib.new(digest.algorithm), 0
        with disk.reporting():
            while at < self._offset:
                piece = os.pread(self._fd, min(READ, self._offset - at), at)
                if not piece:
                    self._path.unlink(missing_ok=True)
                    msg = f"The server has lost bytes of this upload: {at} of {self._offset} are left. Start a new one."
                    raise Unavailable(msg)
                again.update(piece)
                at += len(piece)
            computed = again.hexdigest()
            if computed != digest.hex and self._offset > AGAIN:
                self._path.unlink(missing_ok=True)
        return computed


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
        """Read; on a thread if the bytes are not in memory."""
        if (data := linux.read_cached(self._fd, length, offset)) is not None:
            return data
        return await self._store.threads.pull(os.pread, self._fd, length, offset)

    async def warm(self, offset: int, length: int) -> None:
        """Load a range into memory, and let the disk read what follows; on a thread if that needs the disk."""
        if not linux.is_cached(self._fd, offset, length):
            await self._store.threads.pull(self._warm, offset, length)

    def _warm(self, offset: int, length: int) -> None:
        os.posix_fadvise(self._fd, offset + length, AHEAD, os.POSIX_FADV_WILLNEED)
        with disk.reporting():
            os.pread(self._fd, length, offset)

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)


class FileBlobStore:
    """A BlobStore in a folder of a local file system, shared by the processes of one machine."""

    def __init__(self, folder: Path, *, make: bool = True) -> None:
        """``folder`` is the data folder; with ``make``, missing folders in it are made."""
        self.blobs = folder / "blobs"
        self._blobs = str(self.blobs)
        self._uploads = folder / "uploads"
        self._damaged = folder / "damaged"
        self.threads = Threads()
        self._finishing = 0
        """Uploads that are finished now."""
        self._finisher = Finisher(self.blobs, self.threads)
        self._folders: dict[str, int] = {}
        """Descriptors of the folders of blobs: 256 for each algorithm."""
        self._making = threading.Lock()
        if make:
            for made in (self.blobs, self._uploads):
                durable.make_folder(made, parents=False)

    async def finish(self, check: Callable[[], Complete], size: int) -> Complete:
        """Make a blob of an upload of ``size`` bytes, which ``check`` completes and checks, on a thread.

        Many small uploads that are finished at the same time share their syncs.
        """
        shares = self._finishing >= ALONE and self._finisher.takes(size)
        self._finishing += 1
        try:
            if shares:
                return await threads.end_of(self._finisher.put(check))
            return await self.threads.run(self._finisher.finish_alone, check)
        finally:
            self._finishing -= 1

    def folder_of(self, target: Path) -> int:
        """A descriptor of the folder of a blob. The folder is made and synced first, if it is missing."""
        name = str(target.parent)
        if (known := self._folders.get(name)) is not None:
            return known
        with self._making:
            if name not in self._folders:
                for folder in (target.parent.parent, target.parent):
                    durable.make_folder(folder, parents=False)
                self._folders[name] = durable.open_folder(target.parent)
            return self._folders[name]

    async def start(self, upload: str) -> None:
        """Make the upload's file, on a thread of its own.

        If that comes too late, the file is deleted later, as an upload that nobody continues.
        """
        await self.threads.start(self._start, self._uploads / upload)

    @staticmethod
    def _start(path: Path) -> None:
        with disk.reporting():
            linux.make_file(path)

    async def size(self, upload: str) -> int:
        """The size of the upload's file; waits a little for a request that holds it."""
        path = self._uploads / upload
        try:
            fd = await self._hold(path)
        except TooManyRequests:
            try:
                return await self.threads.run(lambda: path.stat().st_size)
            except FileNotFoundError:
                raise upload_missing() from None
        try:
            return os.fstat(fd).st_size
        finally:
            os.close(fd)

    @contextlib.asynccontextmanager
    async def append(self, upload: str) -> AsyncIterator[FileSegment]:
        """Open the upload's file, lock it, and check that the bytes of earlier requests are still there."""
        fd = await self._hold(path := self._uploads / upload)
        try:
            segment = FileSegment(self, path, fd)
            await segment.check_kept()
            yield segment
        finally:
            os.close(fd)

    @staticmethod
    async def _hold(path: Path) -> int:
        """Open and lock the upload's file; waits a little for a request that holds it."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + PATIENCE
        while (fd := _try_hold(path)) is None:
            if clock() > deadline:
                raise upload_held()
            await asyncio.sleep(0.02)
        return fd

    async def abort(self, upload: str) -> bool:
        """Delete the upload's file."""
        return await self.threads.run(self._unlink, self._uploads / upload)

    async def open(self, key: str) -> FileBlob:
        """Open the file; on a thread if that needs the disk."""
        path = f"{self._blobs}/{key}"
        if not files.is_key(key):
            raise BlobMissing(key)
        try:
            with disk.reporting():
                fd = linux.open_cached(path)
                fd = await self.threads.pull(files.open_file, path) if fd is None else files.only_file(fd, path)
        except FileNotFoundError:
            raise BlobMissing(key) from None
        return FileBlob(self, fd)

    async def delete(self, key: str) -> None:
        """Delete the blob's file."""
        await self.delete_all([key])

    async def delete_all(self, keys: Sequence[str]) -> int:
        """Delete many files on one thread."""
        return await self.threads.run(self._delete_all, keys)

    def _delete_all(self, keys: Sequence[str]) -> int:
        freed = 0
        with disk.reporting():
            for key in filter(files.is_key, keys):
                with contextlib.suppress(FileNotFoundError, IsADirectoryError):
                    size = (self.blobs / key).lstat().st_size
                    (self.blobs / key).unlink()
                    freed += size
        return freed

    async def set_aside(self, key: str) -> None:
        """Move the file to the folder ``damaged``."""
        if files.is_key(key):
            await self.threads.run(self._set_aside, key)

    def _set_aside(self, key: str) -> None:
        with disk.reporting(), contextlib.suppress(FileNotFoundError):
            durable.make_folder(self._damaged, parents=False)
            (self.blobs / key).rename(self._damaged / f"{key.replace('/', '-')}.{secrets.token_hex(4)}")
            durable.sync(self._damaged)

    def parts(self) -> Sequence[str]:
        """The folders of blobs, by algorithm and the first byte of the digest."""
        with disk.reporting():
            return files.parts(self.blobs)

    async def keys(self, part: str) -> Sequence[Stored]:
        """The files of blobs in a folder, also those that are being copied, on a thread."""
        return await self.threads.run(self._keys, part)

    def _keys(self, part: str) -> Sequence[Stored]:
        found = []
        with disk.reporting():
            for entry in files.of_part(self.blobs, part):
                with contextlib.suppress(FileNotFoundError):
                    status = entry.stat(follow_symlinks=False)
                    # a rename changes st_ctime, so this is when the upload was finished
                    found.append(Stored(f"{part}/{entry.name}", status.st_size, time.time() - status.st_ctime))
        return found

    async def abandoned(self, seconds: float, *, delete: bool) -> tuple[int, int]:
        """Count or delete uploads whose files were not written for so long and that nobody holds, on a thread."""
        return await self.threads.run(self._abandoned, seconds, delete)

    def _abandoned(self, seconds: float, delete: bool) -> tuple[int, int]:  # noqa: FBT001 - handed through by run
        count = size = 0
        if not self._uploads.exists():  # in a backup
            return count, size
        with disk.reporting(), os.scandir(self._uploads) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    status = entry.stat(follow_symlinks=False)
                    if not stat.S_ISREG(status.st_mode):  # such as lost+found, if a disk is mounted here
                        continue
                    if time.time() - status.st_mtime <= seconds or not self._is_free(entry.path, delete=delete):
                        continue
                    count, size = count + 1, size + status.st_size
        return count, size

    async def trim(self, prefix: str, keep: int) -> None:
        """Delete the files that were written least recently and that nobody holds, on a thread."""
        await self.threads.run(self._trim, prefix, keep)

    def _trim(self, prefix: str, keep: int) -> None:
        found = []
        with disk.reporting(), os.scandir(self._uploads) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    if entry.name.startswith(prefix) and entry.is_file(follow_symlinks=False):
                        found.append((entry.stat().st_mtime_ns, entry.path))
            over = len(found) - keep
            for _, path in sorted(found):
                if over > 0:
                    with contextlib.suppress(FileNotFoundError):
                        over -= self._is_free(path, delete=True)

    @staticmethod
    def _is_free(path: str, *, delete: bool) -> bool:
        """Whether nobody holds the upload; with ``delete``, it is then deleted."""
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            is_free = locks.try_acquire(fd)
            if is_free and delete:
                Path(path).unlink()
        finally:
            os.close(fd)
        return is_free

    @staticmethod
    def _unlink(path: Path) -> bool:
        with disk.reporting(), contextlib.suppress(FileNotFoundError):
            path.unlink()
            return True
        return False

    async def check(self) -> None:
        """Write a file, sync it, and delete it, on a thread of its own."""
        await self.threads.probe(self._check)

    def _check(self) -> None:
        with disk.reporting():
            durable.probe(self._uploads / f"check-{secrets.token_hex(8)}")

    def close(self, seconds: float = threads.CLOSE_SECONDS) -> bool:
        """Wait for the threads; False if some are still busy after so many seconds."""
        deadline = time.monotonic() + seconds
        if not (self._finisher.close(seconds) and self.threads.close(max(0.0, deadline - time.monotonic()))):
            return False
        while self._folders:
            os.close(self._folders.popitem()[1])
        return True


def _try_hold(path: Path) -> int | None:
    """Open and lock an upload's file; None if another request holds it. Closing the descriptor releases the lock."""
    try:
        with disk.reporting():
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        raise upload_missing() from None
    try:
        with disk.reporting():
            if locks.try_acquire(fd):
                path.stat()  # another request may have made a blob of it just now
                return fd
    except FileNotFoundError:
        os.close(fd)
        raise upload_missing() from None
    except PollyError:
        os.close(fd)
        raise
    os.close(fd)
    return None
