"""The row that tells how far the journal is: which batch was committed last, and what is worth a compaction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import case, column, insert, select, table, update

from polly_dockers.db.schema import journal

if TYPE_CHECKING:
    from sqlalchemy import Connection

NUMBERED: Final = ("users", "organisations", "repositories", "manifests", "commits", "trash", "audit")
"""Tables of the journal whose ids are never used twice."""
_SEQUENCES: Final = table("sqlite_sequence", column("name"), column("seq"))
"""SQLite's own, of AUTOINCREMENT."""


def last_batch(connection: Connection) -> int:
    """The batch of the journal that was committed last; 0 for none."""
    return connection.execute(select(journal.c.batch)).scalar_one_or_none() or 0


def advance(connection: Connection, batch: int) -> None:
    """Say which batch is committed with this transaction."""
    if connection.execute(update(journal).values(batch=batch)).rowcount == 0:
        connection.execute(insert(journal).values(batch=batch))


def begin_file(connection: Connection, batch: int) -> None:
    """Have batches from that number on appended to files that hold none before it."""
    connection.execute(update(journal).values(since=batch))


def stale(connection: Connection) -> int:
    """How many things the journal holds that are gone for good."""
    return connection.execute(select(journal.c.stale)).scalar_one_or_none() or 0


def last_ids(connection: Connection) -> list[tuple[str, int]]:
    """The last id that each of the tables of NUMBERED has given out."""
    query = select(_SEQUENCES.c.name, _SEQUENCES.c.seq).where(_SEQUENCES.c.name.in_(NUMBERED))
    return [(row.name, row.seq) for row in connection.execute(query)]


def put_last_id(connection: Connection, name: str, last: int) -> None:
    """Have a table of NUMBERED give out ids behind that one only."""
    own = _SEQUENCES.c.name == name
    known = connection.execute(select(_SEQUENCES.c.seq).where(own)).scalar_one_or_none()
    if known is None:
        connection.execute(insert(_SEQUENCES).values(name=name, seq=last))
    elif known < last:
        connection.execute(update(_SEQUENCES).where(own).values(seq=last))


def add_stale(connection: Connection, count: int) -> None:
    """Something is gone for good, and stands in the journal still; ``count`` below 0: so much has left it."""
    left = journal.c.stale + count
    connection.execute(update(journal).values(stale=case((left > 0, left), else_=0)))
