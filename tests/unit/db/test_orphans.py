"""16: a process is killed after it appended a batch to the journal, and before it stored it."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import time
from typing import TYPE_CHECKING

import msgspec
import pytest
from sqlalchemy import select

from polly_dockers.db import sqlite
from polly_dockers.db.journal import frames, records, state
from polly_dockers.db.schema import repositories
from polly_dockers.db.sqlite import FILE, connect, exclusive
from polly_dockers.maintenance import rebuild
from polly_dockers.system import durable
from support import use_cases

if TYPE_CHECKING:
    from pathlib import Path

    from polly_dockers.context import Context


def never(batch: records.Batch, more: int) -> records.RepositoryMade:
    """A record of a repository that was never stored. Its id is larger by ``more`` than that in a batch."""
    [made] = [record for record in batch.records if isinstance(record, records.RepositoryMade)]
    return msgspec.structs.replace(made, id=made.id + more, name="never", created_at=made.created_at + 1)


def append_only(folder: Path) -> int:
    """Append a batch after the newest one, as a process does that is then killed; its number."""
    *_, newest = frames.read(folder)
    journal = frames.Journal(folder)
    journal.append(newest.id + 1, newest.id, [never(newest, 1)])
    journal.close()
    return newest.id + 1


def lose_database(folder: Path) -> None:
    """Delete the database with its WAL."""
    for file in folder.glob(f"{FILE}*"):
        file.unlink()


async def names(folder: Path) -> set[str]:
    """The repositories after the database was lost and rebuilt."""
    lose_database(folder)
    await asyncio.to_thread(rebuild.rebuild, folder)
    with connect(folder / FILE) as connection:
        return set(connection.execute(select(repositories.c.name)).scalars())


@pytest.mark.parametrize("ahead", [False, True], ids=["", "clock was ahead"])
async def test_the_next_batch_takes_its_place(
    context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, ahead: bool
) -> None:
    """Whoever writes next removes it, also if both get the same number because the clock was ahead."""
    folder = context.config.data
    await use_cases.create(context, "before")
    if ahead:
        with monkeypatch.context() as patched:
            patched.setattr(sqlite, "now", lambda: time.time_ns() // 1000 + 86_400_000_000)
            await use_cases.create(context, "ahead")
    known = [batch.id for batch in frames.read(folder)]
    orphan = append_only(folder)
    await use_cases.create(context, "after")
    *earlier, last = frames.read(folder)
    assert ([batch.id for batch in earlier], last.previous) == (known, known[-1])
    assert (last.id == orphan) is ahead
    assert await names(shutil.copytree(folder, tmp_path / "copy")) == {"before", "after"} | (
        {"ahead"} if ahead else set()
    )


async def test_a_journal_that_ended_with_it(context: Context, tmp_path: Path) -> None:
    """If the journal loses what came after it, a start does not take it for the journal of another registry."""
    await use_cases.create(context, "before")
    append_only(context.config.data)
    await use_cases.create(context, "after")
    folder = shutil.copytree(context.config.data, tmp_path / "copy")
    path = max((folder / frames.FOLDER).glob("*.log"))
    *_, (_, _, begin) = frames.heads_from(path, 0)
    with path.open("r+b") as file:
        file.truncate(begin)
    rebuild.catch_up(folder)
    assert await names(folder) == {"before", "after"}


async def test_the_first_batch_of_a_file(context: Context) -> None:
    """It is removed if it began a new file, which the next batch then begins."""
    folder = context.config.data
    await use_cases.create(context, "before")
    *known, newest = [batch.id for batch in frames.read(folder)]
    path = max((folder / frames.FOLDER).glob("*.log"))
    later = path.with_name(f"{newest + 1:020}.log")
    later.write_bytes(frames.frame(newest + 1, newest, []))
    journal = frames.Journal(folder)
    journal.append(newest + 2, newest, [])
    journal.close()
    assert [batch.id for batch in frames.read(folder)] == [*known, newest, newest + 2]


@pytest.mark.parametrize("way", ["full", "compacted"])
async def test_the_last_batch_of_a_file(
    context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """It is removed before the next file is begun, because it filled its file or because of a compaction."""
    folder = context.config.data
    await use_cases.create(context, "before")
    orphan = append_only(folder)
    if way == "full":
        monkeypatch.setattr(frames, "FULL", max((folder / frames.FOLDER).glob("*.log")).stat().st_size)
    else:
        with exclusive(folder) as connection:
            state.begin_file(connection, orphan)
    await use_cases.create(context, "after")
    assert orphan not in [batch.id for batch in frames.read(folder)]
    lost = shutil.copytree(folder, tmp_path / "lost")
    path = max((lost / frames.FOLDER).glob("*.log"))
    assert way == "full" or frames.number(path) >= orphan, "the snapshot would replace a file that it does not include"
    *_, (_, _, begin) = frames.heads_from(path, 0)
    with path.open("r+b") as file:
        file.truncate(begin)
    rebuild.catch_up(lost)
    assert await names(lost) == {"before", "after"}


async def test_a_batch_after_one_that_was_taken_back(context: Context) -> None:
    """It is removed if it lies where this process had a batch whose transaction failed."""
    folder = context.config.data
    await use_cases.create(context, "before")
    *_, known = [batch.id for batch in frames.read(folder)]
    ours = frames.Journal(folder)
    ours.append(known + 1, known, [])
    ours.truncate(ours.append(known + 2, known + 1, []))
    theirs = frames.Journal(folder)
    theirs.append(known + 3, known + 1, [])
    theirs.close()
    ours.append(known + 4, known + 1, [])
    ours.close()
    assert [batch.id for batch in frames.read(folder) if batch.id > known] == [known + 1, known + 4]


async def test_a_file_whose_name_was_not_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If that fails, nothing is appended. The next batch syncs the name again, whichever process made the file."""
    synced, sync = [], durable.sync

    def broken(path: Path) -> None:
        if path.name == frames.FOLDER:
            synced.append(path)
            if len(synced) == 1:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
        sync(path)

    monkeypatch.setattr(durable, "sync", broken)
    journal = frames.Journal(tmp_path)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        journal.append(frames.FIRST, 0, [])
    journal.append(frames.FIRST, 0, [])
    journal.close()
    assert len(synced) == 2


async def test_two_batches_with_one_number(context: Context, tmp_path: Path) -> None:
    """Earlier versions could write them. The last one was stored, so a rebuild uses that one."""
    folder = context.config.data
    await use_cases.create(context, "before")
    *_, newest = frames.read(folder)
    path = max((folder / frames.FOLDER).glob("*.log"))
    whole = path.read_bytes()
    at = whole.rindex(frames.MAGIC)
    path.write_bytes(whole[:at] + frames.frame(newest.id, newest.previous, [never(newest, 0)]) + whole[at:])
    assert await names(shutil.copytree(folder, tmp_path / "copy")) == {"before"}
