"""protocol.md 1 and 25 to 33: blobs pushed in one request and in many, and what clients see meanwhile."""

from __future__ import annotations

import http.client
import secrets
import time
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import pytest

from support.wire_client import (
    EMPTY,
    TIMEOUT,
    Client,
    Person,
    Repo,
    connected,
    raw,
    receive,
    sha256,
    sha512,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from support.server import Server

HELLO = b"hello, blob"
MEBIBYTE = 1 << 20


@pytest.fixture
def repo(ann: Person) -> Repo:
    """A new repository."""
    return ann.new_repo()


def patch(repo: Repo, location: str, data: bytes, content_range: str | None = None) -> tuple[int, str, str]:
    """Send PATCH; return status, Range and Location."""
    headers = {"Content-Type": "application/octet-stream"}
    if content_range is not None:
        headers["Content-Range"] = content_range
    answer = repo.send("PATCH", location, data, headers)
    return answer.status, answer.header("Range"), answer.header("Location")


def finish(repo: Repo, location: str, digest: str, data: bytes = b"") -> int:
    """Send PUT, check its headers and the blob that it made, and return its status."""
    answer = repo.send("PUT", f"{location}?{urlencode({'digest': digest})}", data)
    if answer.status == 201:
        assert answer.header("Docker-Content-Digest") == digest
        assert answer.header("Content-Length") == "0"
        pulled = repo.get(answer.header("Location"))
        assert pulled.status == 200
        assert digest in (sha256(pulled.body), sha512(pulled.body))
    return answer.status


def test_an_upload_starts(repo: Repo) -> None:
    """25: Location below the repository and relative (5), an id, an empty range, no body."""
    answer = repo.send("POST", repo.path("blobs/uploads/"))
    assert answer.status == 202
    upload = answer.header("Docker-Upload-UUID")
    assert len(upload) >= 22
    assert answer.header("Location").startswith(f"/v2/{repo.name}/blobs/uploads/{upload}")
    assert (answer.header("Range"), answer.header("Content-Length"), answer.body) == ("0-0", "0", b"")


def test_an_upload_in_one_put(repo: Repo) -> None:
    """31: POST, then PUT with the body, as containerd and BuildKit do."""
    assert finish(repo, repo.start(), sha256(HELLO), HELLO) == 201


def test_an_upload_that_streams(repo: Repo) -> None:
    """28: a chunked PATCH without Content-Range and without Content-Length, then an empty PUT, as Docker does."""
    location = repo.start()
    pieces = [bytes([number]) * 100_003 for number in range(40)]
    answer = repo.send("PATCH", location, iter(pieces))
    whole = b"".join(pieces)
    assert (answer.status, answer.header("Range")) == (202, f"0-{len(whole) - 1}")
    assert finish(repo, answer.header("Location"), sha256(whole)) == 201


def test_an_upload_in_pieces(repo: Repo) -> None:
    """27: each PATCH says how far the upload is, and the last piece comes with the PUT."""
    location = repo.start()
    assert patch(repo, location, b"0123", "0-3")[:2] == (202, "0-3")
    status, at, location = patch(repo, location, b"45", "4-5")
    assert (status, at) == (202, "0-5")
    assert patch(repo, location, b"67")[:2] == (202, "0-7")
    put = repo.send("PUT", f"{location}?digest={sha256(b'0123456789')}", b"89", {"Content-Range": "8-9"})
    assert put.status == 201
    assert repo.blob(sha256(b"0123456789")).body == b"0123456789"


def test_pieces_that_come_to_different_workers(repo: Repo) -> None:
    """27: forty pieces, each on a connection of its own, reach more than one process and make one blob."""
    location, whole = repo.start(), b""
    for number in range(40):
        piece = f"piece {number};".encode()
        status, at, location = patch(repo, location, piece, f"{len(whole)}-{len(whole) + len(piece) - 1}")
        whole += piece
        assert (status, at) == (202, f"0-{len(whole) - 1}")
    assert finish(repo, location, sha256(whole)) == 201


@pytest.mark.parametrize("content_range", ["5-9", "3-8", "0-3", "99-104"])
def test_a_piece_out_of_order(repo: Repo, content_range: str) -> None:
    """29: 416 with Location and Range, from PATCH and PUT alike, and the upload can go on."""
    location = repo.start()
    patch(repo, location, b"0123", "0-3")
    for method, address in (("PATCH", location), ("PUT", f"{location}?digest={sha256(b'x')}")):
        answer = repo.send(method, address, b"x", {"Content-Range": content_range})
        assert (answer.status, answer.code) == (416, "RANGE_INVALID")
        assert (answer.header("Range"), answer.header("Location")) == ("0-3", location)
    assert patch(repo, location, b"45", "4-5")[:2] == (202, "0-5")
    assert finish(repo, location, sha256(b"012345")) == 201


@pytest.mark.parametrize("content_range", ["0-9", "0-2", "3-0", "0-", "-3", "a-b", "bytes */4", "0-1,2-3"])
def test_lengths_that_disagree(repo: Repo, content_range: str) -> None:
    """29: a range that is invalid or does not match the body is SIZE_INVALID or RANGE_INVALID and stores nothing."""
    location = repo.start()
    answer = repo.send("PATCH", location, b"0123", {"Content-Range": content_range})
    assert (answer.status, answer.code) in {(400, "SIZE_INVALID"), (416, "RANGE_INVALID")}
    assert repo.get(location).header("Range") == "0-0"
    assert patch(repo, location, b"0123", "0-3")[:2] == (202, "0-3")


def test_an_old_location_goes_on_answering(repo: Repo) -> None:
    """25: GET of the first Location returns how far the upload is, and an old piece sent again is 416."""
    first = repo.start()
    patch(repo, first, b"0123", "0-3")
    _, _, latest = patch(repo, first, b"45", "4-5")
    answer = repo.get(first)
    assert (answer.status, answer.header("Range"), answer.body) == (204, "0-5", b"")
    assert repo.send("PATCH", first, b"0123", {"Content-Range": "0-3"}).status == 416
    assert finish(repo, latest, sha256(b"012345")) == 201


def test_query_parameters_of_a_location_are_opaque(repo: Repo) -> None:
    """25: a client may add digest, and anything else, to the query of the Location."""
    location = repo.start()
    answer = repo.send("PUT", f"{location}?_state=abc&digest={sha256(HELLO)}", HELLO)
    assert answer.status == 201


def test_an_upload_tells_where_it_is_and_ends(repo: Repo) -> None:
    """30: GET 204 with Location and Range; DELETE 204, and then it is unknown to every method."""
    location = repo.start()
    patch(repo, location, HELLO)
    answer = repo.get(location)
    assert (answer.status, answer.header("Range"), answer.header("Location")) == (204, "0-10", location)
    assert repo.send("DELETE", location).status == 204
    for method in ("GET", "PATCH", "DELETE"):
        after = repo.send(method, location, b"x" if method == "PATCH" else None)
        assert (after.status, after.code) == (404, "BLOB_UPLOAD_UNKNOWN")
    assert finish(repo, location, sha256(HELLO)) == 404
    assert repo.blob(sha256(HELLO)).status == 404


def test_an_upload_is_over_after_its_put(repo: Repo) -> None:
    """31: a second PUT finds no upload, and the blob stays."""
    location = repo.start()
    assert finish(repo, location, sha256(HELLO), HELLO) == 201
    assert finish(repo, location, sha256(HELLO), HELLO) == 404
    assert repo.blob(sha256(HELLO)).body == HELLO


@pytest.mark.parametrize(
    ("digest", "status"), [(sha256(b"other"), 400), ("sha256:abc", 400), ("md5:" + "0" * 32, 400), ("", 400)]
)
def test_a_wrong_digest_stores_nothing(repo: Repo, digest: str, status: int) -> None:
    """31: 400 DIGEST_INVALID; the upload does not change, and can be finished with the right digest."""
    location = repo.start()
    patch(repo, location, HELLO)
    answer = repo.send("PUT", f"{location}?{urlencode({'digest': digest})}", b"!")
    assert (answer.status, answer.code) == (status, "DIGEST_INVALID")
    assert repo.blob(sha256(HELLO)).status == 404
    assert repo.get(location).header("Range") == "0-10"
    assert finish(repo, location, sha256(HELLO)) == 201


def test_a_put_without_digest(repo: Repo) -> None:
    """31: the PUT that ends an upload names the blob."""
    answer = repo.send("PUT", repo.start(), HELLO)
    assert (answer.status, answer.code) == (400, "DIGEST_INVALID")


def until(done: Callable[[], bool]) -> None:
    """Wait for a condition on the files of another process."""
    deadline = time.monotonic() + TIMEOUT
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def upload_file(server: Server, location: str) -> Path | None:
    """The file of an upload."""
    return next((server.data / "uploads").glob(f"*-{location.rpartition('/')[2] or 'none'}"), None)


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("method", ["PUT", "POST"])
def test_a_body_cut_short_is_never_committed(server: Server, repo: Repo, method: str, chunked: bool) -> None:  # noqa: FBT001
    """31: the bytes of a broken connection do not become a blob, even if they match the digest."""
    came = secrets.token_bytes(2 * MEBIBYTE)
    location = repo.start() if method == "PUT" else repo.path("blobs/uploads/")
    before = set((server.data / "uploads").iterdir()) - {upload_file(server, location)}
    path = location + f"?digest={sha256(came)}"
    length = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(came) + 5}"
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: {repo.authorization}\r\n{length}\r\n\r\n"
    with connected(server.port) as connection:
        connection.sendall(head.encode() + (b"%x\r\n%s\r\n" % (len(came), came) if chunked else came))
        until(lambda: any(new.stat().st_size >= MEBIBYTE for new in set((server.data / "uploads").iterdir()) - before))
    if method == "PUT":
        until(lambda: repo.get(location).headers["Range"] != "0-0")
        assert repo.get(location).status == 204
    else:
        until(lambda: set((server.data / "uploads").iterdir()) <= before)
    assert repo.blob(sha256(came)).status == 404
    assert list((server.data / "blobs" / "sha256").glob(f"*/{sha256(came)[7:]}.*")) == []


