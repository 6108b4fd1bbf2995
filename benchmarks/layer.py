"""A large layer whose every byte a reader can check as fast as it comes.

It is one block of random bytes again and again, the first eight of each overwritten by its number, so that a reader
compares what arrived with what has to be there at the speed of memory, where hashing would be the limit of the
measurement.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

BLOCK: Final = 1 << 20
NUMBER: Final = 8


@dataclass(frozen=True)
class Layer:
    """A file and its digest; ``block`` is the file of one block."""

    path: Path
    block: Path
    size: int
    digest: str


def make(folder: Path, size: int) -> Layer:
    """A layer that no server has; ``size`` is a whole number of blocks."""
    block = bytearray(secrets.token_bytes(BLOCK))
    path, of_block = folder / "layer", folder / "block"
    of_block.write_bytes(block)
    hasher = hashlib.sha256()
    with path.open("wb") as file:
        for number in range(size // BLOCK):
            block[:NUMBER] = number.to_bytes(NUMBER, "big")
            file.write(block)
            hasher.update(block)
    return Layer(path, of_block, size, f"sha256:{hasher.hexdigest()}")
