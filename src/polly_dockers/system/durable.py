"""Making files and their names survive a power failure: fsync(2). All functions raise OSError."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def open_folder(folder: Path) -> int:
    """A descriptor of a folder, to sync or to lock it."""
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def sync(path: Path) -> None:
    """Sync a file, or the names in a folder."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_folder(folder: Path, mode: int = 0o700, *, parents: bool = True) -> None:
    """Make a folder and those above it that are missing, and sync their names. The name is synced if it exists too.

    Another process may have made it just now. Without ``parents`` the folder above it must be there: what belongs into
    a data folder must not be made where that was moved away, or is not mounted.
    """
    if parents and not folder.parent.exists():
        make_folder(folder.parent, 0o777)
    folder.mkdir(mode=mode, exist_ok=True)
    sync(folder.parent)


def probe(path: Path) -> None:
    """Write a new file of one byte, sync it and delete it, to find out whether the disk works."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, b"\0")
            os.fsync(fd)
        finally:
            os.close(fd)
    finally:
        path.unlink(missing_ok=True)
