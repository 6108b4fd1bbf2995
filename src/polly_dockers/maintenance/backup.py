"""A copy of a registry while it runs, and a data folder from it.

First the database as it is at one moment; then each blob that the copy lacks, and the journal up to that moment; the
database takes its place last, so that a backup that was stopped is the one of before. Bytes are durable before a row
names them and a blob's file never changes, so blobs that are copied after the database hold all that its rows name; the
collector rests meanwhile. What was copied is read again, from the disk, and compared with its digest.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, BinaryIO, Final

from polly_dockers.db.journal import frames
from polly_dockers.db.sqlite import ERRORS, FILE, open_engine
from polly_dockers.errors import BadRequest, Unavailable
from polly_dockers.maintenance import garbage
from polly_dockers.system import durable, locks, ownership
from polly_dockers.system.durations import SECOND

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PART: Final = ".part"
"""What the name of a file ends with while it is copied."""
PIECE: Final = 1 << 20
RESTORING: Final = "restoring"
"""A file of a data folder while a backup is restored to it: the last batch of that backup's journal."""

_OWN: Final = {"blobs", frames.FOLDER, FILE, FILE + PART, "lost+found"}
"""What lies in the folder of a backup; the last in that of a disk."""


_SAME: Final = [
    f"SELECT count(*), count(mine.id), coalesce(sum(mine.{made} = theirs.{made}), 0)"  # noqa: S608 - our own names
    f" FROM (SELECT id, {made} FROM earlier.{table} ORDER BY id DESC LIMIT 1000) AS theirs"
    f" LEFT JOIN main.{table} AS mine USING (id)"
    for table, made in (("users", "created_at"), ("organisations", "created_at"), ("commits", "pushed_at"))
]
"""How many of the newest rows an earlier backup has, how many of these are here, and how many were made at the same
moment."""


@dataclass(slots=True)
class Copied:
    """What a backup or a restore did."""

    blobs: int = 0
    size: int = 0
    kept: int = 0
    """Blobs that were there from an earlier one."""


def backup(data: Path, target: Path, start: Callable[[int], Callable[[int], None]]) -> Copied:
    """Copy the registry in ``data`` to the folder ``target``. A second backup into it copies what is new.

    ``start`` is told how many bytes there are to copy, and gives what is told of bytes that are done. Root acts in each
    of the two folders as its owner. Raises Unavailable where the folder can't be written, or where something that was
    copied is not what it should be.
    """
    with ownership.acting(target):
        _check_target(data, target)
        try:
            target.mkdir(mode=0o700, parents=True, exist_ok=True)
            ownership.tighten(target, inside_only=True)
            with _collector_rests(data):
                _copy_database(data / FILE, target / (FILE + PART))
                _check_same(target)
                copied = _copy_blobs(data, target, start)
                last, keys = _look(target / (FILE + PART))
                kept = _copy_journal(data, target, last)
            _compare(target, keys)
            (target / (FILE + PART)).rename(target / FILE)
            durable.sync(target)
            _drop_journal(target, kept)
        except ERRORS as error:
            raise _failed(target, error) from error
    return copied


def _check_target(data: Path, target: Path) -> None:
    """Raise Unavailable where the folder can't be that of a backup."""
    if target.resolve().is_relative_to(data.resolve()):
        msg = f"The backup can't lie in the data folder itself: {target}. Give a folder of another disk."
        raise Unavailable(msg)
    if (target / "writer.lock").exists():
        msg = f"{target} is the data folder of a server, not a backup. Give another folder."
        raise Unavailable(msg)
    others = sorted(path.name for path in target.iterdir() if path.name not in _OWN) if target.is_dir() else []
    if others:
        msg = f"{target} holds {others[0]}, which is not part of a backup. Give an empty folder or an earlier backup."
        raise Unavailable(msg)


def require(source: Path, *, repair: bool = True) -> None:
    """Raise Unavailable where a folder is no backup, and BadRequest where a check has none to repair from it.

    Root looks as its owner.
    """
    if not repair:
        msg = "--from is the backup that --repair mends from: give both, or neither."
        raise BadRequest(msg)
    with ownership.acting(source):
        there = (source / FILE).exists()
    if not there:
        msg = f"{source} is not a backup: it has no {FILE}. Give the folder that polly-server backup --to wrote."
        raise Unavailable(msg)


