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
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

PRIVATE = 0o600


def config_folder() -> Path:
    """Return the folder of the profiles."""
    return _folder("APPDATA", "XDG_CONFIG_HOME", ".config")


def cache_folder() -> Path:
    """Return the folder of the registry tokens that Docker is handed."""
    folder = _folder("LOCALAPPDATA", "XDG_CACHE_HOME", ".cache")
    return folder / "Cache" if os.name == "nt" else folder


def _folder(windows: str, variable: str, below_home: str) -> Path:
    named = os.environ.get(windows if os.name == "nt" else variable)
    return (Path(named) if named else Path.home() / below_home) / "polly"


def make_private_folder(folder: Path) -> None:
    """Make the folder with mode 0700 where it is missing, and take other people's rights off it where it is not."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with contextlib.suppress(OSError):
        if folder.stat().st_mode & 0o077:
            folder.chmod(0o700)


def replace(path: Path, text: str, mode: int = PRIVATE) -> None:
    """Write the text as the whole new content of the file: after a crash there is the old file or the new one.

    The bytes are on the disk before the name points at them, and the mode is right from the first byte, whatever the
    umask. Raises OSError.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.{os.urandom(4).hex()}.tmp")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE)
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
            if hasattr(os, "fchmod"):
                os.fchmod(descriptor, mode)
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    if os.name != "nt":
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
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
