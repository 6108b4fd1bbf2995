"""A database that is damaged: how it is recognised, and what the operator is told to do."""

from __future__ import annotations

from shlex import quote
from typing import TYPE_CHECKING

from polly_dockers.db import disk_errors
from polly_dockers.db.sqlite import FILE, connect
from polly_dockers.errors import Unavailable

if TYPE_CHECKING:
    from pathlib import Path


def refuse(folder: Path) -> None:
    """Raise Unavailable if the database of a data folder is damaged. It reads all of it."""
    with connect(folder / FILE) as connection:
        found = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one()
    if found != "ok":
        raise Unavailable(message(folder, found))


def of(folder: Path, error: BaseException) -> str:
    """The message for an error that a damaged database of the folder caused; empty for another error."""
    return message(folder, str(getattr(error, "orig", error))) if disk_errors.is_damage(error) else ""


def message(folder: Path, reason: str) -> str:
    """What to do, with a line for each way. ``reason`` is what SQLite says."""
    place, file, aside = quote(str(folder)), quote(str(folder / FILE)), quote(str(folder / "damaged-database"))
    before = quote(str(folder) + ".damaged")
    return (
        f"The database of {folder} is damaged ({' '.join(reason.split())}). Stop the server, then do one of these:\n"
        f"To bring back everything except passwords, roles and tokens from the journal: mkdir {aside}; mv {file}* "
        f"{aside}; polly-server rebuild --data {place}\n"
        f"To go back to the newest backup, without what changed since: mv {place} {before}; polly-server restore "
        f"--from … --data {place}"
    )
