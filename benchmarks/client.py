"""A small HTTP/1.1 client on one connection, which costs less than the servers it measures."""

from __future__ import annotations

import json
import os
import socket
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import BinaryIO

BUFFER: Final = 1 << 20
PATIENCE: Final = 120.0
"""Seconds that a server may leave a client waiting."""


class Unexpected(Exception):
    """A server answered otherwise than it has to; the measurement is worth nothing."""


@dataclass(frozen=True)
class Answer:
    """Status, headers by lower-case name, and body."""

    status: int
    headers: dict[str, str]
    body: bytes = b""

    def json(self) -> Any:  # noqa: ANN401 - any document
        """The body as a document."""
        return json.loads(self.body)

    def must(self, *statuses: int) -> Self:
        """Itself, where the status is one of these; raises Unexpected."""
        if self.status not in statuses:
            msg = f"status {self.status} in place of {statuses}: {self.body[:500]!r}"
            raise Unexpected(msg)
        return self


def head(method: str, target: str, headers: Mapping[str, str], length: int | None) -> bytes:
    """The head of a request."""
    lines = [f"{method} {target} HTTP/1.1", "Host: 127.0.0.1", *(f"{name}: {text}" for name, text in headers.items())]
    if length is not None:
        lines.append(f"Content-Length: {length}")
    return "\r\n".join([*lines, "", ""]).encode()


def parse(raw: bytes) -> Answer:
    """Status and headers of the head of an answer."""
    first, *lines = raw.decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines if line)
    return Answer(int(first.split()[1]), {name.lower(): text.strip() for name, _, text in pairs})


def target(location: str) -> str:
    """Path and query of a Location."""
    if location.startswith("/"):
        return location
    return "/" + location.split("/", 3)[3]


def untrusting() -> ssl.SSLContext:
    """TLS with whatever certificate: the benchmark's own is made at run time."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class Connection:
    """A connection to a server on the loopback address, which is used again and again."""

    def __init__(self, port: int, *, tls: bool = False, window: int = 0) -> None:
        """``window``: bytes of the receive buffer, 0 for the system's choice."""
        plain = socket.socket()
        if window:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        plain.settimeout(PATIENCE)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        plain.connect(("127.0.0.1", port))
        self.socket = untrusting().wrap_socket(plain) if tls else plain
        self.rest = b""
        """What came behind the head of the last answer."""

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.socket.close()

    def ask(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> Answer:
        """Make a request and read the whole answer."""
        self.socket.sendall(head(method, path, headers or {}, len(body) if body is not None else None) + (body or b""))
        answer = self.read_head()
        if method == "HEAD" or answer.status in {204, 304}:
            return answer
        if answer.headers.get("transfer-encoding") == "chunked":
            return Answer(answer.status, answer.headers, self._chunks())
        return Answer(answer.status, answer.headers, self._exactly(int(answer.headers.get("content-length", 0))))

    def send_file(self, method: str, path: str, headers: Mapping[str, str], file: BinaryIO, length: int) -> Answer:
        """A request whose body is the file from its start, again and again until ``length`` is sent, by sendfile."""
        self.socket.sendall(head(method, path, headers, length))
        size, left = os.fstat(file.fileno()).st_size, length
        while left:
            left -= self.socket.sendfile(file, 0, min(size, left))
        answer = self.read_head()
        return Answer(answer.status, answer.headers, self._exactly(int(answer.headers.get("content-length", 0))))

    def read_head(self) -> Answer:
        """Read the head of an answer; ``rest`` has what came behind it."""
        data = self.rest
        while b"\r\n\r\n" not in data:
            piece = self.socket.recv(1 << 16)
            if not piece:
                msg = f"the server closed the connection after {data[:200]!r}"
                raise Unexpected(msg)
            data += piece
        raw, _, self.rest = data.partition(b"\r\n\r\n")
        return parse(raw)

    def _exactly(self, count: int) -> bytes:
        rest, self.rest = self.rest[:count], self.rest[count:]
        if len(rest) == count:
            return rest
        data = bytearray(count)
        data[: len(rest)] = rest
        view = memoryview(data)[len(rest) :]
        while view:
            done = self.socket.recv_into(view)
            if not done:
                msg = "the server closed the connection inside a body"
                raise Unexpected(msg)
            view = view[done:]
        return bytes(data)

    def _chunks(self) -> bytes:
        body: list[bytes] = []
        while True:
            while b"\r\n" not in self.rest:
                self.rest += self.socket.recv(1 << 16)
            line, _, self.rest = self.rest.partition(b"\r\n")
            piece = self._exactly(int(line, 16) + 2)[:-2]
            if not piece:
                return b"".join(body)
            body.append(piece)


def once(
    port: int, method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes | None = None
) -> Answer:
    """One request on a connection of its own."""
    with Connection(port) as connection:
        return connection.ask(method, path, headers, body)
