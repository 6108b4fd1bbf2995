"""The folder of a backup: whether one may be written there, whether one may be restored from it, and its names."""

from __future__ import annotations

import contextlib
from shlex import quote
from typing import TYPE_CHECKING, Final

from polly_dockers import db
from polly_dockers.db.journal import frames, older
from polly_dockers.db.sqlite import FILE, SERVER_LOCK, WRITER_LOCK, connect
from polly_dockers.errors import Unavailable
from polly_dockers.formatting import to_paste
from polly_dockers.maintenance import garbage
from polly_dockers.maintenance.restoring import PART
from polly_dockers.system import folders, ownership

if TYPE_CHECKING:
    from pathlib import Path

LOCK: Final = "backup.lock"
"""A lock file in the folder of a backup: a backup locks it exclusively, and those who restore from it share it."""

_LEFT: Final = (
    *(name + end for name in (FILE, FILE + PART) for end in db.copies.BESIDE),
    WRITER_LOCK,
    garbage.LOCK,
)
"""Names of files that an interrupted backup leaves, and older versions that looked at a backup."""
_UPLOADS: Final = "uploads"
"""A folder that such a version left too, empty."""
_OWN: Final = {"blobs", frames.FOLDER, FILE, FILE + PART, LOCK, *_LEFT, _UPLOADS}
"""Names in the folder of a backup."""


def check_target(data: Path, target: Path) -> None:
    """Raise Unavailable if a backup can't be written to the folder."""
    if message := folders.file_in_the_way(target):
        raise Unavailable(message)
    if target.resolve().is_relative_to(data.resolve()):
        msg = f"The backup can't lie in the data folder itself: {target}. Give a folder on another disk."
        raise Unavailable(msg)
    uploads = target / _UPLOADS
    if (target / SERVER_LOCK).exists() or (uploads.is_dir() and any(uploads.iterdir())):
        msg = f"{target} is the data folder of a server, not a backup. Give another folder."
        raise Unavailable(msg)
    others = folders.others(target, _OWN) if target.is_dir() else []
    if others:
        msg = f"{target} holds {others[0]}, which is not part of a backup. Give an empty folder or an earlier backup."
        raise Unavailable(msg)


def delete_left(target: Path) -> None:
    """Delete what the folder has besides a backup. SQLite would apply an older WAL to the new database."""
    for name in _LEFT:
        (target / name).unlink(missing_ok=True)
    with contextlib.suppress(FileNotFoundError):
        (target / _UPLOADS).rmdir()


def require_backup(source: Path) -> None:
    """Raise Unavailable if the folder is not a backup. Root reads as the owner of the folder."""
    with ownership.acting(source):
        message, there = folders.file_in_the_way(source), (source / FILE).exists()
    if message:
        raise Unavailable(message)
    if not there:
        msg = f"{source} is not a backup: it has no {FILE}. Give the folder that polly-server backup --to wrote."
        raise Unavailable(msg)


def refuse_data_folder(source: Path) -> None:
    """Raise Unavailable if the folder is the data folder of a server: a restore would lose what is in its WAL.

    A backup that an older version looked at may have other lock files, and an empty WAL.
    """
    wal = source / (FILE + "-wal")
    with ownership.acting(source):
        is_data_folder = (source / SERVER_LOCK).exists() or (wal.exists() and wal.stat().st_size > 0)
    if is_data_folder:
        place = quote(str(source))
        msg = (
            f"{source} is the data folder of a server, not a backup. Make a backup of it, and restore that:"
            + to_paste(f"polly-server backup --data {place} --to …")
        )
        raise Unavailable(msg)


def check_whole(source: Path) -> None:
    """Raise Unavailable if the database of a backup is damaged."""
    with ownership.acting(source):
        is_damaged = db.copies.is_damaged(source / FILE)
    if is_damaged:
        msg = (
            f"The database of the backup {source} is damaged. Nothing was restored. Restore another backup, or write "
            "this one again if the registry still exists:"
            + to_paste(f"polly-server backup --data … --to {quote(str(source))}")
        )
        raise Unavailable(msg)


def check_same(target: Path, *, is_readable: bool) -> None:
    """Raise Unavailable if the folder holds the backup of another registry than the one that is being copied.

    ``is_readable`` says whether it has a database that is not damaged. Its journal is compared too, unless the database
    says that it is its own.
    """
    part = target / (FILE + PART)
    if is_readable and not db.copies.is_later(part, target / FILE):
        fact = "holds the backup of another registry"
    elif (is_readable and db.copies.last_batch(target / FILE) == frames.last(target)) or _is_earlier(target, part):
        return
    else:
        fact = f"has {'a' if is_readable else 'no undamaged'} database, and the journal of another registry"
    part.unlink()
    msg = f"{target} {fact}. Nothing in it was changed. Give each registry its own folder."
    raise Unavailable(msg)


def _is_earlier(target: Path, part: Path) -> bool:
    """Whether the journal in a backup is an earlier state of the registry in ``part``. It reads the whole journal."""
    with connect(part) as connection:
        return older.is_descendant(connection, frames.read_chain(target))
