"""When the journal is compacted: by size, after a while, only where there is room, and not again at once."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import select

from polly_dockers.config import Config
from polly_dockers.db import schema
from polly_dockers.db.journal import compaction, frames
from polly_dockers.errors import StorageFull, Unavailable
from polly_dockers.maintenance.garbage import COMPACT_AGAIN, COMPACTION, Collector
from polly_dockers.server import data_folder
from support.server import running_server
from support.wire_client import admin, image

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """The data folder of a registry with an image, whose server has ended."""
    with running_server(tmp_path, "--collect-seconds", "0") as server:
        admin(server).new_repo().push(image(), "v1")
        server.stop()
        yield server.data


def test_without_room(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without room nothing is written, not even the start of a new file; one byte more would be enough."""

    def row() -> object:
        return data_folder.transaction(folder, lambda connection: connection.execute(select(schema.journal)).one())

    before = row()
    free = compaction.MARGIN + sum(path.stat().st_size for path in frames.files(folder))
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: SimpleNamespace(free=free - 1))
    with pytest.raises(StorageFull, match="1 B more must be free"):
        compaction.compact(folder, lambda _took: None)
    assert row() == before
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: SimpleNamespace(free=free))
    compaction.compact(folder, lambda _took: None)
    assert frames.is_snapshot(frames.files(folder)[0])


def test_a_failed_one_is_not_repeated(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server's collector finishes without it, and tries again hours later; a command tries at once."""
    tried: list[Path] = []

    def fail(where: Path, _rest: object) -> int:
        tried.append(where)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(compaction, "is_due", lambda *_, **__: True)
    monkeypatch.setattr(compaction, "compact", fail)

    async def run() -> None:
        registry = await data_folder.open_context(Config(data=folder))
        try:
            for _ in range(3):
                assert await Collector(registry, thorough=False).run() is not None
            assert len(tried) == 1
            with pytest.raises(Unavailable, match="No space left"):
                await Collector(registry).run()
            registry.warned[COMPACTION] -= COMPACT_AGAIN
            assert await Collector(registry, thorough=False).run() is not None
            assert len(tried) == 3
        finally:
            registry.close()

    asyncio.run(run())


def test_a_run_that_is_cancelled(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No other collection begins before the compaction has really ended, however often the run is cancelled."""
    began, go_on = threading.Event(), threading.Event()

    def compact(_folder: Path, _rest: object) -> int:
        began.set()
        go_on.wait()
        return 0

    monkeypatch.setattr(compaction, "is_due", lambda *_, **__: True)
    monkeypatch.setattr(compaction, "compact", compact)

    async def run() -> None:
        registry = await data_folder.open_context(Config(data=folder))
        try:
            task = asyncio.create_task(Collector(registry).run())
            await asyncio.to_thread(began.wait)
            for _ in range(3):
                task.cancel()
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                assert await Collector(registry).run() is None
            go_on.set()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await Collector(registry).run() is not None
        finally:
            go_on.set()
            registry.close()

    asyncio.run(run())


def test_each_has_a_part_of_its_own(folder: Path) -> None:
    """Two compactions never use the same partial file."""
    names: set[str] = set()

    def stop(_took: float) -> None:
        names.update(path.name for path in (folder / frames.FOLDER).glob("*.part"))
        raise InterruptedError

    for _ in range(2):
        with pytest.raises(InterruptedError):
            compaction.compact(folder, stop)
    assert len(names) == 2
    assert not list((folder / frames.FOLDER).glob("*.part"))


def test_when_it_is_due(tmp_path: Path) -> None:
    """It is due when the journal is twice as large and 64 MiB more, or a week after a purge; a command never waits."""
    folder, now, week = tmp_path / frames.FOLDER, 2_000_000_000, 7 * 86_400
    folder.mkdir()

    def file(at: float, size: int, suffix: str = ".log", *, number: float | None = None) -> None:
        path = folder / f"{int((number or at) * 1_000_000):020}{suffix}"
        path.write_bytes(frames.frame(frames.number(path), 0, []))
        os.truncate(path, size)
        os.utime(path, (at, at))

    def due(stale: int, *, thorough: bool = False) -> bool:
        return compaction.is_due(tmp_path, stale, now, thorough=thorough)

    assert not due(1, thorough=True)
    file(now - week + 60, 1 << 20, frames.SNAPSHOT)
    assert (due(1), due(1, thorough=True), due(0, thorough=True)) == (False, True, False)
    file(now - 60, 65 << 20)
    assert not due(0)
    file(now - 30, 1 << 20)
    assert due(0)
    for path in folder.iterdir():
        path.unlink()
    file(now - week - 60, 1 << 20, frames.SNAPSHOT)
    assert (due(0), due(1)) == (False, True)
    for path in folder.iterdir():
        path.unlink()
    year = 365 * 86_400
    file(now + year, 1 << 20, frames.SNAPSHOT)
    assert (due(0), due(1)) == (False, True), "the clock was a year ahead"
    file(now - 60, 1 << 20, frames.SNAPSHOT, number=now + year + 1)
    assert not due(1), "and is right since"
    file(now - week - 60, 1 << 20, frames.SNAPSHOT, number=now + year + 2)
    assert due(1)
    for path in folder.iterdir():
        path.unlink()
    file(now, 1 << 20, number=now + year)
    assert due(1)
