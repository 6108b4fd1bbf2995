"""A server of one test, on a disk that may be full."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from failures.client import kill
from support.server import Server, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from failures.clock import Clock


@contextlib.contextmanager
def serving(place: Path, *options: str, clock: Clock | None = None) -> Iterator[Server]:
    """A server with its data in that folder, and a clock; it always ends before the disk is unmounted."""
    server = Server(place / "data", free_port(), options)
    if clock is not None:
        server.command = clock.command
    server.init()
    server.start()
    try:
        yield server
    finally:
        if server.process is not None:
            kill(server)


def fill(file: Path) -> None:
    """Fill the disk, after ext4 has given back the room of files that were deleted just before."""
    os.sync()
    fd = os.open(file, os.O_WRONLY | os.O_CREAT)
    try:
        for size in (1 << 20, 1 << 12, 1):
            with contextlib.suppress(OSError):
                while True:
                    os.write(fd, b"\0" * size)
        os.fsync(fd)
    finally:
        os.close(fd)