def restore(source: Path, data: Path, start: Callable[[int], Callable[[int], None]]) -> Copied:
    """Make a data folder of a backup; ``start`` and root as in ``backup``.

    Raises Unavailable where ``source`` is no backup, ``data`` holds a registry or a journal of which the backup is not
    a later state, or a file is not what it should be.
    """
    require(source)
    ownership.become(data)
    if (data / FILE).exists():
        msg = f"{data} holds a registry already. Give another folder, or move it away first: nothing is overwritten."
        raise Unavailable(msg)
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        with ownership.acting(source):
            reading = (source / FILE).open("rb")
        with reading, _writing(data / (FILE + PART)) as writing:
            shutil.copyfileobj(reading, writing, PIECE)
        durable.sync(data / (FILE + PART))
        last, keys = _look(data / (FILE + PART))
        _check_journal(source, data, last)
        _mark(data, last)
        copied = _copy_blobs(source, data, start)
        _drop_journal(data, _copy_journal(source, data, last))
        _compare(data, keys)
        for left in ("-wal", "-shm"):  # of the database that was lost: SQLite would carry them out on this one
            (data / (FILE + left)).unlink(missing_ok=True)
        durable.sync(data)
        (data / (FILE + PART)).rename(data / FILE)
        durable.sync(data)
        (data / RESTORING).unlink()
    except ERRORS as error:
        raise _failed(data, error) from error
    return copied


def _check_journal(source: Path, data: Path, last: int) -> None:
    """Raise Unavailable where the journal that is in the data folder has what that of the backup has not.

    A restore that was interrupted may have copied the journal of another backup: ids of batches only grow, so nothing
    was written behind it as long as it is not newer than that backup.
    """
    newest = frames.last(data)
    with contextlib.suppress(OSError, ValueError):
        if newest <= int((data / RESTORING).read_text()):
            return
    if newest == 0:
        return
    with ownership.acting(source):
        is_known = newest <= last and frames.has(source, newest)
    if is_known:
        return
    (data / (FILE + PART)).unlink()
    place = quote(str(data))
    msg = (
        f"The journal of {data} tells of changes until {_when(newest)}, which the backup, of {_when(last)}, does not "
        f"have; a restore would delete them. To bring everything back: polly-server rebuild --data {place}. To go "
        f"back to the backup all the same, move the folder away first: mv {place} {quote(str(data) + '.before')}"
    )
    raise Unavailable(msg)


def _when(batch: int) -> str:
    """The time that the number of a batch is."""
    return datetime.fromtimestamp(batch / SECOND, UTC).strftime("%Y-%m-%d %H:%M:%S UTC") if batch else "no time"


def _mark(data: Path, last: int) -> None:
    """Write down that a restore is under way, and of which batch, before it touches the journal."""
    with _writing(data / (RESTORING + PART)) as writing:
        writing.write(str(last).encode())
    durable.sync(data / (RESTORING + PART))
    (data / (RESTORING + PART)).rename(data / RESTORING)
    durable.sync(data)


def _failed(target: Path, error: BaseException) -> Unavailable:
    if isinstance(error, OSError) and error.filename and ownership.denied(error):
        return Unavailable(f"Copying to {target} failed: {ownership.explain(Path(error.filename), target)}")
    reason = getattr(error, "strerror", None) or getattr(error, "orig", None) or error
    return Unavailable(
        f"Copying to {target} failed: {reason}. What was there before is untouched; run it again to go on."
    )


@contextmanager
def _collector_rests(data: Path) -> Iterator[None]:
    """Hold the collector's lock: what the database of the backup names is not deleted while it is copied."""
    with ownership.acting(data):
        fd = locks.open_file(data / garbage.LOCK)
    try:
        locks.acquire(fd)
        yield
    finally:
        os.close(fd)


def _copy_database(source: Path, part: Path) -> None:
    """Write the database as it is at one moment to the part file, and sync it."""
    part.unlink(missing_ok=True)
    ownership.create(part)
    with ownership.acting(source.parent):
        engine = open_engine(source)
        try:
            with engine.connect() as connection:
                connection.exec_driver_sql("SELECT count(*) FROM sqlite_master").scalar_one()  # it opens the WAL
                with ownership.acting(part.parent):
                    # an absolute path: a name that begins with "file:" would be a URI
                    connection.exec_driver_sql("VACUUM INTO ?", (str(part.absolute()),))
        finally:
            engine.dispose()
    durable.sync(part)


def _check_same(target: Path) -> None:
    """Raise Unavailable where the database in the folder is not an earlier state of the one that was copied there now.

    Neither users nor commits change once they are made, and no number is given twice: what both have is the same.
    """
    if not (target / FILE).exists():
        return
    part = target / (FILE + PART)
    engine = open_engine(part)
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql("ATTACH DATABASE ? AS earlier", (str((target / FILE).absolute()),))
            same = [row for query in _SAME for row in connection.exec_driver_sql(query)]
    finally:
        engine.dispose()
    earlier, shared, equal = (sum(each) for each in zip(*same, strict=True))
    if shared == equal and (shared or not earlier):
        return
    part.unlink()
    msg = (
        f"{target} holds the backup of another registry; nothing in it was changed. Give each registry its own folder."
    )
    raise Unavailable(msg)


