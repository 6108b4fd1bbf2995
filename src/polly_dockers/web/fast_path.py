"""The fast path: requests for manifests and tag pages are parsed here, without aiohttp.

A pull begins with the manifest of a tag, and builds, schedulers and scanners request little else. So this request must
cost least. aiohttp needs 27 µs to create its objects and run a task; here one regular expression matches the request.
All other requests go to aiohttp, which knows all of HTTP/1.1. Both parsers must agree on where each request ends, or a
client could smuggle a request past one of them. ``Framing`` keeps track of that. Once it can't, aiohttp gets all the
rest of the connection.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from multidict import CIMultiDict, CIMultiDictProxy

if TYPE_CHECKING:
    import asyncio

LARGEST: Final = 16 << 10
"""Largest request of the fast path, in bytes."""

_PATH: Final = rb"/v2/[!\"$->@-~]+/(?:manifests/[!\"$-.0->@-~]+|tags/list(?:\?[!-~]*)?)"
"""The path of a manifest or of a page of tags. As in ``v2.router``, its last parts decide which."""
_LINE: Final = re.compile(rb"(GET|HEAD) (" + _PATH + rb") HTTP/1\.1\Z")

_FIELD: Final = rb"(?:[0-9A-Za-z-]+:[ -~]*\r\n)+"
"""Header lines that all parsers understand alike: not folded, no space before the colon, ASCII only.

Each byte can match in only one way. Otherwise the expression could take exponential time.
"""

_FIELDS: Final = re.compile(_FIELD + rb"\r\n\Z")
_HEAD: Final = re.compile(rb"[A-Z]+ [!-~]+ HTTP/1\.1\r\n(" + _FIELD + rb")\r\n")
_LENGTH: Final = re.compile(r"[0-9]{1,18}\Z")

_UNSIZED: Final = frozenset({"transfer-encoding", "upgrade", "trailer", "te"})
"""Headers with which Content-Length alone does not say where a request ends."""
_FOR_AIOHTTP: Final = _UNSIZED | {"content-length", "expect", "connection"}
"""Headers about a body or the connection: requests with one go to aiohttp."""


class FastRequest:
    """A request without a body, with the attributes of aiohttp's requests that handlers use."""

    __slots__ = ("headers", "method", "raw_path", "remote", "transport")

    content_length: Final = None

    def __init__(self, method: str, raw_path: str, headers: CIMultiDictProxy[str]) -> None:
        self.method = method
        self.raw_path = raw_path
        self.headers = headers
        self.transport: asyncio.Transport | None = None
        self.remote: str | None = None


class Framing:
    """Keeps track of where the requests of one connection end, and picks those for the fast path."""

    __slots__ = ("_block", "_headers", "_left")

    def __init__(self) -> None:
        self._left: int | None = 0
        """Bytes of the current body that have not arrived yet: 0 between requests, None if unknown."""
        self._block = b""
        self._headers: CIMultiDictProxy[str] | None = None

    def parse(self, data: bytes, *, idle: bool) -> FastRequest | None:
        """Return the request if ``data`` is exactly one for the fast path; None if the data is for aiohttp.

        ``idle``: aiohttp has responded to everything that it received.
        """
        if self._left == 0 and idle and len(data) <= LARGEST:
            end = data.find(b"\r\n")
            line = _LINE.match(data, 0, end)
            if line is not None and (headers := self._read(data[end + 2 :])) is not None:
                return FastRequest(line[1].decode(), line[2].decode(), headers)
        self._left = self._remaining(data)
        return None

    def _read(self, block: bytes) -> CIMultiDictProxy[str] | None:
        """Parse a block of headers, or reuse the result: most clients send the same block each time."""
        if block == self._block:
            return self._headers
        self._block, self._headers = block, None
        if _FIELDS.match(block):
            pairs = _pairs(block[:-4])
            names = {name.lower() for name, _ in pairs}
            if len(names) == len(pairs) and "host" in names and not names & _FOR_AIOHTTP:
                self._headers = CIMultiDictProxy(CIMultiDict(pairs))
        return self._headers

    def _remaining(self, data: bytes) -> int | None:
        """Return how many bytes of the current request are missing after ``data``; None if unknown."""
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
