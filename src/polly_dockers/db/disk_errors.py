"""Errors of the disk, of the lock and of the database, and what callers are told about them."""

from __future__ import annotations

import errno

import pysqlite3.dbapi2 as sqlite
from sqlalchemy.exc import DBAPIError

from polly_dockers.errors import StorageFull, Unavailable
from polly_dockers.system import ownership


class UnknownOutcomeError(Exception):
    """The disk failed while a transaction was stored. After a restart it may have been made or not."""


def is_of_disk(error: BaseException) -> bool:
    """Whether the cause of an error of SQLite or of the system is a full or broken disk."""
    if isinstance(error, OSError):
        return error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EIO}
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
    text = str(error)
    if isinstance(error, UnknownOutcomeError):
        msg = "The server's disk failed while it stored the change. Look whether the change was made, then try again."
        return Unavailable(msg)
    if ownership.denied(error):
        return ownership.AccessDenied(getattr(error, "filename", None))
    if isinstance(error, OSError) or is_of_disk(error):
        return StorageFull("The server's disk has no room or does not answer; nothing was changed.")
    if _is_of_sqlite(error):
        if "database is locked" in text:
            return Unavailable("The database is busy; try again.")
        if "malformed" in text:
            return Unavailable("The server can't read its database. The operator examines it with polly-server check.")
    return error


def _is_of_sqlite(error: BaseException) -> bool:
    return isinstance(error, (DBAPIError, sqlite.Error))
