"""The row that tells how far the journal is: which batch was committed last, and what is worth a compaction."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import case, insert, select, update

from polly_dockers.db.schema import journal

if TYPE_CHECKING:
    from sqlalchemy import Connection


def committed(connection: Connection) -> int:
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


def add_stale(connection: Connection, count: int) -> None:
    """Something is gone for good, and stands in the journal still; ``count`` below 0: so much has left it."""
    left = journal.c.stale + count
    connection.execute(update(journal).values(stale=case((left > 0, left), else_=0)))
