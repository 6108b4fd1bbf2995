"""/readyz on a disk that does not answer."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import TYPE_CHECKING

import pytest

from polly_dockers.config import Config
from polly_dockers.errors import Unavailable
from polly_dockers.registry import readiness
from polly_dockers.server import data_folder

if TYPE_CHECKING:
    from pathlib import Path


async def test_a_disk_that_hangs_holds_up_no_other_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """43: the file of the lock is opened beside the other requests, so who asks learns that the disk is silent."""
    data = tmp_path / "data"
    await asyncio.to_thread(data_folder.prepare, data)
    registry = await data_folder.open_registry(Config(data=data))
    answers = threading.Event()
    in_time: list[bool] = []

    class Hung:
        """The module ``os`` as that file sees it."""

        def __getattr__(self, name: str) -> object:
            return getattr(os, name)

        def open(self, path: Path, flags: int, mode: int) -> int:
            """Wait until the disk answers; no longer than a while, for a loop that waits here sets nothing."""
            in_time.append(answers.wait(10))
            return os.open(path, flags, mode)

    try:
        with monkeypatch.context() as patched:
            patched.setattr(readiness, "PATIENCE", 0.1)
            patched.setattr(readiness, "os", Hung())
            ready = readiness.Readiness(registry)
            with pytest.raises(Unavailable, match="did not answer"):
                await ready.check()
            answers.set()
            assert ready._trial is not None
            await ready._trial
        assert in_time == [True]
        await ready.check()
    finally:
        registry.close()
