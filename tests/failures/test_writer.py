"""37: a process that cannot write to the database any more says so and ends; nothing waits for ever."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from typing import TYPE_CHECKING

from failures.client import GONE
from failures.serving import serving
from failures.test_signals import free, until
from failures.tracer import trace
from support.wire_client import Person, image

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from support.server import Server

SECONDS = 60.0
"""Seconds after which the test fails if something has not happened."""


def workers(server: Server) -> list[int]:
    """The worker processes of a server."""
    assert server.process is not None
    with open(f"/proc/{server.process.pid}/task/{server.process.pid}/children", encoding="ascii") as file:  # noqa: PTH123
        return [int(word) for word in file.read().split()]


def status(ask: Callable[[], int]) -> int:
    """The status of an answer; 0 if the connection was cut off."""
    try:
        return ask()
    except GONE:
        return 0


def test_a_worker_whose_lock_cannot_be_released(tmp_path: Path) -> None:
    """Its client gets 503, its log says why it ends, and a new worker accepts the next push."""
    with serving(tmp_path, "--workers", "1") as server:
        repo = Person(server.port, server.org, *server.admin).new_repo()
        made = image()
        repo.push(made, "v1")
        [worker] = workers(server)
        ended = os.pidfd_open(worker)
        # in each thread, the second flock is the one that lets others write; then the lock can't be opened again either
        try:
            with trace(server, "flock,openat", "error=EIO:when=2+2", ("openat", "error=EIO")):
                refused = status(lambda: repo.put("v2", made.manifest).status)
                assert select.select([ended], [], [], SECONDS)[0], "the worker goes on"
        finally:
            os.close(ended)
        assert refused == 503
        said = server.log.read_text()
        assert "worker process can't write to the database any more and exits" in said
        assert "can't be released" in said
        until(lambda: status(lambda: repo.put("v3", made.manifest).status) == 201, "no new worker takes a push")
        assert repo.manifest("v2").status == 200  # it was committed before the lock; the 503 said to look


def test_workers_that_end_again_and_again(tmp_path: Path) -> None:
    """If every worker ends at once, the server gives up after eight, and ends with an exit code and a message."""
    with serving(tmp_path, "--workers", "1") as server:
        process = server.process
        assert process is not None
        killed: set[int] = set()

        def over() -> bool:
            with contextlib.suppress(ProcessLookupError, FileNotFoundError):
                for worker in workers(server):
                    os.kill(worker, signal.SIGKILL)
                    killed.add(worker)
            assert len(killed) <= 8, "the server forks one worker after another"
            return process.poll() is not None

        until(over, "the server goes on without workers")
        assert process.returncode == 1
        assert process.stdout is not None
        process.stdout.close()
        server.process = None
        assert "8 worker processes in a row crashed" in server.log.read_text()
        assert free(server.port)
