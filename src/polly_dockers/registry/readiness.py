"""Whether rows and files can be written now, asked as often as anybody likes, tried once a second in all processes."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from polly_dockers import db
from polly_dockers.errors import PollyError, Unavailable
from polly_dockers.system.durations import SECOND

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from polly_dockers.context import Context

EVERY: Final = 1.0
"""Seconds for which an answer holds, in all processes of the server."""
PATIENCE: Final = 5.0
"""Seconds after which a database or a disk that does not answer counts as one that does not work."""


class Readiness:
    """What one process knows of it. A try is shared by all who ask while it goes on."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._lock_thread = ThreadPoolExecutor(1, "ready")
        self._trial: asyncio.Task[None] | None = None
        self._began = 0.0
        self._failure: PollyError | None = None
        self._holds_until = 0.0

    async def check(self) -> None:
        """Return where writing works; raises Unavailable or StorageFull where it does not, after PATIENCE at most."""
        clock = asyncio.get_running_loop().time
        if self._trial is None and clock() >= self._holds_until:
            self._began = clock()
            self._trial = asyncio.create_task(self._try())
        if self._trial is not None:
            await asyncio.wait({self._trial}, timeout=max(0.0, self._began + PATIENCE - clock()))
        if self._trial is not None:
            msg = f"The database or the disk did not answer within {PATIENCE:g} seconds."
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
            self._failure = Unavailable(f"The server can't use its disk now: {error.strerror}.")
        except BaseException:
            self._failure = Unavailable("The check of the database and the disk was not finished.")
            raise
        finally:
            self._holds_until = asyncio.get_running_loop().time() + EVERY
            self._trial = None

    @contextlib.asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        """Held by one process at a time: the others wait, and find the row that it wrote. It dies with its holder."""
        place = self._context.config.data / "ready.lock"
        fd = await asyncio.get_running_loop().run_in_executor(self._lock_thread, _open, place)
        try:
            while True:
                with contextlib.suppress(BlockingIOError):
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                await asyncio.sleep(0.02)
            yield
        finally:
            os.close(fd)


def _open(place: Path) -> int:
    """Open the file of the lock, on a thread of its own: a disk that does not answer holds up this thread alone."""
    return os.open(place, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
