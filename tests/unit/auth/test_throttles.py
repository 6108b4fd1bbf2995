"""How many secrets are checked at once and in which order, and that failures count even if the disk is full."""

from __future__ import annotations

import asyncio
import time
import types
from typing import TYPE_CHECKING

import pytest

from polly_dockers import db
from polly_dockers.auth import throttles
from polly_dockers.auth.throttles import FAILURES_PAIR, Attempt, Throttles
from polly_dockers.db import migrate
from polly_dockers.db.sqlite import Database
from polly_dockers.errors import StorageFull, TooManyRequests
from polly_dockers.system.durations import DAY
from polly_dockers.system.gate import Gate

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ADDRESS = "203.0.113.1"
EMAIL = "ann@acme.example"
SECONDS = 30.0
"""After which what should not wait has failed its test."""


async def settle() -> None:
    """Let all tasks run that can."""
    for _ in range(20):
        await asyncio.sleep(0)


class Crowd:
    """Attempts of several addresses at one gate."""

    def __init__(self, places: int, *, each: int = 100, everybody: int = 100, patience: float | None = None) -> None:
        busy = TooManyRequests("busy", retry_after=5)
        self.gate = Gate(places, busy, waiting_each=each, waiting_all=everybody, patience=patience)
        self.order: list[str] = []
        self.go_on = asyncio.Semaphore(0)

    def come(self, who: str, crowd: str = "") -> asyncio.Task[None]:
        """One more attempt, which ends when it may."""

        async def attempt() -> None:
            async with self.gate.place(who, crowd):
                self.order.append(who)
                await self.go_on.acquire()

        return asyncio.create_task(attempt())


async def test_addresses_take_turns() -> None:
    """An attempt from another address waits for one attempt of a crowd, and not for all of them."""
    crowd = Crowd(1)
    tasks = [crowd.come("many") for _ in range(10)]
    await settle()
    tasks.append(crowd.come("one"))
    await settle()
    for _ in tasks:
        crowd.go_on.release()
        await settle()
    await asyncio.gather(*tasks)
    assert crowd.order.index("one") <= 2
    assert len(crowd.order) == 11


async def test_no_place_is_lost() -> None:
    """Attempts that are cancelled, before or while they wait, leave their place to the next one."""
    crowd = Crowd(2)
    tasks = [crowd.come(str(number % 3)) for number in range(9)]
    await settle()
    assert len(crowd.order) == 2
    tasks[4].cancel()
    tasks[0].cancel()
    tasks[2].cancel()
    await settle()
    for _ in tasks:
        crowd.go_on.release()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert sum(isinstance(each, asyncio.CancelledError) for each in done) == 3
    async with crowd.gate.place("a"), crowd.gate.place("b"):
        pass


async def test_patience_ends() -> None:
    """An attempt that waited too long is refused, and its place goes to the next one."""
    crowd = Crowd(1, patience=0.0)
    first = crowd.come("a")
    await settle()
    for _ in range(3):
        with pytest.raises(TooManyRequests):
            await crowd.come("b")
    crowd.go_on.release()
    await first
    async with crowd.gate.place("c"):
        pass


async def test_who_waits_is_bounded() -> None:
    """If too many wait, from one address or in all, further attempts are refused, and those that wait stay."""
    crowd = Crowd(1, each=3, everybody=5)
    tasks = [crowd.come("many") for _ in range(4)]
    await settle()
    with pytest.raises(TooManyRequests):
        await crowd.come("many")
    tasks += [crowd.come("a"), crowd.come("b")]
    await settle()
    with pytest.raises(TooManyRequests):
        await crowd.come("c")
    for _ in tasks:
        crowd.go_on.release()
    await asyncio.gather(*tasks)


async def test_the_largest_crowd_makes_room() -> None:
    """If all places to wait are taken, one of a smaller crowd replaces the newest of the largest; crowds take turns."""
    crowd = Crowd(1, everybody=6)
    many = [crowd.come(str(number), "large") for number in range(7)]
    await settle()
    others = [crowd.come("a", "small"), crowd.come("b", "small")]
    await settle()
    assert [task.done() for task in many] == [False] * 5 + [True] * 2
    with pytest.raises(TooManyRequests):
        await crowd.come("new", "large")
    small = [crowd.come(str(number), "small") for number in range(2)]
    await settle()
    assert [task.done() for task in (*small, *many)] == [False, True, *[False] * 4, *[True] * 3]
    for _ in range(9):
        crowd.go_on.release()
        await settle()
    done = await asyncio.gather(*many, *others, *small, return_exceptions=True)
    assert sum(isinstance(each, TooManyRequests) for each in done) == 4
    assert crowd.order[:4] == ["0", "1", "a", "2"]
    assert crowd.gate._waiting == {}
    async with crowd.gate.place("anybody"):
        pass


async def test_who_is_sent_away_and_cancelled() -> None:
    """If an attempt is refused and cancelled at the same time, the number of places stays right."""
    crowd = Crowd(1)
    tasks = [crowd.come(str(number), "large") for number in range(3)]
    await settle()
    assert crowd.gate._make_room("small")
    tasks[2].cancel()
    await settle()
    assert [task.done() for task in tasks] == [False, False, True]
    assert crowd.order == ["0"]
    for left in (1, 0):
        crowd.go_on.release()
        await settle()
        assert sum(not task.done() for task in tasks) == left
    await asyncio.gather(*tasks, return_exceptions=True)
    async with crowd.gate.place("b"):
        late = crowd.come("c")
        await settle()
        assert "c" not in crowd.order
    crowd.go_on.release()
    await late


