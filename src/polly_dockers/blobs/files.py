"""How files of blobs are named, which tells them from what other programs put there: folders, links, FIFOs.

::

    <algorithm>/<2 hex>/<hex>.<unique>          a blob
    <algorithm>/<2 hex>/<hex>.<unique>.part     one that is being copied

Nothing else is opened: to open a FIFO can take for ever. Functions raise OSError, but not for what is missing.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import stat
from typing import TYPE_CHECKING, Final

from polly_dockers.system import regular

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from polly_dockers.model import Digest

PART: Final = ".part"
"""How the name of a file ends while it is being copied."""
_DIGITS: Final = {"sha256": 64, "sha512": 128}
"""Hexadecimal digits of a digest, by algorithm."""
_PART_OF_STORE: Final = re.compile(r"[0-9a-f]{2}\Z")
_KEY: Final = re.compile(r"(sha256|sha512)/([0-9a-f]{2})/([0-9a-f]+)\.[0-9A-Za-z_-]+\Z")
_NAME: Final = re.compile(r"([0-9a-f]+)\.[0-9A-Za-z_-]+(?:\.part)?\Z")


def new_key(digest: Digest) -> str:
    """A storage key for a blob of this digest. No other blob has it."""
    return f"{part_of(digest)}/{digest.hex}.{secrets.token_hex(8)}"


def is_key(key: str) -> bool:
    """Whether this is a storage key. A database that somebody else made could name any file of the machine."""
    found = _KEY.match(key)
    return found is not None and len(found[3]) == _DIGITS[found[1]] and found[3].startswith(found[2])


def part_of(digest: Digest) -> str:
    """The folder of the blobs of this digest, as ``algorithm/2 hex``."""
    return f"{digest.algorithm}/{digest.hex[:2]}"


def digest_of(key: str) -> str:
    """The digest in a storage key."""
    algorithm, _, name = key.split("/")
    return f"{algorithm}:{name.partition('.')[0]}"


def parts(blobs: Path) -> list[str]:
    """The folders that hold files of blobs, as ``algorithm/2 hex``."""
    found = []
    for algorithm in sorted(_DIGITS):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(blobs / algorithm) as entries:
            found += [
                f"{algorithm}/{entry.name}" for entry in entries if _PART_OF_STORE.match(entry.name) and entry.is_dir()
            ]
    return sorted(found)


def of_part(blobs: Path, part: str) -> list[os.DirEntry[str]]:
    """The files of blobs in one of these folders, also those that are being copied."""
    algorithm, _, begin = part.partition("/")
    found = []
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(blobs / part) as entries:
        for entry in entries:
            name = _NAME.match(entry.name)
            if name and len(name[1]) == _DIGITS[algorithm] and name[1].startswith(begin) and entry.is_file():
                found.append(entry)
    return found


def keys(blobs: Path) -> Iterator[str]:
    """The storage keys of all blobs, in order."""
    for part in parts(blobs):
        yield from sorted(f"{part}/{each.name}" for each in of_part(blobs, part) if not each.name.endswith(PART))


def size(place: Path) -> int | None:
    """The size of a file; None if it is missing or not a regular file."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        found = place.stat()
        return found.st_size if stat.S_ISREG(found.st_mode) else None
    return None


def open_file(place: str | Path) -> int:
    """A descriptor to read a file. Raises FileNotFoundError also for what is not a regular file."""
    try:
        return regular.open_file(place)
    except regular.NotRegular as error:
        raise _missing(place) from error


def only_file(fd: int, place: str | Path) -> int:
    """The descriptor. If it is not of a file, it is closed and FileNotFoundError is raised."""
    if regular.is_regular(fd):
        return fd
    os.close(fd)
    raise _missing(place)


def _missing(place: str | Path) -> FileNotFoundError:
    return FileNotFoundError(errno.ENOENT, "it is not a regular file", str(place))
