"""Queries that find a manifest by the beginning of its digest, and the item of the trash that holds a tag."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import and_, bindparam, or_, select

from polly_dockers.db import schema, trash
from polly_dockers.db.schema import commits, manifests
from polly_dockers.db.statement import Statement

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection, Select

    from polly_dockers.db.trash import Item
    from polly_dockers.model import DigestPrefix

WALK: Final = 200
"""How many of the newest commits of a tag are searched at most."""


def _within(column: ColumnElement[str], prefix: DigestPrefix) -> ColumnElement[bool]:
    return or_(*(and_(column >= first, column < behind) for first, behind in prefix.ranges))


def manifests_from(connection: Connection, repository_id: int, prefix: DigestPrefix, limit: int) -> list[str]:
    """Digests with the prefix of manifests in the repository, without the trash."""
    mine = and_(manifests.c.repository_id == repository_id, manifests.c.trash_id.is_(None))
    query = select(manifests.c.digest).where(mine, _within(manifests.c.digest, prefix))
    return list(connection.execute(query.order_by(manifests.c.digest).limit(limit)).scalars())


def commits_from(connection: Connection, repository_id: int, prefix: DigestPrefix, limit: int) -> list[str]:
    """Digests with the prefix of manifests in the trash of the repository that can be restored."""
    mine = and_(
        schema.trash.c.repository_id == repository_id,
        schema.trash.c.kind == trash.COMMIT,
        schema.trash.c.purging_at.is_(None),
    )
    query = select(schema.trash.c.name).distinct().where(mine, _within(schema.trash.c.name, prefix))
    return list(connection.execute(query.order_by(schema.trash.c.name).limit(limit)).scalars())


def _commits_of_tag() -> Select[tuple[int, str, int]]:
    """Rows (id, tags, commit_id) of restorable items that hold one of the newest commits of a tag."""
    newest = (
        select(commits.c.id, commits.c.manifest_id)
        .where(commits.c.repository_id == bindparam("repository_id"), commits.c.tag == bindparam("tag"))
        .order_by(commits.c.id.desc())
        .limit(WALK)
        .subquery()
    )
    return (
        select(schema.trash.c.id, schema.trash.c.tags, newest.c.id.label("commit_id"))
        .join(manifests, manifests.c.trash_id == schema.trash.c.id)
        .join(newest, newest.c.manifest_id == manifests.c.id)
        .where(schema.trash.c.purging_at.is_(None))
    )


_COMMITS: Final = _commits_of_tag()
_NEWEST: Final = Statement(_COMMITS.order_by(_COMMITS.selected_columns.commit_id.desc()).limit(1))
_WITH_TAGS: Final = Statement(_COMMITS.where(schema.trash.c.tags != "").order_by(schema.trash.c.id.desc()))


def find_tag(connection: Connection, repository_id: int, tag: str) -> Item | None:
    """The item of the last deletion of the tag: the tag itself, or the commit that was deleted with it.

    An item that is being purged is returned only if there is no other.
    """
    own = trash.find(connection, trash.TAG, tag, repository_id=repository_id)
    rows = _WITH_TAGS.all(connection, {"repository_id": repository_id, "tag": tag})
    last = next((row.id for row in rows if tag in row.tags.split()), 0)
    if own is not None and (last == 0 or (own.id > last and not own.purging)):
        return own
    return trash.get(connection, last) if last else None


def newest_commit(connection: Connection, repository_id: int, tag: str) -> Item | None:
    """The item in the trash that holds the newest commit of a tag; None if there is none."""
    row = _NEWEST.first(connection, {"repository_id": repository_id, "tag": tag})
    return trash.get(connection, row.id) if row is not None else None
