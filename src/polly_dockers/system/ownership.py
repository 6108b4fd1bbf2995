"""Owners and permissions of files: only its owner can read a data folder, whoever runs the command.

A root process acts in each folder as the owner of that folder. So the server can use the files that it makes there, and
it follows no link that the owner could not follow. ``become`` switches the whole process, ``acting`` only for a block,
and ``for_good`` irrevocably.
"""

from __future__ import annotations

import contextlib
import errno
import grp
import os
import pwd
import stat
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Final

from polly_dockers.errors import Unavailable
from polly_dockers.formatting import to_paste
from polly_dockers.system import durable

if TYPE_CHECKING:
    from collections.abc import Iterator

UMASK: Final = 0o077
OTHERS: Final = 0o077
"""The bits of a mode that give access to others than the owner."""
NAMES: Final = (
    *("polly.db*", "blobs", "uploads", "journal", "damaged", "running.toml"),
    *(f"{name}.lock" for name in ("backup", "collector", "ready", "restore", "server", "writer")),
)
"""Names of the files that polly-server makes in a data folder or a backup."""
_ROOT: Final = os.getegid(), os.getgroups()
"""The group and the supplementary groups at the start of the process."""
LINKS: Final = 40
"""Most symbolic links that are followed on the way to a folder, as in Linux."""
_DENIED: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


def create(path: Path) -> None:
    """Make an empty file that only its owner can read, whatever the umask and the folder's ACL. Keep an existing file.

    An existing file is not opened: closing it would release the locks that this process has on it.
    """
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


def tighten(folder: Path, *, inside_only: bool = False) -> list[Path]:
    """Remove the access of others to the folder and to polly-server's files in it; returns what they could access.

    With ``inside_only`` the folder itself is not changed. Files of other users are not changed either: a mounted folder
    may belong to somebody else. Raises Unavailable if others keep access to a file or folder of this user.
    """
    was_open = folder.stat().st_mode & 0o011
    places = [] if inside_only else [folder]
    places += [place for name in NAMES for place in sorted(folder.glob(name))]
    changed = []
    for place in places:
        with contextlib.suppress(FileNotFoundError):  # SQLite deletes its WAL when nobody uses it
            if _tightened(place):
                changed.append(place)
    return changed if was_open else []


def _tightened(place: Path) -> bool:
    found = place.lstat()
    mode = stat.S_IMODE(found.st_mode)
    if not mode & OTHERS or stat.S_ISLNK(found.st_mode) or found.st_uid != os.geteuid():
        return False
    reason = "the file system does not keep modes"
    try:
        place.chmod(mode & ~OTHERS)
        if not place.lstat().st_mode & OTHERS:
            return True
    except PermissionError as error:
        reason = error.strerror or reason
    msg = (
        f"Other users of this machine may read {place} (mode {mode:04o}), and that can't be changed: {reason}. "
        "Put the data folder on a file system that keeps modes, such as ext4 or XFS."
    )
    raise Unavailable(msg)


# --- acting as the owner ---------------------------------------------------------------------------------------


def owner_of(folder: Path) -> os.stat_result:
    """The status of the folder, or of the nearest parent that can be looked at: ``st_uid`` is its owner."""
    for place in (folder, *folder.absolute().parents):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            return place.stat()
    return Path("/").stat()


