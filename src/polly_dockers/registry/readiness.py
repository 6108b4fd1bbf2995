"""Whether the server can write now. However often it is asked, one process of the server tries it once a second."""

from __future__ import annotations

import asyncio
import contextlib
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from polly_dockers import db
from polly_dockers.errors import PollyError, Unavailable
from polly_dockers.system import locks
from polly_dockers.system.durations import SECOND

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from polly_dockers.context import Context

EVERY: Final = 1.0
"""Seconds for which a result is reused, by all processes of the server."""
PATIENCE: Final = 5.0
"""Seconds after which a database or disk that does not respond counts as not working."""


class Readiness:
    """The last result of this process. Requests that come during a trial wait for its result."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._lock_thread = ThreadPoolExecutor(1, "ready")
        self._trial: asyncio.Task[None] | None = None
        self._began = 0.0
        self._failure: PollyError | None = None
        self._holds_until = 0.0

    async def check(self) -> None:
        """Return if the server can write. Otherwise raise Unavailable or StorageFull, after at most PATIENCE."""
        clock = asyncio.get_running_loop().time
        if self._trial is None and clock() >= self._holds_until:
            self._began = clock()
            self._trial = asyncio.create_task(self._try())
        if self._trial is not None:
            await asyncio.wait({self._trial}, timeout=max(0.0, self._began + PATIENCE - clock()))
        if self._trial is not None:
            msg = f"The database or the disk did not respond within {PATIENCE:g} seconds."
            raise Unavailable(msg)
        if self._failure is not None:
            raise type(self._failure)(self._failure.message)

    async def _try(self) -> None:
        try:
            async with self._alone():
                if not await self._context.database.read(db.readiness.fresh, int(EVERY * SECOND)):
                    await self._context.blobs.check()
                    await self._context.database.write(db.readiness.write)
            self._failure = None
        except PollyError as error:
            self._failure = error
        except OSError as error:
            self._failure = Unavailable(f"The server cannot use its disk: {error.strerror}.")
        except BaseException:
            self._failure = Unavailable("The check of the database and the disk was not finished.")
            raise
        finally:
            self._holds_until = asyncio.get_running_loop().time() + EVERY
            self._trial = None

    @contextlib.asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        """A lock that one process holds at a time, until it ends; the others then find the row that it wrote."""
        place = self._context.config.data / "ready.lock"
        # Opened on a thread of its own, which alone hangs if the disk does not respond.
        fd = await asyncio.get_running_loop().run_in_executor(self._lock_thread, locks.open_file, place)
        try:
            while not locks.try_acquire(fd):  # noqa: ASYNC110 - nothing tells that another process has released it
                await asyncio.sleep(0.02)
            yield
        finally:
            os.close(fd)
