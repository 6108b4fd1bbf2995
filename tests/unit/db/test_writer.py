"""What callers of the writer get, and what it records, if they fail or if their time is over."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

from polly_dockers.db import migrate, sqlite
from polly_dockers.db.journal import frames, records
from polly_dockers.db.sqlite import Database

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Connection


async def test_a_refused_caller_leaves_no_record(tmp_path: Path) -> None:
    """If one of the callers that share a transaction is refused, the journal has the records of the others only."""
    migrate.upgrade(tmp_path)
    database, go_on = Database(tmp_path), threading.Event()

    def hold(_connection: Connection) -> None:
        go_on.wait()

    def record(connection: Connection, number: int, *, refused: bool) -> None:
        records.add(connection, records.Purged(number))
        if refused:
            raise ZeroDivisionError

    first = asyncio.ensure_future(database.write(hold))
    others = [
        asyncio.ensure_future(database.write(record, number, refused=refused))
        for number, refused in ((1, False), (2, True), (3, False))
    ]
    await asyncio.sleep(0)  # all wait for the writer now
    go_on.set()
    results = await asyncio.gather(first, *others, return_exceptions=True)
    database.close()
    assert [type(each) for each in results] == [type(None), type(None), ZeroDivisionError, type(None)]
    batches = list(frames.read(tmp_path))
    assert [record for batch in batches for record in batch.records] == [records.Purged(1), records.Purged(3)]
    assert len(batches) == 1, "all of them shared a transaction"


@pytest.mark.parametrize("fails", [False, True])
async def test_a_result_that_comes_with_the_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, fails: bool
) -> None:
    """If a busy loop sees the result of a write and its deadline in the same turn, the caller gets the result."""
    migrate.upgrade(tmp_path)
    seconds, send = 0.05, sqlite._send_results

    def send_late(batch: list[Any]) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + 2 * seconds
        while loop.time() < end:
            pass
        loop.call_soon(send, batch)  # in the next turn, before the timer of the deadline

    def make(_connection: Connection) -> str:
        if fails:
            raise ZeroDivisionError
        return "made"

    monkeypatch.setattr(sqlite, "_send_results", send_late)
    database = Database(tmp_path, write_seconds=seconds)
    if fails:
        with pytest.raises(ZeroDivisionError):
            await database.write(make)
    else:
        assert await database.write(make) == "made"
    database.close()