async def test_sign_ins_of_one_network(database: Database) -> None:
    """As many waiting attempts as one /48 or /24 may have do not keep out other networks."""
    for near, far in (("2001:db8:1:{:x}::1", "2001:db8:2::1"), ("203.0.113.{}", "198.51.100.7")):
        limits = Throttles()
        limits._gate = Gate(1, throttles.BUSY, waiting_each=200, waiting_all=5)
        went: list[str] = []

        async def attempt(address: str, limits: Throttles = limits, went: list[str] = went) -> None:
            async with limits.attempt(database, EMAIL, address):
                went.append(address)
                await asyncio.sleep(0)

        tasks = [asyncio.create_task(attempt(near.format(number))) for number in range(1, 20)]
        tasks.append(asyncio.create_task(attempt(far)))
        await asyncio.gather(*tasks, return_exceptions=True)
        assert far in went


class FullDisk:
    """A database that can be read and not be written."""

    def __init__(self, database: Database) -> None:
        self.read = database.read

    async def write(self, *_: object) -> None:
        """Raise StorageFull."""
        msg = "The disk is full."
        raise StorageFull(msg)


class SilentDisk(FullDisk):
    """A database whose disk does not answer."""

    async def write(self, *_: object) -> None:
        """Wait without an end."""
        await asyncio.Event().wait()


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """The rows of a new data folder."""
    migrate.upgrade(tmp_path)
    opened = Database(tmp_path)
    yield opened
    opened.close()


async def fail(of_process: Throttles, disk: Database | FullDisk, times: int = 1, *, address: str = ADDRESS) -> None:
    """Make a wrong guess; fails if it waits for the disk."""
    async with asyncio.timeout(SECONDS):
        for _ in range(times):
            async with of_process.attempt(disk, EMAIL, address) as attempt:  # type: ignore[arg-type]
                await attempt.failed(disk)  # type: ignore[arg-type]


async def test_failures_count_and_not_attempts(database: Database) -> None:
    """20: any number of right secrets, one after another and at once, are let in; then ten wrong ones, no more."""
    of_process = Throttles()

    async def succeed() -> None:
        async with of_process.attempt(database, EMAIL, ADDRESS):
            await asyncio.sleep(0)

    for _ in range(150):
        await succeed()
    await asyncio.gather(*(succeed() for _ in range(150)))
    await fail(of_process, database, 10)
    with pytest.raises(TooManyRequests):
        await succeed()


async def test_a_burst_of_guesses(database: Database) -> None:
    """20: of many guesses at once, ten are checked, and the one that holds the other place."""
    of_process, checked = Throttles(), 0

    async def guess() -> None:
        nonlocal checked
        async with of_process.attempt(database, EMAIL, ADDRESS) as attempt:
            checked += 1
            await attempt.failed(database)

    answers = await asyncio.gather(*(guess() for _ in range(100)), return_exceptions=True)
    assert 10 <= checked <= 11
    assert [type(answer) for answer in answers if answer is not None] == [TooManyRequests] * (100 - checked)


async def test_a_right_secret_forgives(database: Database) -> None:
    """20: after a right secret earlier failures no longer count, whether they were written or not."""
    of_process, full = Throttles(), FullDisk(database)
    for _ in range(4):
        await fail(of_process, database, 5)
        await fail(of_process, full, 4)
        async with of_process.attempt(database, EMAIL, ADDRESS) as attempt:
            await database.write(attempt.forgive)


async def test_what_is_remembered_without_a_disk_is_bounded(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """42: what a process remembers is bounded in number, so that the oldest is dropped, and in time."""
    of_process, full = Throttles(), FullDisk(database)
    monkeypatch.setattr(throttles, "UNWRITTEN", 6)
    for number in (1, 2, 3):
        await fail(of_process, full, 10, address=f"203.0.113.{number}")
    assert len(of_process._unwritten) == 6
    await fail(of_process, database, address="203.0.113.1")
    with pytest.raises(TooManyRequests):
        await fail(of_process, database, address="203.0.113.3")
    later = time.monotonic() + 15 * 60 + 1
    monkeypatch.setattr(throttles, "time", types.SimpleNamespace(monotonic=lambda: later))
    await fail(of_process, database, address="203.0.113.3")


@pytest.mark.parametrize("kind", [FullDisk, SilentDisk])
async def test_an_ill_disk_opens_no_way_to_guess(
    database: Database, kind: type[FullDisk], monkeypatch: pytest.MonkeyPatch
) -> None:
    """18: failures that cannot be written are counted in memory, and a right password deletes them."""
    monkeypatch.setattr(throttles, "WRITE_SECONDS", 0.01)
    of_process, full = Throttles(), kind(database)
    await fail(of_process, full, FAILURES_PAIR)
    with pytest.raises(TooManyRequests):
        async with of_process.attempt(database, EMAIL, ADDRESS):
            pass
    async with of_process.attempt(database, EMAIL, "203.0.113.2") as attempt:
        assert isinstance(attempt, Attempt)
    of_process.delete(db.throttles.pair(EMAIL, ADDRESS))
    async with of_process.attempt(database, EMAIL, ADDRESS) as attempt:
        pass


@pytest.mark.parametrize("days", [-1, 1])
async def test_a_clock_that_jumps_locks_nobody_out(
    database: Database, monkeypatch: pytest.MonkeyPatch, days: int
) -> None:
    """39: failures from before a jump of a day no longer count; new ones do."""
    of_process = Throttles()
    await fail(of_process, database, FAILURES_PAIR)
    with pytest.raises(TooManyRequests):
        await fail(of_process, database)
    later = db.sqlite.now() + days * DAY
    monkeypatch.setattr(db.throttles, "now", lambda: later)
    await fail(of_process, database, FAILURES_PAIR)
    with pytest.raises(TooManyRequests):
        await fail(of_process, database)