def _chosen_by_nobody_else(folder: Path) -> os.stat_result:
    """As ``owner_of``, for root. Raises Unavailable if another user decides which folder the path leads to.

    Such a user could make root act on any folder, as its owner or as root. The path must not have:

    - a symbolic link of another user, on the way to the folder;
    - if root owns the folder: a parent folder of another user, or one in which others can replace files;
    - at its end, a folder of root that everybody can write to, such as /tmp.
    """
    end, there, on_the_way = _follow(folder)
    owner = end.stat()
    open_to_all = stat.S_ISVTX | stat.S_IWOTH
    if there and owner.st_uid == 0 and owner.st_mode & open_to_all == open_to_all:
        msg = f"Every user may write to {end}, so it can't be a data folder or backup of root. Give another folder."
        raise Unavailable(msg)
    for place in on_the_way if there else [*on_the_way, end]:
        found = place.lstat()
        decides = owner.st_uid == 0 or stat.S_ISLNK(found.st_mode)
        if decides and found.st_uid not in {0, owner.st_uid}:
            msg = (
                f"{place} belongs to {user(found.st_uid)}, who could let root use any other folder in the place of "
                f"{folder}. Run it as {user(found.st_uid)}, or give a path on which every folder and link belongs to "
                "root or to the owner of the last folder."
            )
            raise Unavailable(msg)
        if owner.st_uid == 0 and stat.S_ISDIR(found.st_mode) and _is_open(found):
            msg = (
                f"Other users may write to {place} ({_mode(found)}), and could put another folder in the place of "
                f"{folder}. Give another folder, or run:{to_paste(f'chmod go-w {quote(str(place))}')}"
            )
            raise Unavailable(msg)
    return owner


def _is_open(found: os.stat_result) -> bool:
    """Whether others than root and the owner of a folder can delete or replace the files in it."""
    if found.st_mode & stat.S_ISVTX:
        return False
    return bool(found.st_mode & stat.S_IWOTH) or (bool(found.st_mode & stat.S_IWGRP) and _has_members(found.st_gid))


def _has_members(gid: int) -> bool:
    """Whether a group has members other than root. Root's own group counts as having none."""
    if gid == 0:
        return False
    with contextlib.suppress(KeyError):
        if set(grp.getgrgid(gid).gr_mem) - {"root"}:
            return True
    return any(entry.pw_gid == gid and entry.pw_uid != 0 for entry in pwd.getpwall())


def _follow(folder: Path) -> tuple[Path, bool, list[Path]]:
    """The target of a path or its nearest existing parent, whether it exists, and all folders and links on the way."""
    at, rest, on_the_way = Path("/"), list(folder.absolute().parts[1:]), []
    while rest:
        name = rest.pop(0)
        if name == "..":
            at = at.parent
            continue
        on_the_way.append(at)
        try:
            found = (at / name).lstat()
        except (FileNotFoundError, NotADirectoryError):
            return at, False, on_the_way[:-1]
        if not stat.S_ISLNK(found.st_mode):
            at /= name
            continue
        on_the_way.append(at / name)
        if sum(place.is_symlink() for place in on_the_way) > LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(folder))
        target = (at / name).readlink()
        rest[:0] = target.parts[1:] if target.is_absolute() else target.parts
        at = Path("/") if target.is_absolute() else at
    return at, True, on_the_way


def become(folder: Path) -> None:
    """If root runs this, act as the owner of the folder from now on.

    Raises Unavailable if the system does not allow it, or if the owner can't run polly-server at all.
    """
    if os.getuid() != 0:
        return
    found = _switch(folder)
    for what, file in (("polly-server", __file__), ("the Python that runs it", os.__file__)):
        if found.st_uid and not os.access(file, os.R_OK, effective_ids=True):
            _switch(None)
            msg = (
                f"{folder} belongs to {user(found.st_uid)}, who can't read {what} in {Path(file).parent}. Install "
                "polly-server where that user may read it, with a Python that everybody may read:"
                + to_paste("/usr/bin/python3 -m venv /opt/polly")
            )
            raise Unavailable(msg)


def make_folder(folder: Path, like: Path) -> None:
    """Make a folder, and act as its owner from now on. Raises as ``become``, and OSError.

    Where root would own the folder, it gets the owner of ``like``: the service that wrote a backup reads its restored
    data. The owner changes before anything is in the folder. Missing folders above it are root's, and everybody may
    enter them. Raises Unavailable, and makes nothing, if that owner can't enter those that are there.
    """
    if os.geteuid() == 0:
        with acting(None):  # ends the acting as the other owner
            become(like)
            if message := obstacle(folder):
                raise Unavailable(message)
        for place in reversed(folder.absolute().parents):
            if not place.exists():
                durable.make_folder(place)
                place.chmod(0o755)  # the umask would leave it closed
        durable.make_folder(folder)
        found = owner_of(like)
        os.chown(folder, found.st_uid, _groups(found)[0], follow_symlinks=False)
        durable.sync(folder)
    else:
        durable.make_folder(folder)
    become(folder)


