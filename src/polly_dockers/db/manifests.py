"""Rows of manifests and of what they name, of tags and of commits."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import msgspec
from sqlalchemy import LargeBinary, bindparam, cast, exists, func, insert, literal, select, update

from polly_dockers.db import paging, repositories, sparse, total_sizes
from polly_dockers.db import tags as of_tags
from polly_dockers.db.journal import records
from polly_dockers.db.schema import (
    commits,
    manifest_blobs,
    manifest_children,
    manifest_missing,
    manifests,
    tag_totals,
    tags,
    users,
)
from polly_dockers.db.sqlite import now
from polly_dockers.db.statement import Statement

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from sqlalchemy import Connection, Row

    from polly_dockers.model import Commit, Digest
    from polly_dockers.oci.manifest import Manifest


_FIND: Final = Statement(
    select(manifests.c.id, manifests.c.digest, manifests.c.size, manifests.c.platforms).where(
        manifests.c.repository_id == bindparam("repository_id"), manifests.c.digest == bindparam("digest")
    )
)


def find_id(connection: Connection, repository_id: int, digest: str) -> int | None:
    """The id of a manifest of the repository; None if there is none."""
    row = _FIND.first(connection, {"repository_id": repository_id, "digest": digest})
    return row.id if row is not None else None


_WHOLE: Final = Statement(
    select(manifests.c.id)
    .outerjoin(manifest_missing, manifest_missing.c.manifest_id == manifests.c.id)
    .where(
        manifests.c.repository_id == bindparam("repository_id"),
        manifests.c.digest == bindparam("digest"),
        manifest_missing.c.manifest_id.is_(None),
    )
)


def find_whole(connection: Connection, repository_id: int, digest: str) -> int | None:
    """The id of a manifest, if the repository has it and everything that it names; else None."""
    row = _WHOLE.first(connection, {"repository_id": repository_id, "digest": digest})
    return row.id if row is not None else None


def find_all(connection: Connection, repository_id: int, digests: Iterable[str]) -> dict[str, Any]:
    """Rows (id, digest, size, platforms) of the manifests that the repository has, by digest."""
    found = {digest: _FIND.first(connection, {"repository_id": repository_id, "digest": digest}) for digest in digests}
    return {digest: row for digest, row in found.items() if row is not None}


_ADD: Final = Statement(
    insert(manifests).returning(manifests.c.id),
    *("repository_id", "digest", "media_type", "artifact_type", "subject", "annotations", "platforms"),
    *("size", "total_size", "pushed_by", "pushed_at", "body"),
)


def text_of(annotations: dict[str, str]) -> str | None:
    """Annotations as compact JSON for their column; None if there are none."""
    if not annotations:
        return None
    try:
        return msgspec.json.encode(annotations).decode()
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can only escape
        return json.dumps(annotations)


def add(
    connection: Connection,
    *,
    repository_id: int,
    user_id: int,
    digest: Digest,
    manifest: Manifest,
    body: bytes,
    platforms: Sequence[str],
    child_ids: Sequence[int] = (),
    missing: Sequence[str],
) -> int:
    """Insert a manifest; returns its id. ``refer`` links what it names, then ``link_waiting`` links it to others.

    ``child_ids`` and ``missing`` are for the journal, and as for ``refer``.
    """
    made: dict[str, Any] = {
        "repository_id": repository_id,
        "digest": digest,
        "media_type": manifest.media_type,
        "artifact_type": manifest.artifact_type,
        "subject": manifest.subject,
        "annotations": text_of(manifest.annotations),
        "platforms": " ".join(platforms),
        "size": manifest.size,
        "total_size": manifest.size,
        "pushed_by": user_id,
        "pushed_at": now(),
        "body": body,
    }
    manifest_id: int = _ADD.first(connection, made).id
    records.add(
        connection,
        records.Manifest(
            manifest_id,
            repository_id,
            digest,
            manifest.media_type,
            made["platforms"],
            user_id,
            made["pushed_at"],
            body,
            sorted(missing),
            sorted(child_ids),
        ),
    )
    repositories.add_delta(connection, repository_id, size=manifest.size)
    return manifest_id


_HELD: Final = Statement(
    select(manifest_blobs.c.blob_id).where(manifest_blobs.c.manifest_id == bindparam("manifest_id"))
)
_HOLD: Final = Statement(insert(manifest_blobs), "manifest_id", "repository_id", "blob_id")
_WITHIN: Final = Statement(
    select(manifest_children.c.child_id).where(manifest_children.c.manifest_id == bindparam("manifest_id"))
)
_TAKE_IN: Final = Statement(insert(manifest_children), "manifest_id", "child_id")


def children(connection: Connection, manifest_id: int) -> list[int]:
    """Ids of the manifests that an index holds, in order."""
    return sorted(row.child_id for row in _WITHIN.all(connection, {"manifest_id": manifest_id}))


def refer(
    connection: Connection,
    *,
    repository_id: int,
    manifest_id: int,
    blob_ids: Iterable[int] = (),
    child_ids: Iterable[int] = (),
    missing: Iterable[str] = (),
) -> None:
    """Link a manifest with the blobs and manifests that it names, record what is missing, and update its total size.

    Links that exist already do not change. Missing things are linked when they arrive.
    """
    held = {row.blob_id for row in _HELD.all(connection, {"manifest_id": manifest_id})}
    named = sorted(set(blob_ids) - held)
    for blob_id in named:
        _HOLD.run(connection, {"manifest_id": manifest_id, "repository_id": repository_id, "blob_id": blob_id})
    within = {row.child_id for row in _WITHIN.all(connection, {"manifest_id": manifest_id})}
    children = sorted(set(child_ids) - within)
    for child_id in children:
        _TAKE_IN.run(connection, {"manifest_id": manifest_id, "child_id": child_id})
    sparse.record(connection, repository_id, manifest_id, missing)
    if named or children:
        measure(connection, manifest_id)


def measure(connection: Connection, manifest_id: int) -> None:
    """Update the total size of a manifest."""
    total_sizes.measure(connection, [manifest_id])


_IS_WITHIN: Final = Statement(
    select(manifest_children.c.child_id).where(
        manifest_children.c.manifest_id == bindparam("manifest_id"),
        manifest_children.c.child_id == bindparam("child_id"),
    )
)


def link_waiting(connection: Connection, repository_id: int, digest: str, manifest_id: int) -> None:
    """Link a manifest that has arrived, with all that it names, to the sparse indexes that name it."""
    waiting = sparse.pop(connection, repository_id, digest, sparse.AT_ONCE)
    for parent in waiting:
        link = {"manifest_id": parent, "child_id": manifest_id}
        if _IS_WITHIN.first(connection, link) is None:
            _TAKE_IN.run(connection, link)
    total_sizes.measure(connection, waiting)


_TAGGED: Final = Statement(
    select(tags.c.manifest_id).where(
        tags.c.repository_id == bindparam("repository_id"), tags.c.name == bindparam("tag")
    )
)
_ADD_COMMIT: Final = Statement(
    insert(commits).returning(commits.c.id), "repository_id", "tag", "manifest_id", "pushed_by", "pushed_at"
)
_ADD_TAG: Final = Statement(insert(tags), "repository_id", "name", "manifest_id", "commit_id")
_MOVE_TAG: Final = Statement(
    update(tags).where(tags.c.repository_id == bindparam("of_repository"), tags.c.name == bindparam("of_name")),
    "manifest_id",
    "commit_id",
)


def set_tag(connection: Connection, *, repository_id: int, tag: str, manifest_id: int, user_id: int) -> bool:
    """Set the tag and append a commit. Returns False, and does neither, if the tag has that manifest already."""
    held = _TAGGED.first(connection, {"repository_id": repository_id, "tag": tag})
    if held is not None and held.manifest_id == manifest_id:
        return False
    at = now()
    made = {
        "repository_id": repository_id,
        "tag": tag,
        "manifest_id": manifest_id,
        "pushed_by": user_id,
        "pushed_at": at,
    }
    commit_id = _ADD_COMMIT.first(connection, made).id
    records.add(connection, records.Commit(commit_id, repository_id, tag, manifest_id, user_id, at))
    place = {"manifest_id": manifest_id, "commit_id": commit_id}
    add_to_total(connection, repository_id, tag, 1)
    if held is None:
        _ADD_TAG.run(connection, {"repository_id": repository_id, "name": tag, **place})
    else:
        _MOVE_TAG.run(connection, {"of_repository": repository_id, "of_name": tag, **place})
    repositories.add_delta(connection, repository_id, commits=1, tags=int(held is None), pushed_at=at)
    return True


MAX_TAGS: Final = 10_000
"""The most tags that one manifest may have: all of them are deleted and restored with it, in one transaction."""

_ONE_MORE: Final = Statement(
    select(tags.c.name).where(tags.c.manifest_id == bindparam("manifest_id")).limit(1).offset(bindparam("before"))
)


def has_too_many_tags(connection: Connection, manifest_id: int) -> bool:
    """Whether the manifest has more than MAX_TAGS tags."""
    return _ONE_MORE.first(connection, {"manifest_id": manifest_id, "before": MAX_TAGS}) is not None


_ADD_TO_TOTAL: Final = Statement(
    update(tag_totals)
    .where(tag_totals.c.repository_id == bindparam("of_repository"), tag_totals.c.tag == bindparam("of_tag"))
    .values(commits=tag_totals.c.commits + bindparam("more"))
)
_BEGIN_TOTAL: Final = Statement(insert(tag_totals), "repository_id", "tag", "commits")


def add_to_total(connection: Connection, repository_id: int, tag: str, more: int) -> None:
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


def tag_names(connection: Connection, repository_id: int, last: str, limit: int) -> list[str]:
    """The next tags after ``last``, in the order of their bytes."""
    query = (
        select(tags.c.name)
        .where(tags.c.repository_id == repository_id, tags.c.name > last)
        .order_by(tags.c.name)
        .limit(limit)
    )
    return list(connection.execute(query).scalars())


def referrers(
    connection: Connection,
    repository_id: int,
    subject: str,
    *,
    artifact_types: Collection[str],
    after: int,
    limit: int,
    room: int,
) -> tuple[list[Row[*tuple[Any, ...]]], int | None]:
    """Rows (id, digest, media_type, size, artifact_type, annotations) of manifests whose subject is the digest.

    In the order of their ids, after the id ``after``; only those of ``artifact_types``, if any are given. At most
    ``limit`` referrers are looked at for a page. It has at most ``room`` bytes of annotations, or a single row. Also
    returns the id for the next page.
    """
    here = (manifests.c.repository_id == repository_id, manifests.c.subject == subject, manifests.c.id > after)
    query = (
        select(
            manifests.c.id,
            manifests.c.digest,
            manifests.c.media_type,
            manifests.c.size,
            manifests.c.artifact_type,
            cast(manifests.c.annotations, LargeBinary).label("annotations"),
        )
        .where(*here)
        .order_by(manifests.c.id)
    )
    rest = None
    if artifact_types:
        types = select(manifests.c.id, manifests.c.artifact_type).where(*here).order_by(manifests.c.id)
        seen = connection.execute(types.limit(limit + 1)).all()
        rest = seen[limit - 1].id if len(seen) > limit else None
        wanted = [row.id for row in seen[:limit] if row.artifact_type in artifact_types]
        query = query.where(manifests.c.id.in_(wanted))
    found, more = paging.fetch(connection, query, limit, lambda row: len(row.annotations or b""), room)
    return found, found[-1].id if more else rest


def has_tag(connection: Connection, repository_id: int, tag: str) -> bool:
    """Whether the repository has the tag."""
    return _TAGGED.first(connection, {"repository_id": repository_id, "tag": tag}) is not None


def body_of_tag(connection: Connection, repository_id: int, tag: str, largest: int) -> bytes | None:
    """The bytes of the manifest of a tag; None if there is no such tag, or if they are more than ``largest``."""
    query = (
        select(manifests.c.body)
        .join(tags, tags.c.manifest_id == manifests.c.id)
        .where(tags.c.repository_id == repository_id, tags.c.name == tag, manifests.c.size <= largest)
    )
    return connection.execute(query).scalar_one_or_none()


def commit_page(
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
        select(*of_tags.COLUMNS)
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
    found = [of_tags.commit(row) for row in rows[:limit]]
    return found, found[-1].id if len(rows) > limit else None


_COUNT: Final = Statement(
    select(tag_totals.c.commits).where(
        tag_totals.c.repository_id == bindparam("repository_id"), tag_totals.c.tag == bindparam("tag")
    )
)


def count_commits(connection: Connection, repository_id: int, tag: str) -> int:
    """The number of commits of a tag."""
    row = _COUNT.first(connection, {"repository_id": repository_id, "tag": tag})
    return row.commits if row is not None else 0


def blob_is_named(connection: Connection, repository_id: int, blob_id: int) -> bool:
    """Whether a manifest of the repository that is not in the trash names the blob."""
    query = (
        select(manifest_blobs.c.manifest_id)
        .join(manifests, manifests.c.id == manifest_blobs.c.manifest_id)
        .where(
            manifest_blobs.c.repository_id == repository_id,
            manifest_blobs.c.blob_id == blob_id,
            manifests.c.trash_id.is_(None),
        )
    )
    return connection.execute(query.limit(1)).first() is not None
