"""The threads of a store of files. What may wait for a disk runs on them, so that the event loop never does."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, TypeVar

from polly_dockers.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

FILES: Final = 4
"""How many files are written at the same time, and how many are read."""
READERS: Final = 2
"""How many uploads are read again at the same time, for a digest that was not computed on arrival."""
START_SECONDS: Final = 30.0
"""Seconds that the start of an upload may wait for the disk."""
CLOSE_SECONDS: Final = 10.0
"""Seconds that the end of a process waits for its threads. They may hash a large upload, or the disk may hang."""


class Threads:
    """A few threads for each kind of work, so that no kind waits for another."""

    def __init__(self) -> None:
        self._files = ThreadPoolExecutor(FILES, "polly-files")
        self._pulls = ThreadPoolExecutor(FILES, "polly-pulls")
        self._readers = ThreadPoolExecutor(READERS, "polly-readers")
        self._starter = ThreadPoolExecutor(1, "polly-starter")
        self._probe = ThreadPoolExecutor(1, "polly-probe")

    async def run(self, fn: Callable[..., T], *args: object) -> T:
        """Run ``fn(*args)``.

        A caller that is cancelled still waits for its end, so that no descriptor is closed while a thread uses it.
        """
        return await self._run(self._files, fn, *args)

    async def pull(self, fn: Callable[..., T], *args: object) -> T:
        """Like ``run``, for what pulls read: it goes on while all that writes hangs."""
        return await self._run(self._pulls, fn, *args)

    async def run_apart(self, fn: Callable[..., T], *args: object) -> T:
        """Like ``run``, for functions that take long; at most READERS of them run at the same time."""
        return await self._run(self._readers, fn, *args)

    @staticmethod
    async def _run(pool: ThreadPoolExecutor, fn: Callable[..., T], *args: object) -> T:
        return await end_of(asyncio.get_running_loop().run_in_executor(pool, fn, *args))

    def hand_over(self, fn: Callable[..., object], *args: object) -> None:
        """Run ``fn(*args)`` as ``run`` does, for a thread that does not wait for its end."""
        self._files.submit(fn, *args)

    async def start(self, fn: Callable[..., None], *args: object) -> None:
        """Run what starts an upload; it does not wait for the syncs of others.

        Raises Unavailable if it takes longer than START_SECONDS. It may then still be run.
        """
        started = asyncio.get_running_loop().run_in_executor(self._starter, fn, *args)
        try:
            async with asyncio.timeout(START_SECONDS):
                await started
        except TimeoutError:
            msg = f"The server's disk did not answer within {START_SECONDS:g} seconds. Nothing was stored; try again."
            raise Unavailable(msg) from None

    async def probe(self, fn: Callable[[], None]) -> None:
        """Run a check of the disk, which neither delays other work nor is delayed by it."""
        await asyncio.get_running_loop().run_in_executor(self._probe, fn)

    def close(self, seconds: float) -> bool:
        """Wait for the threads; False if some are still busy after so many seconds."""
        ended = threading.Thread(target=self._shut_down, daemon=True)
        ended.start()
        ended.join(seconds)
        return not ended.is_alive()

    def _shut_down(self) -> None:
        for pool in (self._files, self._pulls, self._readers, self._starter, self._probe):
            pool.shutdown()


async def end_of(future: asyncio.Future[T]) -> T:
    """The result of what a thread does. A caller that is cancelled still waits for its end."""
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        while not future.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([future])
        raise