def made_again(folder: Path) -> list[str]:
    """The command with which root makes the folder again for its owner, after it was moved away.

    Empty if a new folder there would belong to that owner anyway.
    """
    found = folder.stat()
    if found.st_uid == folder.absolute().parent.stat().st_uid:
        return []
    return [f"install -d {as_owner_of(folder)} -m 700 {quote(str(folder))}"]


def as_owner_of(folder: Path) -> str:
    """The options with which install(1), run by root or the owner of the folder, makes something for that owner."""
    found = folder.stat()
    return f"-o {_login(found.st_uid, '{}', '{}')} -g {quote(_group(_groups(found)[0]))}"


@contextlib.contextmanager
def acting(folder: Path | None) -> Iterator[None]:
    """If root runs this, act as the owner of the folder in the block; None: as root. For one thread at a time."""
    if os.getuid() != 0:
        yield
        return
    before = os.geteuid(), os.getegid(), os.getgroups()
    try:
        _switch(folder)
        yield
    finally:
        os.seteuid(0)
        os.setgroups(before[2])
        os.setegid(before[1])
        os.seteuid(before[0])


def for_good() -> None:
    """If this process acts as another user than root, give up root irrevocably."""
    if os.getuid() != os.geteuid():
        os.setresgid(os.getegid(), os.getegid(), os.getegid())
        os.setresuid(os.geteuid(), os.geteuid(), os.geteuid())


def _switch(folder: Path | None) -> os.stat_result:
    """Let a root process act as the owner of the folder; None: as root. Returns the status that names the owner."""
    os.seteuid(0)
    found = _chosen_by_nobody_else(folder or Path("/"))
    if folder is None or found.st_uid == 0:
        os.setgroups(_ROOT[1])
        os.setegid(_ROOT[0])
        return found
    group, groups = _groups(found)
    try:
        os.setgroups(groups)
        os.setegid(group)
        os.seteuid(found.st_uid)
    except OSError as error:
        msg = (
            f"The folder belongs to {user(found.st_uid)}, and root can't act as that user here: {error.strerror}. Run "
            f"polly-server as {user(found.st_uid)}."
        )
        raise Unavailable(msg) from error
    return found


def _groups(found: os.stat_result) -> tuple[int, list[int]]:
    """The main group of the owner, and all groups. If the system does not know the user: the group of the folder."""
    try:
        entry = pwd.getpwuid(found.st_uid)
    except KeyError:
        return found.st_gid, [found.st_gid]
    return entry.pw_gid, os.getgrouplist(entry.pw_name, entry.pw_gid)


# --- messages about permissions-----------------------------------------------------------------------------------


def user(uid: int) -> str:
    """The name of a user, or the number if the system knows no name."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


class AccessDenied(Unavailable):
    """Raised if this process may not use a file of the data folder. ``place`` is the file, if it is known."""

    def __init__(self, place: str | None = None) -> None:
        super().__init__("The server may not use a file of its data folder; nothing was changed.")
        self.place = place


def denied(error: BaseException) -> bool:
    """Whether an error means a missing permission or a read-only file system."""
    text = str(error)
    if isinstance(error, OSError):
        return error.errno in _DENIED
    return "readonly database" in text or "unable to open database file" in text


def obstacle(folder: Path) -> str | None:
    """A message about the first file in a data folder that this user can't use; None if all can be used.

    It names the file, its owner, this user, and the command that solves the problem.
    """
    for place in _used(folder):
        wanted = os.R_OK | os.W_OK | (os.X_OK if place.is_dir() else 0)
        if not os.access(place, wanted, effective_ids=True) and not _is_gone(place):
            return _sentence(place, folder)
    return None


def _is_gone(place: Path) -> bool:
    """Whether a file was deleted since it was listed, as uploads are when they finish."""
    try:
        place.lstat()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return False


def _used(folder: Path) -> Iterator[Path]:
    """Files and folders that a server reads and writes, parents first. It stops at a parent that can't be entered."""
    for place in reversed(folder.absolute().parents):
        if not os.access(place, os.X_OK, effective_ids=True):
            yield place
            return
    if not folder.exists():
        return
    yield folder
    for name in NAMES:
        for place in sorted(folder.glob(name)):
            yield place
            if place.name in {"uploads", "journal"} and place.is_dir():
                with contextlib.suppress(FileNotFoundError):  # folders, such as lost+found, are of something else
                    yield from sorted(inside for inside in place.iterdir() if not inside.is_dir())
    yield from sorted((folder / "blobs").glob("sha*"))
    yield from sorted((folder / "blobs").glob("sha*/[0-9a-f][0-9a-f]"))