@pytest.mark.parametrize("method", ["PATCH", "PUT"])
def test_an_upload_that_was_cut_short_goes_on(server: Server, repo: Repo, method: str) -> None:
    """29, 30: GET returns how many bytes arrived, and the client sends the rest."""
    data = secrets.token_bytes(3 * MEBIBYTE)
    location = repo.start()
    upload = upload_file(server, location)
    assert upload is not None
    path = location + (f"?digest={sha256(data)}" if method == "PUT" else "")
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: {repo.authorization}\r\nContent-Length: {len(data)}"
    with connected(server.port) as connection:
        connection.sendall(head.encode() + b"\r\n\r\n" + data[: 2 * MEBIBYTE])
        until(lambda: upload.stat().st_size >= MEBIBYTE)
    until(lambda: repo.get(location).header("Range") != "0-0")
    held = int(repo.get(location).header("Range").removeprefix("0-")) + 1
    assert MEBIBYTE <= held <= 2 * MEBIBYTE
    answer = repo.send(
        "PUT", f"{location}?digest={sha256(data)}", data[held:], {"Content-Range": f"{held}-{len(data) - 1}"}
    )
    assert answer.status == 201
    assert repo.blob(sha256(data)).body == data


@pytest.mark.parametrize("way", ["post", "put", "stream"])
def test_sha512_without_a_hint(repo: Repo, way: str) -> None:
    """32: an upload can be finished with a sha512 digest without a hint before; the blob is pulled by that digest."""
    data = b"five twelve " + way.encode()
    query = urlencode({"digest": sha512(data)})
    if way == "post":
        answer = repo.send("POST", repo.path(f"blobs/uploads/?{query}"), data)
    else:
        location = repo.start()
        if way == "stream":
            patch(repo, location, data)
        answer = repo.send("PUT", f"{location}?{query}", data if way == "put" else b"")
    assert (answer.status, answer.header("Docker-Content-Digest")) == (201, sha512(data))
    assert repo.blob(sha512(data)).body == data


