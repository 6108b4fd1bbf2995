"""System calls of Linux. Most of them never wait for a disk, so that the event loop can make them."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

from polly_dockers.blobs import files

_LIBC: Final = ctypes.CDLL(None, use_errno=True)
LINUX: Final = sys.platform == "linux"
"""On other systems nothing tells what is in memory, so callers use a thread each time."""
_OPENAT2: Final = 437
"""The number of openat2(2) on all architectures, since Linux 5.6; RESOLVE_CACHED since 5.12."""
_RESOLVE_CACHED: Final = 0x20
_AT_FDCWD: Final = -100
_SYNC_FILE_RANGE_WRITE: Final = 2


class _OpenHow(ctypes.Structure):
    """struct open_how of openat2(2)."""

    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


_HOW: Final = _OpenHow(files.OPEN, 0, _RESOLVE_CACHED)


def open_cached(path: str) -> int | None:
    """Open a file for reading, if that needs no disk access; None if it does, or if that is unknown.

    Raises FileNotFoundError if the file is known to be missing.
    """
    if not LINUX:
        return None
    fd: int = _LIBC.syscall(_OPENAT2, _AT_FDCWD, os.fsencode(path), ctypes.byref(_HOW), ctypes.sizeof(_HOW))
    if fd >= 0:
        return fd
    if (number := ctypes.get_errno()) == errno.ENOENT:
        raise FileNotFoundError(number, os.strerror(number), path)
    return None


def make_file(path: Path) -> None:
    """Make an empty file that only its owner can read. Raises FileExistsError. This may wait for a disk.

    On Linux it is one system call, so that a thread gives up the interpreter's lock only once.
    """
    if LINUX:
        os.mknod(path, stat.S_IFREG | 0o600)
    else:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


def read_cached(fd: int, count: int, offset: int) -> bytes | None:
    """Read like os.pread, if all bytes are in memory; None if they are not, or if that is unknown."""
    if not LINUX:
        return None
    data = bytearray(count)
    try:
        done = os.preadv(fd, [data], offset, os.RWF_NOWAIT)
    except OSError:  # EAGAIN: not in memory; EOPNOTSUPP: this file system does not support it
        return None
    return bytes(data) if done == count else None


def is_cached(fd: int, offset: int, count: int) -> bool:
    """Whether the first and the last byte of a range are in memory, so that most likely all of it is."""
    return read_cached(fd, 1, offset) is not None and read_cached(fd, 1, offset + count - 1) is not None


def begin_writing(fd: int, offset: int, count: int) -> None:
    """Make the disk begin to write a range, without waiting for it. A later fsync reports errors.

    sync_file_range(2) with SYNC_FILE_RANGE_WRITE alone does not consume the error that fsync reports.
    """
    if LINUX:
        _LIBC.sync_file_range(fd, ctypes.c_int64(offset), ctypes.c_int64(count), _SYNC_FILE_RANGE_WRITE)
