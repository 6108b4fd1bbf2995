"""Errors of the disk as clients and operators get them."""

from __future__ import annotations

import contextlib
import errno
from typing import TYPE_CHECKING

from polly_dockers.errors import StorageFull, Unavailable
from polly_dockers.system import ownership

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def reported() -> Iterator[None]:
    """Raise StorageFull, AccessDenied or Unavailable in place of an OSError, except for FileNotFoundError."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EIO}:
            msg = "The server's disk has no room or does not answer; nothing was changed."
            raise StorageFull(msg) from error
        if ownership.denied(error):
            raise ownership.AccessDenied(error.filename) from error
        msg = "The server can't use its disk now; nothing was changed."
        raise Unavailable(msg) from error
