"""For a request that is cut off, the log says whether the client or the server ended it, or what was wrong."""

from __future__ import annotations

import json
import secrets
import socket
from typing import TYPE_CHECKING, Any

from support.crowd import Crowd, head
from support.server import Server, free_port
from support.wire_client import admin, receive

if TYPE_CHECKING:
    from pathlib import Path

SIZE = 32 << 20


def logged(server: Server) -> list[dict[str, Any]]:
    """The lines of the log."""
    return [json.loads(line) for line in server.log.read_text().splitlines() if line.startswith("{")]


def pulls(server: Server) -> list[int]:
    """Statuses of the pulls of blobs in the log."""
    return [line["status"] for line in logged(server) if line.get("method") == "GET" and "/blobs/" in line["path"]]


def test_the_log_says_who_ended_it(tmp_path: Path) -> None:
    """A client that left is 499, a pull that the end of the server cut off is 503, and a short file is an error."""
    server = Server(tmp_path / "data", free_port(), ("--workers", "1", "--graceful-seconds", "0"))
    server.init()
    server.start()
    try:
        repo = admin(server).new_repo()
        digest = repo.push_blob(secrets.token_bytes(1 << 20) * (SIZE >> 20))
        (file,) = [path for path in (server.data / "blobs").glob("*/*/*") if path.stat().st_size == SIZE]
        with Crowd(server.port) as crowd:
            gone = crowd.join(head(repo, "GET", f"blobs/{digest}"))
            assert gone.recv(12, socket.MSG_WAITALL) == b"HTTP/1.1 200"
            crowd.leave()
        while pulls(server) != [499]:
            pass
        assert not [line for line in logged(server) if line["level"] == "error"]
        with Crowd(server.port) as crowd:
            reader = crowd.join(head(repo, "GET", f"blobs/{digest}"))
            assert reader.recv(12, socket.MSG_WAITALL) == b"HTTP/1.1 200"
            with file.open("r+b") as opened:
                opened.truncate(SIZE // 2)
            try:
                while reader.recv(1 << 20):
                    pass
            except ConnectionError:
                pass
            while pulls(server) != [499, 499]:
                pass
            (error,) = [line for line in logged(server) if line["level"] == "error"]
            assert error["event"] == "a blob was not sent to its end"
            assert "shorter" in error["exception"]
        with file.open("r+b") as opened:
            opened.truncate(SIZE)
        with Crowd(server.port) as crowd:
            cut = crowd.join(head(repo, "GET", f"blobs/{digest}"))
            assert cut.recv(12, socket.MSG_WAITALL) == b"HTTP/1.1 200"
            assert server.process is not None
            server.process.terminate()
            assert server.process.wait(timeout=60) == 0
        assert pulls(server) == [499, 499, 503]
    finally:
        assert server.process is not None
        assert server.process.stdout is not None
        server.process.kill()
        server.process.wait()
        server.process.stdout.close()


def test_the_log_of_a_malformed_chunk(tmp_path: Path) -> None:
    """A body whose chunks are malformed gets 400, with the ID of the one line in the log that has its path."""
    server = Server(tmp_path / "data", free_port(), ("--workers", "1"))
    server.init()
    server.start()
    try:
        repo = admin(server).new_repo()
        location = repo.start()
        wanted = head(repo, "PATCH", location.removeprefix(repo.path("")), "Transfer-Encoding: chunked")
        with Crowd(server.port) as crowd:
            answer = receive(crowd.join(wanted + b"5\r\nhello\r\nZZ\r\n"))
        assert (answer.status, answer.code) == (400, "BAD_REQUEST")
    finally:
        server.stop()
    (line,) = [line for line in logged(server) if line.get("status", 200) >= 400]
    assert (line["method"], line["path"], line["status"]) == ("PATCH", location, 400)
    assert line["request_id"] == answer.headers["X-Request-Id"]
