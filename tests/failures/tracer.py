"""strace on a worker: it changes the N-th call of a kind, in each thread."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.server import Server

SLOW = ("fsync", "delay_enter=20ms")
"""A disk that takes 20 ms for each sync: then many pushers have uploads that are finished at the same time."""
MOST = 400
"""Calls of one kind in a thread, at most, before a scenario is over."""


@contextlib.contextmanager
def trace(server: Server, call: str, what: str, *more: tuple[str, str]) -> Iterator[Callable[[], bool]]:
    """Inject ``what`` into the calls of the worker while the block runs: strace(1), "Tampering".

    The block gets a function that says whether the worker has ended. A client may not notice that: if the worker is
    killed between two requests, another one answers the second. ``more``: other calls, and what to inject into them.
    """
    with _attached(server, "/dev/null", (), (call, what), *more) as has_ended:
        yield has_ended


@contextlib.contextmanager
def watch(server: Server, call: str, log: Path, *more: tuple[str, str]) -> Iterator[None]:
    """Write a line to ``log`` for each such call of the worker while the block runs. ``more`` is as in ``trace``."""
    with _attached(server, str(log), (call,), *more):
        yield


@contextlib.contextmanager
def _attached(
    server: Server, log: str, calls: tuple[str, ...], *injections: tuple[str, str]
) -> Iterator[Callable[[], bool]]:
    """Trace calls, and those that something is injected into: strace leaves calls alone that it does not trace."""
    assert server.process is not None
    worker = subprocess.run(
        ["pgrep", "-P", str(server.process.pid)], capture_output=True, text=True, check=True
    ).stdout.split()[0]
    traced = ",".join((*calls, *(call for call, _ in injections)))
    options = [word for call, what in injections for word in ("-e", f"inject={call}:{what}")]
    line = ["strace", "-f", "-qq", "-o", log, "-e", f"trace={traced}", *options, "-p", worker]
    process = os.pidfd_open(int(worker))
    with subprocess.Popen(line, stderr=subprocess.PIPE, text=True) as tracer:
        try:
            while not _is_traced(worker):
                assert tracer.poll() is None, tracer.stderr.read() if tracer.stderr else "strace ended"
            yield lambda: select.select([process], [], [], 0)[0] != []
        finally:
            os.close(process)
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
