"""Errors of SQLite and of its disk, and what callers are told of them. Those of other files are in ``system.disk``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

import pysqlite3.dbapi2 as sqlite
from sqlalchemy.exc import DBAPIError

from polly_dockers.errors import Unavailable
from polly_dockers.system import disk, ownership

if TYPE_CHECKING:
    from pathlib import Path

NEEDED: Final = 1 << 20
"""A disk with fewer free bytes counts as full: opening a database takes some."""


class UnknownOutcomeError(Exception):
    """The disk failed while a transaction was stored. After a restart it may have been made or not."""


_DAMAGE: Final = ("malformed", "file is not a database", "unsupported file format", "Could not decode to UTF-8")
"""What SQLite and its driver say of a damaged file."""


class DamagedError(Unavailable):
    """The file of the database is damaged."""

    def __init__(self, message: str, *, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason or message
        """What SQLite says; clients are not told."""


def is_damage(error: BaseException) -> bool:
    """Whether the file of the database is damaged, or is none.

    If SQLite names a damaged name in its error, the driver fails to decode that, and raises UnicodeDecodeError.
    """
    if isinstance(error, (DamagedError, UnicodeDecodeError)):
        return True
    return _is_of_sqlite(error) and any(each in str(error) for each in _DAMAGE)


def reason(error: BaseException) -> str:
    """What SQLite says, of an error that ``is_damage``."""
    if isinstance(error, UnicodeDecodeError):
        return "a name in it is not text"
    return error.reason if isinstance(error, DamagedError) else str(getattr(error, "orig", None) or error)


def malformed(what: str) -> sqlite.DatabaseError:
    """An error as SQLite raises it for a damaged file, for what only the server notices."""
    return sqlite.DatabaseError(f"database disk image is malformed: {what}")


def is_of_disk(error: BaseException) -> bool:
    """Whether the cause of an error of SQLite or of the system is a full or broken disk."""
    if isinstance(error, OSError):
        return disk.is_full_or_broken(error)
    text = str(error)
    return _is_of_sqlite(error) and ("disk is full" in text or "disk I/O error" in text)


def is_unknown_outcome(error: BaseException) -> bool:
    """Whether a COMMIT that failed with this error may still have been made after a restart.

    An I/O error may come after the whole transaction was written to the WAL, where the next start of SQLite finds it.
    If the disk is full, the last page of the transaction is missing there, so SQLite ignores it.
    """
    return _is_of_sqlite(error) and "disk I/O error" in str(error)


def reported(error: BaseException) -> BaseException:
    """The error that callers get for an error of the disk, the lock or the database."""
    if isinstance(error, UnknownOutcomeError):
        msg = "The server's disk failed while it stored the change. Look whether the change was made, then try again."
        return Unavailable(msg)
    if isinstance(error, OSError):
        return disk.reported(error)
    if is_damage(error):
        told = "The server can't read its database. The operator examines it with polly-server check."
        return DamagedError(told, reason=reason(error))
    return _of_sqlite(error) if _is_of_sqlite(error) else error


def _of_sqlite(error: BaseException) -> BaseException:
    text = str(error)
    if ownership.denied(error):
        return ownership.AccessDenied()
    if is_of_disk(error):
        return disk.full()
    if "database is locked" in text:
        return Unavailable("The database is busy; try again.")
    return error


def _is_of_sqlite(error: BaseException) -> bool:
    return isinstance(error, (DBAPIError, sqlite.Error))


def trouble(folder: Path, error: BaseException) -> str | None:
    """A message if an error was caused by the disk of a data folder, and not by the database in it; else None.

    On a full disk SQLite can't make the files that belong to a database, and reports an I/O error. An empty database
    that it leaves is not deleted: another process may be making it.
    """
    if not is_of_disk(error):
        return None
    reason = getattr(error, "strerror", None) or getattr(error, "orig", None) or error
    place = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    if os.statvfs(place).f_bavail * os.statvfs(place).f_frsize < NEEDED:
        return (
            f"The disk of {folder} is full ({reason}). The data is as it was: no backup is needed. Make {NEEDED >> 20} "
            "MiB of room on that disk, then run this again."
        )
    return (
        f"The disk of {folder} does not answer as it should ({reason}), or a quota is reached. See what the system's "
        "log says of it (dmesg) and run this again before you restore anything: the database may be as it was."
    )
