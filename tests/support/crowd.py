"""Many clients of one server at once, and what they cost it."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Self

from support.wire_client import image, sha256

if TYPE_CHECKING:
    from support.server import Server
    from support.wire_client import Repo


class Crowd:
    """Many connections to a server, held open together."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._stack = contextlib.ExitStack()
        self.members: list[socket.socket] = []

    def __enter__(self) -> Self:
        """Start without connections."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close all connections."""
        self._stack.close()

    def join(self, data: bytes) -> socket.socket:
        """Open another connection and send these bytes on it."""
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._stack.enter_context(connection)
        connection.settimeout(30)
        connection.connect(("127.0.0.1", self._port))
        connection.sendall(data)
        self.members.append(connection)
        return connection

    def leave(self) -> None:
        """Reset all connections at once."""
        for connection in self.members:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self._stack.close()


def head(repo: Repo, method: str, rest: str, *more: str) -> bytes:
    """The head of a request."""
    lines = [f"{method} {repo.path(rest)} HTTP/1.1", "Host: x", f"Authorization: {repo.authorization}", *more]
    return "\r\n".join([*lines, "", ""]).encode()


def works(repo: Repo, tag: str) -> None:
    """Push an image and pull it, as any client does."""
    made = image()
    repo.push(made, tag)
    assert repo.manifest(tag).body == made.manifest
    assert all(repo.blob(sha256(blob)).body == blob for blob in made.blobs)


def processes(server: Server) -> list[Path]:
    """The folders of the server and its workers in /proc."""
    assert server.process is not None
    own = Path(f"/proc/{server.process.pid}")
    children = (own / f"task/{server.process.pid}/children").read_text().split()
    return [own, *(Path(f"/proc/{child}") for child in children)]


def memory(server: Server) -> int:
    """Bytes that the server holds for itself, in all its processes."""
    lines = [line for each in processes(server) for line in (each / "status").read_text().splitlines()]
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


def held_open(server: Server) -> int:
    """Connections and uploads that the server has open, in all its processes."""
    found = []
    for each in processes(server):
        for link in (each / "fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                found.append(str(link.readlink()))
    return sum(name.startswith("socket:") or "/uploads/" in name for name in found)


def comes_back(server: Server, before: int) -> None:
    """Wait until the server has closed the connections of the crowd."""
    while held_open(server) > before:
        pass
