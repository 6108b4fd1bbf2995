"""Rows of manifests, of what they name, of tags and of commits."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import bindparam, delete, func, insert, select, tuple_, update

from polly_dockers.db import missed, repositories
from polly_dockers.db.engine import now
from polly_dockers.db.schema import (
    blobs,
    commits,
    manifest_blobs,
    manifest_children,
    manifests,
    tags,
    users,
)
from polly_dockers.model import Commit, Digest

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import Connection, Row

    from polly_dockers.manifests import Manifest


def find_id(connection: Connection, repository_id: int, digest: str) -> int | None:
    """The id of the manifest of that digest in the repository."""
    query = select(manifests.c.id).where(manifests.c.repository_id == repository_id, manifests.c.digest == digest)
    return connection.execute(query).scalar_one_or_none()


def find_all(connection: Connection, repository_id: int, digests: Iterable[str]) -> dict[str, Row[*tuple[Any, ...]]]:
    """Rows (id, digest, size, platforms) of those digests that the repository has as manifests, by digest."""
    found: dict[str, Row[*tuple[Any, ...]]] = {}
    wanted = sorted(set(digests))
    for at in range(0, len(wanted), 500):
        query = select(manifests.c.id, manifests.c.digest, manifests.c.size, manifests.c.platforms).where(
            manifests.c.repository_id == repository_id, manifests.c.digest.in_(wanted[at : at + 500])
        )
        found.update({row.digest: row for row in connection.execute(query)})
    return found


def add(
    connection: Connection,
    *,
    repository_id: int,
    user_id: int,
    digest: Digest,
    manifest: Manifest,
    body: bytes,
    platforms: Sequence[str],
) -> int:
    """Insert a manifest; its id. What was pushed before and names it holds it from now on."""
    made = insert(manifests).values(
        repository_id=repository_id,
        digest=digest,
        media_type=manifest.media_type,
        artifact_type=manifest.artifact_type,
        subject=manifest.subject,
        annotations=json.dumps(manifest.annotations) if manifest.annotations else None,
        platforms=" ".join(platforms),
        size=manifest.size,
        total_size=manifest.size,
        pushed_by=user_id,
        pushed_at=now(),
        body=body,
    )
    manifest_id = int(connection.execute(made.returning(manifests.c.id)).scalar_one())
    for parent in missed.take(connection, repository_id, digest):
        refer(connection, repository_id=repository_id, manifest_id=parent, child_ids=[manifest_id])
    repositories.add_delta(connection, repository_id, size=manifest.size)
    return manifest_id


def refer(
    connection: Connection,
    *,
    repository_id: int,
    manifest_id: int,
    blob_ids: Iterable[int] = (),
    child_ids: Iterable[int] = (),
    missing: Iterable[str] = (),
) -> None:
    """Let a manifest hold what it names, and note what is missing, so that it is held once it comes.

    What it holds already stays as it is. Then say how large all is that it names.
    """
    held = select(manifest_blobs.c.blob_id).where(manifest_blobs.c.manifest_id == manifest_id)
    named = [
        {"manifest_id": manifest_id, "repository_id": repository_id, "blob_id": blob_id}
        for blob_id in sorted(set(blob_ids) - set(connection.execute(held).scalars()))
    ]
    if named:
        connection.execute(insert(manifest_blobs), named)
    within = select(manifest_children.c.child_id).where(manifest_children.c.manifest_id == manifest_id)
    children = [
        {"manifest_id": manifest_id, "child_id": child_id}
        for child_id in sorted(set(child_ids) - set(connection.execute(within).scalars()))
    ]
    if children:
        connection.execute(insert(manifest_children), children)
    missed.note(connection, repository_id, manifest_id, missing)
    if named or children:
        total = update(manifests).where(manifests.c.id == manifest_id)
        connection.execute(total.values(total_size=_total_size(connection, manifest_id)))


def _total_size(connection: Connection, manifest_id: int) -> int:
    """Bytes of the manifest, of every manifest below it and of every blob that they name, each counted once."""
    below = select(bindparam("root", manifest_id).label("id")).cte("below", recursive=True)
    below = below.union(select(manifest_children.c.child_id).join(below, manifest_children.c.manifest_id == below.c.id))
    own = select(func.coalesce(func.sum(manifests.c.size), 0)).where(manifests.c.id.in_(select(below.c.id)))
    named = select(manifest_blobs.c.blob_id).where(manifest_blobs.c.manifest_id.in_(select(below.c.id)))
    content = select(func.coalesce(func.sum(blobs.c.size), 0)).where(blobs.c.id.in_(named))
    return int(connection.execute(own).scalar_one()) + int(connection.execute(content).scalar_one())


_TAGGED: Final = select(tags.c.manifest_id).where(
    tags.c.repository_id == bindparam("repository_id"), tags.c.name == bindparam("tag")
)
_ADD_COMMIT: Final = insert(commits).returning(commits.c.id)
_ADD_TAG: Final = insert(tags)
_MOVE_TAG: Final = (
    update(tags)
    .where(tags.c.repository_id == bindparam("of_repository"), tags.c.name == bindparam("of_name"))
    .values(manifest_id=bindparam("to_manifest"), commit_id=bindparam("to_commit"))
)


def set_tag(connection: Connection, *, repository_id: int, tag: str, manifest_id: int, user_id: int) -> bool:
    """Set the tag and append the commit; False where the tag has that manifest already, which is no commit."""
    held = connection.execute(_TAGGED, {"repository_id": repository_id, "tag": tag}).scalar_one_or_none()
    if held == manifest_id:
        return False
    commit_id = connection.execute(
        _ADD_COMMIT,
        {
            "repository_id": repository_id,
            "tag": tag,
            "manifest_id": manifest_id,
            "pushed_by": user_id,
            "pushed_at": now(),
        },
    ).scalar_one()
    if held is None:
        connection.execute(
            _ADD_TAG,
            {"repository_id": repository_id, "name": tag, "manifest_id": manifest_id, "commit_id": commit_id},
        )
    else:
        connection.execute(
            _MOVE_TAG,
            {
                "of_repository": repository_id,
                "of_name": tag,
                "to_manifest": manifest_id,
                "to_commit": commit_id,
            },
        )
    repositories.add_delta(connection, repository_id, commits=1, tags=int(held is None), pushed=True)
    return True


def delete_tag(connection: Connection, repository_id: int, tag: str) -> bool:
    """Take a tag away; its commits stay, inactive. False where there is none."""
    query = delete(tags).where(tags.c.repository_id == repository_id, tags.c.name == tag)
    if connection.execute(query).rowcount == 0:
        return False
    repositories.add_delta(connection, repository_id, tags=-1)
    return True


def indexes_of(connection: Connection, manifest_id: int) -> list[str]:
    """Digests of the indexes that hold the manifest."""
    query = (
        select(manifests.c.digest)
        .join(manifest_children, manifest_children.c.manifest_id == manifests.c.id)
        .where(manifest_children.c.child_id == manifest_id)
    )
    return list(connection.execute(query).scalars())


def delete_manifest(connection: Connection, repository_id: int, manifest_id: int) -> None:
    """Delete a manifest with its tags, its commits and its references. Raises IntegrityError inside an index."""
    gone_tags = connection.execute(delete(tags).where(tags.c.manifest_id == manifest_id)).rowcount
    gone_commits = connection.execute(delete(commits).where(commits.c.manifest_id == manifest_id)).rowcount
    size = connection.execute(
        delete(manifests).where(manifests.c.id == manifest_id).returning(manifests.c.size)
    ).scalar_one()
    repositories.add_delta(connection, repository_id, tags=-gone_tags, commits=-gone_commits, size=-size)


def forget_children(connection: Connection, manifest_id: int) -> None:
    """Take the manifest out of the indexes that hold it; they become sparse."""
    connection.execute(delete(manifest_children).where(manifest_children.c.child_id == manifest_id))


def tag_names(connection: Connection, repository_id: int, last: str, limit: int) -> list[str]:
    """Tags in order of their bytes, after ``last``."""
    query = (
        select(tags.c.name)
        .where(tags.c.repository_id == repository_id, tags.c.name > last)
        .order_by(tags.c.name)
        .limit(limit)
    )
    return list(connection.execute(query).scalars())


def referrers(
    connection: Connection, repository_id: int, subject: str, *, artifact_types: Sequence[str], after: int, limit: int
) -> list[Row[*tuple[Any, ...]]]:
    """Rows (id, digest, media_type, size, artifact_type, annotations) of manifests whose subject is the digest.

    In the order of their ids, after one of them; of any of ``artifact_types`` where some are given.
    """
    query = (
        select(
            manifests.c.id,
            manifests.c.digest,
            manifests.c.media_type,
            manifests.c.size,
            manifests.c.artifact_type,
            manifests.c.annotations,
        )
        .where(manifests.c.repository_id == repository_id, manifests.c.subject == subject, manifests.c.id > after)
        .order_by(manifests.c.id)
        .limit(limit)
    )
    if artifact_types:
        query = query.where(manifests.c.artifact_type.in_(artifact_types))
    return list(connection.execute(query).all())


def body_of_tag(connection: Connection, repository_id: int, tag: str) -> bytes | None:
    """The bytes of the manifest that the tag has."""
    query = (
        select(manifests.c.body)
        .join(tags, tags.c.manifest_id == manifests.c.id)
        .where(tags.c.repository_id == repository_id, tags.c.name == tag)
    )
    return connection.execute(query).scalar_one_or_none()


def commit_page(
    connection: Connection,
    repository_id: int,
    *,
    tag: str | None,
    newest_first: bool,
    limit: int,
    after: tuple[int, int] | None,
) -> tuple[list[Commit], tuple[int, int] | None]:
    """A keyset page of commits and the key of the next page."""
    query = (
        select(
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
        .join(manifests, manifests.c.id == commits.c.manifest_id)
        .join(users, users.c.id == commits.c.pushed_by)
        .outerjoin(tags, (tags.c.repository_id == commits.c.repository_id) & (tags.c.commit_id == commits.c.id))
        .where(commits.c.repository_id == repository_id)
    )
    if tag is not None:
        query = query.where(commits.c.tag == tag)
    if after is not None:
        key = tuple_(commits.c.pushed_at, commits.c.id)
        query = query.where(key < tuple_(*after) if newest_first else key > tuple_(*after))
    order = (commits.c.pushed_at.desc(), commits.c.id.desc()) if newest_first else (commits.c.pushed_at, commits.c.id)
    rows = connection.execute(query.order_by(*order).limit(limit + 1)).all()
    more = len(rows) > limit
    rows = rows[:limit]
    found = [
        Commit(
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
        for row in rows
    ]
    return found, (rows[-1].pushed_at, rows[-1].id) if more else None


def count_commits(connection: Connection, repository_id: int, tag: str) -> int:
    """How many commits a tag has."""
    query = (
        select(func.count()).select_from(commits).where(commits.c.repository_id == repository_id, commits.c.tag == tag)
    )
    return connection.execute(query).scalar_one()


def blob_is_named(connection: Connection, repository_id: int, blob_id: int) -> bool:
    """Whether a manifest of the repository names the blob."""
    query = select(manifest_blobs.c.manifest_id).where(
        manifest_blobs.c.repository_id == repository_id, manifest_blobs.c.blob_id == blob_id
    )
    return connection.execute(query.limit(1)).first() is not None
