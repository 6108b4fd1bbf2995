"""Backups: a copy of a registry while it runs, and a data folder made from such a copy.

A backup copies the database as it is at one moment, then each blob that it names and the target lacks, then the journal
up to that moment. The database gets its name last, so a backup that was interrupted leaves the previous one valid.

Bytes are durable before a row names them, and the file of a blob never changes. So blobs that are copied after the
database include all that its rows name. The garbage collector waits until the backup has ended. Each copied blob is
read again from the disk and compared with its digest.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, BinaryIO, Final

from polly_dockers import db
from polly_dockers.blobs import files
from polly_dockers.db.journal import frames
from polly_dockers.db.sqlite import ERRORS, FILE, SERVER_LOCK, is_backup, is_made
from polly_dockers.errors import Unavailable
from polly_dockers.formatting import counted, is_, to_paste
from polly_dockers.maintenance import backup_folder, damaged, garbage, histories, manifests, restoring
from polly_dockers.maintenance.restoring import PART
from polly_dockers.system import durable, folders, locks, ownership, regular

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PIECE: Final = 1 << 20


@dataclass(slots=True)
class Copied:
    """What a backup or a restore copied."""

    blobs: int = 0
    size: int = 0
    kept: int = 0
    """Blobs that were there from an earlier backup."""
    replaced: int = 0
    """Blobs, of those copied, whose file from an earlier backup had another size."""
    lost: list[str] = field(default_factory=list)
    """Storage keys of blobs that a restore marked as lost, because the backup holds no undamaged copy."""
    damaged: list[str] = field(default_factory=list)
    """Manifests that are damaged in the copy, as ``organisation/name@digest``."""
    database_was_damaged: bool = False
    """Whether the database of the earlier backup, which was replaced, was damaged."""
    journal_is_whole: bool = True
    """Whether the journal that was copied leads to the last batch of the database."""
    database_is_behind: bool = False
    """Whether the database lacks changes of its journal, so that the copy lacks them too."""


def backup(data: Path, target: Path, start: Callable[[int], Callable[[int], None]]) -> Copied:
    """Copy the registry in ``data`` to the folder ``target``. A second backup to that folder copies only what is new.

    ``start`` is called with the number of bytes to copy. It returns a function that is called with the bytes that were
    copied since. Root acts in each of the two folders as its owner.

    Raises Unavailable if the folder can't be written, if a blob is missing or damaged in ``data``, if a manifest is
    damaged that can be repaired, or if its database and its journal have different histories.
    """
    with ownership.acting(target):
        backup_folder.check_target(data, target)
        try:
            if not target.exists():  # its parent may not be readable
                durable.make_folder(target)
            ownership.tighten(target, inside_only=True)
            with _alone(target), _collector_rests(data), contextlib.ExitStack() as stack:
                # after a failure, it would look like an unfinished restore
                stack.callback((target / (FILE + PART)).unlink, missing_ok=True)
                with ownership.acting(data):
                    differs = _compared(data)
                db.copies.write(data / FILE, target / (FILE + PART))
                there = (target / FILE).exists()
                was_damaged = there and db.copies.is_damaged(target / FILE)
                backup_folder.check_same(target, is_readable=there and not was_damaged)
                wrong = manifests.damaged_in(target / (FILE + PART))
                manifests.refuse_repairable(data, target, wrong)
                last, keys = db.copies.read(target / (FILE + PART))  # the last to open it: it ends the WAL
                copied = _copy_blobs(data, target, keys, [key for key, _ in keys], start)
                kept = _copy_journal(data, target, last)
                copied.journal_is_whole = frames.is_whole(target, last, kept)
                if lacked := _lacked(target, keys):
                    raise _damaged(data, lacked)
                backup_folder.delete_left(target)
                durable.sync(target)  # after a power failure, an older WAL must not be beside the new database
                (target / (FILE + PART)).rename(target / FILE)
                durable.sync(target)
                if copied.journal_is_whole:  # else an earlier copy may hold what is lacking
                    _drop_journal(target, kept)
                copied.damaged = [str(each) for each in wrong]
                copied.database_was_damaged = was_damaged
                copied.database_is_behind = differs == histories.DATABASE_LACKS
        except ERRORS as error:
            raise _failed(target, error) from error
    return copied


def _compared(data: Path) -> str:
    """The difference of the database and the journal; empty for a backup, which keeps it.

    Raises Unavailable for a damaged database, and for different histories.
    """
    try:
        damaged.refuse(data)
        found = histories.difference(data)
        return "" if is_backup(data) else found
    except ERRORS as error:
        if why := damaged.of(data, error):
            raise Unavailable(why) from error
        raise


def restore(source: Path, data: Path, start: Callable[[int], Callable[[int], None]]) -> Copied:
    """Create a data folder from a backup. ``start`` and root are as in ``backup``.

    A new folder in a folder of root gets the owner of the backup, if root makes it.

    Blobs that are missing or damaged in the backup are marked as lost; everything else is restored.

    Raises Unavailable if ``source`` is not a backup, is a data folder or is being written, or if its database and its
    journal have different histories. So it does if ``data`` holds a registry or is in use, or if it holds a journal
    with changes that the backup lacks.
    """
    backup_folder.require_backup(source)
    backup_folder.refuse_data_folder(source)
    ownership.become(data)
    if message := folders.file_in_the_way(data):
        raise Unavailable(message)
    _check_empty(data)
    try:
        with _not_written(source):
            backup_folder.check_whole(source)
            with ownership.acting(source):
                histories.refuse_mixed(source)
            folders.refuse_others(data, SERVER_LOCK)
            if not data.exists():
                ownership.make_folder(data, source)
            with restoring.alone(data), db.version.no_server(data):
                return _restore(source, data, start)
    except ERRORS as error:
        raise _failed(data, error) from error


def _restore(source: Path, data: Path, start: Callable[[int], Callable[[int], None]]) -> Copied:
    _check_empty(data)  # again: it may have been made before the lock was taken
    with ownership.acting(source):
        reading = (source / FILE).open("rb")
    with reading, _writing(data / (FILE + PART)) as writing:
        shutil.copyfileobj(reading, writing, PIECE)
    durable.sync(data / (FILE + PART))
    wrong = manifests.damaged_in(data / (FILE + PART))
    last, keys = db.copies.read(data / (FILE + PART))
    for key, _ in keys:
        if not files.is_key(key):
            msg = f"The database of {source} names a file that is not a blob: {key[:200]!r}. Take another backup."
            raise Unavailable(msg)
    _check_journal(source, data, last)
    _mark(data, last)
    copied = _copy_blobs(source, data, keys, _stored(source), start)
    _drop_journal(data, _copy_journal(source, data, last))
    copied.journal_is_whole = frames.is_whole(data, last)
    copied.lost, copied.damaged = _mark_lost(data, keys), [str(each) for each in wrong]
    _check_empty(data)  # again: a program that knows nothing of the lock may have made it
    for left in ("-wal", "-shm"):  # of the lost database: SQLite would apply them to this one
        (data / (FILE + left)).unlink(missing_ok=True)
    durable.sync(data)
    (data / (FILE + PART)).rename(data / FILE)
    durable.sync(data)
    (data / restoring.MARK).unlink()
    return copied


def _check_empty(data: Path) -> None:
    """Raise Unavailable if the folder has a database."""
    if is_made(data):
        msg = f"{data} holds a registry already. Give another folder, or move it away first: nothing is overwritten."
        raise Unavailable(msg)


def _check_journal(source: Path, data: Path, last: int) -> None:
    """Raise Unavailable if the journal in the data folder has changes that the journal of the backup lacks.

    A restore that was interrupted may have copied the journal of another backup. Ids of batches only grow, so nothing
    was written after that journal as long as it is not newer than that backup.
    """
    newest = frames.last(data)
    with contextlib.suppress(OSError, ValueError):
        if newest <= int(regular.read(data / restoring.MARK)):
            return
    if newest == 0:
        return
    with ownership.acting(source):
        is_known = newest <= last and frames.has(source, newest)
    if is_known:
        return
    both = ""
    if histories.continues(data, data / (FILE + PART)):
        both = (
            "To bring back everything from the backup and the journal, with passwords, roles and tokens as in the "
            f"backup:{to_paste(*damaged.brought_back(data, quote(str(source / FILE))))}\n"
        )
    (data / (FILE + PART)).unlink()
    place = quote(str(data))
    msg = (
        f"The journal of {data} has changes until {restoring.when(newest)}. The backup, of {restoring.when(last)}, "
        f"does not have them: a restore would delete them.\n{both}"
        "To bring back everything except passwords, roles and tokens from the journal:"
        + to_paste(f"polly-server rebuild --data {place}")
        + "\nTo restore the backup anyway, without what changed since:"
        + to_paste(
            *folders.moved_away(data),
            f"polly-server restore --from {quote(str(source))} --data {place}",
        )
    )
    raise Unavailable(msg)


def _mark(data: Path, last: int) -> None:
    """Write to the data folder that a restore up to this batch is under way, before the journal is touched."""
    with _writing(data / (restoring.MARK + PART)) as writing:
        writing.write(str(last).encode())
    durable.sync(data / (restoring.MARK + PART))
    (data / (restoring.MARK + PART)).rename(data / restoring.MARK)
    durable.sync(data)


def _failed(target: Path, error: BaseException) -> Unavailable:
    if isinstance(error, OSError) and error.filename and ownership.denied(error):
        return Unavailable(f"Copying to {target} failed: {ownership.explain(Path(error.filename), target)}")
    if message := folders.file_in_the_way(target):
        return Unavailable(message)
    reason = getattr(error, "strerror", None) or getattr(error, "orig", None) or error
    return Unavailable(
        f"Copying to {target} failed: {reason}. What was there before is unchanged. Run the command again to continue."
    )


@contextmanager
def _alone(target: Path) -> Iterator[None]:
    """Keep other backups to the folder, and restores from it, away. Raises Unavailable if there is one."""
    with locks.tried(target / backup_folder.LOCK) as is_free:
        if not is_free:
            msg = f"Another backup to {target} is running, or a restore from it. Run this again when it has ended."
            raise Unavailable(msg)
        yield


@contextmanager
def _not_written(source: Path) -> Iterator[None]:
    """Keep backups to the folder away while it is read. Raises Unavailable if there is one.

    The folder may be read-only, or older than the lock.
    """
    with contextlib.ExitStack() as stack:
        with ownership.acting(source), contextlib.suppress(FileNotFoundError):
            fd = regular.open_file(source / backup_folder.LOCK)
            stack.callback(os.close, fd)
            if not locks.try_acquire(fd, shared=True):
                msg = f"A backup is being written to {source}. Run this again when it has ended."
                raise Unavailable(msg)
        yield


@contextmanager
def _collector_rests(data: Path) -> Iterator[None]:
    """Hold the collector's lock, so that nothing that the copied database names is deleted before it is copied.

    A backup that is copied has no collector, and gets no lock file. It must not change meanwhile either.
    """
    with ownership.acting(data):
        copies_backup = is_backup(data)
    if copies_backup:
        with _not_written(data):
            yield
        return
    with ownership.acting(data):
        fd = locks.open_file(data / garbage.LOCK)
    try:
        locks.acquire(fd)
        yield
    finally:
        os.close(fd)


def _stored(source: Path) -> list[str]:
    """Storage keys of all blobs in a backup, also of those that its database does not name."""
    with ownership.acting(source):
        return list(files.keys(source / "blobs"))


def _copy_blobs(
    source: Path,
    target: Path,
    keys: list[tuple[str, int]],
    wanted: list[str],
    start: Callable[[int], Callable[[int], None]],
) -> Copied:
    """Copy the blobs ``wanted`` that the target lacks, or has in another size than ``keys`` says.

    Those that are damaged or missing in the source are left out.
    """
    copied, sizes, made = Copied(), dict[str, int](), set[Path]()
    wrong = set(_lacked(target, keys))
    for key in wanted:
        if key not in wrong and files.size(target / "blobs" / key) is not None:
            copied.kept += 1
            continue
        with ownership.acting(source):
            size = files.size(source / "blobs" / key)
        if size is not None:
            sizes[key] = size
    progress = start(sum(sizes.values()))
    for key, size in sizes.items():
        place = target / "blobs" / key
        if place.parent not in made:
            for folder in (target / "blobs", place.parent.parent, place.parent):
                durable.make_folder(folder)
            made.add(place.parent)
        was_there = files.size(place) is not None
        try:
            with ownership.acting(source):
                fd = files.open_file(source / "blobs" / key)
        except FileNotFoundError:  # since the look above
            continue
        with os.fdopen(fd, "rb") as reading:
            if not _copy(reading, place, progress):
                continue
        copied.replaced += was_there
        copied.blobs += 1
        copied.size += size
    return copied


def _copy(reading: BinaryIO, place: Path, progress: Callable[[int], None]) -> bool:
    """Copy a blob completely or not at all. Returns False if it does not match the digest in its name.

    Raises Unavailable if it does, but its copy does not.
    """
    _refuse_folder(place)
    part = place.with_name(place.name + PART)
    with _writing(part) as writing:
        while piece := reading.read(PIECE):
            writing.write(piece)
            progress(len(piece))
        writing.flush()
        os.fsync(writing.fileno())
        os.posix_fadvise(
            writing.fileno(), 0, 0, os.POSIX_FADV_DONTNEED
        )  # so that the bytes are read from the disk below
    with part.open("rb") as again:
        is_right = _matches(again, place)
    if not is_right:
        part.unlink()
        reading.seek(0)
        if _matches(reading, place):
            msg = f"{place} was copied wrongly: the disk does not keep what is written to it. Use another disk."
            raise Unavailable(msg)
        return False
    part.rename(place)
    durable.sync(place.parent)
    return True


def _matches(reading: BinaryIO, place: Path) -> bool:
    """Whether the bytes of a blob match the digest in its name."""
    hasher = hashlib.new(place.parent.parent.name)
    while piece := reading.read(PIECE):
        hasher.update(piece)
    return hasher.hexdigest() == place.name.partition(".")[0]


def _writing(part: Path) -> BinaryIO:
    """Open the part file, new and empty; only its owner can read it."""
    _refuse_folder(part)
    part.unlink(missing_ok=True)
    ownership.create(part)
    return part.open("wb")


def _refuse_folder(place: Path) -> None:
    """Raise Unavailable if a folder lies where a file is to be written."""
    if place.is_dir() and not place.is_symlink():
        msg = f"{place} is a folder, where a file of the registry belongs. Move it away, then run this again."
        raise Unavailable(msg)


def _copy_journal(source: Path, target: Path, last: int) -> set[str]:
    """Copy the journal up to the batch ``last``; returns the names of its files.

    Files that are there in another size are copied again: an earlier copy may have another end. So are those that lack
    batches of the source: they were damaged since. A file that has all batches of the source's, and more up to
    ``last``, stays: the source's was damaged since. A link, or anything else that is not a regular file, is replaced,
    because reading skips it. Raises Unavailable if it is a folder.
    """
    folder = target / frames.FOLDER
    durable.make_folder(folder)
    with ownership.acting(source):
        wanted = frames.until(source, last)
    there_before = frames.listed(folder)
    for name, length in wanted:
        place = folder / name
        _refuse_folder(place)
        if place in there_before:
            there = _batches(place, last)
            with ownership.acting(source):
                wanted_there = _batches(source / frames.FOLDER / name, last)
            if there > wanted_there or (there == wanted_there and place.stat().st_size == length):
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


def _batches(path: Path, last: int) -> set[tuple[int, int]]:
    """The ids of the batches of a file up to ``last``, each with the id of the batch before it."""
    return {(batch, previous) for batch, previous in frames.heads([path]).items() if batch <= last}


def _drop_journal(target: Path, kept: set[str]) -> None:
    """Delete files of the journal that are not among ``kept``: the journal was compacted since an earlier copy."""
    for path in (*frames.listed(target / frames.FOLDER), *(target / frames.FOLDER).glob(f"*.log{PART}")):
        if path.name not in kept:
            with contextlib.suppress(IsADirectoryError):  # which is of something else
                path.unlink()


def _lacked(target: Path, keys: list[tuple[str, int]]) -> list[str]:
    """Storage keys of the blobs that the database names and that are missing in the target or have another size."""
    lacked = []
    for key, size in keys:
        if files.size(target / "blobs" / key) != size:
            lacked.append(key)
    return lacked


def _mark_lost(data: Path, keys: list[tuple[str, int]]) -> list[str]:
    """Mark blobs that a restore could not copy as lost, before its database is used; returns their storage keys."""
    lacked = _lacked(data, keys)
    if lacked:
        db.copies.mark_lost(data / (FILE + PART), lacked)
    return lacked


def _damaged(data: Path, lacked: list[str]) -> Unavailable:
    """What to do about blobs of the data folder that could not be copied."""
    check = f"polly-server check --data {quote(str(data))}"
    first = f"sha256:{Path(lacked[0]).name.partition('.')[0]}"
    more = f" and {len(lacked) - 1} more" if len(lacked) > 1 else ""
    msg = (
        f"No new backup was made, and an earlier one did not change: {counted(len(lacked), 'blob')} {is_(len(lacked))} "
        f"missing or damaged in {data}: {first}{more}.\nTo see the images:{to_paste(check)}"
    )
    with ownership.acting(data):
        if not is_backup(data):
            msg += f"\nTo repair it from an earlier backup:{to_paste(f'{check} --repair --from …')}"
            msg += f"\nIf there is none, do this, then push the images again:{to_paste(f'{check} --repair')}"
    return Unavailable(msg)
