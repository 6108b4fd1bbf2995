"""Repositories that are public, and those that a push makes."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from .images import build, content_of, new_content

if TYPE_CHECKING:
    from .conftest import People


def test_a_public_image_is_pulled_without_a_login(people: People) -> None:
    """An engine that never signed in pulls a public image, by tag and by commit; made private, the next is refused."""
    ann, nobody = people("admin"), people("nobody")
    ann.docker_login()
    name = ann.create("--public")
    reference, contents = ann.reference(name), [new_content(), new_content()]
    for content in contents:
        build(ann, content, reference)
        ann.ok("docker", "push", reference)
    old = ann.commits(name)[1]["path"]
    for path, content in ((reference, contents[1]), (old, contents[0])):
        nobody.ok("docker", "pull", path)
        assert content_of(nobody, path) == content
        nobody.ok("docker", "rmi", "-f", path)
    ann.polly("dockers", "update", "--name", name, "--private")
    for path in (reference, old):
        nobody.refused("docker", "pull", path)


def test_nobody_pushes_to_a_public_repository(people: People) -> None:
    """Public is for pulling: a push without signing in is refused, and so is that of another organisation's member."""
    ann, nobody, oscar = people("admin"), people("nobody"), people("outsider")
    oscar.docker_login()
    name = ann.create("--public")
    for person in (nobody, oscar):
        build(person, new_content(), ann.reference(name))
        person.refused("docker", "push", ann.reference(name))
    assert ann.commits(name) == []


def test_only_an_admin_makes_a_repository_public(people: People) -> None:
    """A writer who tries is told whom to ask, and it stays private."""
    wanda, nobody = people("writer"), people("nobody")
    name = wanda.create()
    assert "Only an admin" in wanda.refused("polly", "dockers", "update", "--name", name, "--public")
    nobody.refused("docker", "pull", wanda.reference(name))


def test_a_push_makes_the_repository_where_the_organisation_says_so(people: People) -> None:
    """With create-on-push, docker push to a missing repository makes it, private."""
    pia, nobody = people("pusher"), people("nobody")
    pia.docker_login()
    name = f"made/{secrets.token_hex(4)}"
    build(pia, new_content(), pia.reference(name))
    pia.ok("docker", "push", pia.reference(name))
    assert len(pia.commits(name)) == 1
    nobody.refused("docker", "pull", pia.reference(name))
