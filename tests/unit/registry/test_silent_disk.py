"""/readyz on a disk that does not answer."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import pytest

from polly_dockers.errors import Unavailable
from polly_dockers.registry import readiness
from polly_dockers.system import regular

if TYPE_CHECKING:
    from pathlib import Path

    from polly_dockers.context import Context


async def test_a_disk_that_hangs_holds_up_no_other_request(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """43: the lock file is opened on a thread, so other requests are handled, and the check reports the disk."""
    answers = threading.Event()
    in_time: list[bool] = []

    class Hung:
        """The module ``os`` as ``regular`` sees it, which opens the lock file."""

        def __getattr__(self, name: str) -> object:
            return getattr(os, name)

        def open(self, path: Path, flags: int, mode: int) -> int:
            """Wait until the disk responds, for a limited time: nothing could end a wait on the event loop."""
            in_time.append(answers.wait(10))
            return os.open(path, flags, mode)

    with monkeypatch.context() as patched:
        patched.setattr(readiness, "PATIENCE", 0.1)
        patched.setattr(regular, "os", Hung())
        ready = readiness.Readiness(context)
        with pytest.raises(Unavailable, match="did not respond"):
            await ready.check()
        answers.set()
        assert ready._trial is not None
        await ready._trial
    assert in_time == [True]
    await ready.check()
