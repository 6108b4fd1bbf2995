r"""Where the commands keep their files, and how they write them. Standard library only: Docker waits for this.

============================  =================================  ==============================
what                          Linux, macOS                       Windows
============================  =================================  ==============================
``config_folder``             ``$XDG_CONFIG_HOME/polly``,        ``%APPDATA%\polly``
                              ``~/.config/polly``
``cache_folder``              ``$XDG_CACHE_HOME/polly``,         ``%LOCALAPPDATA%\polly\Cache``
                              ``~/.cache/polly``
============================  =================================  ==============================
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

PRIVATE = 0o600


def config_folder() -> str:
    """Return the folder of the profiles."""
    if os.name == "nt":
        return os.path.join(os.environ.get("APPDATA") or os.path.expanduser("~"), "polly")
    return os.path.join(os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config"), "polly")


def cache_folder() -> str:
    """Return the folder of the registry tokens that Docker is handed."""
    if os.name == "nt":
        return os.path.join(os.environ.get("LOCALAPPDATA") or os.path.expanduser("~"), "polly", "Cache")
    return os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "polly")


def make_private_folder(folder: str) -> None:
    """Make the folder with mode 0700 where it is missing, and take other people's rights off it where it is not."""
    os.makedirs(folder, mode=0o700, exist_ok=True)
    with contextlib.suppress(OSError):
        if os.stat(folder).st_mode & 0o077:
            os.chmod(folder, 0o700)


def replace(path: str, text: str, mode: int = PRIVATE) -> None:
    """Write the text as the whole new content of the file: after a crash there is the old file or the new one.

    The bytes are on the disk before the name points at them, and the mode is right from the first byte, whatever the
    umask. Raises OSError.
    """
    temporary = f"{path}.{os.getpid()}.{os.urandom(4).hex()}.tmp"
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE)
        with open(descriptor, "w", encoding="utf-8") as file:
            if hasattr(os, "fchmod"):
                os.fchmod(descriptor, mode)
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    if os.name != "nt":
        folder = os.open(os.path.dirname(path) or ".", os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


@contextlib.contextmanager
def locked(path: str) -> Iterator[None]:
    """Hold the lock file: one process at a time is inside. The kernel frees it when the process ends."""
    if os.name == "nt":
        yield  # a lost update is all that can happen: every write is a replacement
        return
    import fcntl

    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, PRIVATE)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