@pytest.mark.parametrize("way", ["post", "put", "patch", "chunked", "no length"])
def test_empty_blobs(server: Server, repo: Repo, way: str) -> None:
    """33: an empty blob can be pushed in every way."""
    query = f"?digest={EMPTY}"
    if way == "post":
        assert repo.send("POST", repo.path(f"blobs/uploads/{query}"), b"").status == 201
    elif way == "no length":
        head = f"PUT {repo.start()}{query} HTTP/1.1\nHost: x\nConnection: close\nAuthorization: {repo.authorization}"
        assert raw(server.port, head).status == 201
    elif way == "chunked":
        assert repo.send("PUT", repo.start() + query, iter([])).status == 201
    else:
        location = repo.start()
        if way == "patch":
            assert patch(repo, location, b"")[:2] == (202, "0-0")
        assert finish(repo, location, EMPTY) == 201
    pulled = repo.blob(EMPTY)
    assert (pulled.status, pulled.body, pulled.header("Content-Length")) == (200, b"", "0")


def test_a_blob_that_is_there(repo: Repo) -> None:
    """33: pushing it again by any way is 201 and changes nothing."""
    for _ in range(2):
        repo.push_blob(HELLO)
        assert finish(repo, repo.start(), sha256(HELLO), HELLO) == 201
    assert repo.blob(sha256(HELLO)).body == HELLO


