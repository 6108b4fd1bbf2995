"""System calls of Linux. Most of them never wait for a disk, so that the event loop can make them."""

from __future__ import annotations

import ctypes
import errno
import functools
import mmap
import os
import re
import stat
import sys
from pathlib import Path
from typing import Final

from polly_dockers.system import regular

_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_LIBC.mmap.restype = ctypes.c_void_p
_LIBC.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int64)
_MAP_FAILED: Final = ctypes.c_void_p(-1).value
LINUX: Final = sys.platform == "linux"
"""On other systems nothing tells what is in memory, so callers use a thread each time."""
_OPENAT2: Final = 437
"""The number of openat2(2) on all architectures, since Linux 5.6; RESOLVE_CACHED since 5.12."""
_RESOLVE_CACHED: Final = 0x20
_AT_FDCWD: Final = -100
_SYNC_FILE_RANGE_WAIT_BEFORE: Final = 1
_SYNC_FILE_RANGE_WRITE: Final = 2
_SYNCFS_REPORTS: Final = (5, 17)
"""The version of Linux since which syncfs(2) reports a journal that could not be written; lost bytes since 5.8."""
_EXT4: Final = 0xEF53
"""The number of ext4 in statfs(2). Its sync of all costs about as much as that of one file."""
_PAGED: Final = frozenset({_EXT4, 0x58465342, 0x9123683E})
"""ext4, XFS and Btrfs. Others may keep what was written in a memory of their own, as ZFS does."""
_VERSION: Final = re.compile(r"\d+")
_MEMORY_BYTES: Final = 1024
"""So many bytes of /proc/meminfo hold what ``dirty`` looks for."""
_DIRTY: Final = re.compile(rb"^(Dirty|Writeback): *(\d+) kB$", re.MULTILINE)


class _OpenHow(ctypes.Structure):
    """struct open_how of openat2(2)."""

    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


_HOW: Final = _OpenHow(regular.READ, 0, _RESOLVE_CACHED)


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


def has_left_memory(fd: int, offset: int) -> bool:
    """Whether a byte of a file is not in memory; False if that is unknown. This reads nothing, and raises nothing.

    ``read_cached`` would not do: it lets Linux begin to read, and a page that was never written is read at once.
    """
    if not LINUX:
        return False
    address = _LIBC.mmap(None, mmap.PAGESIZE, mmap.PROT_READ, mmap.MAP_SHARED, fd, offset & -mmap.PAGESIZE)
    if address == _MAP_FAILED:
        return False
    page = ctypes.c_ubyte()
    known = _LIBC.mincore(ctypes.c_void_p(address), mmap.PAGESIZE, ctypes.byref(page)) == 0
    _LIBC.munmap(ctypes.c_void_p(address), mmap.PAGESIZE)
    return known and page.value & 1 == 0 and _type_of(fd) in _PAGED


def begin_writing(fd: int, offset: int, count: int) -> None:
    """Make the disk begin to write a range, without waiting for it. A later fsync reports errors.

    sync_file_range(2) with SYNC_FILE_RANGE_WRITE alone does not consume the error that fsync reports.
    """
    if LINUX:
        _LIBC.sync_file_range(fd, ctypes.c_int64(offset), ctypes.c_int64(count), _SYNC_FILE_RANGE_WRITE)


def open_to_sync(folder: Path) -> int | None:
    """A descriptor for ``sync_file_system``; None if that would not report every error, or is costly.

    It reports what could not be written since the descriptor was opened. Raises OSError.
    """
    if not LINUX or tuple(map(int, _VERSION.findall(os.uname().release)[:2])) < _SYNCFS_REPORTS:
        return None
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if _has_journal(fd):
            _check_journal(fd)
            return fd
    except OSError:
        os.close(fd)
        raise
    os.close(fd)
    return None


def _type_of(fd: int) -> int:
    """The file system of a descriptor, by the number of statfs(2); 0 if it is unknown."""
    status = (ctypes.c_long * 32)()  # struct statfs, whose first field is f_type
    return status[0] & 0xFFFFFFFF if _LIBC.fstatfs(fd, status) == 0 else 0


def _has_journal(fd: int) -> bool:
    """Whether the file system is ext4 with a journal: what is said here of errors was tried on that.

    Without a journal, syncfs(2) writes folders after it has flushed the disk's own memory, so the power could still
    lose them.
    """
    if _type_of(fd) != _EXT4:
        return False
    device = os.fstat(fd).st_dev
    try:
        name = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}").readlink().name
        return Path("/sys/fs/ext4", name, "journal_task").read_text(encoding="ascii") != "<none>\n"
    except FileNotFoundError:
        return False


def sync_file_system(fd: int) -> None:
    """Make everything durable that was written to the file system of a descriptor. Raises OSError.

    Bytes of a file that the disk lost are reported once, even if the file is not complete yet. So a caller has to ask
    ``check_written`` about each file too.
    """
    _check(_LIBC.syncfs(fd))
    _check_journal(fd)


def _check_journal(fd: int) -> None:
    """Raise OSError if the journal of the file system has failed, now or earlier. A failed one never works again.

    syncfs(2) and fsync(2) succeed if another program met that failure. They find nothing that is left to write. A
    change of a folder needs the journal: ext4 notes the failure at the first one, and refuses the second. A file system
    that is read-only or was shut down refuses the first.
    """
    os.utime(fd)
    os.utime(fd)


def check_written(fd: int, size: int) -> None:
    """Raise OSError if the disk has lost some of the ``size`` bytes of a file. Call it after ``sync_file_system``.

    The file itself remembers pages that could not be written, until it is asked, even if a sync of the file system has
    reported them to somebody else.
    """
    _check(_LIBC.sync_file_range(fd, ctypes.c_int64(0), ctypes.c_int64(0), _SYNC_FILE_RANGE_WAIT_BEFORE))
    _check_holes(fd, size)


def sync_file(fd: int, size: int) -> None:
    """Make the ``size`` bytes of a file durable, none of which was left out. Raises OSError."""
    os.fsync(fd)
    if _type_of(fd) == _EXT4:
        _check_holes(fd, size)


def _check_holes(fd: int, size: int) -> None:
    """Raise OSError if a file has holes. A page for which ext4 found no room is one, and nobody is told of it.

    On ZFS, for example, a page of zeros is one too, so this says nothing there.
    """
    if size and os.lseek(fd, 0, os.SEEK_HOLE) < size:
        raise OSError(errno.EIO, os.strerror(errno.EIO))


def _check(result: int) -> None:
    if result < 0:
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
