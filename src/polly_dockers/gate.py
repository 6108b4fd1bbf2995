"""Work that a process does for a few callers at once, while the others wait their turn."""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict, deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Hashable

    from polly_dockers.errors import TooManyRequests


class Gate:
    """So many places. Those who wait for one take turns by who they are, so that a crowd is one of many."""

    def __init__(
        self, places: int, busy: TooManyRequests, *, waiting_each: int, waiting_all: int, patience: float | None = None
    ) -> None:
        """``busy`` is raised where so many wait already, of one caller or of all, or after ``patience`` seconds."""
        self._free = places
        self._busy = busy
        self._waiting_each = waiting_each
        self._waiting_all = waiting_all
        self._patience = patience
        self._waiting = 0
        self._queues: OrderedDict[Hashable, deque[asyncio.Future[None]]] = OrderedDict()

    @contextlib.asynccontextmanager
    async def place(self, who: Hashable) -> AsyncIterator[None]:
        """Hold a place; raises what the gate raises when it is busy."""
        await self._enter(who)
        try:
            yield
        finally:
            self._leave()

    async def _enter(self, who: Hashable) -> None:
        if self._free:
            self._free -= 1
            return
        if self._waiting >= self._waiting_all or len(self._queues.get(who, ())) >= self._waiting_each:
            raise self._refusal()
        mine = asyncio.get_running_loop().create_future()
        self._queues.setdefault(who, deque()).append(mine)
        self._waiting += 1
        try:
            async with asyncio.timeout(self._patience):
                await mine
        except (asyncio.CancelledError, TimeoutError) as error:
            if mine.done() and not mine.cancelled():  # the place was handed over, and is not taken
                self._leave()
            else:
                self._forget(who, mine)
            if isinstance(error, TimeoutError):
                raise self._refusal() from None
            raise

    def _refusal(self) -> TooManyRequests:
        return type(self._busy)(self._busy.message, retry_after=self._busy.retry_after)

    def _forget(self, who: Hashable, waiting: asyncio.Future[None]) -> None:
        """Whoever waited goes away; ``_leave`` may have passed over them already."""
        queue = self._queues.get(who, deque())
        if waiting not in queue:
            return
        queue.remove(waiting)
        self._waiting -= 1
        if not queue:
            del self._queues[who]

    def _leave(self) -> None:
        """Hand the place to the first of those whose turn it is."""
        if not self._queues:
            self._free += 1
            return
        who, queue = self._queues.popitem(last=False)
        first = queue.popleft()
        self._waiting -= 1
        if queue:
            self._queues[who] = queue
        if first.done():  # cancelled, and not told yet
            self._leave()
        else:
            first.set_result(None)
