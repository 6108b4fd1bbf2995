"""Cuts what arrives on a connection into requests, with one parser for all of them (llhttp, by httptools).

The bytes are cut at the end of each head, and of each body that has a length. The parser gets one piece at a time, so
it never sees bytes of the next request. (What comes together with the end of a chunked body is dropped.) If the parser
finds the end of a request elsewhere, the request is refused. So nothing can be smuggled past either of them.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Final, NamedTuple

import httptools

HEAD_LIMIT: Final = 64 << 10
"""Largest head of a request in bytes, and the most that may arrive of a chunked body without a byte of content."""
FIELDS: Final = 128
"""Most headers of a request: each takes many times its bytes in memory."""
EMPTY_LINES: Final = 4
"""Largest number of CR and LF bytes that are ignored before a request."""
LENGTH_DIGITS: Final = 19
"""Most digits of a Content-Length, leading zeros included: Python converts no more than 4,300."""
_END: Final = b"\r\n\r\n"
_FRAMING: Final = frozenset({b"content-length", b"transfer-encoding"})


class Malformed(Exception):
    """What arrived is not a request, or two programs could read it differently. It is answered with ``status``."""

    def __init__(self, message: str, status: HTTPStatus = HTTPStatus.BAD_REQUEST) -> None:
        super().__init__(message)
        self.message = message
        self.status = int(status)  # an HTTPStatus would be written to the log by its name


class Head(NamedTuple):
    """The head of a request."""

    method: str
    target: str
    """As the client sent it. Bytes that are not UTF-8 are surrogates."""
    headers: dict[str, str]
    """By their names in lower case. Values of one name are joined (RFC 9110, section 5.3)."""
    version: str
    """Of HTTP: 1.1 or 1.0."""
    keep_alive: bool
    has_body: bool
    length: int | None
    """Bytes of the body; None for chunks."""


class Reader:
    """Reads the requests of one connection: ``head``, and ``body`` until it is complete if there is one.

    Methods named ``on_…`` are called by the parser. After Malformed the connection must be closed.
    """

    __slots__ = (
        *("_complete", "_content", "_empty", "_fields", "_fruitless", "_head", "_headers", "_keep_alive", "_known"),
        *("_left", "_method", "_parser", "_read", "_tail", "_target", "_version", "surplus"),
    )

    def __init__(self) -> None:
        self._parser: httptools.HttpRequestParser = httptools.HttpRequestParser(self)
        self._known: list[tuple[bytes, bytes]] | None = None
        self._headers: dict[str, str] = {}
        """The headers of ``_known``. Most clients send the same ones each time."""
        self.surplus = False
        """Whether bytes of another request came with the end of a chunked body. They are lost."""
        self._method, self._version, self._keep_alive = b"", "", False
        self._content: list[bytes] = []
        self._left: int | None = None
        """Bytes of the body that are missing; None for chunks."""
        self._begin()

    def _begin(self) -> None:
        self._target = b""
        self._fields: list[tuple[bytes, bytes]] = []
        self._read = self._complete = False
        """Whether the parser has read the head, and the whole request."""
        self._tail = b""
        """The last bytes of an unfinished head, in which its end may begin."""
        self._empty = self._head = self._fruitless = 0
        """Bytes of the lines before the head, of the head so far, and of a chunked body since its last content."""

    def close(self) -> None:
        """Free the memory: the parser and this object hold each other. Nothing can be read any more."""
        if hasattr(self, "_parser"):
            del self._parser
        self._fields, self._known, self._headers = [], None, {}

    @property
    def begun(self) -> bool:
        """Whether a part of a head has arrived."""
        return self._head > 0

    def head(self, data: bytes) -> tuple[Head | None, bytes]:
        """Read a head, or a piece of it. Returns the head once it is complete, and what follows. Raises Malformed."""
        if not self._head:  # "ignore at least one empty line" before a request (RFC 9112, section 2.2)
            arrived = len(data)
            data = data.lstrip(b"\r\n")
            self._empty += arrived - len(data)
            if self._empty > EMPTY_LINES:
                msg = "There are too many empty lines before the request."
                raise Malformed(msg)
        known = len(self._tail)
        joined = self._tail + data if known else data
        at = joined.find(_END)
        if at < 0:
            self._tail, piece = joined[-3:], data
        else:
            self._tail, piece = b"", data[: at + len(_END) - known]
        self._head += len(piece)
        if self._head > HEAD_LIMIT:
            msg = f"The head has more than {HEAD_LIMIT} bytes."
            raise Malformed(msg, HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        self._parse(piece)
        if len(self._fields) > FIELDS:
            msg = f"The head has more than {FIELDS} headers."
            raise Malformed(msg, HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        rest = data[len(piece) :]
        if at < 0:
            return None, rest
        if not self._read:
            msg = "The head of the request is malformed."
            raise Malformed(msg)
        return self._checked(), rest

    def _checked(self) -> Head:
        if self._fields != self._known:
            self._known, self._headers = self._fields, _headers(self._fields)
        headers, has_body = self._headers, not self._complete
        if problem := self._problem(headers):
            raise Malformed(problem)
        if has_body:
            self._left = int(headers["content-length"]) if "content-length" in headers else None
        target = self._target.decode("utf-8", "surrogateescape")
        method, length = self._method.decode(), self._left if has_body else 0
        head = Head(method, target, headers, self._version, self._keep_alive, has_body, length)
        if not has_body:
            self._begin()
        return head

    def _problem(self, headers: dict[str, str]) -> str | None:
        """What is wrong with a head that the parser has accepted; None if nothing is."""
        if self._version not in {"1.1", "1.0"}:
            return "The server speaks HTTP/1.1."
        if self._version == "1.1" and "," in headers.get("host", ","):
            return "A request of HTTP/1.1 must have one header Host."
        if headers.get("transfer-encoding", "chunked").lower() != "chunked":
            return "The only Transfer-Encoding that the server takes is chunked."
        if self._version == "1.0" and "transfer-encoding" in headers:
            return "HTTP/1.0 has no Transfer-Encoding."
        if len(headers.get("content-length", "")) > LENGTH_DIGITS:
            return f"The Content-Length has more than {LENGTH_DIGITS} digits."
        return None

    def body(self, data: bytes) -> tuple[bytes, bool, bytes]:
        """Read a piece of a body. Returns its content, whether that was the end, and what follows. Raises Malformed."""
        piece = data if self._left is None else data[: self._left]
        self._parse(piece)
        content, self._content = b"".join(self._content), []
        self._fruitless = 0 if content else self._fruitless + len(piece)
        if self._left is not None:
            self._left -= len(piece)
        complete = self._complete
        if complete:
            self._begin()
        elif self._left == 0 or self._fruitless > HEAD_LIMIT:
            msg = "The body has no clear end, or its chunks have too little content."
            raise Malformed(msg)
        return content, complete, data[len(piece) :]

    def _parse(self, piece: bytes) -> None:
        try:
            try:
                self._parser.feed_data(piece)
            except httptools.HttpParserUpgrade:  # "A server MAY ignore a received Upgrade" (RFC 9110, section 7.8)
                if not self.surplus:
                    self._ignore_upgrade()
        except httptools.HttpParserError as error:
            self.surplus = self._complete  # then the error is in what follows a chunked body
            if not self._complete:
                msg = f"This is not an HTTP request: {str(error)[:100]}."
                raise Malformed(msg) from error

    def _ignore_upgrade(self) -> None:
        """Go on with HTTP/1.1 after a request for another protocol.

        The parser would take a body for bytes of that protocol. So a new parser reads the body, after a head that only
        says where it ends.
        """
        self._parser = httptools.HttpRequestParser(self)
        framing = [b"%s: %s\r\n" % field for field in self._fields if field[0].lower() in _FRAMING]
        if framing:
            self._complete = False
            self._parser.feed_data(b"POST / HTTP/1.1\r\n%s\r\n" % b"".join(framing))

    def on_message_begin(self) -> None:
        """A request begins."""
        self.surplus = self._complete

    def on_url(self, url: bytes) -> None:
        """A part of the target."""
        if not self._read:
            self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; a trailer is dropped."""
        if not self._read:
            self._fields.append((name, value))

    def on_headers_complete(self) -> None:
        """The end of the head."""
        if not self._read:
            self._read, parser = True, self._parser
            self._method, self._version = parser.get_method(), parser.get_http_version()
            self._keep_alive = parser.should_keep_alive()

    def on_body(self, data: bytes) -> None:
        """Content of the body."""
        if not self.surplus:
            self._content.append(data)

    def on_message_complete(self) -> None:
        """The end of the request."""
        self._complete = True


def _headers(fields: list[tuple[bytes, bytes]]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for raw, value in fields:
        name, text = raw.decode().lower(), value.decode("utf-8", "surrogateescape")
        headers[name] = f"{headers[name]}, {text}" if name in headers else text
    return headers
