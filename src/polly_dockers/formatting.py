"""Numbers, sizes and commands for people, alike in all messages."""

from __future__ import annotations

INDENT = "  "
"""How a line of a message begins that is printed as it is, however narrow the terminal is: it is to be copied."""


def counted(number: int, noun: str) -> str:
    """Return ``1 blob`` or ``2 blobs``; a noun of several words has its plural in the last."""
    if number == 1:
        return f"1 {noun}"
    return f"{number} {noun[:-1]}ies" if noun.endswith("y") and noun[-2] not in "aeiou" else f"{number} {noun}s"


def is_(number: int) -> str:
    """Return the verb of so many things: ``is`` for one, ``are`` for others."""
    return "is" if number == 1 else "are"


def was(number: int) -> str:
    """Return the same in the past: ``was`` or ``were``."""
    return "was" if number == 1 else "were"


def to_paste(*commands: str) -> str:
    """Return the end of a message: the commands, each on a line of its own, which no terminal breaks (``INDENT``)."""
    return "".join(f"\n{INDENT}{each}" for each in commands)


def duration(seconds: int) -> str:
    """Return a time to wait as ``45 seconds`` or, from two minutes on, ``15 minutes``, rounded up."""
    return counted(seconds, "second") if seconds < 120 else f"{-(-seconds // 60)} minutes"  # noqa: PLR2004


def size(count: float) -> str:
    """Return bytes as ``12.3 MB``, as docker does."""
    value, unit = float(count), "B"
    for each in ("kB", "MB", "GB", "TB", "PB"):
        if value < 999.95:  # noqa: PLR2004 - it would be shown as 1000.0
            break
        value, unit = value / 1000, each
    return f"{int(count)} B" if unit == "B" else f"{value:.1f} {unit}"
