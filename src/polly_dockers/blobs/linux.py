"""System calls of Linux that never wait for a disk, so that the event loop can make them."""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import re
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

_LIBC: Final = ctypes.CDLL(None, use_errno=True)
LINUX: Final = sys.platform == "linux"
"""On other systems nothing tells what is in memory, so callers use a thread each time."""
_OPENAT2: Final = 437
"""The number of openat2(2) on all architectures, since Linux 5.6; RESOLVE_CACHED since 5.12."""
_RESOLVE_CACHED: Final = 0x20
_AT_FDCWD: Final = -100
_SYNC_FILE_RANGE_WRITE: Final = 2
_SYNCFS_REPORTS: Final = (5, 8)
"""The version of Linux since which syncfs(2) reports bytes that could not be written."""
_SYNCED_AS_A_WHOLE: Final = frozenset({0xEF53, 0x58465342})
"""ext4 and XFS, by the numbers of statfs(2): a sync of all costs about as much as that of one file."""
_VERSION: Final = re.compile(r"\d+")
_MEMORY_BYTES: Final = 1024
"""So many bytes of /proc/meminfo hold what ``dirty`` looks for."""
_DIRTY: Final = re.compile(rb"^(Dirty|Writeback): *(\d+) kB$", re.MULTILINE)


class _OpenHow(ctypes.Structure):
    """struct open_how of openat2(2)."""

    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


_HOW: Final = _OpenHow(os.O_RDONLY | os.O_CLOEXEC, 0, _RESOLVE_CACHED)


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


def open_to_sync(folder: Path) -> int | None:
    """A descriptor for ``sync_file_system``; None if that would not report every error, or is costly.

    It reports what could not be written since the descriptor was opened.
    """
    if not LINUX or tuple(map(int, _VERSION.findall(os.uname().release)[:2])) < _SYNCFS_REPORTS:
        return None
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    if _type_of(fd) in _SYNCED_AS_A_WHOLE:
        return fd
    os.close(fd)
    return None


def _type_of(fd: int) -> int:
    """The file system of a descriptor, by the number of statfs(2); 0 if it is unknown."""
    status = (ctypes.c_long * 32)()  # struct statfs, whose first field is f_type
    return status[0] & 0xFFFFFFFF if _LIBC.fstatfs(fd, status) == 0 else 0


def sync_file_system(fd: int) -> None:
    """Make everything durable that was written to the file system of a descriptor. Raises OSError."""
    if _LIBC.syncfs(fd) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


@functools.cache
def _memory() -> int:
    """A descriptor of /proc/meminfo: opening it takes longer than reading it."""
    return os.open("/proc/meminfo", os.O_RDONLY | os.O_CLOEXEC)


def dirty() -> int:
    """Bytes in memory, of all file systems, that are not on a disk yet; very many if that is unknown."""
    try:
        found = dict(_DIRTY.findall(os.pread(_memory(), _MEMORY_BYTES, 0)))
        return sum(int(found[name]) << 10 for name in (b"Dirty", b"Writeback"))
    except (OSError, KeyError):
        return sys.maxsize
