"""protocol.md 34 to 36: a blob is mounted from another repository from which the user may pull."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlencode

import pytest

from support.wire_client import Person, Repo, member, sha256, stranger

if TYPE_CHECKING:
    from support.server import Server


@pytest.fixture
def repo(ann: Person) -> Repo:
    """A new repository."""
    return ann.new_repo()


def mount(repo: Repo, digest: str, source: str | None = None) -> int:
    """Send POST ?mount= and check the headers; return the status."""
    query = {"mount": digest} | ({"from": source} if source is not None else {})
    answer = repo.send("POST", repo.path(f"blobs/uploads/?{urlencode(query)}"))
    if answer.status == 201:
        assert answer.header("Docker-Content-Digest") == digest
        assert repo.get(answer.header("Location")).status == 200
    else:
        assert repo.get(answer.header("Location")).status == 204
    return answer.status


def test_a_mount(ann: Person, repo: Repo) -> None:
    """34: 201, also with a token that names only the target; the blob exists without any bytes sent."""
    source = ann.new_repo()
    digest = source.push_blob(b"mount me")
    assert mount(repo, digest, source.name) == 201
    assert repo.blob(digest).body == b"mount me"


def test_a_mount_without_from(ann: Person, repo: Repo) -> None:
    """35: 201 if a repository of the caller's organisations holds the blob, else 202."""
    source = ann.new_repo()
    digest = source.push_blob(b"somewhere of mine")
    assert mount(repo, digest) == 201
    assert mount(repo, sha256(b"nowhere at all")) == 202


def test_a_mount_that_is_not_to_be(server: Server, ann: Person, repo: Repo) -> None:
    """34: a missing or forbidden blob, repository or organisation, and malformed parameters, are 202, never 4xx."""
    foreign = stranger(server).new_repo()
    secret = foreign.push_blob(b"not yours to mount")
    empty = ann.new_repo()
    asking = ann.at(repo.name, "pull,push", foreign.name, empty.name)
    assert mount(asking, secret, foreign.name) == 202
    assert mount(asking, secret) == 202
    assert repo.blob(secret).status == 404
    for digest, source in (
        (sha256(b"absent"), empty.name),
        (sha256(b"absent"), "acme/no-such-repository"),
        (sha256(b"absent"), "no-such-organisation/x"),
        (sha256(b"absent"), "Upper/Case"),
        ("sha256:abc", empty.name),
        ("", ""),
    ):
        assert mount(asking, digest, source) == 202


def test_a_mount_by_a_writer_from_where_they_read(server: Server, ann: Person) -> None:
    """36: a mount needs the user's right to pull from the source; without it the answer is 202."""
    source = ann.new_repo()
    digest = source.push_blob(b"rights of the asker")
    writer = member(server, "writer")
    target, other = ann.new_repo(), stranger(server)
    assert mount(writer.at(target.name), digest, source.name) == 201
    assert mount(other.new_repo(), digest, source.name) == 202
