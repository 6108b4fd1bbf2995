"""18: a transaction that fails after its batch was appended to the journal."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import select

from polly_dockers import db
from polly_dockers.db.journal import frames, state
from polly_dockers.db.schema import repositories
from polly_dockers.db.sqlite import FILE, connect
from polly_dockers.errors import Unavailable
from polly_dockers.maintenance import rebuild
from support import use_cases

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Connection

    from polly_dockers.context import Context


def create_and_break(connection: Connection) -> None:
    """Create a docker repository, and leave rows without a parent: SQLite notices that when it commits."""
    db.repositories.add(
        connection, organisation_id=1, name="refused", description="For tests.", access="private", user_id=2
    )
    connection.exec_driver_sql("PRAGMA defer_foreign_keys = ON")
    connection.exec_driver_sql("UPDATE repositories SET organisation_id = 4711")


async def test_a_commit_that_fails_leaves_no_record(context: Context) -> None:
    """The journal is as it was before, and the next batch follows the one before it."""
    await use_cases.create(context, "before")
    batches = list(frames.read(context.config.data))
    with pytest.raises(Exception, match="FOREIGN KEY"):
        await context.database.write(create_and_break)
    assert list(frames.read(context.config.data)) == batches
    await use_cases.create(context, "after")
    *earlier, last = frames.read(context.config.data)
    assert (earlier, last.previous) == (batches, batches[-1].id)


@pytest.mark.parametrize("way", ["restart", "rebuild"])
@pytest.mark.parametrize("later", [(), ("after",)])
async def test_nothing_brings_a_failed_change_back(
    context: Context, tmp_path: Path, way: str, later: tuple[str, ...]
) -> None:
    """A restart and a rebuild find what was stored before and after it, and nothing of it."""
    await use_cases.create(context, "before")
    with pytest.raises(Exception, match="FOREIGN KEY"):
        await context.database.write(create_and_break)
    for name in later:
        await use_cases.create(context, name)
    copy = shutil.copytree(context.config.data, tmp_path / "copy")
    if way == "rebuild":
        for file in copy.glob(f"{FILE}*"):
            file.unlink()
        await asyncio.to_thread(rebuild.rebuild, copy)
    else:
        rebuild.catch_up(copy)
    with connect(copy / FILE) as connection:
        assert set(connection.execute(select(repositories.c.name)).scalars()) == {"before", *later}


async def test_an_error_after_the_commit(context: Context) -> None:
    """The caller gets its result, and the batch stays in the journal: the change is stored."""
    drivers: list[Any] = []

    def refuse(cursor: Any, row: tuple[Any, ...]) -> tuple[Any, ...]:  # noqa: ANN401 - the driver is untyped
        if not cursor.connection.in_transaction:
            raise MemoryError
        return row

    def prepare(connection: Connection) -> None:
        drivers.append(connection.connection.driver_connection)
        drivers[0].row_factory = refuse

    await context.database.write(prepare)
    await use_cases.create(context, "stored")
    drivers[0].row_factory = None
    await use_cases.create(context, "after")
    with connect(context.config.data / FILE) as connection:
        assert frames.is_whole(context.config.data, state.last_batch(connection))


async def test_a_journal_that_cannot_be_shortened(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the disk fails then too, a restart may make the change after all, so the answer says: look."""

    def broken(_fd: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    await use_cases.create(context, "before")  # the file is open from now on
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", broken)
        with pytest.raises(Unavailable, match="Look whether the change was made"):
            await context.database.write(create_and_break)
    await use_cases.create(context, "after")
