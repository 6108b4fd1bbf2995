"""16: kill -9 at every system call of a commit. What was answered with success is there, byte for byte."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from conftest import Server, free_port, polly_server
from contract.wire_client import Person
from failures.client import Pusher, check, kill, rebuild, scenario, verify

if TYPE_CHECKING:
    from pathlib import Path

CALLS = ("openat", "pwrite64", "fsetxattr", "fsync", "fdatasync", "rename", "ftruncate", "flock", "close", "sendto")
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


def steps(call: str) -> list[int]:
    """Numbers of calls: each one up to 12, then with growing gaps, for they repeat."""
    found, number = [], 1
    while number < MOST:
        found.append(number)
        number += 1 if number < 12 else max(2, number // 5)
    return found if call not in {"close", "flock", "openat"} else found[::2]


@pytest.mark.parametrize("call", CALLS)
def test_kill_at_every_call(tmp_path: Path, call: str) -> None:
    """The server is killed at the first, second, … call, and started again, until the scenario comes to its end."""
    server = Server(tmp_path / "data", free_port(), ("--workers", "1"))
    server.init()
    killed = 0
    for number in steps(call):
        server.start()
        ann = Person(server.port, server.org, *server.admin)
        repo = ann.new_repo()
        tracer = trace(server, call, number)
        pusher = Pusher(repo)
        scenario(pusher)
        survived = tracer.poll() is None
        kill(server)
        tracer.kill()
        tracer.wait()
        if tracer.stderr is not None:
            tracer.stderr.close()
        server.start()
        verify(Person(server.port, server.org, *server.admin).at(repo.name), pusher.record)
        kill(server)
        check(server)
        assert pusher.record.refusals == []
        if survived:
            break
        killed += 1
    assert killed > 0
    name, record = repo.name.partition("/")[2], pusher.record

    def again() -> Person:
        return Person(server.port, server.org, *give_back(server))

    rebuild(server, again, name, record)
    kill(server)


def give_back(server: Server) -> tuple[str, str]:
    """The admin's role and password, which a rebuild can't bring back; the email and password."""
    email, password = server.admin
    place = ("--data", str(server.data), "--email", email, "--password-stdin")
    polly_server("user", "add", "--org", server.org, "--role", "admin", *place, stdin=password)
    polly_server("user", "reset-password", *place, stdin=password)
    return email, password
