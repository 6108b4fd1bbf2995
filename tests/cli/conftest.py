"""Fixtures: the people who run the commands, and what is on the server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cli.people import HELPER, POLLY, Server, User, environment, push

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(scope="session")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with both commands, to be put on the PATH."""
    folder = tmp_path_factory.mktemp("tools")
    for name, command in (("polly", POLLY), ("docker-credential-polly", HELPER)):
        script = folder / name
        script.write_text(f'#!/bin/sh\nexec {" ".join(command)} "$@"\n')
        script.chmod(0o755)
    return folder


@pytest.fixture
def nobody(tmp_path: Path, tools: Path) -> User:
    """Return a person who is not signed in."""
    home = tmp_path / "home"
    home.mkdir(exist_ok=True)
    return User(home, env=environment(home, tools))


@pytest.fixture
def organisation(server: Server) -> tuple[str, tuple[str, str]]:
    """Return an empty organisation of the test's own, and its admin; some modules share one."""
    return server.new_org()


@pytest.fixture
def person(
    server: Server, organisation: tuple[str, tuple[str, str]], tmp_path: Path, tools: Path
) -> Callable[..., User]:
    """Return a function that makes people: signed-in members of the test's organisation, with a role."""
    slug, admin = organisation

    def make(role: str = "admin", *, signed_in: bool = True) -> User:
        email, password = admin if role == "admin" else server.add_user(role=role, org=slug)
        home = tmp_path / f"home-{email}"
        home.mkdir(exist_ok=True)
        user = User(home, email, password, environment(home, tools) | {"TEST_ORG": slug})
        if signed_in:
            user.login(server)
        return user

    return make


@pytest.fixture
def ann(person: Callable[..., User]) -> User:
    """Return a signed-in admin of an organisation with nothing in it."""
    return person()


@pytest.fixture
def images(server: Server, ann: User) -> list[str]:
    """Create the docker repository ``team/gpu`` with three commits; the oldest is v1, and the other two are latest."""
    ann.ok("dockers", "create", "--name", "team/gpu", "--description", "for the GPU machines")
    return [
        push(server, ann, "team/gpu", tag, tag.encode() * number)
        for number, tag in ((1, "v1"), (2, "latest"), (3, "latest"))
    ]
