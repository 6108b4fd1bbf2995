"""20, 22: a layer of more than 5 GiB, an upload of more than 10,000 pieces, a thousand pushes at once."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import threading
from typing import TYPE_CHECKING

import pytest

from support.server import running_server
from support.wire_client import OCI_MANIFEST, Repo, admin, image, sha256

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.server import Server

MEBIBYTE = 1 << 20
SIZE = (5 * 1024 + 1 if os.environ.get("POLLY_EVERY_CALL") else 65) * MEBIBYTE + 1
"""Bytes: more than 5 GiB with POLLY_EVERY_CALL=1."""
PIECES = 10_001
AT_ONCE = 1000


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server of its own."""
    with running_server(tmp_path) as running:
        yield running


@pytest.fixture
def repo(server: Server) -> Repo:
    """A repository of it."""
    return admin(server).new_repo()


def layer() -> Iterator[bytes]:
    """A mebibyte after another, no two alike, and a last byte."""
    for number in range(SIZE // MEBIBYTE):
        yield number.to_bytes(8) * (MEBIBYTE // 8)
    yield b"."


def test_a_huge_layer(repo: Repo) -> None:
    """20: a huge layer in one request can be pulled byte for byte, and so can a range at its end."""
    hasher = hashlib.sha256()
    for piece in layer():
        hasher.update(piece)
    digest = f"sha256:{hasher.hexdigest()}"
    headers = {"Content-Length": str(SIZE), "Authorization": str(repo.authorization)}
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", repo.port, timeout=600)) as connection:
        connection.request("POST", repo.path(f"blobs/uploads/?digest={digest}"), layer(), headers)
        with connection.getresponse() as response:
            assert response.status == 201, response.read()
        connection.request("GET", repo.path(f"blobs/{digest}"), headers={"Authorization": str(repo.authorization)})
        with connection.getresponse() as response:
            assert response.headers["Content-Length"] == str(SIZE)
            for piece in layer():
                assert response.read(len(piece)) == piece
    assert repo.blob(digest, Range="bytes=-3").body == (SIZE // MEBIBYTE - 1).to_bytes(8)[-2:] + b"."


def test_an_upload_of_very_many_pieces(repo: Repo) -> None:
    """20: more pieces than an object store accepts; the offset is right after each, and the blob is whole."""
    location, whole = repo.start(), bytearray()
    given = {"Authorization": str(repo.authorization), "Content-Type": "application/octet-stream"}
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", repo.port, timeout=60)) as connection:
        for number in range(PIECES):
            piece = f"{number},".encode()
            placed = {"Content-Range": f"{len(whole)}-{len(whole) + len(piece) - 1}"}
            connection.request("PATCH", location, piece, given | placed)
            whole += piece
            with connection.getresponse() as response:
                assert (response.status, response.headers["Range"]) == (202, f"0-{len(whole) - 1}"), response.read()
                location = response.headers["Location"]
    digest = sha256(bytes(whole))
    separator = "&" if "?" in location else "?"
    assert repo.send("PUT", f"{location}{separator}digest={digest}", b"").status == 201
    assert repo.blob(digest).body == whole


def test_a_thousand_pushes_at_once(server: Server) -> None:
    """22: a thousand connections push to one organisation while clients request tokens: all succeed."""
    ann = admin(server)
    repos = [ann.new_repo() for _ in range(10)]
    made = [image() for _ in range(AT_ONCE)]
    for number, each in enumerate(made):
        for blob in each.blobs:
            repos[number % 10].push_blob(blob)
    statuses, tokens = [0] * AT_ONCE, [""] * 20
    gate = threading.Barrier(AT_ONCE + len(tokens))

    def push(number: int) -> None:
        gate.wait()
        statuses[number] = repos[number % 10].put("v1", made[number].manifest, OCI_MANIFEST).status

    def ask(number: int) -> None:
        gate.wait()
        tokens[number] = ann.registry_token(f"repository:{repos[0].name}:pull")

    threads = [threading.Thread(target=push, args=[number]) for number in range(AT_ONCE)]
    threads += [threading.Thread(target=ask, args=[number]) for number in range(len(tokens))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [201] * AT_ONCE
    assert all(tokens)
    for number, repo in enumerate(repos):
        name = repo.name.partition("/")[2]
        found = {item["commit"] for item in ann.commits(name, limit=1000)["items"]}
        assert found == {each.digest for each in made[number::10]}
        assert ann.repository(name)["commits"] == AT_ONCE // 10
