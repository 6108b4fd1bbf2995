"""The main steps with Debian's Docker Engine: sign in, create, push, overwrite, list commits, pull each of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .images import build, content_of, image_id, new_content

if TYPE_CHECKING:
    from .conftest import People
    from .people import Person


def test_the_whole_way(people: People) -> None:
    """Overwritten by a push, the older commit is inactive and still pulled by its digest, byte for byte."""
    wanda = people("writer", signed_in=False)
    wanda.login()
    name = wanda.create()
    printed = wanda.polly("dockers", "login")
    assert "Login Succeeded" in wanda.ok("sh", "-c", printed)
    tag = wanda.reference(name)
    contents = [new_content(), new_content()]
    ids = []
    for content in contents:
        ids.append(build(wanda, content, tag))
        wanda.ok("docker", "push", tag)
    new, old = wanda.commits(name)
    assert [(each["tag"], each["status"]) for each in (new, old)] == [("latest", "active"), ("latest", "inactive")]
    assert new["commit"] != old["commit"]
    assert {each["pushed_by"] for each in (new, old)} == {wanda.email}
    rita = people("reader")
    rita.docker_login()
    assert new["commit"] in rita.ok("docker", "pull", tag)
    assert (content_of(rita, tag), image_id(rita, tag)) == (contents[1], ids[1])
    assert old["path"] == f"{tag.removesuffix(':latest')}@{old['commit']}"
    assert "Pull complete" in rita.ok("docker", "pull", old["path"])
    assert (content_of(rita, old["path"]), image_id(rita, old["path"])) == (contents[0], ids[0])
    rollback_and_logout(wanda, name, ids, old["commit"])


def rollback_and_logout(wanda: Person, name: str, ids: list[str], old: str) -> None:
    """The end of the test above: set the tag back, push the same again, and sign out."""
    tag = wanda.reference(name)
    wanda.ok("docker", "tag", ids[0], tag)
    for _ in range(2):
        wanda.ok("docker", "push", tag)
        commits = wanda.commits(name)
        assert [each["status"] for each in commits] == ["active", "inactive", "inactive"]
        assert (commits[0]["commit"], commits[2]["commit"]) == (old, old)
    printed = wanda.polly("dockers", "logout")
    assert "Removing login credentials" in wanda.ok("sh", "-c", printed)
    for refused in (("push", tag), ("pull", tag), ("pull", commits[1]["path"])):
        assert "polly login --server" in wanda.refused("docker", *refused)
    assert len(wanda.commits(name)) == 3
