"""What the rows of repositories can be rebuilt from, should the database be lost: every change, appended and synced.

The functions that change a repository note what they did (``note``); the writer appends the notes of a batch to the
journal and syncs it before it commits the batch. A batch tells which one came before it in the database, so that
reading backwards from the last passes over batches that were never committed. Bytes of a frame::

    MAGIC, length of the payload, CRC-32 of the payload, payload: MessagePack of a Batch

A frame that was cut off by a crash is passed over: reading goes on at the next MAGIC.
"""

from __future__ import annotations

import os
import struct
import zlib
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy import Connection

FOLDER: Final = "journal"
MAGIC: Final = b"PollyJ1\n"
HEAD: Final = struct.Struct("<8sII")
FULL: Final = 64 << 20
"""Bytes of a file after which the next one begins."""
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


class Thrown(Record, frozen=True, tag="thrown"):
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
    """An item of the trash was brought back; a repository under a name."""

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
        | Thrown
        | Restored
        | Claimed
        | Purged
        | Audited
        | Sealed
    ]


_encode: Final = msgspec.msgpack.Encoder(enc_hook=str).encode
_decode: Final = msgspec.msgpack.Decoder(Batch).decode


def note(connection: Connection, record: Record) -> None:
    """Have a change written to the journal with the transaction that is under way."""
    connection.info.setdefault(_NOTES, []).append(record)


def noted(connection: Connection) -> list[Record]:
    """What was noted in the transaction that is under way; cut it to take notes back, clear it at the end."""
    found: list[Record] = connection.info.setdefault(_NOTES, [])
    return found


class Journal:
    """The end of the journal of a data folder, for the writer of one process, who holds the lock of all writers."""

    def __init__(self, folder: Path) -> None:
        """``folder`` is the data folder."""
        self._folder = folder / FOLDER
        self._fd = -1

    def append(self, batch: int, previous: int, records: list[Record]) -> int:
        """Append a batch and sync it; what ``take_back`` needs. Raises OSError, and then has appended nothing."""
        payload = _encode([batch, previous, records])
        frame = HEAD.pack(MAGIC, len(payload), zlib.crc32(payload)) + payload
        end = self._open(batch)
        try:
            at = 0
            while at < len(frame):
                at += os.pwrite(self._fd, memoryview(frame)[at:], end + at)
            os.fdatasync(self._fd)
        except OSError:
            os.ftruncate(self._fd, end)
            raise
        return end

    def take_back(self, end: int) -> None:
        """Cut off the batch that was appended last, for its transaction failed."""
        os.ftruncate(self._fd, end)

    def _open(self, batch: int) -> int:
        """Have the file open that the batch belongs to; its size. Another process may have begun a new one."""
        size = os.fstat(self._fd).st_size if self._fd >= 0 else FULL
        if size < FULL:
            return size
        self.close()
        if not self._folder.exists():
            self._folder.mkdir(mode=0o700)
            _sync_folder(self._folder.parent)
        newest = max(self._folder.glob("*.log"), default=None)
        if newest is None or newest.stat().st_size >= FULL:
            newest = self._folder / f"{batch:020}.log"
        new = not newest.exists()
        self._fd = os.open(newest, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if new:
            _sync_folder(self._folder)
        return os.fstat(self._fd).st_size

    def close(self) -> None:
        """Let go of the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def check(folder: Path) -> None:
    """Write a file beside the journal's, sync it, and take it away again. Raises OSError."""
    inside = folder / FOLDER
    inside.mkdir(mode=0o700, exist_ok=True)
    probe = inside / f"check-{os.getpid()}"
    try:
        fd = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, b"\0")
            os.fsync(fd)
        finally:
            os.close(fd)
    finally:
        probe.unlink(missing_ok=True)


def exists(folder: Path) -> bool:
    """Whether the data folder has a journal."""
    return any((folder / FOLDER).glob("*.log"))


def read(folder: Path) -> Iterator[Batch]:
    """All whole batches in the order in which they were appended, those that were never committed too."""
    for path in sorted((folder / FOLDER).glob("*.log")):
        yield from _read(path)


def last(folder: Path) -> int:
    """The id of the last whole batch; 0 where there is none."""
    for path in sorted((folder / FOLDER).glob("*.log"), reverse=True):
        newest = b""
        for payload in _payloads(path):
            newest = payload
        if newest:
            return _decode(newest).id
    return 0


def has(folder: Path, batch: int) -> bool:
    """Whether the journal holds the batch of that id."""
    return any(each.id == batch for each in read(folder))


def _read(path: Path) -> Iterator[Batch]:
    for payload in _payloads(path):
        yield _decode(payload)


def until(folder: Path, batch: int) -> list[tuple[str, int]]:
    """The files of the journal, and how many bytes of each, that hold everything up to the batch of that id."""
    found: list[tuple[str, int]] = []
    for path in sorted((folder / FOLDER).glob("*.log")):
        length = max((end for payload, end in _frames(path) if _decode(payload).id <= batch), default=0)
        if length == 0:
            break
        found.append((path.name, length))
    return found


def _payloads(path: Path) -> Iterator[bytes]:
    for payload, _ in _frames(path):
        yield payload


def _frames(path: Path) -> Iterator[tuple[bytes, int]]:
    """The payloads of all whole frames, and where each ends.

    What was torn by a crash is passed over, up to the next MAGIC.
    """
    data = path.read_bytes()
    at = data.find(MAGIC)
    while at >= 0:
        payload, end = _frame(data, at)
        if payload is not None:
            yield payload, end
        at = data.find(MAGIC, end)


def _frame(data: bytes, at: int) -> tuple[bytes | None, int]:
    """The payload of the frame that begins there, and where it ends; None where it is torn."""
    if at + HEAD.size > len(data):
        return None, len(data)
    _, length, checksum = HEAD.unpack_from(data, at)
    end = at + HEAD.size + length
    payload = data[at + HEAD.size : end]
    if len(payload) < length or zlib.crc32(payload) != checksum:
        return None, at + 1
    return payload, end


def chain(folder: Path, after: int) -> list[int]:
    """Ids of the batches that were committed one after another up to the last, behind ``after``.

    Empty where there are none. Begins with a batch whose ``previous`` is ``after``, or is 0 where ``after`` is not
    of this journal.
    """
    before = {batch.id: batch.previous for batch in read(folder)}
    found: list[int] = []
    at = last(folder)
    while at in before and at != after:
        found.append(at)
        at = before[at]
    return found[::-1]


def sealed(folder: Path, committed: int) -> Sealed | None:
    """The newest seal of the audit log in the batches that lead to the one of that id."""
    before: dict[int, tuple[int, Sealed | None]] = {}
    for batch in read(folder):
        seals = [record for record in batch.records if isinstance(record, Sealed)]
        before[batch.id] = batch.previous, seals[-1] if seals else None
    at = committed
    while at in before:
        at, seal = before[at]
        if seal is not None:
            return seal
    return None
