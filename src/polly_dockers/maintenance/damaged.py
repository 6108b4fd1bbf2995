"""A database that is damaged or lost: how damage is recognised, and what the operator is told to do."""

from __future__ import annotations

from shlex import quote
from typing import TYPE_CHECKING

from polly_dockers.db import damage, disk_errors
from polly_dockers.db.sqlite import FILE, SERVER_LOCK, WRITER_LOCK, connect
from polly_dockers.errors import Unavailable
from polly_dockers.formatting import to_paste
from polly_dockers.system import folders, ownership

if TYPE_CHECKING:
    from pathlib import Path


def refuse(folder: Path) -> None:
    """Raise Unavailable if the database of a data folder is damaged. It reads all of it."""
    with connect(folder / FILE) as connection:
        found = damage.find(connection, 1)
    if found:
        raise Unavailable(message(folder, found[0]))


def of(folder: Path, error: BaseException) -> str:
    """The message for an error that a damaged database of the folder caused; empty for another error."""
    return message(folder, disk_errors.reason(error)) if disk_errors.is_damage(error) else ""


def message(folder: Path, reason: str) -> str:
    """What to do, with a line for each way. ``reason`` is what SQLite says. The folder may be a backup.

    The header of the file may be what is damaged, so a backup is known by the locks that it does not have.
    """
    place, aside = quote(str(folder)), quote(str(folders.unused(folder / "damaged-database")))
    reason = " ".join(reason.split())
    if not any((folder / lock).exists() for lock in (SERVER_LOCK, WRITER_LOCK)):
        return (
            f"The database of the backup {folder} is damaged ({reason}). The next backup to this folder replaces it:"
            + to_paste(f"polly-server backup --data … --to {place}")
        )
    away = f"install -d {ownership.as_owner_of(folder)} -m 700 {aside}", f"mv {quote(str(folder / FILE))}* {aside}"
    first = f"The database of {folder} is damaged ({reason}). Stop the server, then do one of these."
    return f"{first}\n{_ways(folder, away, '.damaged')}"


def lost(folder: Path) -> str:
    """What to do if the database is gone, as in ``message``. SQLite would apply its WAL to a copy, so that goes too."""
    return f"The database of {folder} is gone, and its blobs are there.\n{_ways(folder, _no_wal(folder), '.before')}"


def _ways(folder: Path, away: tuple[str, ...], suffix: str) -> str:
    """The ways to get a database again, with their commands. ``away`` are those that make room for it."""
    place, rebuild = quote(str(folder)), f"polly-server rebuild --data {quote(str(folder))}"
    return (
        "To bring back everything from a backup and the journal, with passwords, roles and tokens as in the backup:"
        + to_paste(*away, _copied(folder, f"…/{FILE}"), rebuild)
        + "\nTo bring back everything except passwords, roles and tokens from the journal:"
        + to_paste(*away, rebuild)
        + "\nTo go back to the newest backup, without what changed since:"
        + to_paste(*folders.moved_away(folder, suffix), f"polly-server restore --from … --data {place}")
    )


def brought_back(folder: Path, database: str) -> tuple[str, ...]:
    """The commands that bring back a lost database from that of a backup, at the quoted path, and the journal."""
    return (*_no_wal(folder), _copied(folder, database), f"polly-server rebuild --data {quote(str(folder))}")


def _no_wal(folder: Path) -> tuple[str, ...]:
    return (f"rm -f {quote(str(folder / FILE))}-*",)


def _copied(folder: Path, database: str) -> str:
    """The command that copies the database of a backup, at the quoted path, to a data folder, for its owner."""
    return f"install {ownership.as_owner_of(folder)} -m 600 {database} {quote(str(folder))}"
