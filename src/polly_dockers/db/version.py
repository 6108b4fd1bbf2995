"""The version of a database, read without Alembic, whose import takes longer than most commands run."""

from __future__ import annotations

import os
from contextlib import contextmanager
from shlex import quote
from typing import TYPE_CHECKING

from polly_dockers.db.schema import REVISION
from polly_dockers.db.sqlite import FILE, SERVER_LOCK, connect, is_backup
from polly_dockers.errors import Unavailable
from polly_dockers.formatting import to_paste
from polly_dockers.system import locks

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy import Connection


def read(folder: Path) -> str:
    """The revision of the tables; empty if the database has no tables yet."""
    with connect(folder / FILE) as connection:
        return _read(connection)


def is_current(connection: Connection) -> bool:
    """Whether a database has the tables of this version."""
    return _read(connection) == REVISION


def _read(connection: Connection) -> str:
    if connection.exec_driver_sql("SELECT count(*) FROM sqlite_master").scalar_one() == 0:
        return ""
    return connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar_one_or_none() or ""


def touch(connection: Connection) -> None:
    """Write a page of the database without changing anything."""
    number = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
    connection.exec_driver_sql(f"PRAGMA user_version = {int(number)}")


def check(folder: Path, found: str) -> None:
    """Raise Unavailable if a revision is newer than that of this version."""
    if found > REVISION:
        msg = (
            f"The data folder {folder} was written by a newer version of polly-server (revision {found}). "
            "Install the newer version, or restore a backup of this version."
        )
        raise Unavailable(msg)


def mark(folder: Path) -> None:
    """Make the lock file of servers: a folder that has it is a data folder, and never taken for a backup."""
    os.close(locks.open_file(folder / SERVER_LOCK))


def serve(folder: Path) -> int:
    """Take the shared lock of a server, so that nobody upgrades the tables; returns the descriptor that holds it.

    Workers inherit the descriptor. Raises Unavailable if the tables are being upgraded, or are of another version.
    """
    fd = locks.open_file(folder / SERVER_LOCK)
    try:
        is_free = locks.try_acquire(fd, shared=True)
        if is_free:
            current(folder, read(folder))
    except BaseException:
        os.close(fd)
        raise
    if not is_free:
        os.close(fd)
        msg = f"The data folder {folder} is being upgraded. Start the server again when the upgrade has ended."
        raise Unavailable(msg)
    return fd


@contextmanager
def no_server(folder: Path) -> Iterator[None]:
    """Keep servers from starting while the tables change. Raises Unavailable if one runs."""
    fd = locks.open_file(folder / SERVER_LOCK)
    try:
        if not locks.try_acquire(fd):
            msg = (
                f"A server runs on {folder}, and its database has to be made or upgraded. Stop the server first, then "
                "run this again."
            )
            raise Unavailable(msg)
        yield
    finally:
        os.close(fd)


def current(folder: Path, found: str) -> None:
    """Raise Unavailable if a revision is not that of this version."""
    check(folder, found)
    if found < REVISION and is_backup(folder):
        msg = (
            f"The backup {folder} was made by an older version of polly-server. Restore it to a folder of its own, "
            f"where it is upgraded:{to_paste(f'polly-server restore --from {quote(str(folder))} --data …')}"
        )
        raise Unavailable(msg)
    if found < REVISION:
        msg = (
            f"The data folder {folder} is of an older version of polly-server, whose server may be running. Stop that "
            f"server, make a backup with its own version, and start this one, which upgrades the folder: polly-server "
            f"run --data {quote(str(folder))}. Until then, use the polly-server of the older version."
        )
        raise Unavailable(msg)
