"""What the rows of repositories can be rebuilt from, should the database be lost: every change, appended and synced.

The functions that change a repository note what they did (``record``); the writer appends the notes of a batch to the
journal and syncs it before it commits the batch. A batch tells which one came before it in the database, so that
reading backwards from the last passes over batches that were never committed. Bytes of a frame::

    MAGIC, length of the payload, CRC-32 of the payload, payload: MessagePack of a Batch

A frame that was cut off by a crash is passed over: reading goes on at the next MAGIC.

A file's name is the number of its first batch, and the next file begins once it is full. A **snapshot** holds all rows
as they were at the batch that its name tells (compaction.py): what files before it hold has no meaning any more.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import struct
import zlib
from typing import TYPE_CHECKING, BinaryIO, Final

import msgspec

from polly_dockers.system import durable, locks

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from sqlalchemy import Connection

FOLDER: Final = "journal"
MAGIC: Final = b"PollyJ1\n"
HEAD: Final = struct.Struct("<8sII")
FULL: Final = 64 << 20
"""Bytes of a file after which the next one begins."""
SNAPSHOT: Final = ".snapshot.log"
"""What the name of a snapshot ends with. It sorts behind a file of the same batch, and before those of later ones."""
_BLOCK: Final = 1 << 20
_NOTES: Final = "journal"


class Record(msgspec.Struct, array_like=True, frozen=True, tag=True):
    """One change. Ids are those of the rows; times are microseconds since 1970."""


class Organisation(Record, frozen=True, tag="organisation"):
    """An organisation was made, or its settings were changed."""

    id: int
    slug: str
    create_on_push: bool
    created_at: int
    policy: str | None = None


class User(Record, frozen=True, tag="user"):
    """An account was made. No password, and no role, is ever here."""

    id: int
    email: str
    created_at: int


class Repository(Record, frozen=True, tag="repository"):
    """A repository was made."""

    id: int
    organisation_id: int
    name: str
    description: str
    access: str
    sparse_indexes: str
    created_by: int
    created_at: int
    policy: str | None = None


class RepositoryChanged(Record, frozen=True, tag="repository-changed"):
    """Columns of a repository were set."""

    id: int
    values: dict[str, str | None]


class Manifest(Record, frozen=True, tag="manifest"):
    """A manifest was pushed."""

    id: int
    repository_id: int
    digest: str
    media_type: str
    platforms: str
    pushed_by: int
    pushed_at: int
    body: bytes


class Commit(Record, frozen=True, tag="commit"):
    """A tag was set to a manifest."""

    id: int
    repository_id: int
    tag: str
    manifest_id: int
    pushed_by: int
    pushed_at: int
    active: bool = True


class MovedToTrash(Record, frozen=True, tag="thrown"):
    """Something was put into the trash."""

    id: int
    organisation_id: int
    repository_id: int | None
    kind: str
    name: str
    tags: str
    deleted_by: int | None
    deleted_at: int
    by_policy: bool = False


class Restored(Record, frozen=True, tag="restored"):
    """An item of the trash was brought back; a repository or an organisation under a name."""

    id: int
    name: str


class Claimed(Record, frozen=True, tag="claimed"):
    """The collector began to delete an item of the trash for good; it can't be restored any more."""

    id: int


class Purged(Record, frozen=True, tag="purged"):
    """An item of the trash was deleted for good."""

    id: int


class Audited(Record, frozen=True, tag="audited"):
    """An entry of the audit log was written."""

    id: int
    at: int
    organisation_id: int | None
    event: str
    by: str
    address: str
    subject: str
    detail: str


class Sealed(Record, frozen=True, tag="sealed"):
    """The chain of the audit log was led on to this position."""

    position: int
    hash: bytes


class AuditStart(Record, frozen=True, tag="audit-start"):
    """Entries of the audit log up to that id were dropped; the chain goes on behind this position."""

    id: int
    position: int
    hash: bytes


class LastId(Record, frozen=True, tag="last-id"):
    """Ids of a table up to this one were given out: none is used again, whatever was purged."""

    table: str
    id: int


