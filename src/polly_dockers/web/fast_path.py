"""Requests that one look at the rows answers: taken from the connection's bytes as they stand, past aiohttp.

A pull begins with the manifest of a tag, and builds, schedulers and scanners ask for little else, so that request has
to cost least. aiohttp makes a message, a stream and a turn of a task of each, 27 µs; here the bytes are matched as a
whole. Whatever is not of that one simple form goes to aiohttp, which knows all of HTTP/1.1. Two readers of one
connection must agree on where a request ends, or one could be smuggled past the other: ``Framing`` keeps count, and
where it can't, all that still comes is for aiohttp.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from multidict import CIMultiDict, CIMultiDictProxy

if TYPE_CHECKING:
    import asyncio

LARGEST: Final = 16 << 10
"""Bytes of a request that is taken here, at most."""

_PATH: Final = rb"/v2/[!\"$->@-~]+/(?:manifests/[!\"$-.0->@-~]+|tags/list(?:\?[!-~]*)?)"
"""A manifest, or a page of tags. The last parts of the path decide, as in ``oci``; a path ends before ? and #."""
_LINE: Final = re.compile(rb"(GET|HEAD) (" + _PATH + rb") HTTP/1\.1\Z")

_FIELD: Final = rb"(?:[0-9A-Za-z-]+:[ -~]*\r\n)+"
"""Header lines that no two readers could read as two: none folded, no space before a colon, all of it ASCII.

Each byte can be matched in one way only: an expression that could try two would try them again for every line.
"""

_FIELDS: Final = re.compile(_FIELD + rb"\r\n\Z")
_HEAD: Final = re.compile(rb"[A-Z]+ [!-~]+ HTTP/1\.1\r\n(" + _FIELD + rb")\r\n")
_LENGTH: Final = re.compile(r"[0-9]{1,18}\Z")

_UNSIZED: Final = frozenset({"transfer-encoding", "upgrade", "trailer", "te"})
"""Headers after which the end of a request is not told by Content-Length alone."""
_FOR_AIOHTTP: Final = _UNSIZED | {"content-length", "expect", "connection"}
"""Headers that say something of a body or of the connection."""


class PromptRequest:
    """A request without a body, as far as a handler looks at one."""

    __slots__ = ("headers", "method", "raw_path", "remote", "transport")

    content_length: Final = None

    def __init__(self, method: str, raw_path: str, headers: CIMultiDictProxy[str]) -> None:
        self.method = method
        self.raw_path = raw_path
        self.headers = headers
        self.transport: asyncio.Transport | None = None
        self.remote: str | None = None


class Framing:
    """Where the requests of one connection end, and which of them are taken here."""

    __slots__ = ("_block", "_headers", "_left")

    def __init__(self) -> None:
        self._left: int | None = 0
        """Bytes of a body that have still to come: 0 between two requests, None where nobody knows."""
        self._block = b""
        self._headers: CIMultiDictProxy[str] | None = None

    def take(self, data: bytes, *, idle: bool) -> PromptRequest | None:
        """The request that ``data`` is, from its first byte to its last; None where the bytes are for aiohttp.

        ``idle``: aiohttp has answered all that it was given.
        """
        if self._left == 0 and idle and len(data) <= LARGEST:
            end = data.find(b"\r\n")
            line = _LINE.match(data, 0, end)
            if line is not None and (headers := self._read(data[end + 2 :])) is not None:
                return PromptRequest(line[1].decode(), line[2].decode(), headers)
        self._left = self._follow(data)
        return None

    def _read(self, block: bytes) -> CIMultiDictProxy[str] | None:
        """The headers of a block; a client sends the same ones again and again."""
        if block == self._block:
            return self._headers
        self._block, self._headers = block, None
        if _FIELDS.match(block):
            pairs = _pairs(block[:-4])
            names = {name.lower() for name, _ in pairs}
            if len(names) == len(pairs) and "host" in names and not names & _FOR_AIOHTTP:
                self._headers = CIMultiDictProxy(CIMultiDict(pairs))
        return self._headers

    def _follow(self, data: bytes) -> int | None:
        """Bytes that are left of the request that ``data`` begins or goes on with."""
        if self._left is None or not data:
            return self._left
        if self._left > 0:
            left = self._left - len(data)
            return left if left >= 0 else None
        head = _HEAD.match(data)
        if head is None:
            return None
        pairs = [(name.lower(), value) for name, value in _pairs(head[1][:-2])]
        if any(name in _UNSIZED for name, _ in pairs):
            return None
        lengths = [value for name, value in pairs if name == "content-length"] or ["0"]
        if len(lengths) > 1 or not _LENGTH.match(lengths[0]):
            return None
        left = int(lengths[0]) - (len(data) - head.end())
        return left if left >= 0 else None


def _pairs(block: bytes) -> list[tuple[str, str]]:
    """Names and values of header lines."""
    found = [line.partition(":") for line in block.decode("ascii").split("\r\n")]
    return [(name, value.strip(" ")) for name, _, value in found]
