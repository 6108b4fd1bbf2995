"""Delete and restore through /api/v1."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from support.wire_client import Person, Repo


def short(repo: Repo) -> str:
    """The name inside the organisation."""
    return repo.name.partition("/")[2]


def move_to_trash(person: Person, repo: Repo, query: str = "") -> dict[str, Any]:
    """Delete a repository, or a tag or commit of it; the item in the trash."""
    answer = person.api.send("DELETE", f"{person.base}/repository?name={short(repo)}{query}")
    assert answer.status == 200, answer.body
    return answer.json()


def restore(person: Person, repo: Repo, **what: str) -> dict[str, Any]:
    """Restore; the item."""
    answer = person.api.json("POST", f"{person.base}/trash", {"repository": short(repo), **what})
    assert answer.status == 200, answer.body
    return answer.json()


def everything(person: Person, repo: Repo) -> list[Any]:
    """What a repository shows: its totals, its commits, its tags."""
    item = person.repository(short(repo))
    tags = repo.get(repo.path("tags/list")).json()["tags"]
    commits = person.commits(short(repo))["items"]
    return [{key: item[key] for key in ("tags", "commits", "size", "description", "access")}, tags, commits]
