"""Rows of commits: pages of them, and how many each tag has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import bindparam, exists, func, insert, literal, select, update

from polly_dockers.db.journal import records
from polly_dockers.db.schema import commits, manifests, tag_totals, tags, users
from polly_dockers.db.statement import Statement
from polly_dockers.model import Commit, Digest

if TYPE_CHECKING:
    from sqlalchemy import Connection, Row


COLUMNS: Final = (
    commits.c.id,
    commits.c.tag,
    manifests.c.digest,
    tags.c.commit_id.label("active"),
    manifests.c.total_size,
    manifests.c.platforms,
    manifests.c.media_type,
    commits.c.pushed_at,
    users.c.email,
)
"""What ``from_row`` takes of a row."""


def from_row(row: Row[*tuple[Any, ...]]) -> Commit:
    """The commit of a row of COLUMNS."""
    return Commit(
        id=row.id,
        tag=row.tag,
        digest=Digest(row.digest),
        active=row.active is not None,
        size=row.total_size,
        platforms=tuple(row.platforms.split()),
        media_type=row.media_type,
        pushed_at=row.pushed_at,
        pushed_by=row.email,
    )


_ADD: Final = Statement(
    insert(commits).returning(commits.c.id), "repository_id", "tag", "manifest_id", "pushed_by", "pushed_at"
)


def add(connection: Connection, repository_id: int, tag: str, manifest_id: int, user_id: int, at: int) -> int:
    """Append a commit, also to the journal and the number of commits of its tag; returns its id."""
    row = {
        "repository_id": repository_id,
        "tag": tag,
        "manifest_id": manifest_id,
        "pushed_by": user_id,
        "pushed_at": at,
    }
    commit_id: int = _ADD.first(connection, row).id
    records.add(connection, records.Committed(commit_id, repository_id, tag, manifest_id, user_id, at))
    _add_to_total(connection, repository_id, tag, 1)
    return commit_id


def page(
    connection: Connection,
    repository_id: int,
    *,
    tag: str | None,
    newest_first: bool,
    limit: int,
    after: int | None,
) -> tuple[list[Commit], int | None]:
    """A keyset page of commits in the order in which they were made, and the cursor of the next page.

    Ids give that order. Times do not, because the server's clock may have been set back between two commits.
    """
    query = (
        select(*COLUMNS)
        .join(manifests, manifests.c.id == commits.c.manifest_id)
        .join(users, users.c.id == commits.c.pushed_by)
        .outerjoin(tags, (tags.c.repository_id == commits.c.repository_id) & (tags.c.commit_id == commits.c.id))
        .where(commits.c.repository_id == repository_id, commits.c.in_trash == 0)
    )
    if tag is not None:
        query = query.where(commits.c.tag == tag)
    if after is not None:
        query = query.where(commits.c.id < after if newest_first else commits.c.id > after)
    order = commits.c.id.desc() if newest_first else commits.c.id
    rows = connection.execute(query.order_by(order).limit(limit + 1)).all()
    found = [from_row(row) for row in rows[:limit]]
    return found, found[-1].id if len(rows) > limit else None


_COUNT: Final = Statement(
    select(tag_totals.c.commits).where(
        tag_totals.c.repository_id == bindparam("repository_id"), tag_totals.c.tag == bindparam("tag")
    )
)


def count(connection: Connection, repository_id: int, tag: str) -> int:
    """The number of commits of a tag."""
    row = _COUNT.first(connection, {"repository_id": repository_id, "tag": tag})
    return row.commits if row is not None else 0


_ADD_TO_TOTAL: Final = Statement(
    update(tag_totals)
    .where(tag_totals.c.repository_id == bindparam("of_repository"), tag_totals.c.tag == bindparam("of_tag"))
    .values(commits=tag_totals.c.commits + bindparam("more"))
)
_BEGIN_TOTAL: Final = Statement(insert(tag_totals), "repository_id", "tag", "commits")


def _add_to_total(connection: Connection, repository_id: int, tag: str, more: int) -> None:
    """Add to the number of commits of a tag; ``more`` may be negative."""
    if not _ADD_TO_TOTAL.run(connection, {"of_repository": repository_id, "of_tag": tag, "more": more}):
        _BEGIN_TOTAL.run(connection, {"repository_id": repository_id, "tag": tag, "commits": more})


def _totals_of_manifest() -> tuple[Statement, Statement]:
    """Statements that insert missing totals of the tags of a manifest, and that change them by its commits."""
    mine = commits.c.manifest_id == bindparam("of_manifest")
    known = exists(
        select(literal(1)).where(
            tag_totals.c.repository_id == bindparam("of_repository"), tag_totals.c.tag == commits.c.tag
        )
    )
    begun = select(bindparam("of_repository"), commits.c.tag, literal(0)).where(mine, ~known).distinct()
    counted = select(commits.c.tag, func.count().label("number")).where(mine).group_by(commits.c.tag).subquery()
    changed = (
        update(tag_totals)
        .where(tag_totals.c.repository_id == bindparam("of_repository"), tag_totals.c.tag == counted.c.tag)
        .values(commits=tag_totals.c.commits + bindparam("sign") * counted.c.number)
    )
    return Statement(insert(tag_totals).from_select(["repository_id", "tag", "commits"], begun)), Statement(changed)


_BEGIN_TOTALS, _ADD_TO_TOTALS = _totals_of_manifest()


def add_to_totals(connection: Connection, repository_id: int, manifest_id: int, sign: int) -> None:
    """Add the commits of a manifest to the totals of their tags (``sign`` 1), or subtract them (-1)."""
    of = {"of_repository": repository_id, "of_manifest": manifest_id}
    _BEGIN_TOTALS.run(connection, of)
    _ADD_TO_TOTALS.run(connection, of | {"sign": sign})