class Batch(msgspec.Struct, array_like=True, frozen=True):
    """What one transaction changed."""

    id: int
    """The time of the batch, or one more than the last: ids only grow."""
    previous: int
    """The batch before it in the database; 0: this one holds all that was there then."""
    records: list[
        Organisation
        | User
        | Repository
        | RepositoryChanged
        | Manifest
        | Commit
        | MovedToTrash
        | Restored
        | Claimed
        | Purged
        | Audited
        | Sealed
        | AuditStart
        | LastId
    ]


class _Head(msgspec.Struct, array_like=True, frozen=True):
    """The first two fields of a Batch: the rest is not decoded."""

    id: int
    previous: int


_encode: Final = msgspec.msgpack.Encoder(enc_hook=str).encode
_decode: Final = msgspec.msgpack.Decoder(Batch).decode
_decode_head: Final = msgspec.msgpack.Decoder(_Head).decode


def frame(batch: int, previous: int, records: Sequence[Record]) -> bytes:
    """A batch as it stands in a file."""
    payload = _encode([batch, previous, records])
    return HEAD.pack(MAGIC, len(payload), zlib.crc32(payload)) + payload


def record(connection: Connection, record: Record) -> None:
    """Have a change written to the journal with the transaction that is under way."""
    connection.info.setdefault(_NOTES, []).append(record)


def pending(connection: Connection) -> list[Record]:
    """What was noted in the transaction that is under way; cut it to take notes back, clear it at the end."""
    found: list[Record] = connection.info.setdefault(_NOTES, [])
    return found


