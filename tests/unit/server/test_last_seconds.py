"""What a process still does at its end is limited in time, all of it together, and the log says what is lost."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import pytest
from structlog.testing import capture_logs

from polly_dockers.auth import refusals
from polly_dockers.blobs.filesystem import FileBlobStore
from polly_dockers.db.sqlite import CLOSE_SECONDS
from polly_dockers.errors import StorageFull
from polly_dockers.server import worker

if TYPE_CHECKING:
    from pathlib import Path

    from polly_dockers.context import Context


class Slow:
    """A database whose disk answers no write, and whose ``close`` takes some seconds of a clock that nobody waits for.

    It is also a store of blobs, which notes how many seconds it gets.
    """

    only_read = False

    def __init__(self, context: Context, seconds: float, error: Exception | None = None) -> None:
        self._database = context.database
        self._seconds = seconds
        self._error = error
        self.passed = 0.0
        self.left: float | None = None

    async def read(self, *args: Any) -> object:  # noqa: ANN401 - as the database's
        """Read."""
        return await self._database.read(*args)

    async def write(self, *_: object) -> None:
        """Wait, or fail. Nobody waits for ever: a test that fails ends too."""
        if self._error is not None:
            raise self._error
        await asyncio.wait_for(asyncio.get_running_loop().create_future(), 30)

    def close(self, seconds: float | None = None) -> bool:
        """Close the database, or with ``seconds`` the store."""
        if seconds is None:
            self.passed += self._seconds
        else:
            self.left = seconds
        return self._seconds < CLOSE_SECONDS


@pytest.mark.parametrize("error", [None, StorageFull("The disk is full.")])
async def test_refusals_that_are_not_written_are_counted_in_the_log(
    context: Context, monkeypatch: pytest.MonkeyPatch, error: Exception | None
) -> None:
    """If the disk does not take the last entries of the audit log, the log says how many they were."""
    monkeypatch.setattr(worker, "LAST_SECONDS", 0.0 if error is None else 60.0)
    for number in range(3):
        refusals.remember(context, f"{number}@acme.example", "192.0.2.1")
    with capture_logs() as logs:
        await worker._write_rest(replace(context, database=cast("Any", Slow(context, 0.0, error))))
        assert [each.get("entries") for each in logs] == [3]
        monkeypatch.undo()
        logs.clear()
        await worker._write_rest(context)
        assert logs == []
    assert not context.refused


@pytest.mark.parametrize(("writer", "left"), [(0.0, CLOSE_SECONDS), (4.0, CLOSE_SECONDS - 4), (CLOSE_SECONDS, 0.0)])
async def test_the_writer_and_the_files_have_one_deadline(
    context: Context, monkeypatch: pytest.MonkeyPatch, writer: float, left: float
) -> None:
    """The threads of the store get the seconds that the writer has left; none if it hangs."""
    slow = Slow(context, writer)
    monkeypatch.setattr(time, "monotonic", lambda: slow.passed)
    closed = replace(context, database=cast("Any", slow), blobs=cast("Any", slow)).close()
    assert slow.left == left
    assert closed == (left > 0)


async def test_a_store_ends_without_a_thread_that_is_busy(tmp_path: Path) -> None:
    """Whatever the thread does, the store says so after its time, and can be closed later."""
    store, free = FileBlobStore(tmp_path), threading.Event()
    busy = asyncio.create_task(store.threads.run_apart(free.wait))
    await asyncio.sleep(0)  # one step of the task: a thread has it
    assert not store.close(0.0)
    free.set()
    await busy
    assert store.close()
