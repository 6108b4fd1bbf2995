"""How many connections each worker process has, in memory that all of them share: so that each takes its share."""

from __future__ import annotations

import mmap
from typing import Final

SLOTS: Final = 64
"""If a server has more workers than this at a time, some of them share a slot, and the balance is less exact."""
SLACK: Final = 2
"""A process may not have seen yet that its last connection was closed."""


class Balance:
    """One number for each worker. The supervisor makes it before the fork."""

    def __init__(self) -> None:
        self._numbers = memoryview(mmap.mmap(-1, SLOTS * 4)).cast("I")
        """For each worker, its number of connections plus 1; 0 for a slot without a worker."""
        self._slots: dict[int, int] = {}
        self._own = 0

    def add(self, worker: int) -> None:
        """Give a worker a slot, in the supervisor right before the fork, so that the worker knows it as its own.

        ``worker`` is a number that no other worker of this server has had.
        """
        free = set(range(SLOTS)) - set(self._slots.values())
        self._own = self._slots[worker] = min(free, default=worker % SLOTS)

    def write(self, connections: int) -> None:
        """Record how many connections this process has."""
        self._numbers[self._own] = connections + 1

    def is_ahead(self) -> bool:
        """Whether another worker has fewer connections than this process, by more than SLACK."""
        own = self._numbers[self._own] - SLACK
        return any(0 < other < own for other in self._numbers)

    def leave(self) -> None:
        """Record that this process accepts no more."""
        self._numbers[self._own] = 0

    def remove(self, worker: int) -> None:
        """Record, in the supervisor, that a worker has exited."""
        self._numbers[self._slots.pop(worker)] = 0
