"""A copy of a registry while it runs: the database first, then each blob that the copy lacks.

Bytes are durable before a row names them and a blob's file never changes, so blobs that are copied after the
database hold all that its rows name. A second backup into the same folder copies what is new.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from polly_dockers.db.engine import ERRORS, FILE, open_engine
from polly_dockers.errors import Unavailable

if TYPE_CHECKING:
    from pathlib import Path

PART: Final = ".part"
"""What the name of a file ends with while it is copied."""


@dataclass(frozen=True, slots=True)
class Copied:
    """What a backup did."""

    blobs: int
    size: int
    kept: int
    """Blobs that were there from an earlier backup."""


def backup(data: Path, target: Path) -> Copied:
    """Copy the registry in ``data`` to the folder ``target``, which ``polly-server run --data`` then takes.

    Raises Unavailable where the folder can't be written.
    """
    if target.resolve().is_relative_to(data.resolve()):
        msg = f"The backup can't lie in the data folder itself: {target}. Give a folder of another disk."
        raise Unavailable(msg)
    if (target / "writer.lock").exists():
        msg = f"{target} is the data folder of a server, no backup. Give another folder."
        raise Unavailable(msg)
    try:
        target.mkdir(mode=0o700, parents=True, exist_ok=True)
        copied = kept = size = 0
        _copy_database(data, target)
        for source in sorted((data / "blobs").glob("*/*/*")):
            place = target / source.relative_to(data)
            if place.exists():
                kept += 1
                continue
            place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _copy(source, place)
            copied += 1
            size += source.stat().st_size
        (target / (FILE + PART)).rename(target / FILE)
        _sync(target)
    except ERRORS as error:
        reason = getattr(error, "strerror", None) or getattr(error, "orig", None) or error
        msg = f"The backup to {target} failed: {reason}. What an earlier backup holds is untouched."
        raise Unavailable(msg) from error
    return Copied(copied, size, kept)


def _copy_database(data: Path, target: Path) -> None:
    """Write the database as it is at one moment to the part file, and sync it."""
    part = target / (FILE + PART)
    part.unlink(missing_ok=True)
    engine = open_engine(data / FILE)
    with engine.connect() as connection:
        connection.exec_driver_sql("VACUUM INTO ?", (str(part),))
    engine.dispose()
    part.chmod(0o600)
    _sync(part)


def _copy(source: Path, place: Path) -> None:
    """Copy a file so that it is there whole or not at all."""
    part = place.with_name(place.name + PART)
    shutil.copyfile(source, part)
    part.chmod(0o600)
    _sync(part)
    part.rename(place)
    _sync(place.parent)


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
