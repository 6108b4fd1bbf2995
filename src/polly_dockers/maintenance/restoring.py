"""A restore that runs, or that was left unfinished: nothing else may make a database in its data folder meanwhile."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import UTC, datetime
from shlex import quote
from typing import TYPE_CHECKING, Final

from polly_dockers.blobs import files
from polly_dockers.db.sqlite import FILE, is_made
from polly_dockers.errors import Unavailable
from polly_dockers.formatting import to_paste
from polly_dockers.system import folders, locks
from polly_dockers.system.durations import SECOND

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LOCK: Final = "restore.lock"
"""The lock file that a restore locks exclusively, and that everything else that makes a database shares."""
MARK: Final = "restoring"
"""A file in a data folder while a backup is restored to it. It holds the last batch of that backup's journal."""
PART: Final = files.PART
"""How the name of a file ends while it is being copied."""


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep everything else that would make a database out of an existing folder, for a restore.

    Raises Unavailable if a restore runs, or a command that makes a database.
    """
    with locks.tried(folder / LOCK) as is_free:
        if not is_free:
            msg = f"Another restore to {folder} is running, or a command that makes its database. Wait until it ends."
            raise Unavailable(msg)
        yield


@contextmanager
def kept_away(folder: Path) -> Iterator[None]:
    """Keep a restore away from an existing folder while a database is made. Raises Unavailable if one runs."""
    with locks.tried(folder / LOCK, shared=True) as is_free:
        if not is_free:
            raise _running(folder)
        yield


def is_unfinished(folder: Path) -> bool:
    """Whether a restore runs, or was left unfinished."""
    return not is_made(folder) and ((folder / MARK).exists() or (folder / (FILE + PART)).exists())


def check(folder: Path) -> None:
    """Raise Unavailable if a restore to the folder runs, or was left unfinished."""
    if not is_unfinished(folder):
        return
    with kept_away(folder):
        place = quote(str(folder))
        msg = (
            f"A restore to {folder} was not finished.\n"
            f"To continue it:{to_paste(f'polly-server restore --from … --data {place}')}\n"
            "If the backup is gone, make a database of what was restored:"
            + to_paste(f"polly-server rebuild --data {place}")
            + "\nTo begin with an empty folder, move this one away:"
            + to_paste(*folders.moved_away(folder))
        )
        raise Unavailable(msg)


def end(folder: Path) -> None:
    """Delete what a restore left, now that the folder has a database. It is called within ``kept_away``."""
    (folder / MARK).unlink(missing_ok=True)
    (folder / (FILE + PART)).unlink(missing_ok=True)


def when(batch: int) -> str:
    """The time that the id of a batch stands for."""
    return datetime.fromtimestamp(batch / SECOND, UTC).strftime("%Y-%m-%d %H:%M:%S UTC") if batch else "no time"


def _running(folder: Path) -> Unavailable:
    return Unavailable(f"A restore to {folder} is running. Wait until it ends, then run this again.")
