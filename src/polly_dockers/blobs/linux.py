"""What Linux has in memory, and calls of it that Python has no name for: so that a loop never waits for a disk."""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from typing import Final

_LIBC: Final = ctypes.CDLL(None, use_errno=True)
LINUX: Final = sys.platform == "linux"
"""Elsewhere nobody knows what is in memory, and a thread is asked each time."""
_OPENAT2: Final = 437
"""The number of openat2(2), the same on all architectures; Linux 5.6 has it, and RESOLVE_CACHED since 5.12."""
_RESOLVE_CACHED: Final = 0x20
_AT_FDCWD: Final = -100
_SYNC_FILE_RANGE_WRITE: Final = 2


class _OpenHow(ctypes.Structure):
    """struct open_how of openat2(2)."""

    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


_HOW: Final = _OpenHow(os.O_RDONLY | os.O_CLOEXEC, 0, _RESOLVE_CACHED)


def open_cached(path: str) -> int | None:
    """A descriptor for reading, where no disk has to be asked for it; None where one has, or where nobody knows.

    Raises FileNotFoundError where it is known that there is no such file.
    """
    if not LINUX:
        return None
    fd: int = _LIBC.syscall(_OPENAT2, _AT_FDCWD, os.fsencode(path), ctypes.byref(_HOW), ctypes.sizeof(_HOW))
    if fd >= 0:
        return fd
    if (number := ctypes.get_errno()) == errno.ENOENT:
        raise FileNotFoundError(number, os.strerror(number), path)
    return None


def read_cached(fd: int, count: int, offset: int) -> bytes | None:
    """As os.pread, where all of it is in memory; None where it is not, or where nobody knows."""
    if not LINUX:
        return None
    data = bytearray(count)
    try:
        done = os.preadv(fd, [data], offset, os.RWF_NOWAIT)
    except OSError:  # EAGAIN: not in memory; EOPNOTSUPP: this file system does not tell
        return None
    return bytes(data) if done == count else None


def is_cached(fd: int, offset: int, count: int) -> bool:
    """Whether the first and the last byte of a range are in memory, and so most likely what lies between."""
    return read_cached(fd, 1, offset) is not None and read_cached(fd, 1, offset + count - 1) is not None


def begin_writing(fd: int, offset: int, count: int) -> None:
    """Let the disk begin to write a range, without waiting for it; what fails is told by the fsync that has to come.

    sync_file_range(2) with SYNC_FILE_RANGE_WRITE alone takes no error away from that fsync.
    """
    if LINUX:
        _LIBC.sync_file_range(fd, ctypes.c_int64(offset), ctypes.c_int64(count), _SYNC_FILE_RANGE_WRITE)