def _look(part: Path) -> tuple[int, list[tuple[str, int]]]:
    """The last batch of the database, and the keys and sizes that it names; raises Unavailable where it is damaged."""
    engine = open_engine(part)
    try:
        with engine.connect() as connection:
            if connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one() != "ok":
                msg = f"{part} is damaged: the disk does not keep what is written to it."
                raise Unavailable(msg)
            row = connection.exec_driver_sql("SELECT batch FROM journal").first()
            keys = connection.exec_driver_sql("SELECT storage_key, size FROM blobs WHERE lost_at IS NULL").all()
            connection.exec_driver_sql("PRAGMA journal_mode=DELETE")
    finally:
        engine.dispose()
    return (row[0] if row is not None else 0), [(row[0], row[1]) for row in keys]


def _copy_blobs(source: Path, target: Path, start: Callable[[int], Callable[[int], None]]) -> Copied:
    copied, new = Copied(), []
    with ownership.acting(source):
        found = sorted((source / "blobs").glob("*/*/*"))
    for path in found:
        place = target / path.relative_to(source)
        if place.exists():
            copied.kept += 1
        elif not path.name.endswith(PART):
            new.append((path, place))
    with ownership.acting(source):
        sizes = [path.stat().st_size for path, _ in new]
    progress = start(sum(sizes))
    for (path, place), size in zip(new, sizes, strict=True):
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with ownership.acting(source):
            reading = path.open("rb")
        with reading:
            _copy(path, reading, place, progress)
        copied.blobs += 1
        copied.size += size
    return copied


def _copy(source: Path, reading: BinaryIO, place: Path, progress: Callable[[int], None]) -> None:
    """Copy a blob so that it is there whole or not at all; raises Unavailable where its digest is not its name's."""
    part = place.with_name(place.name + PART)
    algorithm, wanted = place.parent.parent.name, place.name.partition(".")[0]
    with _writing(part) as writing:
        while piece := reading.read(PIECE):
            writing.write(piece)
            progress(len(piece))
        writing.flush()
        os.fsync(writing.fileno())
        os.posix_fadvise(writing.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)  # so that the disk itself is asked below
    hasher = hashlib.new(algorithm)
    with part.open("rb") as again:
        while piece := again.read(PIECE):
            hasher.update(piece)
    if hasher.hexdigest() != wanted:
        part.unlink()
        msg = (
            f"{source} does not match its digest, or was copied wrongly. polly-server check --repair finds "
            "what is damaged, and repairs it."
        )
        raise Unavailable(msg)
    part.rename(place)
    durable.sync(place.parent)


def _writing(part: Path) -> BinaryIO:
    """The part file, new and empty, which only its owner may read."""
    part.unlink(missing_ok=True)
    ownership.create(part)
    return part.open("wb")


def _copy_journal(source: Path, target: Path, last: int) -> set[str]:
    """Copy the journal up to the batch ``last`` again: what was copied before may have another end. Names of files."""
    folder = target / frames.FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    with ownership.acting(source):
        wanted = frames.until(source, last)
    for name, length in wanted:
        place = folder / name
        if place.exists() and place.stat().st_size == length:
            continue
        part = place.with_name(name + PART)
        with ownership.acting(source):
            reading = (source / frames.FOLDER / name).open("rb")
        with reading, _writing(part) as writing:
            left = length
            while left and (piece := reading.read(min(left, PIECE))):
                writing.write(piece)
                left -= len(piece)
        durable.sync(part)
        part.rename(place)
    durable.sync(folder)
    return {name for name, _ in wanted}


def _drop_journal(target: Path, kept: set[str]) -> None:
    """Delete what an earlier copy had of the journal, and this one has not: it was compacted since."""
    for path in (target / frames.FOLDER).iterdir():
        if path.name not in kept:
            path.unlink()


def _compare(target: Path, keys: list[tuple[str, int]]) -> None:
    """Raise Unavailable where a blob that the database names is not there in its size."""
    for key, size in keys:
        place = target / "blobs" / key
        if not place.exists() or place.stat().st_size != size:
            msg = f"The blob {key} is missing or cut short. Find what is damaged with polly-server check --repair."
            raise Unavailable(msg)
