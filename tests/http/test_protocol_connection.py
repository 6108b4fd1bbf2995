"""A connection with many requests: each gets one response, in order, and there are no other responses."""

from __future__ import annotations

import http.client
from typing import TYPE_CHECKING

import pytest

from support.wire_client import EMPTY, OCI_MANIFEST, Answer, Person, Repo, connected, image, receive

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping


@pytest.fixture(scope="module")
def repo(ann: Person) -> Repo:
    """A repository with an image under v1 and v2."""
    made = ann.new_repo()
    made.push(image("prompt"), "v1", "v2")
    return made


def request(repo: Repo, method: str, rest: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> bytes:
    """The bytes of a request for the repository."""
    lines = [f"{method} {repo.path(rest)} HTTP/1.1", "Host: polly"]
    sent = {"Authorization": repo.authorization, **(headers or {})}
    if body:
        sent |= {"Content-Length": str(len(body)), "Content-Type": OCI_MANIFEST}
    lines += [f"{name}: {value}" for name, value in sent.items() if value]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


def ask(connection: socket.socket, wanted: bytes) -> http.client.HTTPResponse:
    """Send a request; return its response, of which the headers are read."""
    connection.sendall(wanted)
    answer = http.client.HTTPResponse(connection, method=wanted.split()[0].decode())
    answer.begin()
    return answer


def test_head_says_what_get_says_without_a_body(repo: Repo) -> None:
    """The headers of HEAD are those of GET, Content-Length included, and no body follows them."""
    with connected(repo.port) as connection:
        said = ask(connection, request(repo, "HEAD", "manifests/v1"))
        got = ask(connection, request(repo, "GET", "manifests/v1"))
        assert said.status == got.status == 200
        assert said.headers["Content-Length"] == got.headers["Content-Length"] == str(len(got.read()))
        assert said.headers["Docker-Content-Digest"] == got.headers["Docker-Content-Digest"]


def test_one_connection_for_everything(repo: Repo) -> None:
    """Pulls and pushes take turns on a connection, and each is answered once, in order."""
    body = repo.manifest("v1").body
    with connected(repo.port) as connection:
        for number in range(3):
            assert ask(connection, request(repo, "GET", "manifests/v1")).read() == body
            put = ask(connection, request(repo, "PUT", f"manifests/turn{number}", body))
            assert (put.status, put.read()) == (201, b"")
            assert ask(connection, request(repo, "GET", f"manifests/turn{number}")).read() == body
            blob = ask(connection, request(repo, "GET", f"blobs/{EMPTY}"))
            assert blob.read()[:1] == b"{"


def test_requests_that_come_together_are_answered_in_order(repo: Repo) -> None:
    """Two requests in one packet, and one request in two packets, are answered in order."""
    first, second = request(repo, "GET", "manifests/v1"), request(repo, "GET", "tags/list")
    body = repo.manifest("v1").body
    with connected(repo.port) as connection:
        connection.sendall(first + second)
        answers = b""
        while b'"tags"' not in answers:
            answers += connection.recv(1 << 16)
        assert answers.index(body) < answers.index(b'"tags"')
        assert answers.count(b"HTTP/1.1 200 OK") == 2
        connection.sendall(first[:60])
        connection.sendall(first[60:])
        assert receive(connection).body == body


def test_a_request_inside_of_a_body_is_not_answered(repo: Repo) -> None:
    """A body that looks like a request, sent as a packet of its own, is never answered as one."""
    hidden = request(repo, "GET", "manifests/v1")
    whole = request(repo, "PUT", "manifests/smuggled", hidden)
    with connected(repo.port) as connection:
        connection.sendall(whole[: -len(hidden)])
        connection.sendall(hidden)
        answer = receive(connection)
        assert (answer.status, answer.code) == (400, "MANIFEST_INVALID")
        assert receive_next(connection, request(repo, "GET", "tags/list")).startswith(b'{"name":')


def receive_next(connection: socket.socket, wanted: bytes) -> bytes:
    """The body of the answer to one more request."""
    return ask(connection, wanted).read()


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
@pytest.mark.parametrize(
    ("rest", "headers"),
    [
        ("manifests/v1", {}),
        ("manifests/DIGEST", {}),
        ("manifests/v1", {"If-None-Match": '"DIGEST"'}),
        ("manifests/v1", {"Authorization": ""}),
        ("manifests/v1", {"Authorization": "Bearer made-up"}),
        ("manifests/v1", {"Authorization": "Basic TOKEN"}),
        ("manifests/v1", {"Authorization": "bearer  TOKEN "}),
        ("manifests/no-such-tag", {}),
        (f"manifests/{EMPTY}", {}),
        ("manifests/sha256:short", {}),
        ("manifests/-v1", {}),
        ("manifests/%76%31", {}),
        ("manifests/%2576%2531", {}),
        ("manifests/v1/", {}),
        ("manifests//v1", {}),
        ("./manifests/v1", {}),
        ("other/manifests/v1", {}),
        ("Other/manifests/v1", {}),
        ("manifests/v1?a=b", {}),
    ],
)
def test_a_request_alone_is_answered_as_one_of_two(repo: Repo, method: str, rest: str, headers: dict[str, str]) -> None:
    """Whether the next request has begun to arrive or not, the response is the same."""
    digest, secret = repo.manifest("v1").header("docker-content-digest"), str(repo.authorization).split()[1]
    sent = {name: value.replace("DIGEST", digest).replace("TOKEN", secret) for name, value in headers.items()}
    wanted = request(repo, method, rest.replace("DIGEST", digest), headers=sent)
    with connected(repo.port) as connection:
        connection.sendall(wanted + wanted[:9])
        first = receive(connection, method)
        connection.sendall(wanted[9:])
        last = receive(connection, method)
    assert _without_id(first) == _without_id(last)


def _without_id(answer: Answer) -> tuple[int, list[tuple[str, str]], bytes]:
    headers = [(name, value) for name, value in answer.headers.items() if name not in {"Date", "X-Request-Id"}]
    return answer.status, headers, answer.body.replace(answer.header("x-request-id").encode(), b"ID")
