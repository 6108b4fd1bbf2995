"""The response that handlers return. Only those that send a blob write to the connection themselves."""

from __future__ import annotations

import time
from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from aiohttp import web
from multidict import CIMultiDict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PLAIN: Final = "application/octet-stream"

_LINES: Final = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus}
_EMPTY: Final = frozenset({204, 304})
"""Statuses of responses without body and Content-Length (RFC 9110, section 8.6)."""


class Response:
    """Status, headers and body."""

    __slots__ = ("body", "headers", "length", "status")

    def __init__(
        self,
        body: bytes = b"",
        *,
        status: int = 200,
        content_type: str | None = None,
        headers: Mapping[str, str] | None = None,
        repeatable: Sequence[tuple[str, str]] = (),
        length: int | None = None,
    ) -> None:
        """``repeatable``: headers whose names may occur several times. ``length``: bytes of a body that is left out."""
        self.status = status
        self.body = body
        self.length = len(body) if length is None else length
        """Bytes of the body, also if ``body`` is left empty: for HEAD, or because ``Request.held`` has the body."""
        self.headers = [*(headers or {}).items(), *repeatable]
        if content_type is not None:
            self.headers.append(("Content-Type", content_type))

    def to_aiohttp(self) -> web.Response:
        """The same response as an object of aiohttp."""
        headers = CIMultiDict(self.headers)
        if self.length > len(self.body):
            headers["Content-Length"] = str(self.length)
        return web.Response(status=self.status, headers=headers, body=self.body or None)

    def to_bytes(self, common: str, *, head: bool) -> bytes:
        """The bytes to send on a connection that stays open. ``head``: leave out the body, for HEAD.

        ``common``: header lines that every response has.
        """
        lines = "".join([f"{name}: {value}\r\n" for name, value in self.headers])
        length = "" if self.status in _EMPTY else f"Content-Length: {self.length}\r\n"
        text = f"{_LINES[self.status]}{lines}{length}{common}Date: {_date()}\r\n\r\n"
        return text.encode("latin-1") if head else text.encode("latin-1") + self.body


_now: tuple[int, str] = (0, "")


def _date() -> str:
    """The value of the header Date; computed once a second."""
    global _now  # noqa: PLW0603 - one for the process
    second = int(time.time())
    if _now[0] != second:
        _now = (second, formatdate(second, usegmt=True))
    return _now[1]
