"""Comparing a database with the records of a journal, of which there may be millions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import event

from polly_dockers import db
from polly_dockers.db.journal import older, records, snapshot
from support.costs import new_database

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Connection

PEOPLE = 50


def statements(connection: Connection, found: list[records.Batch]) -> int:
    """How many statements it takes to see that the database is a later state."""
    count = 0

    def add(*_: object) -> None:
        nonlocal count
        count += 1

    event.listen(connection, "before_cursor_execute", add)
    assert older.is_descendant(connection, found)
    event.remove(connection, "before_cursor_execute", add)
    return count


def test_a_record_takes_one_query(tmp_path: Path) -> None:
    """Whether its row is there and is the same thing is seen at once; a row of something else is seen too."""
    with new_database(tmp_path) as connection:
        before = statements(connection, list(snapshot.batches(connection, 1)))
        for number in range(PEOPLE):
            db.accounts.add_user(connection, f"{number}@acme.example", "!")
        found = list(snapshot.batches(connection, 1))
        assert statements(connection, found) == before + PEOPLE
        other = records.UserMade(1, "other@acme.example", 1)
        unknown = records.UserMade(PEOPLE + 1, "late@acme.example", 1)
        for record in (other, unknown):
            assert not older.is_descendant(connection, [records.Batch(2, 1, [record])])
