"""Locks between processes: flock(2) on a file or a folder.

The kernel releases a lock when its descriptor is closed, so a process that dies leaves none. All functions raise
OSError.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import TYPE_CHECKING

from polly_dockers.system import regular

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def open_file(path: Path) -> int:
    """A descriptor of a lock file. The file is made if it is missing; only its owner can open it."""
    return regular.open_file(path, os.O_RDWR | os.O_CREAT)


def acquire(fd: int, *, shared: bool = False) -> None:
    """Take the lock, after all who hold it have released it. Any number of processes may share a lock."""
    fcntl.flock(fd, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)


def try_acquire(fd: int, *, shared: bool = False) -> bool:
    """Take the lock if that needs no waiting; whether it did."""
    try:
        fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def release(fd: int) -> None:
    """Release the lock, and keep the descriptor open."""
    fcntl.flock(fd, fcntl.LOCK_UN)


@contextlib.contextmanager
def tried(path: Path, *, shared: bool = False) -> Iterator[bool]:
    """Hold the lock of a file during the block, if that needs no waiting; yields whether it is held."""
    fd = open_file(path)
    try:
        yield try_acquire(fd, shared=shared)
    finally:
        os.close(fd)


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold the lock of a file from the start of the block to its end; waits for it."""
    fd = open_file(path)
    try:
        acquire(fd)
        yield
    finally:
        os.close(fd)