def explain(path: Path, folder: Path | None = None, *, reading: bool = False) -> str:
    """A message about a file that this user may not use: its owner, this user, and the command that solves it.

    ``folder`` is the data folder or backup that the file belongs to, if any. ``reading`` is for a file elsewhere that
    is only read, such as a TLS key or the settings: its owner does not change.
    """
    for place in reversed(path.absolute().parents):
        if not os.access(place, os.X_OK, effective_ids=True):
            return _sentence(place, folder or path)
    return _unreadable(path) if reading else _sentence(path, folder or path)


def _unreadable(place: Path) -> str:
    """The message about a file that is only read. Its command gives access to this user's group."""
    me, found, file = os.geteuid(), place.stat(), quote(str(place))
    facts = f"{user(me)} may not read {place}, which belongs to {user(found.st_uid)} ({_mode(found)})"
    if found.st_uid == me:
        return f"{facts}. Run:{to_paste(f'chmod u+r {file}')}"
    group = quote(_group(os.getegid()))
    chgrp = "" if found.st_gid == os.getegid() else f"chgrp {group} {file} && "
    return f"{facts}. Run as root:{to_paste(f'{chgrp}chmod 640 {file}')}"


def _sentence(place: Path, folder: Path) -> str:
    me = os.geteuid()
    try:
        found = place.stat()
    except OSError:
        return f"{user(me)} may not use {place}. Give {user(me)} access to the folders above it."
    if os.statvfs(place).f_flag & os.ST_RDONLY:
        return f"{place} lies on a file system that is mounted read-only. Mount it for writing, or give another folder."
    owner, whose = user(found.st_uid), owner_of(folder).st_uid
    readable = os.access(place, os.R_OK, effective_ids=True)
    facts = (
        f"{user(me)} may not {'write to' if readable else 'read'} {place}, which belongs to {owner} ({_mode(found)})"
    )
    if not folder.absolute().is_relative_to(place.absolute()) or place.absolute() == folder.absolute():
        if found.st_uid == me:
            mode = "u+rwx" if place.is_dir() else "u+rw"
            return f"{facts}. Run:{to_paste(f'chmod {mode} {quote(str(place))}')}"
        chown = to_paste(f"chown -R {_login(me, '{}:', '{}')} {quote(str(folder))}")
        if whose == me:
            return f"{facts}. Run as root:{chown}"
        as_owner = f" -u {_login(whose, '{}', '#{}')}" if whose else ""
        return (
            f"{facts}. Run it as {owner}:{to_paste(f'sudo{as_owner} polly-server …')}\n"
            f"Or, if the server runs as {user(me)}, run as root:{chown}"
        )
    command = to_paste(f"chmod a+x {quote(str(place))}")
    return f"{user(me)} may not enter {place}, which belongs to {owner} ({_mode(found)}). Run as {owner}:{command}"


def _login(uid: int, named: str, numbered: str) -> str:
    """A user as an argument of a command: by name, or by number if the system knows no name."""
    try:
        return named.format(pwd.getpwuid(uid).pw_name)
    except KeyError:
        return quote(numbered.format(uid))


def _mode(found: os.stat_result) -> str:
    return f"mode {stat.S_IMODE(found.st_mode):04o}, group {_group(found.st_gid)}"
