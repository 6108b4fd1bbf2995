"""Replacing workers that crash: each next one waits longer, and after several crashes the server exits.

The first worker that crashes (out of memory, a database that can't be reopened) is replaced at once. If the next ones
crash soon after their start, each waits longer before it serves, so that a failing disk is not hammered. If no worker
stays up, the server exits with a message and exit code 1, so that systemd or a container platform sees the failure and
can restart it. A port that listens and never answers would look healthy.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

SETTLED: Final = 60.0
"""Seconds after which a worker counts as stable."""
LONGEST: Final = 16.0
"""Longest wait of a worker before it serves, in seconds."""
GIVE_UP: Final = 8
"""Crashes in a row after which the server exits: about 47 seconds after the first."""


class Restarts:
    """Counts crashes in a row. The supervisor updates it; each worker has a copy from the time of its fork."""

    def __init__(self, folder: Path, workers: int, clock: Callable[[], float] = time.monotonic) -> None:
        """``folder`` is shared by the processes of this server; ``workers`` is how many; ``clock`` returns seconds."""
        self._folder = folder
        self._workers = workers
        self._clock = clock
        self._since: dict[int, float] = {}
        self.failures = 0
        """Crashes in a row, each soon after the start of the worker."""

    def replaces(self, age: int) -> bool:
        """Whether the worker replaces an earlier one. ``age`` is gunicorn's number of the worker, from 1."""
        return age > self._workers

    @property
    def delay(self) -> float:
        """How long a worker that starts now waits before it serves, in seconds."""
        return min(LONGEST, 2.0 ** (self.failures - 2)) if self.failures > 1 else 0.0

    def started(self, age: int) -> None:
        """Record that a worker is about to be forked."""
        self._since[age] = self._clock()

    def exited_as_asked(self, pid: int) -> None:
        """Record, in the worker itself, that it exits because it was asked to: this is not a crash.

        If the disk is full, that can't be recorded. The exit then counts as a crash, and the next worker waits a bit.
        """
        with contextlib.suppress(OSError):
            (self._folder / f"{pid}.exited").touch()

    def exited(self, age: int, pid: int, others: Iterable[int]) -> bool:
        """Record that a worker has exited; ``others`` are those that run. Returns whether the server should exit."""
        asked = self._folder / f"{pid}.exited"
        was_stable = self._is_stable(age)
        self._since.pop(age, None)
        if asked.exists():
            asked.unlink()
            return False
        self.failures = 1 if was_stable else self.failures + 1
        return self.failures >= GIVE_UP and not any(self._is_stable(other) for other in others)

    def _is_stable(self, age: int) -> bool:
        return self._clock() - self._since.get(age, self._clock()) >= SETTLED
