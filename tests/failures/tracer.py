"""strace on a worker: it changes the N-th call of a kind, in each thread."""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.server import Server

SLOW = ("inject=fsync:delay_enter=20ms",)
"""A disk that takes 20 ms for each sync: then many pushers have uploads that are finished at the same time."""
MOST = 400
"""Calls of one kind in a thread, at most, before a scenario is over."""


@contextlib.contextmanager
def trace(server: Server, call: str, what: str, *more: str) -> Iterator[None]:
    """Inject ``what`` into the calls of the worker while the block runs: strace(1), "Tampering".

    ``more``: other injections, as strace takes them.
    """
    inject = f"inject={call}:{what}"
    others = [word for each in more for word in ("-e", each)]
    with _attached(server, "-o", "/dev/null", "-e", f"trace={call}", "-e", inject, *others):
        yield


@contextlib.contextmanager
def watch(server: Server, call: str, log: Path, *more: str) -> Iterator[None]:
    """Write a line to ``log`` for each such call of the worker while the block runs. ``more`` is as in ``trace``."""
    others = [word for each in more for word in ("-e", each)]
    with _attached(server, "-o", str(log), "-e", f"trace={call}", *others):
        yield


@contextlib.contextmanager
def _attached(server: Server, *arguments: str) -> Iterator[None]:
    assert server.process is not None
    worker = subprocess.run(
        ["pgrep", "-P", str(server.process.pid)], capture_output=True, text=True, check=True
    ).stdout.split()[0]
    line = ["strace", "-f", "-qq", *arguments, "-p", worker]
    with subprocess.Popen(line, stderr=subprocess.PIPE, text=True) as tracer:
        try:
            while not _is_traced(worker):
                assert tracer.poll() is None, tracer.stderr.read() if tracer.stderr else "strace ended"
            yield
        finally:
            tracer.terminate()


def _is_traced(worker: str) -> bool:
    """Whether strace has attached to all threads of the worker."""
    with contextlib.suppress(FileNotFoundError):  # a thread has ended meanwhile
        threads = Path(f"/proc/{worker}/task").iterdir()
        return all("TracerPid:\t0\n" not in (thread / "status").read_text("ascii") for thread in threads)
    return False


def steps(most: int = MOST) -> list[int]:
    """Numbers of calls: the first ones, then with gaps, because calls repeat; with POLLY_EVERY_CALL=1 all."""
    if os.environ.get("POLLY_EVERY_CALL"):
        return list(range(1, most))
    found = [1]
    while found[-1] < most:
        found.append(max(found[-1] + 1, found[-1] * 7 // 4))
    return found
