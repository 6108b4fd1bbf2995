"""Connections with damaged requests (cut, repeated, changed): no internal error, and nothing is half done."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.server import Server, running_server
from support.wire_client import OCI_MANIFEST, Image, Person, Repo, image, sha256, stranger

if TYPE_CHECKING:
    from collections.abc import Iterator

PIECES = [
    *(b"\r\n", b"\n", b"\r", b" ", b"\t", b"\0", b":", b"%", b"%2f", b"..", b"/", b"?", b"#", b"\xff", b"HTTP/1.1"),
    *(b"Content-Length: 0\r\n", b"Content-Length: -1\r\n", b"Content-Length: 99999999999999999999\r\n"),
    *(b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: gzip\r\n", b"Expect: 100-continue\r\n"),
    *(b"Connection: close\r\n", b"Connection: upgrade\r\nUpgrade: websocket\r\n", b"Host: other\r\n"),
    *(
        b"Content-Range: 5-1\r\n",
        b"Range: bytes=-\r\n",
        b"Authorization: Bearer x\r\n",
        b"0\r\n\r\n",
        b"FFFFFFFFFFFFFFFFF\r\n",
    ),
    *(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"X: " + b"y" * 70_000 + b"\r\n"),
]


def request(repo: Repo, method: str, rest: str, body: bytes = b"", *more: str) -> bytes:
    """Return the bytes of a request."""
    lines = [f"{method} {repo.path(rest)} HTTP/1.1", "Host: x", f"Authorization: {repo.authorization}", *more]
    lines += [f"Content-Length: {len(body)}"] if body or method in {"POST", "PUT", "PATCH"} else []
    return "\r\n".join([*lines, "", ""]).encode() + body


def requests(repo: Repo, made: Image) -> list[bytes]:
    """Return one request of each kind; none of them changes anything that exists."""
    blob = made.blobs[0]
    typed = f"Content-Type: {OCI_MANIFEST}"
    return [
        request(repo, "GET", "manifests/v1"),
        request(repo, "HEAD", f"manifests/{made.digest}"),
        request(repo, "GET", f"blobs/{sha256(blob)}", b"", "Range: bytes=0-3"),
        request(repo, "GET", "tags/list?n=2"),
        request(repo, "GET", f"referrers/{made.digest}"),
        request(repo, "POST", f"blobs/uploads/?digest={sha256(blob)}", blob),
        request(repo, "PUT", "manifests/v1", made.manifest, typed),
        request(repo, "POST", "blobs/uploads/?mount=sha256:1&from=x"),
        request(repo, "PATCH", "blobs/uploads/none", blob, "Content-Range: 0-3"),
        request(repo, "DELETE", "manifests/none"),
    ]


@st.composite
def connections(draw: st.DrawFn, known: list[bytes]) -> bytes:
    """Some requests in a row, with bytes taken out, put in, doubled or changed."""
    data = bytearray(b"".join(draw(st.lists(st.sampled_from(known), min_size=1, max_size=3))))
    for _ in range(draw(st.integers(0, 3))):
        at, end = sorted(draw(st.tuples(st.integers(0, len(data)), st.integers(0, len(data)))))
        change = draw(st.sampled_from(["insert", "cut", "double", "flip", "any"]))
        if change == "insert":
            data[at:at] = draw(st.sampled_from(PIECES))
        elif change == "cut":
            del data[at : min(end, at + 200)]
        elif change == "double":
            data[at:at] = data[at : min(end, at + 200)]
        elif change == "flip" and at < len(data):
            data[at] ^= draw(st.integers(1, 255))
        else:
            data[at:at] = draw(st.binary(max_size=20))
    return bytes(data)


LAST = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
PATIENCE = 0.3
"""Seconds after which the client leaves, where the server waits for a body that would be longer than all that comes."""


def converse(port: int, data: bytes) -> bytes:
    """Send the bytes and a last request; return all that comes back until the server closes the connection."""
    answers = b""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        try:
            connection.sendall(data + LAST)
            connection.settimeout(PATIENCE)
            while piece := connection.recv(65_536):
                answers += piece
        except (ConnectionError, TimeoutError):
            pass  # the server may close the connection while bytes are still on their way
    return answers


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server for this test alone: it may still work for clients that left when another test reads its rows."""
    with running_server(tmp_path_factory.mktemp("any"), "--collect-seconds", "0") as running:
        yield running


@pytest.fixture(scope="module")
def person(server: Server) -> Person:
    """The admin of an organisation of its own."""
    return stranger(server)


def test_any_bytes(server: Server, person: Person) -> None:
    """Whatever arrives, no response is a 5xx, existing data stays, and what was accepted is complete."""
    repo = person.new_repo()
    made = image()
    repo.push(made, "v1")
    log = len(server.log.read_text())
    known = requests(repo, made)

    @settings(max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(connections(known))
    def send(data: bytes) -> None:
        answers = converse(server.port, data)
        statuses = {line.split()[1] for line in answers.split(b"\r\n") if line.startswith(b"HTTP/1.")}
        assert not [status for status in statuses if status.startswith(b"5")], answers

    send()
    assert repo.manifest("v1").body == made.manifest
    assert all(repo.blob(sha256(blob)).body == blob for blob in made.blobs)
    for item in person.commits(repo.name.partition("/")[2], limit=1000)["items"]:
        assert sha256(repo.manifest(item["commit"]).body) == item["commit"]
    written = server.log.read_text()[log:]
    assert "Traceback" not in written
    assert "internal error" not in written
