"""Public repositories can be pulled without a sign-in, but only as long as they are public."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .clients import CLIENTS, Docker
from .images import build, new_content

if TYPE_CHECKING:
    from .conftest import People
    from .people import Person


def published(ann: Person) -> tuple[str, list[bytes]]:
    """A public docker repository whose tag was overwritten once; its name, and what the commits hold."""
    ann.docker_login()
    name = ann.create()
    contents = [new_content(), new_content()]
    for content in contents:
        build(ann, content, ann.reference(name))
        ann.ok("docker", "push", ann.reference(name))
    ann.polly("dockers", "update", "--name", name, "--public")
    return name, contents


@pytest.mark.parametrize("program", CLIENTS)
def test_anybody_pulls_what_is_public(people: People, program: str) -> None:
    """Each client pulls tag and inactive commit without a sign-in, pushes nothing, and is refused once private."""
    ann = people("admin")
    name, contents = published(ann)
    new, old = ann.commits(name)
    client = CLIENTS[program](people("nobody"))
    for reference, content in ((ann.reference(name), contents[1]), (old["path"], contents[0])):
        done = client.pull(reference)
        assert done.code == 0, done.said
        assert client.content(reference) == content
    image = client.make(new_content())
    assert client.push(image, ann.reference(name)).refused
    assert ann.commits(name) == [new, old]
    ann.polly("dockers", "update", "--name", name, "--private")
    done = CLIENTS[program](people("nobody")).pull(ann.reference(name))
    assert done.refused, done.said


def test_a_member_of_another_organisation_is_anybody(people: People) -> None:
    """A member of another organisation pulls what is public, but nothing private, and pushes nothing."""
    ann, oscar = people("admin"), people("outsider")
    name, _ = published(ann)
    oscar.docker_login()
    docker = Docker(oscar)
    assert docker.pull(ann.reference(name)).code == 0
    assert docker.push(docker.make(new_content()), ann.reference(name)).refused
    assert docker.pull(ann.reference(ann.create())).refused


def test_only_an_admin_makes_a_repository_public(people: People) -> None:
    """A writer may not do so, when creating it or later, and then nobody else can pull it."""
    wanda, nobody = people("writer"), people("nobody")
    wanda.docker_login()
    name = wanda.create()
    build(wanda, new_content(), wanda.reference(name))
    wanda.ok("docker", "push", wanda.reference(name))
    assert "admin" in wanda.refused("polly", "dockers", "update", "--name", name, "--public")
    refused = ("polly", "dockers", "create", "--name", f"{name}/public", "--description", "x", "--public")
    assert "admin" in wanda.refused(*refused)
    assert "polly login --server" in nobody.refused("docker", "pull", wanda.reference(name))
