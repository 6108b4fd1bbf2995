"""200 clients at once send slowly, stop, leave, or send too much; others still get answers (13, 25, 26, 27)."""

from __future__ import annotations

import contextlib
import secrets
import socket
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from support.crowd import Crowd, comes_back, head, held_open, memory, works
from support.server import Server, free_port
from support.wire_client import Person, Repo, admin, receive, sha256

if TYPE_CHECKING:
    from pathlib import Path

CLIENTS = 200
FORM = b"application/x-www-form-urlencoded"
BLOB = 64 << 20
SENT = 9 << 20
"""Bytes that each refused client sends: more than the sockets buffer, and more than a manifest may have."""
PIECE = 1 << 16
MEMORY = CLIENTS * (512 << 10)
"""Bytes that they may cost the server: the buffers of their connections, and nothing else."""


pytestmark = pytest.mark.server_options("--collect-seconds", "0", "--workers", "1")


def test_slow_readers(server: Server) -> None:
    """25: each asks for 64 MB and reads nothing; memory stays flat, and a client that reads on gets everything."""
    ann: Person = admin(server)
    repo = ann.new_repo()
    data = secrets.token_bytes(1 << 20) * (BLOB >> 20)
    digest = repo.push_blob(data)
    works(repo, "before")
    before, held = held_open(server), memory(server)
    with Crowd(server.port) as crowd:
        for _ in range(CLIENTS):
            crowd.join(head(repo, "GET", f"blobs/{digest}"))
        for each in crowd.members:
            assert each.recv(12, socket.MSG_PEEK | socket.MSG_WAITALL) == b"HTTP/1.1 200"
        works(repo, "meanwhile")
        assert memory(server) - held < MEMORY
        assert receive(crowd.members[7]).body == data
        crowd.leave()
    comes_back(server, before)
    works(repo, "after")


def test_bodies_that_do_not_come(server: Server) -> None:
    """13, 26: uploads, manifests and forms begin and then stop or drip; in the end all clients leave."""
    ann = admin(server)
    repo = ann.new_repo()
    works(repo, "before")
    before, held = held_open(server), memory(server)
    digest = sha256(b"never whole")
    heads = (
        head(repo, "POST", f"blobs/uploads/?digest={digest}", "Content-Length: 1000000000"),
        head(repo, "POST", f"blobs/uploads/?digest={digest}", "Transfer-Encoding: chunked") + b"FFFFFFFF\r\n",
        head(repo, "PUT", "manifests/never", "Content-Type: application/json", "Content-Length: 4000000"),
        head(repo, "GET", "manifests/before")[:-9],
        b"POST /token HTTP/1.1\r\nHost: x\r\nContent-Type: " + FORM + b"\r\nContent-Length: 9999\r\n\r\n",
    )
    over = threading.Event()
    with Crowd(server.port) as crowd:
        for number in range(CLIENTS):
            crowd.join(heads[number % len(heads)])

        def drip() -> None:
            while not over.wait(0.05):
                for each in crowd.members:
                    with contextlib.suppress(OSError):
                        each.send(b"x")

        dripping = threading.Thread(target=drip)
        dripping.start()
        try:
            for number in range(5):
                works(repo, f"meanwhile-{number}")
        finally:
            over.set()
            dripping.join()
        assert memory(server) - held < MEMORY
        crowd.leave()
    comes_back(server, before)
    works(repo, "after")
    assert repo.blob(digest).status == 404
    assert repo.manifest("never").status == 404
    assert not [path for path in (server.data / "uploads").iterdir() if path.stat().st_size > 1 << 20]


IMPATIENT = """
from polly_dockers.server.cli import entry
from polly_dockers.web import body, connection, request
body.PROGRESS_SECONDS = request.SMALL_BODY_SECONDS = connection.HEADERS_SECONDS = 0.5
entry.run()
"""
"""The server with time limits of half a second instead of 30 to 75; for readers there is a setting."""


def test_the_slow_are_timed_out(tmp_path: Path) -> None:
    """26: a body that stops or drips gets 408; if a head or a reader stops, the connection is closed."""
    server = Server(
        tmp_path / "data",
        free_port(),
        ("--collect-seconds", "0", "--workers", "1", "--stalled-seconds", "1"),
        command=(sys.executable, "-c", IMPATIENT),
    )
    server.init()
    server.start()
    try:
        ann = admin(server)
        repo = ann.new_repo()
        digest = repo.push_blob(bytes(16 << 20))
        manifest = head(repo, "PUT", "manifests/v1", "Content-Type: application/json", "Content-Length: 4000")
        upload = head(repo, "POST", f"blobs/uploads/?digest={digest}", "Content-Length: 9000000")
        with Crowd(server.port) as crowd:
            for start in (manifest, upload):
                connection = crowd.join(start + b"x")
                answer = receive(connection)
                assert (answer.status, answer.code) == (408, "REQUEST_TIMEOUT")
            for start in (b"", b"GET /v2/ HT", head(repo, "GET", "tags/list")[:-3]):
                assert crowd.join(start).recv(1000) == b""
            reader = crowd.join(head(repo, "GET", f"blobs/{digest}"))
            before = held_open(server)
            while held_open(server) >= before:
                pass
            with contextlib.suppress(ConnectionError):
                got = 0
                while piece := reader.recv(1 << 20):
                    got += len(piece)
                assert got < 16 << 20
        works(repo, "after")
    finally:
        server.stop()


def test_refused_while_their_bodies_come(server: Server) -> None:
    """27: without a right, too large or to no repository: no connection is cut, and each client sees its status."""
    ann = admin(server)
    repo = ann.new_repo()
    works(repo, "before")
    before, held = held_open(server), memory(server)
    whole = f"Content-Length: {SENT}"
    nobody = Repo(repo.port, "Bearer nothing", repo.name)
    wanted = (
        (head(nobody, "POST", f"blobs/uploads/?digest={sha256(b'')}", whole), 401),
        (head(repo, "PUT", "manifests/v1", "Content-Type: application/json", whole), 413),
        (head(repo, "PATCH", "blobs/uploads/nowhere", whole), 404),
        (head(Repo(repo.port, repo.authorization, "nobody/nothing"), "POST", "blobs/uploads/", whole), 401),
    )
    statuses: list[tuple[int, int]] = []
    broken: list[OSError] = []

    def send(number: int) -> None:
        start, status = wanted[number % len(wanted)]
        with Crowd(server.port) as crowd:
            try:
                connection = crowd.join(start)
                for _ in range(SENT // PIECE):
                    connection.sendall(b"x" * PIECE)
                statuses.append((status, receive(connection).status))
            except OSError as error:
                broken.append(error)

    threads = [threading.Thread(target=send, args=[number]) for number in range(CLIENTS)]
    for each in threads:
        each.start()
    works(repo, "meanwhile")
    for each in threads:
        each.join()
    assert broken == []
    assert len(statuses) == CLIENTS
    assert [found for asked, found in statuses if asked != found] == []
    assert memory(server) - held < MEMORY
    comes_back(server, before)
    works(repo, "after")
