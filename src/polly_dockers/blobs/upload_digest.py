"""The digest of what has arrived of an upload, as an attribute of its file, for the process of its next request.

The size that it is of tells whether bytes came since; the boot that it was written in, whether the power may have
gone away before the bytes were synced. Where a file system has no attributes, or the note is of another size or boot,
there is no note, and the bytes are read and hashed again.
"""

from __future__ import annotations

import contextlib
import os
import struct
from typing import Final

from polly_dockers.system import boot

_NAME: Final = "user.polly"
_NOTE: Final = struct.Struct(">Q32s16s")
"""Size, SHA-256, boot: 56 bytes, which ext4 keeps in the inode."""


def write(fd: int, size: int, digest: str) -> None:
    """Note the SHA-256, in hexadecimal, of the first ``size`` bytes of the file."""
    with contextlib.suppress(OSError, AttributeError):  # no attributes in this file system, or in this system
        os.setxattr(fd, _NAME, _NOTE.pack(size, bytes.fromhex(digest), boot.THIS))


def read(fd: int, size: int) -> str | None:
    """The SHA-256, in hexadecimal, of the first ``size`` bytes of the file, where it was noted in this boot."""
    try:
        at, digest, start = _NOTE.unpack(os.getxattr(fd, _NAME))
    except (OSError, AttributeError, struct.error):
        return None
    return digest.hex() if (at, start) == (size, boot.THIS) else None
