"""16: kill -9 at every system call of a commit. What was answered with success is there, byte for byte."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from failures.client import Pusher, check, kill, rebuild, scenario, verify
from failures.tracer import steps, trace
from support.server import Server, free_port
from support.wire_client import Person

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CALLS = ("openat", "pwrite64", "fsetxattr", "fsync", "fdatasync", "rename", "flock", "close", "write")
"""The calls that write, sync, rename and answer. strace counts the calls of each thread."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server of one worker, which may be dead at the end."""
    made = Server(tmp_path / "data", free_port(), ("--workers", "1"))
    made.init()
    yield made
    if made.process is not None:
        kill(made)


def attempt(server: Server, call: str, number: int) -> tuple[Pusher, bool]:
    """Run the scenario until the call of that number; whether the server was killed by it."""
    server.start()
    pusher = Pusher(Person(server.port, server.org, *server.admin).new_repo())
    with trace(server, call, f"signal=KILL:when={number}") as has_ended:
        try:
            survived = scenario(pusher) and not has_ended()
        finally:
            kill(server)
    return pusher, not survived


@pytest.mark.parametrize("call", CALLS)
def test_kill_at_every_call(server: Server, call: str) -> None:
    """The server is killed at the first, second, … call, and started again, until the scenario comes to its end."""
    times = 0
    for number in steps():
        pusher, killed = attempt(server, call, number)
        server.start()
        verify(Person(server.port, server.org, *server.admin).at(pusher.repo.name), pusher.record)
        kill(server)
        assert pusher.record.refusals == []
        if not killed:
            break
        times += 1
    assert times > 0
    print(f"{call}: killed at {times} calls")
    check(server)
    rebuild(
        server,
        lambda: give_back(server),
        pusher.repo.name.partition("/")[2],
        pusher.record,
    )


def give_back(server: Server) -> Person:
    """The admin, whose role and password a rebuild can't bring back."""
    server.give_admin_back()
    return Person(server.port, server.org, *server.admin)
