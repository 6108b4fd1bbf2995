"""The journal: every change of a repository, appended to files and synced, so that a lost database can be rebuilt.

The writer appends the records of a batch (``records``) before it ends the transaction. Each batch names the batch that
came before it in the database. So reading backwards from the last one skips batches whose transaction failed. A batch
is one frame of a file::

    MAGIC, length of the payload, CRC-32 of the payload, payload: MessagePack of a Batch

A frame that a crash cut off is skipped: reading goes on at the next MAGIC.

A file is named after its first batch, and the next file begins when it is full. A **snapshot** (``compaction``) holds
all rows as they were at the batch in its name, which is its last one. Files before a snapshot are no longer needed. A
file that is only named like one, or was damaged at its end, counts for nothing: others would be ignored for it.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import struct
import zlib
from collections import Counter
from typing import TYPE_CHECKING, BinaryIO, Final

import msgspec

from polly_dockers.db.disk_errors import UnknownOutcomeError
from polly_dockers.db.journal.records import AuditStart, Batch, Sealed
from polly_dockers.system import durable, locks

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Sequence
    from pathlib import Path

    from polly_dockers.db.journal.records import Record

FOLDER: Final = "journal"
MAGIC: Final = b"PollyJ1\n"
HEAD: Final = struct.Struct("<8sII")
FULL: Final = 64 << 20
"""Size of a file in bytes from which on the next file begins."""
SNAPSHOT: Final = ".snapshot.log"
"""How the name of a snapshot ends. It sorts after a file of the same batch, and before the files of later batches."""
_NAME: Final = re.compile(r"[0-9]{20}(?:\.snapshot)?\.log\Z")
FIRST: Final = 1 << 40
"""Ids of batches are times and greater than this. In a snapshot all but the last are numbers from 1 on."""
END: Final = 1 << 63
"""Ids of batches are less than this: the database could not store others."""
_BLOCK: Final = 1 << 20
_TAIL: Final = 16 << 10


class _Head(msgspec.Struct, array_like=True, frozen=True):
    """The first two fields of a Batch, to decode without the rest."""

    id: int
    previous: int


_encode: Final = msgspec.msgpack.Encoder(enc_hook=str).encode
_decode: Final = msgspec.msgpack.Decoder(Batch).decode
_decode_head: Final = msgspec.msgpack.Decoder(_Head).decode


def frame(batch: int, previous: int, changes: Sequence[Record]) -> bytes:
    """The bytes of a batch in a file."""
    payload = _encode([batch, previous, changes])
    return HEAD.pack(MAGIC, len(payload), zlib.crc32(payload)) + payload


class Journal:
    """The end of the journal, which the writer of a process appends to while it holds the writers' lock."""

    def __init__(self, folder: Path) -> None:
        """``folder`` is the data folder."""
        self._folder = folder / FOLDER
        self._fd = -1
        self._path = self._folder
        self._newest = (0, 0)
        """The last batch in the open file that this object knows, and where it ends."""

    def append(self, batch: int, previous: int, changes: list[Record], since: int = 0) -> int:
        """Append a batch and sync it; returns where the file ended before, for ``truncate``.

        A batch of the number ``since`` or later goes only into a file that begins there or later (``compaction``).
        Raises OSError, and then nothing was appended, or UnknownOutcomeError as ``truncate``.
        """
        whole = frame(batch, previous, changes)
        end = self._open(batch, previous, since)
        try:
            at = 0
            while at < len(whole):
                at += os.pwrite(self._fd, memoryview(whole)[at:], end + at)
            os.fdatasync(self._fd)
        except OSError:
            self.truncate(end)
            raise
        self._newest = (batch, end + at)
        return end

    def _without_orphan(self, previous: int) -> int:
        """Remove a batch that another process appended, but never stored, because it was killed in between.

        It follows the same batch as the one that is about to be appended. Both could otherwise get the same number, and
        a journal that loses its end would end with a change that was never made. Returns where the file ends then.
        """
        size = os.fstat(self._fd).st_size
        if self._newest == (previous, size) or _ends_with(self._fd, size, previous):
            return size
        for _, before, begin in heads_from(self._path, self._newest[1]):
            if before == previous:
                os.ftruncate(self._fd, begin)
                os.fsync(self._fd)  # the new batch may go to another file, whose sync does not include this
                return begin
        return size

    def truncate(self, end: int) -> None:
        """Remove the batch that was appended last, because its transaction failed. ``end`` is from ``append``.

        That is synced: otherwise the batch could be there again after a power failure. Raises UnknownOutcomeError if
        the disk fails.
        """
        self._newest = (0, 0)  # where that batch ended, another process may have one in the middle later
        try:
            os.ftruncate(self._fd, end)
            os.fsync(self._fd)
        except OSError as error:
            raise UnknownOutcomeError from error

    def _open(self, batch: int, previous: int, since: int) -> int:
        """Open the file that the batch belongs to; returns where that ends. Another process may have begun a new file.

        An orphan of the newest file is removed first, also if the batch then begins the next file.
        """
        is_open = self._fd >= 0 and number(self._path) >= since
        if is_open and os.fstat(self._fd).st_size < FULL:
            return self._without_orphan(previous)
        durable.make_folder(self._folder, parents=False)
        found = listed(self._folder)
        for later in (path for path in found if number(path) > batch and not is_snapshot(path)):
            self._use(later)
            self._without_orphan(previous)
        # nothing is appended under a later name, which is not of a batch: it would be read in the wrong order
        newest = max((path for path in found if number(path) <= batch), default=None)
        if newest is not None and not is_snapshot(newest):
            self._use(newest)
            end = self._without_orphan(previous)
            if end < FULL and number(newest) >= since:
                return end
        self._use(self._folder / f"{batch:020}.log")
        return os.fstat(self._fd).st_size

    def _use(self, path: Path) -> None:
        """Open a file, which is made if it is missing. Its name is synced: who made it may have ended before that."""
        self.close()
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            durable.sync(self._folder)
        except OSError:
            os.close(fd)
            raise
        self._fd, self._path, self._newest = fd, path, (0, 0)

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def check(folder: Path) -> None:
    """Write, sync and delete a file in the folder of the journal. Raises OSError if that fails."""
    inside = folder / FOLDER
    durable.make_folder(inside, parents=False)
    durable.probe(inside / f"check-{secrets.token_hex(8)}")


