r"""The folders of the commands, and safe writes to their files. Standard library only, because Docker waits for it.

============================  =================================  ==============================
what                          Linux, macOS                       Windows
============================  =================================  ==============================
``config_folder``             ``$XDG_CONFIG_HOME/polly``,        ``%APPDATA%\polly``
                              ``~/.config/polly``
``cache_folder``              ``$XDG_CACHE_HOME/polly``,         ``%LOCALAPPDATA%\polly\Cache``
                              ``~/.cache/polly``
============================  =================================  ==============================

Others use these files too: a second ``polly``, Docker, a container that mounts one, an administrator with sudo. So a
change takes a lock, reads the file again, and replaces it. A file is overwritten in place if it can't be replaced: it
is mounted, has a second name (a hard link), or is in a read-only folder.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING

from polly_dockers.cli.errors import CommandError

if TYPE_CHECKING:
    from collections.abc import Iterator

PRIVATE = 0o600
LOCK_SECONDS = 30.0
"""Seconds that a process waits for the change of another one."""
_IN_PLACE = {errno.EBUSY, errno.EACCES, errno.EPERM, errno.EROFS, errno.EXDEV}
"""Errors of replacing a file that may still be writable: it is a mount point, or its folder is protected."""
_NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EBADF}
_PERMISSIONS_OF_OTHERS = 0o077


def home(instead: str) -> Path:
    """Return the home folder; ``instead`` names a variable that could be set instead, for the error.

    Raises CommandError if there is none: HOME is missing or relative, and the user is not in /etc/passwd.
    """
    if os.name == "nt":
        return Path.home()
    named = os.environ.get("HOME", "")
    if not os.path.isabs(named):
        import pwd

        try:
            named = pwd.getpwuid(os.getuid()).pw_dir
        except KeyError:
            named = ""
    if not os.path.isabs(named):
        msg = (
            f"There is no home folder: HOME is not set, and user {os.getuid()} is not in /etc/passwd. Set HOME "
            f"or {instead} to a folder that you can write."
        )
        raise CommandError(msg)
    return Path(named)


def config_folder() -> Path:
    """Return the folder of the profiles. Raises CommandError if there is no home folder."""
    return _folder("APPDATA", "XDG_CONFIG_HOME", ".config")


def cache_folder() -> Path:
    """Return the folder of Docker's access tokens. Raises CommandError as ``config_folder``."""
    folder = _folder("LOCALAPPDATA", "XDG_CACHE_HOME", ".cache")
    return folder / "Cache" if os.name == "nt" else folder


def xdg_folder(variable: str, below_home: str) -> Path:
    """Return a folder of the XDG Base Directory Specification. Raises CommandError as ``home``.

    "All paths set in these environment variables must be absolute. If an implementation encounters a relative path in
    any of these variables it should consider the path invalid and ignore it."
    """
    named = os.environ.get(variable, "")
    return Path(named) if os.path.isabs(named) else home(variable) / below_home


def _folder(windows: str, variable: str, below_home: str) -> Path:
    named = os.environ.get(windows) if os.name == "nt" else None
    return (Path(named) if named else xdg_folder(variable, below_home)) / "polly"


def make_private_folder(folder: Path, *, tighten: bool = True) -> None:
    """Create the folder with mode 0700 if it is missing; ``tighten`` sets that mode on an existing one.

    A folder that root creates gets the owner of its parent folder. Raises OSError.
    """
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    for each in reversed(missing):
        each.mkdir(mode=0o700, exist_ok=True)
        with contextlib.suppress(OSError):
            _give(each, each.parent)
    with contextlib.suppress(OSError):
        if tighten and folder.stat().st_mode & _PERMISSIONS_OF_OTHERS:
            folder.chmod(0o700)


def replace(path: Path, text: str, *, keep_mode: bool = False) -> None:
    """Replace the content of the file atomically: after a crash there is either the old content or the new one.

    The bytes are on the disk before the name points at them. The mode is 0600 from the first byte, whatever the umask,
    or with ``keep_mode`` the file's own. A symbolic link and the owner stay. A file with a second name (a hard link), a
    mounted file, and a file in a read-only folder are overwritten in place. Raises OSError.
    """
    target = Path(os.path.realpath(path))
    before = _status(target)
    mode = stat.S_IMODE(before.st_mode) if before and keep_mode else PRIVATE
    if before and before.st_nlink > 1:
        _overwrite(target, text.encode(), mode)
        return
    try:
        temporary = _beside(target, text.encode(), mode, before)
        try:
            temporary.replace(target)
        except OSError:
            temporary.unlink()
            raise
    except OSError as error:
        if before is None or error.errno not in _IN_PLACE:
            raise
        _overwrite(target, text.encode(), mode)
    _sync_folder(target.parent)


