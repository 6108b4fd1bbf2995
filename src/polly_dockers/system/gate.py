"""A limit on how many callers do some work at once, with a fair queue for the others."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, OrderedDict, deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Hashable

    from polly_dockers.errors import TooManyRequests


class Gate:
    """A semaphore with a fair, bounded queue.

    Crowds (such as networks) take turns, and within a crowd its callers (such as addresses) do, so that no crowd and no
    caller holds up all others. If the queue is full, the newest of the largest crowd is refused, to make room for one
    of a smaller crowd.
    """

    def __init__(
        self, places: int, busy: TooManyRequests, *, waiting_each: int, waiting_all: int, patience: float | None = None
    ) -> None:
        """Raises ``busy`` if too many wait, of one caller or of all, or after waiting for ``patience`` seconds."""
        self._free = places
        self._busy = busy
        self._waiting_each = waiting_each
        self._waiting_all = waiting_all
        self._patience = patience
        self._waiting: Counter[Hashable] = Counter()
        """How many wait, by crowd."""
        self._crowds: OrderedDict[Hashable, OrderedDict[Hashable, deque[asyncio.Future[bool]]]] = OrderedDict()

    @contextlib.asynccontextmanager
    async def place(self, who: Hashable, crowd: Hashable = None) -> AsyncIterator[None]:
        """Hold a place during the block, after waiting for it. Raises ``busy``."""
        await self._enter(who, crowd)
        try:
            yield
        finally:
            self._leave()

    async def _enter(self, who: Hashable, crowd: Hashable) -> None:
        if self._free:
            self._free -= 1
            return
        if len(self._crowds.get(crowd, OrderedDict()).get(who, ())) >= self._waiting_each:
            raise self._refusal()
        if self._waiting.total() >= self._waiting_all and not self._make_room(crowd):
            raise self._refusal()
        mine = asyncio.get_running_loop().create_future()
        self._crowds.setdefault(crowd, OrderedDict()).setdefault(who, deque()).append(mine)
        self._waiting[crowd] += 1
        try:
            async with asyncio.timeout(self._patience):
                placed = await mine
        except (asyncio.CancelledError, TimeoutError) as error:
            if mine.done() and not mine.cancelled() and mine.result():  # it got the place just now
                self._leave()
            else:
                self._remove(who, crowd, mine)
            if isinstance(error, TimeoutError):
                raise self._refusal() from None
            raise
        if not placed:
            raise self._refusal()

    def _refusal(self) -> TooManyRequests:
        return type(self._busy)(self._busy.message, retry_after=self._busy.retry_after)

    def _make_room(self, crowd: Hashable) -> bool:
        """Refuse the newest of the largest crowd, if that is larger than this one would be; whether it was."""
        largest, size = max(self._waiting.items(), key=lambda item: item[1], default=(None, 0))
        if size <= self._waiting[crowd] + 1:
            return False
        who, queue = max(reversed(self._crowds[largest].items()), key=lambda item: len(item[1]))
        last = queue[-1]
        self._remove(who, largest, last)
        if not last.done():
            last.set_result(False)
        return True

    def _remove(self, who: Hashable, crowd: Hashable, waiting: asyncio.Future[bool]) -> None:
        """Remove a caller from the queue; ``_leave`` may have done so already."""
        queues = self._crowds.get(crowd, OrderedDict())
        queue = queues.get(who, deque())
        if waiting not in queue:
            return
        queue.remove(waiting)
        if not queue:
            del queues[who]
        if not queues:
            del self._crowds[crowd]
        self._count_off(crowd)

    def _count_off(self, crowd: Hashable) -> None:
        self._waiting[crowd] -= 1
        if not self._waiting[crowd]:
            del self._waiting[crowd]

    def _leave(self) -> None:
        """Give the place to the next caller in turn."""
        if not self._crowds:
            self._free += 1
            return
        crowd, queues = self._crowds.popitem(last=False)
        who, queue = queues.popitem(last=False)
        first = queue.popleft()
        if queue:
            queues[who] = queue
        if queues:
            self._crowds[crowd] = queues
        self._count_off(crowd)
        if first.done():  # cancelled, but still in the queue
            self._leave()
        else:
            first.set_result(True)