@pytest.mark.parametrize(
    "wanted",
    [
        [(0, 10), (100, 5), (50, 1)],
        [(at * 3000, 1) for at in range(1024)],
        [(0, 1), (70_000, 200_000), (MEBIBYTE, 2 * MEBIBYTE), (5, 66_000), (4 * MEBIBYTE - 3, 3)],
    ],
)
def test_several_ranges(repo: Repo, wanted: list[tuple[int, int]]) -> None:
    """23: up to 1,024 ranges come as multipart/byteranges in the order asked for, and the connection goes on."""
    data = secrets.token_bytes(4 * MEBIBYTE)
    digest = repo.push_blob(data)
    asked = ",".join(f"{first}-{first + count - 1}" for first, count in wanted)
    head = f"GET {repo.path(f'blobs/{digest}')} HTTP/1.1\r\nHost: x\r\nAuthorization: {repo.authorization}\r\n"
    with connected(repo.port) as connection:
        for _ in range(2):
            connection.sendall(f"{head}Range: bytes={asked}\r\n\r\n".encode())
            answer = receive(connection)
            assert answer.status == 206
            assert answer.headers["Content-Range"] is None
            boundary = answer.header("Content-Type").partition("multipart/byteranges; boundary=")[2]
            body = b"".join(
                b"--%b\r\nContent-Type: application/octet-stream\r\nContent-Range: bytes %d-%d/%d\r\n\r\n%b\r\n"
                % (boundary.encode(), first, first + count - 1, len(data), data[first : first + count])
                for first, count in wanted
            )
            assert answer.body == body + f"--{boundary}--\r\n".encode()


