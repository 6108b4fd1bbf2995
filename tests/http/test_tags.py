"""The tags of a docker repository through the interface: each with its active commit, by when it was set."""

from __future__ import annotations

import urllib.parse
from typing import TYPE_CHECKING, Any

from support.wire_client import Person, Repo, image, member, stranger

if TYPE_CHECKING:
    from support.server import Server


def address(person: Person, repo: Repo, query: str = "") -> str:
    """Where the tags of a docker repository are."""
    return f"{person.base}/tags?repository={repo.name.partition('/')[2]}{query}"


def page(person: Person, repo: Repo, query: str = "") -> dict[str, Any]:
    """One page."""
    answer = person.api.get(address(person, repo, query))
    assert answer.status == 200, answer.body
    found: dict[str, Any] = answer.json()
    return found


def test_each_tag_with_its_active_commit(server: Server, ann: Person) -> None:
    """An overwritten tag is listed once, with the commit that a pull gets now, and is the newest again."""
    repo = ann.new_repo()
    first, second = image(), image()
    repo.push(first, "v1", "v2")
    repo.push(second, "v1")
    found = page(ann, repo)
    assert [(item["tag"], item["commit"]) for item in found["items"]] == [("v1", second.digest), ("v2", first.digest)]
    assert (found["total"], found["next"]) == (2, None)
    assert found["repository"] == f"127.0.0.1:{server.port}/{repo.name}"
    item = found["items"][0]
    assert item["path"] == f"{found['repository']}:v1"
    assert item["pushed_by"] == ann.email
    commit = ann.commits(repo.name.partition("/")[2])["items"][0]
    assert all(item[key] == commit[key] for key in ("size", "platforms", "media_type", "pushed_at"))


def test_pages_hold_every_tag_once(ann: Person) -> None:
    """Pages from either end list each tag once."""
    repo = ann.new_repo()
    made = image()
    names = [f"v{number}" for number in range(7)]
    for name in names:
        repo.push(made, name)
    for order, expected in (("newest", names[::-1]), ("oldest", names)):
        seen: list[str] = []
        query = f"&limit=3&order={order}"
        while True:
            found = page(ann, repo, query)
            seen += [item["tag"] for item in found["items"]]
            if found["next"] is None:
                break
            query = f"&limit=3&order={order}&cursor={urllib.parse.quote(found['next'])}"
        assert seen == expected


def test_a_tag_that_was_deleted(ann: Person) -> None:
    """A deleted tag is not on the list, and not in its total."""
    repo = ann.new_repo()
    made = image()
    repo.push(made, "v1", "v2")
    assert repo.delete("manifests/v1").status == 202
    found = page(ann, repo)
    assert ([item["tag"] for item in found["items"]], found["total"]) == (["v2"], 1)


def test_only_members_see_tags(server: Server, ann: Person) -> None:
    """A reader sees them; the admin of another organisation gets OrganisationUnknown."""
    repo = ann.new_repo()
    assert page(member(server, "reader"), repo)["items"] == []
    answer = stranger(server).api.get(address(ann, repo))
    assert (answer.status, answer.code) == (404, "ORGANISATION_UNKNOWN")
    missing = ann.api.get(f"{ann.base}/tags?repository=not/there")
    assert (missing.status, missing.code) == (404, "NAME_UNKNOWN")
