"""Places that can't become a data folder or a backup: a file, a folder with files of something else, a broken link."""

from __future__ import annotations

import contextlib
import os
from fnmatch import fnmatch
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Final

from polly_dockers.errors import Unavailable
from polly_dockers.system import ownership

if TYPE_CHECKING:
    from collections.abc import Iterable

_HARMLESS: Final = (
    *("lost+found", ".snapshot", ".snapshots", ".zfs", "aquota.user", "aquota.group", ".nfs*"),
    *(".DS_Store", "@eaDir", "#recycle", ".Trash-*"),
)
"""What file systems and desktops put into an empty folder."""
_OWN: Final = (*ownership.NAMES, "running.new", "restoring*", "polly.toml")
"""Names in a data folder. Some people keep the settings file there too."""
_FILES: Final = (
    *(name for name in ownership.NAMES if name.endswith((".lock", ".toml"))),
    *("polly.db-wal", "polly.db-shm", "restoring"),
)
"""Other files in a data folder or a backup."""
_FOLDERS: Final = ("blobs", "uploads", "journal", "damaged")
"""Folders in a data folder."""


def others(folder: Path, own: Iterable[str]) -> list[str]:
    """The names in a folder that are neither among ``own``, which may be patterns, nor harmless."""
    allowed = (*own, *_HARMLESS)
    return sorted(each.name for each in folder.iterdir() if not any(fnmatch(each.name, name) for name in allowed))


def refuse_others(folder: Path, mark: str) -> None:
    """Raise Unavailable if the folder holds files of something else. A folder with the file ``mark`` is a data folder.

    The registry would mix its files with the others, and close the folder to other users.
    """
    if not folder.is_dir() or (folder / mark).exists():
        return
    if found := others(folder, _OWN):
        msg = f"{folder} holds {found[0]}, which is not part of a registry. Give a new or an empty folder."
        raise Unavailable(msg)


def unused(place: Path) -> Path:
    """The path, or the first of ``place.2``, ``place.3`` … that does not exist: mv would put things into a folder."""
    names = (place, *(Path(f"{place}.{number}") for number in range(2, 1000)))
    return next((each for each in names if not os.path.lexists(each)), place)


def moved_away(folder: Path, suffix: str = ".before") -> list[str]:
    """The commands with which root or the owner of a folder moves it away and, if necessary, makes it again."""
    away = unused(Path(f"{folder}{suffix}"))
    return [f"mv {quote(str(folder))} {quote(str(away))}", *ownership.made_again(folder)]


def file_in_the_way(folder: Path) -> str:
    """A message if a file is where a folder belongs, or the other way round; else empty.

    It looks at the path of a data folder or a backup, at the folders above it, and at what belongs into it. A link to
    what does not exist is in the way too.
    """
    with contextlib.suppress(OSError):  # what can't be looked at has another problem
        for place in (folder, *folder.parents):
            if place.is_symlink() and not place.exists():
                return f"{place} is a link to {place.readlink()}, which does not exist. {_OR_ANOTHER}"
        place = next((each for each in (folder, *folder.parents) if each.exists()), folder)
        if place.exists() and not place.is_dir():
            return f"{place} is a file. Give a folder."
        return _in_the_way_inside(folder)
    return ""


def _in_the_way_inside(folder: Path) -> str:
    """The same for what belongs into the folder."""
    for place in (folder / name for name in _FOLDERS):
        if place.is_symlink() and not place.exists():
            return f"{place} is a link to {place.readlink()}, which does not exist. {_AGAIN}"
        if place.exists() and not place.is_dir():
            return f"{place} is a file, and should be a folder of the registry. {_AGAIN}"
    place = folder / "polly.db"
    if place.exists() and not place.is_file():
        return f"{place} is not a file, and should be the database of the registry. {_AGAIN}"
    for place in (folder / name for name in _FILES):
        if place.exists() and not place.is_file():
            return f"{place} is not a file, and should be one of the registry. Move it away, then run this again."
    return ""


_OR_ANOTHER: Final = "Make or mount that folder, or give another."
_AGAIN: Final = "Put back what belongs there, or give another folder."
