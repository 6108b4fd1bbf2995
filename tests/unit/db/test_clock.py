"""39: how much time has really passed, even if the wall clock jumps."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import insert, select

from polly_dockers import db
from polly_dockers.db import migrate
from polly_dockers.db.clock import TOLERANCE, UNSEEN, walk_back
from polly_dockers.db.schema import tombstones
from polly_dockers.system import boot
from polly_dockers.system.durations import SECOND

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy import Connection

DAY = 86_400 * SECOND
START = 20_000 * DAY


class Clocks:
    """The clocks of the machine, moved by the test."""

    def __init__(self) -> None:
        self.wall, self.running, self.start = START, 5 * DAY, b"1" * 16

    def pass_by(self, microseconds: int) -> None:
        """Let time pass."""
        self.wall += microseconds
        self.running += microseconds


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    """The clocks that the code sees."""
    made = Clocks()
    monkeypatch.setattr(db.clock, "now", lambda: made.wall)
    monkeypatch.setattr(boot, "running", lambda: made.running)
    monkeypatch.setattr(boot, "THIS", made.start)
    return made


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tables, made once."""
    folder = tmp_path_factory.mktemp("template")
    migrate.upgrade(folder)
    return folder


@pytest.fixture
def connection(template: Path, tmp_path: Path) -> Iterator[Connection]:
    """A database with the current schema."""
    opened = db.sqlite.open_engine(shutil.copytree(template, tmp_path / "data") / db.sqlite.FILE)
    with opened.connect() as made:
        yield made
    opened.dispose()


def days_ago(connection: Connection, days: int) -> float:
    """The moment so many days ago, in days after START."""
    return (db.clock.ago(connection, days * 86_400) - START) / DAY


def test_without_a_jump_time_is_time(connection: Connection, clocks: Clocks) -> None:
    """While the machine runs, time passes as usual, however long the clock is not observed."""
    for days in (1, 30, 400):
        assert db.clock.observe(connection) == 0
        clocks.pass_by(days * DAY)
    assert days_ago(connection, 10) == 421


def test_a_jump_ahead_is_no_time(connection: Connection, clocks: Clocks) -> None:
    """Something from before a jump is as old as it was, whether the jump was observed or not."""
    db.clock.observe(connection)
    clocks.pass_by(10 * DAY)
    clocks.wall += 40 * DAY
    assert days_ago(connection, 3) == 7
    assert db.clock.observe(connection) == 40 * DAY
    assert days_ago(connection, 3) == 7
    clocks.pass_by(2 * DAY)
    db.clock.observe(connection)
    assert days_ago(connection, 3) == 9
    clocks.pass_by(2 * DAY)
    assert days_ago(connection, 3) == 51  # all of the three days are after the jump


def test_a_jump_that_is_taken_back(connection: Connection, clocks: Clocks) -> None:
    """Nothing ever counts as older than it is. Once the clock has caught up, everything is as before."""
    db.clock.observe(connection)
    clocks.wall += DAY
    db.clock.observe(connection)
    clocks.wall -= DAY
    db.clock.observe(connection)
    for _ in range(8):
        really = (clocks.wall - START) / DAY - 1
        assert days_ago(connection, 1) <= really
        clocks.pass_by(DAY // 2)
        db.clock.observe(connection)
    assert days_ago(connection, 1) == 3


def test_what_waits_is_moved_by_a_jump(connection: Connection, clocks: Clocks) -> None:
    """A jump of the clock moves the time of a tombstone, so that the file is not deleted early."""
    db.clock.observe(connection)
    connection.execute(insert(tombstones), {"storage_key": "a", "not_before": START + DAY})
    clocks.wall += 40 * DAY
    db.clock.observe(connection)
    assert connection.execute(select(tombstones.c.not_before)).scalar_one() == START + 41 * DAY
    db.clock.observe(connection)
    assert connection.execute(select(tombstones.c.not_before)).scalar_one() == START + 41 * DAY


def test_a_machine_that_was_off(connection: Connection, clocks: Clocks, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two starts of the machine at most an hour counts, because nobody knows how long it was off."""
    db.clock.observe(connection)
    clocks.wall += 10 * DAY
    clocks.running = 0
    monkeypatch.setattr(boot, "THIS", b"2" * 16)
    assert db.clock.observe(connection) == 10 * DAY - UNSEEN


def test_slewing_is_no_jump(connection: Connection, clocks: Clocks) -> None:
    """A correction of the clock by less than a minute between two observations is not a jump."""
    db.clock.observe(connection)
    clocks.wall += TOLERANCE
    assert db.clock.observe(connection) == 0
    assert walk_back(START, [], DAY) == START - DAY
