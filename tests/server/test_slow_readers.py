"""42: 1,000 clients ask for the largest answers, and do not read them."""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from polly_dockers.web.memory import PORTION, ROOM
from support.crowd import Crowd, comes_back, head, held_open, memory, works
from support.server import Server, running_server
from support.wire_client import CONFIG, OCI_INDEX, OCI_MANIFEST, admin, descriptor, dumps, receive, sha256

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.wire_client import Repo

CLIENTS = 1000
STALLED = 3
LARGEST = 8 << 20
TAGS = 10_000
ONE = 64 << 20
"""Bytes that are needed to build one answer before it is counted: the page of referrers is escaped JSON."""
MEMORY = ROOM + ONE + CLIENTS * PORTION
"""Bytes that all of them may cost the server."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of one process that waits STALLED seconds for readers."""
    options = ("--collect-seconds", "0", "--workers", "1", "--stalled-seconds", str(STALLED))
    with running_server(tmp_path_factory.mktemp("slow"), *options) as running:
        yield running


@dataclass(frozen=True)
class Large:
    """A repository with the largest answers, and the request for each."""

    repo: Repo
    manifest: bytes
    requests: tuple[bytes, ...]


@pytest.fixture(scope="module")
def large(server: Server) -> Large:
    """The largest manifest, whose annotations also fill a page of referrers, and the longest list of tags."""
    repo = admin(server).new_repo()
    repo.push_blob(b"{}")
    subject = dumps({"schemaVersion": 2, "config": descriptor(b"{}", CONFIG), "layers": [], "mediaType": OCI_MANIFEST})
    for at in range(0, TAGS, 50):
        tags = "&".join(f"tag={number:0>128}" for number in range(at, at + 50))
        assert repo.send("PUT", repo.path(f"manifests/{sha256(subject)}?{tags}"), subject, TYPE).status == 201
    referrer = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [], "subject": descriptor(subject)}
    shell = dumps(referrer | {"annotations": {"a": ""}})
    text = "\u00e9" * ((LARGEST - len(shell)) // 2)
    manifest = shell.replace(b'{"a": ""}', b'{"a": "' + text.encode() + b'"}')
    assert repo.put("large", manifest, OCI_INDEX).status == 201
    wanted = ("manifests/large", "tags/list", f"referrers/{sha256(subject)}")
    return Large(repo, manifest, tuple(head(repo, "GET", rest) for rest in wanted))


TYPE = {"Content-Type": OCI_MANIFEST}


def test_clients_that_do_not_read(server: Server, large: Large) -> None:
    """Memory stays bounded, others are served, and the connections are gone after the deadline."""
    works(large.repo, "before")
    before, held = held_open(server), memory(server)
    most = 0
    with Crowd(server.port) as crowd:
        for number in range(CLIENTS):
            crowd.join(large.requests[number % len(large.requests)])
            if number % 250 == 0:
                works(large.repo, "meanwhile")
                most = max(most, memory(server) - held)
        works(large.repo, "meanwhile")
        assert max(most, memory(server) - held) < MEMORY
        while (answer := large.repo.manifest("large")).status == 503:
            assert answer.header("Retry-After") == "1"
        assert answer.body == large.manifest
        comes_back(server, before)
        assert memory(server) - held < MEMORY
    works(large.repo, "after")


def test_clients_that_ask_again_and_again(server: Server, large: Large) -> None:
    """Requests one after another on connections that read nothing: no more than one answer is made for each."""
    before, held = held_open(server), memory(server)
    with Crowd(server.port) as crowd:
        for number in range(50):
            with contextlib.suppress(ConnectionError):
                crowd.join(large.requests[number % len(large.requests)] * 200)
        works(large.repo, "meanwhile")
        assert memory(server) - held < ROOM + ONE + 50 * 4 * PORTION
        comes_back(server, before)
    works(large.repo, "after")


def test_clients_that_read_slowly(server: Server, large: Large) -> None:
    """A client that goes on taking a little for longer than the deadline gets all of it."""
    with Crowd(server.port) as crowd:
        reader = crowd.join(large.requests[0])
        got = bytearray()
        while len(got) < LARGEST:
            got += reader.recv(1 << 18)
            assert large.repo.get("/v2/").status == 200
        assert bytes(got).partition(b"\r\n\r\n")[2] == large.manifest[: len(bytes(got).partition(b"\r\n\r\n")[2])]


def test_over_tls(tmp_path: Path) -> None:
    """The same is true over TLS, where encrypted bytes are buffered too."""
    pair = (
        "-keyout",
        "key.pem",
        "-out",
        "cert.pem",
        "-subj",
        "/CN=localhost",
        "-addext",
        "subjectAltName=IP:127.0.0.1",
    )
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", *pair],
        cwd=tmp_path, check=True, capture_output=True,
    )  # fmt: skip
    files = ("--tls-cert", str(tmp_path / "cert.pem"), "--tls-key", str(tmp_path / "key.pem"))
    options = ("--collect-seconds", "0", "--workers", "1", "--stalled-seconds", str(STALLED))
    with running_server(tmp_path, *options, *files) as server:
        context = ssl.create_default_context(cafile=str(tmp_path / "cert.pem"))
        ask = b"GET /api/v1/openapi.json HTTP/1.1\r\nHost: x\r\n\r\n"
        plain = socket.create_connection(("127.0.0.1", server.port), timeout=30)
        with context.wrap_socket(plain, server_hostname="127.0.0.1") as one:
            one.sendall(ask)
            assert receive(one).status == 200
            before, held = held_open(server) - 1, memory(server)
        with contextlib.ExitStack() as stack:
            for _ in range(50):
                plain = socket.create_connection(("127.0.0.1", server.port), timeout=30)
                plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                connection = stack.enter_context(context.wrap_socket(plain, server_hostname="127.0.0.1"))
                for _ in range(100):
                    connection.sendall(ask * 10)
            assert memory(server) - held < 50 * 8 * PORTION
            comes_back(server, before)
