"""The row of the journal: its last batch, where new files begin, and how much a compaction would remove."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import case, column, insert, select, table, update

from polly_dockers.db.schema import journal

if TYPE_CHECKING:
    from sqlalchemy import Connection

NUMBERED: Final = ("users", "organisations", "repositories", "manifests", "commits", "trash", "audit")
"""Tables in the journal whose ids are never used twice."""
_SEQUENCES: Final = table("sqlite_sequence", column("name"), column("seq"))
"""The table of SQLite's AUTOINCREMENT."""


def last_batch(connection: Connection) -> int:
    """The last batch of the journal that is in the database; 0 if there is none."""
    return connection.execute(select(journal.c.batch)).scalar_one_or_none() or 0


def advance(connection: Connection, batch: int) -> None:
    """Set the last batch, in the transaction of that batch."""
    if connection.execute(update(journal).values(batch=batch)).rowcount == 0:
        connection.execute(insert(journal).values(batch=batch))


def begin_file(connection: Connection, batch: int) -> None:
    """Set the batch from which on batches go to new files."""
    connection.execute(update(journal).values(since=batch))


def stale(connection: Connection) -> int:
    """How many purged things the journal still holds."""
    return connection.execute(select(journal.c.stale)).scalar_one_or_none() or 0


def last_ids(connection: Connection) -> list[tuple[str, int]]:
    """The last id that each table of NUMBERED has given out, with the table's name."""
    query = select(_SEQUENCES.c.name, _SEQUENCES.c.seq).where(_SEQUENCES.c.name.in_(NUMBERED))
    return [(row.name, row.seq) for row in connection.execute(query)]


def put_last_id(connection: Connection, name: str, last: int) -> None:
    """Make a table of NUMBERED give out only ids after this one."""
    own = _SEQUENCES.c.name == name
    known = connection.execute(select(_SEQUENCES.c.seq).where(own)).scalar_one_or_none()
    if known is None:
        connection.execute(insert(_SEQUENCES).values(name=name, seq=last))
    elif known < last:
        connection.execute(update(_SEQUENCES).where(own).values(seq=last))


def add_stale(connection: Connection, count: int) -> None:
    """Add to the number of purged things in the journal; ``count`` is negative after a compaction."""
    left = journal.c.stale + count
    connection.execute(update(journal).values(stale=case((left > 0, left), else_=0)))
