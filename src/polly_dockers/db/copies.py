"""Copies of the database for backups: written while the server runs, compared with an earlier copy, and read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy.exc import DBAPIError

from polly_dockers.db import damage
from polly_dockers.db.journal import state
from polly_dockers.db.sqlite import connect, now, open_unchanged
from polly_dockers.errors import Unavailable
from polly_dockers.system import durable, ownership

if TYPE_CHECKING:
    from pathlib import Path

BESIDE: Final = ("-wal", "-shm", "-journal")
"""How the names of the files end that SQLite makes beside a database while it is open."""
_SHARED: Final = [
    f"SELECT count(*), count(mine.id), coalesce(sum(mine.{created} = theirs.{created}), 0)"  # noqa: S608 - our own names
    f" FROM (SELECT id, {created} FROM earlier.{table} ORDER BY id DESC LIMIT 1000) AS theirs"
    f" LEFT JOIN main.{table} AS mine USING (id)"
    for table, created in (("users", "created_at"), ("organisations", "created_at"), ("commits", "pushed_at"))
]
"""Queries that compare the newest rows of an earlier copy with this one: how many it has, how many of them are here
too, and how many of these were created at the same time."""


def write(source: Path, copy: Path) -> None:
    """Write the database ``source``, as it is at one moment, to the file ``copy``, and sync it.

    Root reads and writes as the owner of the folders. Raises what ``sqlite.ERRORS`` lists.
    """
    for left in ("", *BESIDE):  # by a copy that was interrupted
        copy.with_name(copy.name + left).unlink(missing_ok=True)
    ownership.create(copy)
    with ownership.acting(source.parent), connect(source) as connection:
        connection.exec_driver_sql("SELECT count(*) FROM sqlite_master").scalar_one()  # it opens the WAL
        with ownership.acting(copy.parent):
            # an absolute path: a name that begins with "file:" would be a URI
            connection.exec_driver_sql("VACUUM INTO ?", (str(copy.absolute()),))
    durable.sync(copy)


def is_damaged(copy: Path) -> bool:
    """Whether a database that nobody writes to is damaged, empty or of something else.

    It reads all of it, and makes no file beside it.

    Raises what ``sqlite.ERRORS`` lists if the disk does not answer.
    """
    with copy.open("rb"):  # a missing permission is not damage
        engine = open_unchanged(copy)
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql("SELECT batch FROM journal").first()
            return bool(damage.find(connection, 1))
    except (DBAPIError, UnicodeDecodeError) as error:
        if "disk I/O error" in str(error):
            raise
        return True
    finally:
        engine.dispose()


def last_batch(copy: Path) -> int:
    """Number of the last batch in a database that nobody writes to. Reading it makes no other file."""
    engine = open_unchanged(copy)
    try:
        with engine.connect() as connection:
            return state.last_batch(connection)
    finally:
        engine.dispose()


def is_later(copy: Path, earlier: Path) -> bool:
    """Whether ``copy`` is a later state of the same registry as the database ``earlier``.

    Users, organisations and commits keep their time of creation, and no id is given twice. So rows that both have must
    agree in it.
    """
    with connect(copy) as connection:
        connection.exec_driver_sql("ATTACH DATABASE ? AS earlier", (str(earlier.absolute()),))
        rows = [row for query in _SHARED for row in connection.exec_driver_sql(query)]
    total, shared, equal = (sum(each) for each in zip(*rows, strict=True))
    return bool(shared == equal and (shared or not total))  # an empty earlier copy fits every registry


def read(copy: Path) -> tuple[int, list[tuple[str, int]]]:
    """Number of the last batch in a copy, and storage key and size in bytes of each blob that is not lost.

    Afterwards the copy needs no WAL. Raises Unavailable if the copy is damaged.
    """
    with connect(copy) as connection:
        if damage.find(connection, 1):
            msg = f"{copy} is damaged: the disk does not keep what is written to it."
            raise Unavailable(msg)
        row = connection.exec_driver_sql("SELECT batch FROM journal").first()
        keys = connection.exec_driver_sql("SELECT storage_key, size FROM blobs WHERE lost_at IS NULL").all()
        connection.exec_driver_sql("PRAGMA journal_mode=DELETE")
    return (row[0] if row is not None else 0), [(row[0], row[1]) for row in keys]


def mark_lost(copy: Path, keys: list[str]) -> None:
    """Mark the blobs with these storage keys as lost, and sync the copy. It may be of an older version."""
    with connect(copy) as connection:
        connection.exec_driver_sql("BEGIN")
        connection.exec_driver_sql("UPDATE blobs SET lost_at = ? WHERE storage_key = ?", [(now(), key) for key in keys])
        connection.exec_driver_sql("COMMIT")
        connection.exec_driver_sql("PRAGMA journal_mode=DELETE")
    durable.sync(copy)
