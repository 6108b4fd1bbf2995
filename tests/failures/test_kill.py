"""16: kill -9 at every system call of a commit. What was answered with success is there, byte for byte."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from conftest import Server, free_port, polly_server
from contract.wire_client import Person
from failures.client import Pusher, check, kill, rebuild, scenario, verify

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CALLS = ("openat", "pwrite64", "fsetxattr", "fsync", "fdatasync", "rename", "flock", "close", "write")
"""What writing, syncing, naming and answering are made of. strace counts the calls of each thread."""

MOST = 400
"""Calls of one kind in a thread, at most, before the scenario is over."""


def trace(server: Server, call: str, number: int) -> subprocess.Popen[str]:
    """Kill the worker at the call of that number, from now on."""
    assert server.process is not None
    worker = subprocess.run(
        ["pgrep", "-P", str(server.process.pid)], capture_output=True, text=True, check=True
    ).stdout.split()[0]
    command = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}"]
    inject = f"inject={call}:signal=KILL:when={number}"
    tracer = subprocess.Popen([*command, "-e", inject, "-p", worker], stderr=subprocess.PIPE, text=True)
    status = f"/proc/{worker}/status"
    while tracer.poll() is None:
        with open(status, encoding="ascii") as file:  # noqa: PTH123 - read again and again
            if "TracerPid:\t0\n" not in file.read():
                return tracer
    raise AssertionError(tracer.stderr.read() if tracer.stderr else "strace ended")


def steps() -> list[int]:
    """Numbers of calls: the first ones, then with gaps, for they repeat; with POLLY_EVERY_CALL=1 all of them."""
    if os.environ.get("POLLY_EVERY_CALL"):
        return list(range(1, MOST))
    found = [1]
    while found[-1] < MOST:
        found.append(max(found[-1] + 1, found[-1] * 3 // 2))
    return found


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
    tracer = trace(server, call, number)
    try:
        survived = scenario(pusher)
    finally:
        kill(server)
        tracer.wait()
        assert tracer.stderr is not None
        tracer.stderr.close()
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
    check(server)
    rebuild(
        server,
        lambda: Person(server.port, server.org, *give_back(server)),
        pusher.repo.name.partition("/")[2],
        pusher.record,
    )


def give_back(server: Server) -> tuple[str, str]:
    """The admin's role and password, which a rebuild can't bring back; the email and password."""
    email, password = server.admin
    place = ("--data", str(server.data), "--email", email, "--password-stdin")
    polly_server("user", "add", "--org", server.org, "--role", "admin", *place, stdin=password)
    polly_server("user", "reset-password", *place, stdin=password)
    return email, password