def test_a_large_blob(repo: Repo) -> None:
    """20: a blob that the kernel sends arrives complete, and so does a range from its middle."""
    data = bytes(range(256)) * (5 * MEBIBYTE // 256) + b"end"
    digest = repo.push_blob(data)
    assert repo.blob(digest).body == data
    part = repo.blob(digest, Range=f"bytes={MEBIBYTE - 1}-{3 * MEBIBYTE}")
    assert (part.status, part.body) == (206, data[MEBIBYTE - 1 : 3 * MEBIBYTE + 1])


def test_a_body_keeps_its_encoding(repo: Repo) -> None:
    """1: a body with Content-Encoding: gzip is stored as it came, and not unpacked."""
    data = b"\x1f\x8b no gzip at all"
    headers = {"Content-Encoding": "gzip"}
    answer = repo.send("POST", repo.path(f"blobs/uploads/?digest={sha256(data)}"), data, headers)
    assert answer.status == 201
    pulled = repo.blob(sha256(data), Accept_Encoding="gzip, deflate, br")
    assert (pulled.body, pulled.headers["Content-Encoding"]) == (data, None)


def test_a_manifest_is_never_compressed(repo: Repo) -> None:
    """1: Accept-Encoding changes nothing: the length is that of the bytes."""
    data = b"a" * 100_000
    pulled = repo.blob(repo.push_blob(data), Accept_Encoding="gzip")
    assert (pulled.header("Content-Length"), pulled.headers["Content-Encoding"]) == ("100000", None)


def test_expect_100_continue(server: Server, repo: Repo) -> None:
    """A client that waits for 100 Continue gets it, sends the body, and gets the answer."""
    path = repo.path(f"blobs/uploads/?digest={sha256(HELLO)}")
    head = (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: {repo.authorization}\r\nContent-Length: 11\r\n"
        "Expect: 100-continue\r\nConnection: close\r\n\r\n"
    )
    with connected(server.port) as connection:
        connection.sendall(head.encode())
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(HELLO)
        assert receive(connection).status == 201
    assert repo.blob(sha256(HELLO)).body == HELLO


def test_expect_100_continue_refused(server: Server, repo: Repo) -> None:
    """A client that waits for 100 Continue and may not push gets the 401, without sending the body."""
    head = (
        f"POST {repo.path('blobs/uploads/?digest=' + sha256(HELLO))} HTTP/1.1\r\nHost: x\r\nContent-Length: 11\r\n"
        "Expect: 100-continue\r\n\r\n"
    )
    with connected(server.port) as connection:
        connection.sendall(head.encode())
        answer = receive(connection)
    assert (answer.status, answer.code) == (401, "UNAUTHORIZED")


@pytest.mark.parametrize("chunked", [False, True])
def test_a_refusal_while_a_body_is_on_its_way(server: Server, repo: Repo, chunked: bool) -> None:  # noqa: FBT001
    """A client without rights that sends 8 MiB gets the 401, and no broken pipe."""
    data = b"x" * (8 * MEBIBYTE)
    path = repo.path(f"blobs/uploads/?digest={sha256(data)}")
    pieces = (data[at : at + MEBIBYTE] for at in range(0, len(data), MEBIBYTE))
    answer = Client(server.port).send("POST", path, pieces if chunked else data)
    assert (answer.status, answer.code) == (401, "UNAUTHORIZED")


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (f"POST {{}}/blobs/uploads/?digest={sha256(HELLO)}", 401),
        (f"PATCH {{}}/blobs/uploads/{'a' * 32}", 401),
        (f"PUT {{}}/blobs/uploads/{'a' * 32}?digest={sha256(HELLO)}", 401),
        ("PUT {}/manifests/v1", 401),
        ("POST /token", 413),
    ],
)
def test_a_refused_client_that_was_not_told_to_go_on(
    server: Server, repo: Repo, request_line: str, status: int
) -> None:
    """The server cannot know whether the body still comes, so it closes the connection and reads nothing more."""
    start = request_line.format(f"/v2/{repo.name}")
    kind = "Content-Type: application/x-www-form-urlencoded"
    head = f"{start} HTTP/1.1\r\nHost: x\r\n{kind}\r\nExpect: 100-continue\r\nContent-Length: 100000\r\n\r\n"
    with connected(server.port) as connection:
        connection.sendall(head.encode())
        answer = receive(connection)
    assert (answer.status, answer.header("Connection")) == (status, "close")


def test_a_connection_carries_many_requests(server: Server, repo: Repo) -> None:
    """Keep-alive: uploads, refusals, pulls and empty answers share one connection."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    headers = {"Authorization": str(repo.authorization)}
    try:
        for number in range(3):
            data = f"{number} on one connection".encode() * 5000
            for method, path, body, status in (
                ("POST", f"blobs/uploads/?digest={sha256(data)}", data, 201),
                ("HEAD", f"blobs/{sha256(data)}", None, 200),
                ("GET", f"blobs/{sha256(data)}", None, 200),
                ("GET", "blobs/sha256:no", None, 400),
                ("PUT", "manifests/v1", b"no manifest", 400),
            ):
                connection.request(method, repo.path(path), body, headers)
                with connection.getresponse() as response:
                    content = response.read()
                    assert response.status == status
                if method == "GET" and status == 200:
                    assert content == data
    finally:
        connection.close()
