"""What the arbiter does about workers that end on their own: the next one waits, and in the end the server gives up.

A worker that ends once (it ran out of memory, its database could not be reopened) is replaced at once. Where the next
ones end soon as well, each waits longer before it serves, so that an ill disk is not asked again and again. Where no
worker stays for a while, the server ends with a message and an exit code: whoever watches it (systemd, a container
platform) knows then, and may start it again. A port that listens and never answers would tell nobody.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

SETTLED: Final = 60.0
"""Seconds after which a worker counts as one that stays."""
LONGEST: Final = 16.0
"""Seconds that a worker waits before it serves, at most."""
GIVE_UP: Final = 8
"""Workers that end soon, one after another, until the server ends: some 47 seconds after the first."""


class Restarts:
    """Counts the workers of one server that end soon; the arbiter's, and each worker has it as it was at its fork."""

    def __init__(self, folder: Path, workers: int, clock: Callable[[], float] = time.monotonic) -> None:
        """``folder`` is the server's own; ``workers`` is how many it has at once; ``clock`` tells seconds."""
        self._folder = folder
        self._workers = workers
        self._clock = clock
        self._since: dict[int, float] = {}
        self.failures = 0
        """Workers that ended soon, one after another."""

    def replaces(self, age: int) -> bool:
        """Whether the worker with that number of gunicorn takes the place of one that ended."""
        return age > self._workers

    @property
    def delay(self) -> float:
        """Seconds that a worker that starts now waits before it serves."""
        return min(LONGEST, 2.0 ** (self.failures - 2)) if self.failures > 1 else 0.0

    def started(self, age: int) -> None:
        """A worker is about to be forked."""
        self._since[age] = self._clock()

    def ended_well(self, pid: int) -> None:
        """Called in a worker that was asked to end: it does not count.

        Where the folder has no room for that, the end counts as one on its own: the next worker waits a little.
        """
        with contextlib.suppress(OSError):
            (self._folder / f"{pid}.ended").touch()

    def ended(self, age: int, pid: int, others: Iterable[int]) -> bool:
        """Called once a worker has ended; ``others`` are those that are left. Whether the server should end."""
        asked = self._folder / f"{pid}.ended"
        lived = self._stays(age)
        self._since.pop(age, None)
        if asked.exists():
            asked.unlink()
            return False
        self.failures = 1 if lived else self.failures + 1
        return self.failures >= GIVE_UP and not any(self._stays(other) for other in others)

    def _stays(self, age: int) -> bool:
        return self._clock() - self._since.get(age, self._clock()) >= SETTLED
