"""Pages of rows that are bounded in bytes: none is lost, and what is beyond the page is not read."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Column, Integer, MetaData, NullPool, String, Table, create_engine, insert, select

from polly_dockers import db

TABLE = Table("texts", MetaData(), Column("id", Integer, primary_key=True), Column("text", String))


@given(st.lists(st.integers(0, 30), max_size=20), st.integers(1, 6), st.integers(1, 40))
def test_pages_hold_every_row_once(sizes: list[int], limit: int, room: int) -> None:
    """42: in order, each page within both bounds or of one row, and the last says that none follows."""
    with create_engine("sqlite+pysqlite://", poolclass=NullPool).connect() as connection:
        TABLE.create(connection)
        for size in sizes:
            connection.execute(insert(TABLE).values(text="x" * size))
        found, after, more = [], 0, True
        while more:
            query = select(TABLE).where(TABLE.c.id > after).order_by(TABLE.c.id)
            rows, more = db.paging.fetch(connection, query, limit, lambda row: len(row.text), room)
            assert len(rows) <= limit
            assert len(rows) <= 1 or sum(len(row.text) for row in rows) <= room
            found += [len(row.text) for row in rows]
            after = rows[-1].id if rows else after
        assert found == sizes