# --- files ------------------------------------------------------------------------------------------------------


def listed(place: Path) -> list[Path]:
    """The files in the folder of a journal, in order. What other programs put there, and links, are left out."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(place) as entries:
        found = [each.name for each in entries if _NAME.match(each.name) and each.is_file(follow_symlinks=False)]
        return sorted(path for path in map(place.joinpath, found) if number(path) < END)
    return []


def number(path: Path) -> int:
    """The number in the name of a file: that of its first batch, or the batch of a snapshot."""
    return int(path.name.partition(".")[0])


def is_snapshot(path: Path) -> bool:
    """Whether the file is a snapshot."""
    return path.name.endswith(SNAPSHOT)


def files(folder: Path, until: int | None = None, names: Container[str] | None = None) -> list[Path]:
    """The files of the journal in order: the newest complete snapshot, if there is one, and all files after it.

    With ``until``, snapshots of later batches are ignored; with ``names``, all files of other names.
    """
    found: list[Path] = []
    for path in reversed(listed(folder / FOLDER)):
        if names is not None and path.name not in names:
            continue
        if not is_snapshot(path):
            found.append(path)
        elif (until is None or number(path) <= until) and _is_complete(path):
            found.append(path)
            break
    return found[::-1]


def _is_complete(snapshot: Path) -> bool:
    """Whether a snapshot holds the batch in its name. That is the last one, so it is looked for from the end."""
    with snapshot.open("rb", buffering=_BLOCK) as file:
        begin = size = os.fstat(file.fileno()).st_size
        while begin > 0:
            end, begin = begin, max(0, begin - _BLOCK)
            file.seek(begin)
            piece = file.read(end - begin + len(MAGIC) - 1)
            at = piece.rfind(MAGIC)
            while at >= 0:
                payload, _ = _frame(file, begin + at, size)
                if payload is not None and _is_of(payload, number(snapshot)):
                    return True
                at = piece.rfind(MAGIC, 0, at + len(MAGIC) - 1)
    return False


@contextlib.contextmanager
def _held(folder: Path, until: int | None = None, names: Container[str] | None = None) -> Iterator[list[Path]]:
    """The files of the journal, as ``files`` lists them. A compaction deletes none of them before the block ends."""
    fd = -1
    with contextlib.suppress(OSError):  # no journal, or a file system without locks: then nothing is deleted
        fd = durable.open_folder(folder / FOLDER)
        locks.acquire(fd, shared=True)
    try:
        yield files(folder, until, names)
    finally:
        if fd >= 0:
            os.close(fd)


def exists(folder: Path) -> bool:
    """Whether the data folder has a journal. Files without a byte are none."""
    return any(path.stat().st_size for path in listed(folder / FOLDER))


def until(folder: Path, batch: int) -> list[tuple[str, int]]:
    """The files, and how many bytes of each, that hold everything up to a batch."""
    found: list[tuple[str, int]] = []
    with _held(folder, batch) as paths:
        for path, following in zip(paths, [*paths[1:], None], strict=False):
            if is_snapshot(path) or (following is not None and number(following) <= batch):
                length = path.stat().st_size
            else:
                length = max((end for payload, end in _frames(path) if _decode_head(payload).id <= batch), default=0)
            if length:
                found.append((path.name, length))
    return found


# --- batches ----------------------------------------------------------------------------------------------------


def read(folder: Path) -> Iterator[Batch]:
    """All complete batches in the order of their appending, also those whose transaction failed."""
    with _held(folder) as paths:
        for path in paths:
            yield from read_file(path)


def read_file(path: Path) -> Iterator[Batch]:
    """All complete batches of a file."""
    for payload, _ in _frames(path):
        yield _decode(payload)


def heads(paths: Iterable[Path]) -> dict[int, int]:
    """The ids of all complete batches of some files, each with the id of the batch before it."""
    return {batch: previous for path in paths for batch, previous, _ in heads_from(path, 0)}


def heads_from(path: Path, begin: int) -> Iterator[tuple[int, int, int]]:
    """The complete batches of a file from an offset on: id, id of the batch before it, offset."""
    for payload, end in _frames(path, begin):
        head = _decode_head(payload)
        yield head.id, head.previous, end - HEAD.size - len(payload)


def last(folder: Path) -> int:
    """The id of the last complete batch; 0 if there is none."""
    with _held(folder) as paths:
        for path in reversed(paths):
            if is_snapshot(path):
                return number(path)
            newest = b""
            for payload, _ in _frames(path):
                newest = payload
            if newest:
                return _decode_head(newest).id
    return 0


def has(folder: Path, batch: int) -> bool:
    """Whether the journal holds a batch."""
    with _held(folder) as paths:
        return any((is_snapshot(path) and number(path) == batch) or batch in heads([path]) for path in reversed(paths))


def is_whole(folder: Path, batch: int, names: Container[str] | None = None) -> bool:
    """Whether the journal holds a batch and all that lead to it, back to the first one of the journal or a snapshot.

    With ``names``, the files of other names are ignored.
    """
    at = batch
    with _held(folder, batch, names) as paths:
        for path in reversed(paths):
            before = heads([path])
            while at in before:
                at = before[at]
    return at == 0


def chain(folder: Path, after: int) -> list[int]:
    """Ids of the batches after ``after`` that lead to the last one, in order; empty if there are none.

    The ``previous`` of the first is ``after``. It is 0 if ``after`` is not in this journal.
    """
    found: list[int] = []
    at = last(folder)
    with _held(folder) as paths:
        for path in reversed(paths):
            before = heads([path])
            while at in before and at != after:
                found.append(at)
                at = before[at]
            if at == after:
                break
    return found[::-1]


def read_chain(folder: Path, after: int = 0) -> Iterator[Batch]:
    """The batches of ``chain``. Of two with one number, which earlier versions could write, the last was stored."""
    with _held(folder) as paths:
        chosen = set(chain(folder, after))
        left = Counter(batch for path in paths for batch, _, _ in heads_from(path, 0) if batch in chosen)
        for path in paths:
            for batch in read_file(path):
                if batch.id in chosen:
                    left[batch.id] -= 1
                    if left[batch.id] == 0:
                        yield batch


def sealed(folder: Path, batch: int) -> tuple[Sealed | None, AuditStart | None]:
    """The newest seal of the audit log, and its start, as the batches tell that lead to the given one."""
    seal: Sealed | None = None
    at = batch
    with _held(folder) as paths:
        for path in reversed(paths):
            before: dict[int, tuple[int, Sealed | None, AuditStart | None]] = {}
            for each in read_file(path):
                seals = [record for record in each.records if isinstance(record, Sealed)]
                starts = [record for record in each.records if isinstance(record, AuditStart)]
                before[each.id] = each.previous, seals[-1] if seals else None, starts[-1] if starts else None
            while at in before:
                at, newest, start = before[at]
                seal = seal or newest
                if start is not None:
                    return seal, start
    return seal, None


def _frames(path: Path, begin: int = 0) -> Iterator[tuple[bytes, int]]:
    """The payloads of all complete frames from an offset on, and where each ends.

    What a crash tore is skipped, up to the next MAGIC.
    """
    with path.open("rb", buffering=_BLOCK) as file:
        size = os.fstat(file.fileno()).st_size
        at = _find(file, begin)
        while at >= 0:
            payload, end = _frame(file, at, size)
            if payload is not None:
                yield payload, end
            at = _find(file, end)


def _ends_with(fd: int, size: int, batch: int) -> bool:
    """Whether the file ends with the frame of a batch. False for a frame of more than _TAIL bytes."""
    tail = os.pread(fd, _TAIL, max(0, size - _TAIL))
    at = tail.rfind(MAGIC)
    if at < 0 or len(tail) - at < HEAD.size:
        return False
    _, length, checksum = HEAD.unpack_from(tail, at)
    payload = tail[at + HEAD.size :]
    return len(payload) == length and zlib.crc32(payload) == checksum and _is_of(payload, batch)


def _is_of(payload: bytes, batch: int) -> bool:
    """Whether a payload is that of a batch. What looks like a frame may be text inside of another one."""
    try:
        return _decode_head(payload).id == batch
    except msgspec.DecodeError:
        return False


def _find(file: BinaryIO, at: int) -> int:
    """Where the next MAGIC begins, from an offset on; -1 if there is none."""
    file.seek(at)
    piece = file.read(len(MAGIC))
    while piece.find(MAGIC) < 0:
        at += max(0, len(piece) - len(MAGIC) + 1)
        file.seek(at)
        piece = file.read(_BLOCK)
        if len(piece) < len(MAGIC):
            return -1
    return at + piece.find(MAGIC)


def _frame(file: BinaryIO, at: int, size: int) -> tuple[bytes | None, int]:
    """The payload of the frame at an offset, and where it ends; None if the frame is torn."""
    file.seek(at)
    head = file.read(HEAD.size)
    if len(head) < HEAD.size:
        return None, size
    _, length, checksum = HEAD.unpack(head)
    end = at + HEAD.size + length
    payload = file.read(length) if end <= size else b""
    if len(payload) < length or zlib.crc32(payload) != checksum:
        return None, at + 1
    return payload, end
