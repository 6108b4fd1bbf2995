"""37: workers that crash are replaced, each later, and in the end the server exits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from polly_dockers.server.restarts import Restarts

if TYPE_CHECKING:
    from pathlib import Path


class Clock:
    """Seconds, moved by the test."""

    at = 0.0

    def __call__(self) -> float:
        """Return the seconds."""
        return self.at


def test_delays_grow_and_then_the_server_gives_up(tmp_path: Path) -> None:
    """The first crash is replaced at once, each later one after a longer delay, and the eighth stops the server."""
    clock = Clock()
    restarts = Restarts(tmp_path, 1, clock)
    delays, ends = [], []
    for age in range(1, 9):
        restarts.started(age)
        clock.at += 59
        ends.append(restarts.exited(age, 100 + age, []))
        delays.append(restarts.delay)
    assert delays == [0, 1, 2, 4, 8, 16, 16, 16]
    assert ends == [False] * 7 + [True]


def test_a_worker_that_stays_begins_the_count_again(tmp_path: Path) -> None:
    """If a worker crashes that ran for a minute, it is replaced at once, and counts as the first crash again."""
    clock = Clock()
    restarts = Restarts(tmp_path, 1, clock)
    for age in range(1, 8):
        restarts.started(age)
        assert not restarts.exited(age, age, [])
    restarts.started(8)
    clock.at += 60
    assert not restarts.exited(8, 8, [])
    assert restarts.delay == 0
    for age in range(9, 15):
        restarts.started(age)
        assert not restarts.exited(age, age, [])
    restarts.started(15)
    assert restarts.exited(15, 15, [])


def test_a_worker_that_stays_keeps_the_server(tmp_path: Path) -> None:
    """While another worker keeps running, the server does not exit, however often one crashes."""
    clock = Clock()
    restarts = Restarts(tmp_path, 2, clock)
    restarts.started(1)
    clock.at += 60
    for age in range(2, 25):
        restarts.started(age)
        assert not restarts.exited(age, age, [1])


def test_workers_that_were_asked_to_end_do_not_count(tmp_path: Path) -> None:
    """At a reload, workers end on purpose. A later process with the id of one of them counts again."""
    restarts = Restarts(tmp_path, 1, Clock())
    for age in range(1, 25):
        restarts.started(age)
        restarts.exited_as_asked(age)
        assert not restarts.exited(age, age, [])
    assert restarts.failures == 0
    restarts.started(25)
    restarts.exited(25, 1, [])
    assert restarts.failures == 1


def test_an_end_that_could_not_be_noted(tmp_path: Path) -> None:
    """If the shared folder cannot be written, the worker still ends, and its crash counts."""
    restarts = Restarts(tmp_path / "gone", 1, Clock())
    restarts.started(1)
    restarts.exited_as_asked(1)
    assert not restarts.exited(1, 1, [])
    assert restarts.failures == 1
