"""Places that can't become a data folder: a file, or a folder with files of something else."""

from __future__ import annotations

from fnmatch import fnmatch
from typing import TYPE_CHECKING

from polly_dockers.errors import Unavailable
from polly_dockers.system import ownership

if TYPE_CHECKING:
    from pathlib import Path

_ALLOWED = (*ownership.NAMES, "lost+found")
"""Names in a data folder. lost+found is there if the folder is the root of a disk."""


def refuse_others(folder: Path, mark: str) -> None:
    """Raise Unavailable if the folder holds files of something else. A folder with the file ``mark`` is a data folder.

    The registry would mix its files with the others, and close the folder to other users.
    """
    if not folder.is_dir() or (folder / mark).exists():
        return
    others = sorted(each.name for each in folder.iterdir() if not any(fnmatch(each.name, name) for name in _ALLOWED))
    if others:
        msg = f"{folder} holds {others[0]}, which is not part of a registry. Give a new or an empty folder."
        raise Unavailable(msg)


def file_in_the_way(folder: Path) -> str:
    """A message if the path of the folder, or of a folder above it, is a file; else empty."""
    place = next((each for each in (folder, *folder.parents) if each.exists()), folder)
    return f"{place} is a file. Give a folder." if place.exists() and not place.is_dir() else ""
