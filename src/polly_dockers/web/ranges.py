"""Parts of a blob: the Range header, and responses with one or several parts (RFC 9110, section 14)."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from polly_dockers.errors import RangeInvalid
from polly_dockers.web.response import PLAIN

if TYPE_CHECKING:
    from collections.abc import Sequence

RANGES: Final = 1024
"""Largest number of ranges in a request: what podman requests of one zstd:chunked layer."""
_LARGEST: Final = 10**18
"""The value of a number with more than 18 digits: larger than any blob."""

_RANGE: Final = re.compile(r"([0-9]*)-([0-9]*)\Z")


@dataclass(frozen=True, slots=True)
class Part:
    """Some bytes of a blob, and what precedes them in the response."""

    offset: int
    count: int
    head: bytes = b""


@dataclass(frozen=True, slots=True)
class Parts:
    """The body of a response with parts, and its headers."""

    parts: tuple[Part, ...]
    end: bytes
    headers: dict[str, str]

    @property
    def length(self) -> int:
        """Length of the body, in bytes."""
        return sum(len(part.head) + part.count for part in self.parts) + len(self.end)


def parse(header: str | None, size: int) -> list[tuple[int, int]] | None:
    """Offset and length of each requested part, in the order of the header; None for the whole blob.

    The whole blob is sent if there is no header, if the unit is not bytes, if there are more than RANGES, or if ranges
    overlap: "a server MAY ignore the Range header field" (14.2). Parts outside of the blob are left out. Raises
    RangeInvalid if none is left, and for a malformed header.
    """
    if header is None or not header.startswith("bytes="):
        return None
    wanted = [text for part in header[6:].split(",") if (text := part.strip(" \t"))]
    if len(wanted) > RANGES:
        return None
    found = [part for text in wanted if (part := _one(header, text, size)) is not None]
    if not found:
        msg = f"The blob has {size} bytes, and {header[:100]!r} is outside of it."
        raise RangeInvalid(msg, total=size)
    in_order = sorted(found)
    if any(first + count > following for (first, count), (following, _) in pairwise(in_order)):
        return None
    return found


def _one(header: str, text: str, size: int) -> tuple[int, int] | None:
    """Offset and length of one range; None if it is outside of the blob. Raises RangeInvalid if it is malformed."""
    match = _RANGE.match(text)
    if match is None or text == "-":
        msg = f"The range {header[:100]!r} is malformed. Write bytes=FIRST-LAST."
        raise RangeInvalid(msg, total=size)
    first, last = (_number(digits) for digits in match.groups())
    if first is None:
        start, end = max(size - (last or 0), 0), size
    else:
        start, end = first, size if last is None else min(last + 1, size)
    return (start, end - start) if start < end else None


def _number(digits: str) -> int | None:
    if not digits:
        return None
    digits = digits.lstrip("0") or "0"
    return int(digits) if len(digits) <= 18 else _LARGEST  # noqa: PLR2004 - the digits below _LARGEST


def whole(size: int) -> Parts:
    """The body of a 200 for a blob of ``size`` bytes."""
    return Parts((Part(0, size),), b"", {})


def multipart(requested: Sequence[tuple[int, int]], size: int) -> Parts:
    """The body of a 206 for a blob of ``size`` bytes: one part alone, several as multipart/byteranges (14.6)."""
    if len(requested) == 1:
        (offset, count) = requested[0]
        return Parts((Part(offset, count),), b"", {"Content-Range": _content_range(offset, count, size)})
    boundary = secrets.token_hex(12)
    parts = tuple(
        Part(
            offset,
            count,
            f"{'' if at == 0 else _BREAK}--{boundary}\r\nContent-Type: {PLAIN}\r\n"
            f"Content-Range: {_content_range(offset, count, size)}\r\n\r\n".encode(),
        )
        for at, (offset, count) in enumerate(requested)
    )
    kind = {"Content-Type": f"multipart/byteranges; boundary={boundary}"}
    return Parts(parts, f"{_BREAK}--{boundary}--\r\n".encode(), kind)


_BREAK: Final = "\r\n"


def _content_range(offset: int, count: int, size: int) -> str:
    return f"bytes {offset}-{offset + count - 1}/{size}"
