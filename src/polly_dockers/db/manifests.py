"""Rows of manifests, and of what they name."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
from sqlalchemy import LargeBinary, bindparam, cast, insert, or_, select, update

from polly_dockers.db import blobs, paging, repositories, sparse, total_sizes
from polly_dockers.db.journal import records
from polly_dockers.db.schema import MARK, manifest_blobs, manifest_children, manifest_missing, manifests
from polly_dockers.db.sqlite import now
from polly_dockers.db.statement import VALUES, Statement, as_json
from polly_dockers.model import Digest
from polly_dockers.oci.reference import is_digest

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from sqlalchemy import Connection, Row

    from polly_dockers.oci.manifest import Manifest


_FIND: Final = Statement(
    select(manifests.c.id, manifests.c.digest, manifests.c.size, manifests.c.platforms).where(
        manifests.c.repository_id == bindparam("repository_id"), manifests.c.digest == bindparam("digest")
    )
)


_FIND_ALL: Final = Statement(
    select(manifests.c.id, manifests.c.digest, manifests.c.size, manifests.c.platforms).where(
        manifests.c.repository_id == bindparam("repository_id"), manifests.c.digest.in_(select(VALUES.c.value))
    )
)


def find_id(connection: Connection, repository_id: int, digest: str) -> int | None:
    """The id of a manifest of the repository; None if there is none."""
    row = _FIND.first(connection, {"repository_id": repository_id, "digest": digest})
    return row.id if row is not None else None


_COMPLETE: Final = Statement(
    select(manifests.c.id)
    .outerjoin(manifest_missing, manifest_missing.c.manifest_id == manifests.c.id)
    .where(
        manifests.c.repository_id == bindparam("repository_id"),
        manifests.c.digest == bindparam("digest"),
        manifests.c.body == bindparam("body"),
        manifests.c.size == bindparam("size"),
        manifest_missing.c.manifest_id.is_(None),
    )
)


def find_complete(connection: Connection, repository_id: int, digest: str, body: bytes) -> int | None:
    """The id of a manifest, if the repository has it, undamaged, and everything that it names; else None."""
    place = {"repository_id": repository_id, "digest": digest}
    row = _COMPLETE.first(connection, {**place, "body": body, "size": len(body)})
    return row.id if row is not None else None


def find_all(connection: Connection, repository_id: int, digests: Iterable[str]) -> dict[str, Any]:
    """Rows (id, digest, size, platforms) of the manifests that the repository has, by digest, in the same order."""
    wanted = dict.fromkeys(digests)
    rows = _FIND_ALL.all(connection, {"repository_id": repository_id, "values": as_json(wanted)}) if wanted else []
    found = {row.digest: row for row in rows}
    return {digest: found[digest] for digest in wanted if digest in found}


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


class Pushed(NamedTuple):
    """A manifest that a user pushes to a repository."""

    repository_id: int
    user_id: int
    digest: Digest
    manifest: Manifest
    body: bytes
    platforms: Sequence[str]
    blob_ids: Iterable[int]
    """Blobs that it names and the repository has."""
    child_ids: Sequence[int] = ()
    """Manifests that it names and the repository has."""
    missing: Sequence[str] = ()
    """Digests that it names and the repository lacks."""


def put(connection: Connection, known: int | None, pushed: Pushed) -> int:
    """Insert a manifest with links to what it names, or complete the one with the id ``known``; returns its id.

    A body that was damaged since it was pushed is replaced.
    Links that exist already do not change. What is missing is linked when it arrives. A new manifest is linked to the
    sparse indexes that wait for it, as ``link_more`` does.
    """
    if known is not None:
        set_body(connection, known, pushed.body)
    manifest_id = known or _add(connection, pushed)
    _refer(connection, manifest_id, pushed)
    if known is None:
        link_waiting(connection, pushed.repository_id, pushed.digest, manifest_id, sparse.AT_ONCE)
    return manifest_id


def _add(connection: Connection, pushed: Pushed) -> int:
    """Insert the row, and describe it in the journal with the links and what is missing."""
    manifest = pushed.manifest
    made: dict[str, Any] = {
        "repository_id": pushed.repository_id,
        "digest": pushed.digest,
        "media_type": manifest.media_type,
        "artifact_type": manifest.artifact_type,
        "subject": manifest.subject,
        "annotations": text_of(manifest.annotations),
        "platforms": " ".join(pushed.platforms),
        "size": manifest.size,
        "total_size": manifest.size,
        "pushed_by": pushed.user_id,
        "pushed_at": now(),
        "body": pushed.body,
    }
    manifest_id: int = _ADD.first(connection, made).id
    records.add(
        connection,
        records.ManifestPushed(
            manifest_id,
            pushed.repository_id,
            pushed.digest,
            manifest.media_type,
            made["platforms"],
            pushed.user_id,
            made["pushed_at"],
            pushed.body,
            sorted(pushed.missing),
            sorted(pushed.child_ids),
        ),
    )
    repositories.add_delta(connection, pushed.repository_id, size=manifest.size)
    return manifest_id


def is_body(digest: str, body: bytes) -> bool:
    """Whether a body has the digest that its row names. A digest in the trash has a mark at its end."""
    plain = digest.partition(MARK)[0]
    return is_digest(plain) and Digest.of(Digest(plain).algorithm, body) == plain


_SET_BODY: Final = Statement(
    update(manifests).where(
        manifests.c.id == bindparam("manifest_id"),
        or_(manifests.c.body != bindparam("right"), manifests.c.size != bindparam("length")),
    ),
    "body",
    "size",
)


def set_body(connection: Connection, manifest_id: int, body: bytes) -> bool:
    """Give a manifest its right bytes, whose digest the caller has checked; returns whether it had others.

    Only damage makes them differ, so nothing that was counted or linked changes.
    """
    values = {"manifest_id": manifest_id, "body": body, "right": body, "size": len(body), "length": len(body)}
    return _SET_BODY.run(connection, values) > 0


_WITHIN: Final = Statement(
    select(manifest_children.c.child_id).where(manifest_children.c.manifest_id == bindparam("manifest_id"))
)
_TAKE_IN: Final = Statement(insert(manifest_children), "manifest_id", "child_id")


def children(connection: Connection, manifest_id: int) -> list[int]:
    """Ids of the manifests that an index holds, in order."""
    return sorted(row.child_id for row in _WITHIN.all(connection, {"manifest_id": manifest_id}))


def _refer(connection: Connection, manifest_id: int, pushed: Pushed) -> None:
    """Link a manifest with what it names, record what is missing, and update its total size."""
    named = sorted(set(pushed.blob_ids) - blobs.ids_of_manifest(connection, manifest_id))
    for blob_id in named:
        blobs.link_to_manifest(connection, pushed.repository_id, manifest_id, blob_id)
    new_children = sorted(set(pushed.child_ids).difference(children(connection, manifest_id)))
    for child_id in new_children:
        _TAKE_IN.run(connection, {"manifest_id": manifest_id, "child_id": child_id})
    sparse.record(connection, pushed.repository_id, manifest_id, pushed.missing)
    if named or new_children:
        total_sizes.measure(connection, [manifest_id])


_IS_WITHIN: Final = Statement(
    select(manifest_children.c.child_id).where(
        manifest_children.c.manifest_id == bindparam("manifest_id"),
        manifest_children.c.child_id == bindparam("child_id"),
    )
)


def link_waiting(connection: Connection, repository_id: int, digest: str, manifest_id: int, limit: int) -> None:
    """Link a manifest that has arrived, with all that it names, to some of the sparse indexes that name it."""
    waiting = sparse.pop(connection, repository_id, digest, limit)
    for parent in waiting:
        link = {"manifest_id": parent, "child_id": manifest_id}
        if _IS_WITHIN.first(connection, link) is None:
            _TAKE_IN.run(connection, link)
    total_sizes.measure(connection, waiting)


def link_more(connection: Connection, repository_id: int, digest: str) -> bool:
    """Link more of the manifests that wait for a digest that has arrived; returns whether others still do.

    It is called in one transaction after another, so that a push and a restore hold the writer only for a short time.
    If the server is stopped between them, the next push of the digest goes on.
    """
    manifest_id = find_id(connection, repository_id, digest)
    if manifest_id is not None:
        link_waiting(connection, repository_id, digest, manifest_id, sparse.AT_ONCE)
    else:
        blob = blobs.find(connection, repository_id, digest)
        if blob is None:  # it was deleted meanwhile
            return False
        blobs.complete(connection, repository_id, blob.id, digest, blob.size)
    return sparse.is_awaited(connection, repository_id, digest)


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