def check_writable(path: Path) -> None:
    """Raise the OSError that ``replace`` would raise for a content of 64 KiB; the file is not changed."""
    target = Path(os.path.realpath(path))
    before = _status(target)
    try:
        _beside(target, b" " * 65_536, PRIVATE, before).unlink()
    except OSError as error:
        if before is None or error.errno not in _IN_PLACE:
            raise
        os.close(os.open(target, os.O_RDWR))


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of a file, so that one process at a time runs the block.

    This locks a file beside it, which is deleted afterwards, and the file itself, for containers that mount it without
    its folder. The kernel releases both when the process ends. If nothing can be locked (a read-only folder, a network
    file system without locks), a concurrent change may be lost. Raises OSError after LOCK_SECONDS.
    """
    if os.name == "nt":
        yield
        return
    target, deadline = Path(os.path.realpath(path)), time.monotonic() + LOCK_SECONDS
    name = target.with_name(f"{target.name}.lock")
    beside = _lock(name, os.O_CREAT, deadline)
    try:
        own = _lock(target, 0, deadline)
        try:
            yield
        finally:
            if own is not None:
                os.close(own)
    finally:
        if beside is not None:
            with contextlib.suppress(OSError):
                name.unlink()
            os.close(beside)


def _lock(path: Path, flags: int, deadline: float) -> int | None:
    """Open and lock a file; return its descriptor, or None if it can't be opened. Raises OSError at the deadline."""
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | flags, PRIVATE)
        except OSError:
            return None
        try:
            if flags:
                with contextlib.suppress(OSError):
                    _give(descriptor, path.parent)
            _wait(descriptor, path, deadline)
            if not flags or _is(descriptor, path):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # its previous holder has deleted it: lock the next one


def _wait(descriptor: int, path: Path, deadline: float) -> None:
    from polly_dockers.system import locks  # not on Windows

    pause = 0.002
    try:
        while not locks.try_acquire(descriptor):
            if time.monotonic() > deadline:
                message = f"another process has held its lock for {LOCK_SECONDS:.0f} seconds"
                raise BlockingIOError(errno.EAGAIN, message, str(path))
            time.sleep(pause)
            pause = min(pause * 1.5, 0.05)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise


def _is(descriptor: int, path: Path) -> bool:
    """Return whether the path still names the open file."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _status(target: Path) -> os.stat_result | None:
    """Return the status of a file; None if it is missing. Raises OSError if it is not a regular file."""
    try:
        status = target.stat()
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file", str(target))
    return status


def _beside(target: Path, content: bytes, mode: int, before: os.stat_result | None) -> Path:
    """Create a new file beside the target, with its content, mode and owner, and return its path."""
    temporary = target.with_name(f"{target.name}.{os.getpid()}.{os.urandom(4).hex()}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE)
    try:
        with os.fdopen(descriptor, "wb") as file:
            if before is None:
                _give(descriptor, target.parent)
            elif hasattr(os, "fchown") and (before.st_uid, before.st_gid) != (os.geteuid(), os.getegid()):
                os.fchown(descriptor, before.st_uid, before.st_gid)
            if hasattr(os, "fchmod"):
                os.fchmod(descriptor, mode)
            file.write(content)
            file.flush()
            os.fsync(descriptor)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    return temporary


def _give(made: int | Path, folder: Path) -> None:
    """Give what root created to the owner of its folder, so that sudo in a home folder locks nobody out."""
    if os.name == "nt" or os.geteuid() or not folder.stat().st_uid:
        return
    owner = folder.stat()
    if isinstance(made, Path):
        os.lchown(made, owner.st_uid, owner.st_gid)
    elif os.fstat(made).st_nlink == 1:  # not a hard link to a file elsewhere
        os.fchown(made, owner.st_uid, owner.st_gid)


def _overwrite(target: Path, content: bytes, mode: int) -> None:
    """Write into the existing file. If that fails, write its old content again."""
    with os.fdopen(os.open(target, os.O_RDWR), "r+b", buffering=0) as file:
        before = file.read()
        try:
            _fill(file, content)
        except BaseException:
            with contextlib.suppress(OSError):
                _fill(file, before)
            raise
        if hasattr(os, "fchmod") and stat.S_IMODE(os.fstat(file.fileno()).st_mode) != mode:
            with contextlib.suppress(OSError):  # the file of another user
                os.fchmod(file.fileno(), mode)


def _fill(file: IO[bytes], content: bytes) -> None:
    file.seek(0)
    rest = memoryview(content)
    while rest:
        rest = rest[file.write(rest) :]
    file.truncate(len(content))
    os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Make the new name last; a folder that can't be opened or synced has it all the same."""
    if os.name == "nt":
        return
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
