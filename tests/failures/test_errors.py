"""18: EIO and ENOSPC at each kind of call that stores data: a clear error, nothing incomplete, and it goes on."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from failures.client import Pusher, check, kill, verify
from failures.tracer import steps, trace
from support.server import Server, free_port
from support.wire_client import Person

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CALLS = (
    *("mknodat", "openat", "pwrite64", "fsetxattr", "fsync", "fdatasync"),
    *("rename", "ftruncate", "flock", "sync_file_range"),
)
"""Of uploads, of commits, of the database, its log and the journal."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server with one worker that stays up all the time."""
    made = Server(tmp_path / "data", free_port(), ("--workers", "1"))
    made.init()
    made.start()
    yield made
    if made.process is not None:
        kill(made)


def push(pusher: Pusher) -> None:
    """Push in both ways, overwrite a tag, and delete one; errors are allowed."""
    pusher.image("v1")
    pusher.image("v1", whole=True)
    if pusher.image("v2"):
        pusher.delete("v2")


def errors() -> list[str]:
    """What is injected: the errors by turns, at the calls of the selection; with POLLY_EVERY_CALL=1 both at each."""
    chosen = steps(60)
    both = [(f"error={error}:when={number}") for number in chosen for error in ("EIO", "ENOSPC")]
    return both if os.environ.get("POLLY_EVERY_CALL") else [both[2 * at + at % 2] for at in range(len(chosen))]


@pytest.mark.parametrize("call", CALLS)
def test_an_error_at_every_call(server: Server, call: str) -> None:
    """The first, second, … call fails: the answer is 507 or 503, reads go on, and the next push is stored."""
    repo = Person(server.port, server.org, *server.admin).new_repo()
    pusher = Pusher(repo)
    assert pusher.image("before")
    chosen = errors()
    print(f"{call}: {len(chosen)} errors")
    for error in chosen:
        with trace(server, call, error):
            push(pusher)
            verify(repo, pusher.record)
        assert pusher.image(f"after {error}".translate(str.maketrans(" =:", "---"))), (error, pusher.record.refusals)
    assert set(pusher.record.refusals) <= {503, 507}
    verify(repo, pusher.record)
    assert server.process is not None
    assert server.process.poll() is None
    kill(server)
    check(server)
    server.start()
    verify(Person(server.port, server.org, *server.admin).at(repo.name), pusher.record)
