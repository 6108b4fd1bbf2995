"""The response that handlers return, and its bytes on the connection."""

from __future__ import annotations

import json
import time
from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from polly_dockers.web.client import Client

PLAIN: Final = "application/octet-stream"

COMMON: Final = "Server: polly\r\nX-Content-Type-Options: nosniff\r\nDocker-Distribution-Api-Version: registry/2.0\r\n"
"""Header lines of every response, besides the ID of its request, which the app adds."""

_LINES: Final = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus}
_EMPTY: Final = frozenset({204, 304})
"""Statuses of responses without body and Content-Length (RFC 9110, section 8.6)."""


class Content(Protocol):
    """A body that is not in memory."""

    async def send(self, client: Client) -> None:
        """Write it to the client. Raises ClientGone if the client left."""
        ...

    def close(self) -> None:
        """Free what it needs, whether it was sent or not."""
        ...


class Response:
    """Status, headers and body."""

    __slots__ = ("body", "content", "headers", "length", "status")

    def __init__(
        self,
        body: bytes = b"",
        *,
        status: int = 200,
        content_type: str | None = None,
        headers: Mapping[str, str] | None = None,
        repeatable: Sequence[tuple[str, str]] = (),
        length: int | None = None,
        content: Content | None = None,
    ) -> None:
        """``repeatable``: headers whose names may occur several times.

        ``length``: bytes of a body that is left out, for HEAD, or that is ``content``.
        """
        self.status = status
        self.body = body
        self.content = content
        self.length = len(body) if length is None else length
        """Bytes of the body."""
        self.headers = [*(headers or {}).items(), *repeatable]
        if content_type is not None:
            self.headers.append(("Content-Type", content_type))

    def head(self, more: str) -> bytes:
        """Status line and headers. ``more``: further header lines."""
        lines = "".join([f"{name}: {value}\r\n" for name, value in self.headers])
        length = "" if self.status in _EMPTY else f"Content-Length: {self.length}\r\n"
        return f"{_LINES[self.status]}{lines}{length}{more}Date: {_date()}\r\n\r\n".encode("latin-1")


def dump(document: Any) -> bytes:  # noqa: ANN401 - any JSON
    """Compact JSON of dictionaries, lists, strings and numbers."""
    return json.dumps(document, separators=(",", ":")).encode()


_now: tuple[int, str] = (0, "")


def _date() -> str:
    """The value of the header Date; computed once a second."""
    global _now  # noqa: PLW0603 - one for the process
    second = int(time.time())
    if _now[0] != second:
        _now = (second, formatdate(second, usegmt=True))
    return _now[1]
