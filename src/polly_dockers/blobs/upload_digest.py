"""The digest of the bytes of an upload so far, as an attribute of its file, for the process of the next request.

The attribute has the size that it belongs to, in case bytes came since. It also has the boot that it was written in,
in case the power failed before the bytes were synced. If the file system has no attributes, or the size or the boot
differs, the bytes are read and hashed again.
"""

from __future__ import annotations

import contextlib
import os
import struct
from typing import Final

from polly_dockers.system import boot

_NAME: Final = "user.polly"
_VALUE: Final = struct.Struct(">Q32s16s")
"""Size, SHA-256, boot: 56 bytes, which ext4 keeps in the inode."""


def write(fd: int, size: int, digest: str) -> None:
    """Store the SHA-256, in hexadecimal, of the first ``size`` bytes of the file."""
    with contextlib.suppress(OSError, AttributeError):  # no attributes in this file system, or in this system
        os.setxattr(fd, _NAME, _VALUE.pack(size, bytes.fromhex(digest), boot.THIS))


def read(fd: int, size: int) -> str | None:
    """The SHA-256, in hexadecimal, of the first ``size`` bytes, if it was stored in this boot; else None."""
    try:
        at, digest, start = _VALUE.unpack(os.getxattr(fd, _NAME))
    except (OSError, AttributeError, struct.error):
        return None
    return digest.hex() if (at, start) == (size, boot.THIS) else None
