"""Rows of tags: setting a tag, which appends a commit, and pages of tags."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import bindparam, insert, select, update

from polly_dockers.db import commits as of_commits
from polly_dockers.db import repositories
from polly_dockers.db.schema import commits, manifests, tags, users
from polly_dockers.db.sqlite import now
from polly_dockers.db.statement import Statement

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from polly_dockers.model import Commit


_FIND: Final = Statement(
    select(tags.c.manifest_id).where(
        tags.c.repository_id == bindparam("repository_id"), tags.c.name == bindparam("tag")
    )
)
_ADD: Final = Statement(insert(tags), "repository_id", "name", "manifest_id", "commit_id")
_MOVE: Final = Statement(
    update(tags).where(tags.c.repository_id == bindparam("of_repository"), tags.c.name == bindparam("of_name")),
    "manifest_id",
    "commit_id",
)


def put(connection: Connection, *, repository_id: int, tag: str, manifest_id: int, user_id: int) -> bool:
    """Set the tag and append a commit. Returns False, and does neither, if the tag has that manifest already."""
    current = _FIND.first(connection, {"repository_id": repository_id, "tag": tag})
    if current is not None and current.manifest_id == manifest_id:
        return False
    at = now()
    commit_id = of_commits.add(connection, repository_id, tag, manifest_id, user_id, at)
    place = {"manifest_id": manifest_id, "commit_id": commit_id}
    if current is None:
        _ADD.run(connection, {"repository_id": repository_id, "name": tag, **place})
    else:
        _MOVE.run(connection, {"of_repository": repository_id, "of_name": tag, **place})
    repositories.add_delta(connection, repository_id, commits=1, tags=int(current is None), pushed_at=at)
    return True


def exists(connection: Connection, repository_id: int, tag: str) -> bool:
    """Whether the repository has the tag."""
    return _FIND.first(connection, {"repository_id": repository_id, "tag": tag}) is not None


MAX_TAGS: Final = 10_000
"""The most tags that one manifest may have: all of them are deleted and restored with it, in one transaction."""

_ONE_MORE: Final = Statement(
    select(tags.c.name).where(tags.c.manifest_id == bindparam("manifest_id")).limit(1).offset(bindparam("before"))
)


def has_too_many(connection: Connection, manifest_id: int) -> bool:
    """Whether the manifest has more than MAX_TAGS tags."""
    return _ONE_MORE.first(connection, {"manifest_id": manifest_id, "before": MAX_TAGS}) is not None


def names(connection: Connection, repository_id: int, last: str, limit: int) -> list[str]:
    """The next tags after ``last``, in the order of their bytes."""
    query = (
        select(tags.c.name)
        .where(tags.c.repository_id == repository_id, tags.c.name > last)
        .order_by(tags.c.name)
        .limit(limit)
    )
    return list(connection.execute(query).scalars())


def manifest_body(connection: Connection, repository_id: int, tag: str, largest: int) -> bytes | None:
    """The bytes of the manifest of a tag; None if there is no such tag, or if they are more than ``largest``."""
    query = (
        select(manifests.c.body)
        .join(tags, tags.c.manifest_id == manifests.c.id)
        .where(tags.c.repository_id == repository_id, tags.c.name == tag, manifests.c.size <= largest)
    )
    return connection.execute(query).scalar_one_or_none()


def page(
    connection: Connection, repository_id: int, *, newest_first: bool, limit: int, after: int | None
) -> tuple[list[Commit], int | None]:
    """A keyset page of the active commits of a repository, one for each tag, and the cursor of the next page.

    In the order in which the tags were set. ``after`` is the id of a commit, or None for the first page.
    """
    query = (
        select(*of_commits.COLUMNS)
        .select_from(tags)
        .join(commits, commits.c.id == tags.c.commit_id)
        .join(manifests, manifests.c.id == tags.c.manifest_id)
        .join(users, users.c.id == commits.c.pushed_by)
        .where(tags.c.repository_id == repository_id)
    )
    if after is not None:
        query = query.where(tags.c.commit_id < after if newest_first else tags.c.commit_id > after)
    order = tags.c.commit_id.desc() if newest_first else tags.c.commit_id
    rows = connection.execute(query.order_by(order).limit(limit + 1)).all()
    found = [of_commits.from_row(row) for row in rows[:limit]]
    return found, found[-1].id if len(rows) > limit else None
