"""Errors of the disk, as clients are told of them. Those of SQLite are in ``db.disk_errors``."""

from __future__ import annotations

import contextlib
import errno
from typing import TYPE_CHECKING, Final

from polly_dockers.errors import StorageFull, Unavailable
from polly_dockers.system import ownership

if TYPE_CHECKING:
    from collections.abc import Iterator

_FULL_OR_BROKEN: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO})


def is_full_or_broken(error: OSError) -> bool:
    """Whether the disk is full or broken, or a quota is reached."""
    return error.errno in _FULL_OR_BROKEN


def full() -> StorageFull:
    """The error for a disk that is full or broken."""
    msg = "The server's disk has no room or does not answer; nothing was changed."
    return StorageFull(msg)


def reported(error: OSError) -> StorageFull | Unavailable:
    """The error that clients get for an error of the system: StorageFull, AccessDenied or another Unavailable."""
    if is_full_or_broken(error):
        return full()
    if ownership.denied(error):
        return ownership.AccessDenied(error.filename)
    msg = "The server can't use its disk now; nothing was changed."
    return Unavailable(msg)


@contextlib.contextmanager
def reporting() -> Iterator[None]:
    """Raise what ``reported`` returns in place of an OSError of the block, except for FileNotFoundError."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise reported(error) from error