class Journal:
    """The end of the journal of a data folder, for the writer of one process, who holds the lock of all writers."""

    def __init__(self, folder: Path) -> None:
        """``folder`` is the data folder."""
        self._folder = folder / FOLDER
        self._fd = -1
        self._since = 0

    def append(self, batch: int, previous: int, records: list[Record], since: int = 0) -> int:
        """Append a batch and sync it; what ``truncate`` needs. Raises OSError, and then has appended nothing.

        ``since``: no batch of that number or a later one goes into a file that began before it (compaction.py).
        """
        whole = frame(batch, previous, records)
        end = self._open(batch, since)
        try:
            at = 0
            while at < len(whole):
                at += os.pwrite(self._fd, memoryview(whole)[at:], end + at)
            os.fdatasync(self._fd)
        except OSError:
            os.ftruncate(self._fd, end)
            raise
        return end

    def truncate(self, end: int) -> None:
        """Cut off the batch that was appended last, for its transaction failed."""
        os.ftruncate(self._fd, end)

    def _open(self, batch: int, since: int) -> int:
        """Have the file open that the batch belongs to; its size. Another process may have begun a new one."""
        size = os.fstat(self._fd).st_size if self._fd >= 0 and self._since == since else FULL
        if size < FULL:
            return size
        self.close()
        self._since = since
        if not self._folder.exists():
            self._folder.mkdir(mode=0o700)
            durable.sync(self._folder.parent)
        newest = max(self._folder.glob("*.log"), default=None)
        if newest is None or is_snapshot(newest) or number(newest) < since or newest.stat().st_size >= FULL:
            newest = self._folder / f"{batch:020}.log"
        new = not newest.exists()
        self._fd = os.open(newest, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if new:
            durable.sync(self._folder)
        return os.fstat(self._fd).st_size

    def close(self) -> None:
        """Let go of the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def check(folder: Path) -> None:
    """Write a file beside the journal's, sync it, and take it away again. Raises OSError."""
    inside = folder / FOLDER
    inside.mkdir(mode=0o700, exist_ok=True)
    durable.probe(inside / f"check-{secrets.token_hex(8)}")


# --- files ------------------------------------------------------------------------------------------------------


def number(path: Path) -> int:
    """The batch that the name of a file tells: its first, or that of a snapshot."""
    return int(path.name.partition(".")[0])


def is_snapshot(path: Path) -> bool:
    """Whether the file is a snapshot."""
    return path.name.endswith(SNAPSHOT)


def files(folder: Path, until: int | None = None) -> list[Path]:
    """The files that hold the journal, in their order: the newest snapshot, if there is one, and what is behind it.

    With ``until``, a snapshot of a later batch than that is passed over.
    """
    found = [
        path
        for path in sorted((folder / FOLDER).glob("*.log"))
        if until is None or not is_snapshot(path) or number(path) <= until
    ]
    begin = max((at for at, path in enumerate(found) if is_snapshot(path)), default=0)
    return found[begin:]


@contextlib.contextmanager
def _held(folder: Path, until: int | None = None) -> Iterator[list[Path]]:
    """The files that hold the journal, none of which is deleted meanwhile (compaction.py)."""
    fd = -1
    with contextlib.suppress(OSError):  # no journal, or a file system of a backup that has no locks: nobody deletes
        fd = durable.open_folder(folder / FOLDER)
        locks.acquire(fd, shared=True)
    try:
        yield files(folder, until)
    finally:
        if fd >= 0:
            os.close(fd)


def exists(folder: Path) -> bool:
    """Whether the data folder has a journal."""
    return any((folder / FOLDER).glob("*.log"))


def until(folder: Path, batch: int) -> list[tuple[str, int]]:
    """The files of the journal, and how many bytes of each, that hold everything up to the batch of that id."""
    found: list[tuple[str, int]] = []
    with _held(folder, batch) as paths:
        for path, following in zip(paths, [*paths[1:], None], strict=True):
            if is_snapshot(path) or (following is not None and number(following) <= batch):
                length = path.stat().st_size
            else:
                length = max((end for payload, end in _frames(path) if _decode_head(payload).id <= batch), default=0)
            if length == 0:
                break
            found.append((path.name, length))
    return found


# --- batches ----------------------------------------------------------------------------------------------------


def read(folder: Path) -> Iterator[Batch]:
    """All whole batches in the order in which they were appended, those that were never committed too."""
    with _held(folder) as paths:
        for path in paths:
            yield from read_file(path)


def read_file(path: Path) -> Iterator[Batch]:
    """All whole batches of a file."""
    for payload, _ in _frames(path):
        yield _decode(payload)


def heads(paths: Iterable[Path]) -> dict[int, int]:
    """The ids of all whole batches of files, each with that of the batch before it."""
    return {batch: previous for path in paths for batch, previous, _ in heads_from(path, 0)}


def heads_from(path: Path, begin: int) -> Iterator[tuple[int, int, int]]:
    """The whole batches of a file from a place on: id, id of the batch before it, and where it begins."""
    for payload, end in _frames(path, begin):
        head = _decode_head(payload)
        yield head.id, head.previous, end - HEAD.size - len(payload)


def last(folder: Path) -> int:
    """The id of the last whole batch; 0 where there is none."""
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
    """Whether the journal holds the batch of that id."""
    with _held(folder) as paths:
        return any((is_snapshot(path) and number(path) == batch) or batch in heads([path]) for path in reversed(paths))


def chain(folder: Path, after: int) -> list[int]:
    """Ids of the batches that were committed one after another up to the last, behind ``after``.

    Empty where there are none. Begins with a batch whose ``previous`` is ``after``, or is 0 where ``after`` is not
    of this journal.
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


def sealed(folder: Path, committed: int) -> tuple[Sealed | None, AuditStart | None]:
    """The newest seal of the audit log, and what it begins with, in the batches that lead to the one of that id."""
    seal: Sealed | None = None
    at = committed
    with _held(folder) as paths:
        for path in reversed(paths):
            before: dict[int, tuple[int, Sealed | None, AuditStart | None]] = {}
            for batch in read_file(path):
                seals = [record for record in batch.records if isinstance(record, Sealed)]
                starts = [record for record in batch.records if isinstance(record, AuditStart)]
                before[batch.id] = batch.previous, seals[-1] if seals else None, starts[-1] if starts else None
            while at in before:
                at, newest, start = before[at]
                seal = seal or newest
                if start is not None:
                    return seal, start
    return seal, None


def _frames(path: Path, begin: int = 0) -> Iterator[tuple[bytes, int]]:
    """The payloads of all whole frames from a place on, and where each ends.

    What was torn by a crash is passed over, up to the next MAGIC.
    """
    with path.open("rb", buffering=_BLOCK) as file:
        size = os.fstat(file.fileno()).st_size
        at = _find(file, begin)
        while at >= 0:
            payload, end = _frame(file, at, size)
            if payload is not None:
                yield payload, end
            at = _find(file, end)


def _find(file: BinaryIO, at: int) -> int:
    """Where the next MAGIC begins, from a place on; -1 where there is none."""
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
    """The payload of the frame that begins there, and where it ends; None where it is torn."""
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
