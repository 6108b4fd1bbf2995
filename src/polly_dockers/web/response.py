"""A whole answer: what every handler gives back, but for those that send the bytes of a blob."""

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
"""Statuses whose answer has no body and no length (RFC 9110, 8.6)."""


class Answer:
    """Status, headers and body."""

    __slots__ = ("body", "headers", "length", "status")

    def __init__(
        self,
        body: bytes = b"",
        *,
        status: int = 200,
        content_type: str | None = None,
        headers: Mapping[str, str] | None = None,
        more: Sequence[tuple[str, str]] = (),
        length: int | None = None,
    ) -> None:
        """``more``: headers whose names may stand there several times. ``length``: of a body that is not given."""
        self.status = status
        self.body = body
        self.length = len(body) if length is None else length
        """Bytes of the body, also where it is not here: it is left out of answers to HEAD, or held elsewhere."""
        self.headers = [*headers.items(), *more] if headers is not None else [*more]
        if content_type is not None:
            self.headers.append(("Content-Type", content_type))

    def response(self) -> web.Response:
        """As aiohttp sends it."""
        headers = CIMultiDict(self.headers)
        if self.length > len(self.body):
            headers["Content-Length"] = str(self.length)
        return web.Response(status=self.status, headers=headers, body=self.body or None)

    def wire(self, common: str, *, head: bool) -> bytes:
        """As it goes out on a connection that stays open; the answer to HEAD is the same without its body.

        ``common``: lines of headers that every answer has.
        """
        lines = "".join([f"{name}: {value}\r\n" for name, value in self.headers])
        length = "" if self.status in _EMPTY else f"Content-Length: {self.length}\r\n"
        text = f"{_LINES[self.status]}{lines}{length}{common}Date: {_date()}\r\n\r\n"
        return text.encode("latin-1") if head else text.encode("latin-1") + self.body


_now: tuple[int, str] = (0, "")


def _date() -> str:
    """The value of Date, made once a second."""
    global _now  # noqa: PLW0603 - one for the process
    second = int(time.time())
    if _now[0] != second:
        _now = (second, formatdate(second, usegmt=True))
    return _now[1]
