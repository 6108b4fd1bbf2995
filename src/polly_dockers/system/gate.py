"""Work that a process does for a few callers at once, while the others wait their turn."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, OrderedDict, deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Hashable

    from polly_dockers.errors import TooManyRequests


class Gate:
    """So many places. Those who wait for one take turns by who they are, so that a crowd is one of many.

    A crowd may be of many: crowds take turns as well, and those within each. Where as many wait as may, the newest of
    the largest crowd makes room for one of a smaller crowd.
    """

    def __init__(
        self, places: int, busy: TooManyRequests, *, waiting_each: int, waiting_all: int, patience: float | None = None
    ) -> None:
        """``busy`` is raised where so many wait already, of one caller or of all, or after ``patience`` seconds."""
        self._free = places
        self._busy = busy
        self._waiting_each = waiting_each
        self._waiting_all = waiting_all
        self._patience = patience
        self._waiting: Counter[Hashable] = Counter()
        """How many wait, by their crowd."""
        self._crowds: OrderedDict[Hashable, OrderedDict[Hashable, deque[asyncio.Future[bool]]]] = OrderedDict()

    @contextlib.asynccontextmanager
    async def place(self, who: Hashable, crowd: Hashable = None) -> AsyncIterator[None]:
        """Hold a place, as one of a crowd; raises what the gate raises when it is busy."""
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
            if mine.done() and not mine.cancelled() and mine.result():  # the place was handed over, and is not taken
                self._leave()
            else:
                self._forget(who, crowd, mine)
            if isinstance(error, TimeoutError):
                raise self._refusal() from None
            raise
        if not placed:
            raise self._refusal()

    def _refusal(self) -> TooManyRequests:
        return type(self._busy)(self._busy.message, retry_after=self._busy.retry_after)

    def _make_room(self, crowd: Hashable) -> bool:
        """Send away the newest of the largest crowd, where that is larger than this one would be; whether it was."""
        largest, size = max(self._waiting.items(), key=lambda item: item[1], default=(None, 0))
        if size <= self._waiting[crowd] + 1:
            return False
        who, queue = max(reversed(self._crowds[largest].items()), key=lambda item: len(item[1]))
        last = queue[-1]
        self._forget(who, largest, last)
        if not last.done():
            last.set_result(False)
        return True

    def _forget(self, who: Hashable, crowd: Hashable, waiting: asyncio.Future[bool]) -> None:
        """Whoever waited goes away; ``_leave`` may have passed over them already."""
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
        """Hand the place to the first of those whose turn it is."""
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
        if first.done():  # cancelled, and not told yet
            self._leave()
        else:
            first.set_result(True)
