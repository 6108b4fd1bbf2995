"""Opening files by names that anybody may have given to something else: a folder, a FIFO, a socket.

To open a FIFO can take for ever, and so can reading it. Functions raise OSError.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

READ: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
"""How files are opened for reading: this does not wait for the other end of a FIFO."""


class NotRegular(OSError):
    """What lies there is not a regular file."""


def open_file(path: str | Path, flags: int = READ) -> int:
    """A descriptor of a file. With O_CREAT in ``flags``, a missing one is made, which only its owner can open.

    Raises NotRegular if something else lies there. This never waits for the other end of a FIFO.
    """
    try:
        fd = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno in {errno.ENXIO, errno.EISDIR}:  # a socket; a folder that was opened for writing
            raise _not_regular(path) from error
        raise
    if not is_regular(fd):
        os.close(fd)
        raise _not_regular(path)
    return fd


def is_regular(fd: int) -> bool:
    """Whether the descriptor is that of a regular file."""
    return stat.S_ISREG(os.fstat(fd).st_mode)


def read(path: Path) -> bytes:
    """The content of a small file."""
    with os.fdopen(open_file(path), "rb") as file:
        return file.read()


def _not_regular(path: str | Path) -> NotRegular:
    return NotRegular(errno.EINVAL, f"{path} is not a regular file", str(path))
