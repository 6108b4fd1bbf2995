"""protocol.md 34 to 36: a blob that another repository has is mounted, from where its token may pull."""

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
    """POST ?mount=; the status, after a look at what it says."""
    query = {"mount": digest} | ({"from": source} if source is not None else {})
    answer = repo.send("POST", repo.path(f"blobs/uploads/?{urlencode(query)}"))
    if answer.status == 201:
        assert answer.header("Docker-Content-Digest") == digest
        assert repo.get(answer.header("Location")).status == 200
    else:
        assert repo.get(answer.header("Location")).status == 204
    return answer.status


def test_a_mount(ann: Person, repo: Repo) -> None:
    """34: 201 by a token that names the source too; the blob is there without a byte sent."""
    source = ann.new_repo()
    digest = source.push_blob(b"mount me")
    assert mount(ann.at(repo.name, "pull,push", source.name), digest, source.name) == 201
    assert repo.blob(digest).body == b"mount me"


def test_a_mount_without_from(ann: Person, repo: Repo) -> None:
    """35: 201 where some repository of the caller's organisations holds the blob that their token opens, else 202."""
    source = ann.new_repo()
    digest = source.push_blob(b"somewhere of mine")
    both = ann.at(repo.name, "pull,push", source.name)
    assert mount(both, digest) == 201
    assert mount(both, sha256(b"nowhere at all")) == 202


@pytest.mark.parametrize("origin", ["from", "without"])
@pytest.mark.parametrize("actions", ["", "push"])
def test_a_token_mounts_from_where_it_pulls_only(ann: Person, repo: Repo, actions: str, origin: str) -> None:
    """A registry token that was made for one repository opens no blob of another one of its user."""
    source = ann.new_repo()
    digest = source.push_blob(f"not for this token {actions} {origin}".encode())
    scopes = [f"repository:{repo.name}:pull,push", f"repository:{source.name}:{actions}"]
    narrow = Repo(repo.port, f"Bearer {ann.registry_token(*scopes)}", repo.name)
    assert mount(narrow, digest, source.name if origin == "from" else None) == 202
    assert narrow.blob(digest).status == 404


def test_a_mount_that_is_not_to_be(server: Server, ann: Person, repo: Repo) -> None:
    """34: an absent blob, repository or organisation, a forbidden one, and malformed words are 202, never 4xx."""
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
    """36: the source's rights are those of who asks; a member of another organisation may lack them there."""
    source = ann.new_repo()
    digest = source.push_blob(b"rights of the asker")
    writer = member(server, "writer")
    target, other = ann.new_repo(), stranger(server)
    assert mount(writer.at(target.name, "pull,push", source.name), digest, source.name) == 201
    assert mount(other.at(other.new_repo().name, "pull,push", source.name), digest, source.name) == 202
