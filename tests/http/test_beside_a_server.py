"""polly-server's commands beside a server that runs: what they change holds from the next request on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.server import polly_server
from support.wire_client import Person, Repo, admin, basic, image

if TYPE_CHECKING:
    from support.server import Server


@pytest.fixture
def bob(server: Server) -> Person:
    """A new writer, signed in."""
    return admin(server).add("writer")


@pytest.fixture
def repo(server: Server) -> Repo:
    """A repository that holds an image."""
    made = admin(server).new_repo()
    made.push(image(), "v1")
    return made


def user(server: Server, command: str, email: str, *more: str, stdin: str = "") -> str:
    """Run ``polly-server user COMMAND``."""
    return polly_server("user", command, "--data", str(server.data), "--email", email, *more, stdin=stdin)


def test_a_role(server: Server, bob: Person, repo: Repo) -> None:
    """set-role: a token of a writer who is a reader now pushes no more."""
    there = bob.at(repo.name)
    assert there.send("POST", repo.path("blobs/uploads/")).status == 202
    assert "is reader in acme" in user(server, "set-role", bob.email.upper(), "--org", "acme", "--role", "reader")
    assert there.send("POST", repo.path("blobs/uploads/")).status == 401
    assert there.manifest("v1").status == 200


def test_a_removal(server: Server, bob: Person, repo: Repo) -> None:
    """remove: neither the registry nor the interface lets them in again, and what they pushed stays."""
    there = bob.at(repo.name)
    pushed = there.push(image(), "of-bob")
    assert "is not a member" in user(server, "remove", bob.email, "--org", "acme")
    assert there.manifest("of-bob").status == 401
    assert bob.api.get(f"{bob.base}/repositories").status == 404
    assert repo.manifest("of-bob").header("Docker-Content-Digest") == pushed
    newest = admin(server).commits(repo.name.partition("/")[2])["items"][0]
    assert (newest["commit"], newest["pushed_by"]) == (pushed, bob.email)


def test_a_password(server: Server, bob: Person, repo: Repo) -> None:
    """reset-password: every sign-in ends, the new password is good at once, and wrong ones are forgiven."""
    there = bob.at(repo.name)
    user(server, "reset-password", bob.email, "--password-stdin", stdin="the next password\nand more\n")
    assert there.manifest("v1").status == 401
    assert bob.api.get("/api/v1/me").status == 401
    assert bob.by_password.get("/token").status == 401
    assert basic(server.port, bob.email, "the next password").get("/token").status == 200


def test_a_user_who_is_known(server: Server, bob: Person) -> None:
    """add: an account that is there is asked for none, keeps its password, and is in both organisations."""
    org, _ = server.new_org()
    said = user(server, "add", bob.email, "--org", org, "--role", "admin")
    assert "keeps its password" in said
    assert bob.by_password.get("/token").status == 200
    assert {item["organisation"] for item in bob.api.get("/api/v1/me").json()["organisations"]} == {"acme", org}
