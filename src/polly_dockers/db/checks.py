"""Queries of checks and rebuilds: pages of all blobs and manifests, totals, and changes to rows of damaged blobs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import ColumnElement, and_, exists, func, literal, select, update

from polly_dockers.db import damage
from polly_dockers.db.manifests import is_body
from polly_dockers.db.schema import (
    MARK,
    blobs,
    commits,
    manifest_blobs,
    manifest_missing,
    manifests,
    organisations,
    repositories,
    tags,
)
from polly_dockers.db.sqlite import now
from polly_dockers.db.statement import VALUES, as_json

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlalchemy import Connection, Row

PAGE: Final = 100
IMAGES: Final = 20
"""How many images at most are listed for a damaged blob."""


@dataclass(frozen=True, slots=True)
class BlobRow:
    """The row of a blob."""

    id: int
    digest: str
    size: int
    storage_key: str
    lost: bool


@dataclass(frozen=True, slots=True)
class ManifestRow:
    """A manifest, and whether its bytes are right."""

    id: int
    digest: str
    path: str
    """``organisation/name`` of its repository."""
    in_trash: bool
    """Whether it, its repository or its organisation is in the trash, where no push reaches it."""
    size_is_right: bool
    """Whether its row names the size of its bytes."""
    body_is_right: bool
    """Whether its bytes match its digest."""

    @property
    def whole(self) -> bool:
        """Whether nothing is wrong."""
        return self.size_is_right and self.body_is_right

    def __str__(self) -> str:
        """``organisation/name@digest``, and that it is in the trash."""
        return f"{self.path}@{self.digest}{' in the trash' if self.in_trash else ''}"


_BLOBS: Final = select(
    blobs.c.id, blobs.c.digest, blobs.c.size, blobs.c.storage_key, blobs.c.lost_at.is_not(None).label("lost")
)


def size_of_blobs(connection: Connection) -> int:
    """The size of all blobs together, in bytes."""
    return int(connection.execute(select(func.coalesce(func.sum(blobs.c.size), 0))).scalar_one())


def of_database(connection: Connection) -> list[str]:
    """What is wrong with the file, and with references between rows: a sentence each."""
    found = damage.find(connection, 20)
    broken = [
        f"{row[0]} refers to {row[2]} rows that are missing"
        for row in connection.exec_driver_sql("PRAGMA foreign_key_check").fetchmany(20)
    ]
    return found + broken


def blobs_after(connection: Connection, after: int) -> list[BlobRow]:
    """The next blobs in the order of their ids."""
    query = _BLOBS.where(blobs.c.id > after).order_by(blobs.c.id).limit(PAGE)
    return [BlobRow(*row) for row in connection.execute(query)]


def blob(connection: Connection, blob_id: int) -> BlobRow | None:
    """The blob as it is now; None if its row is gone."""
    row = connection.execute(_BLOBS.where(blobs.c.id == blob_id)).first()
    return BlobRow(*row) if row is not None else None


def blob_of(connection: Connection, storage_key: str) -> BlobRow | None:
    """The blob that has its bytes under this storage key; None if there is none."""
    row = connection.execute(_BLOBS.where(blobs.c.storage_key == storage_key)).first()
    return BlobRow(*row) if row is not None else None


def manifests_after(connection: Connection, after: int) -> list[ManifestRow]:
    """The next manifests in the order of their ids, each compared with its digest."""
    query = (
        select(
            manifests.c.id,
            manifests.c.digest,
            manifests.c.size,
            manifests.c.body,
            organisations.c.slug,
            repositories.c.name,
        )
        .join(repositories, repositories.c.id == manifests.c.repository_id)
        .join(organisations, organisations.c.id == repositories.c.organisation_id)
        .where(manifests.c.id > after)
        .order_by(manifests.c.id)
        .limit(PAGE)
    )
    return [_compared(row) for row in connection.execute(query)]


def _compared(row: Row[*tuple[Any, ...]]) -> ManifestRow:
    digest, slug, name = (text.partition(MARK)[0] for text in (row.digest, row.slug, row.name))
    in_trash = MARK in row.digest + row.slug + row.name
    right = row.size == len(row.body), is_body(row.digest, row.body)
    return ManifestRow(row.id, digest, f"{slug}/{name}", in_trash, *right)


def right_bodies(connection: Connection, digests: Collection[str]) -> dict[str, bytes]:
    """Undamaged bodies of manifests outside the trash, by their digests, of those that any repository has."""
    found = dict[str, bytes]()
    places = select(manifests.c.id, manifests.c.digest).where(manifests.c.digest.in_(select(VALUES.c.value)))
    for row in connection.execute(places, {"values": as_json(digests)}).all():
        if row.digest not in found:
            body = connection.execute(select(manifests.c.body).where(manifests.c.id == row.id)).scalar_one()
            if is_body(row.digest, body):
                found[row.digest] = body
    return found


def lacking_after(connection: Connection, after: int) -> list[Row[*tuple[Any, ...]]]:
    """The next manifests outside the trash that lack something: rows (id, digest, media_type, body, path)."""
    lacks = exists(select(literal(1)).where(manifest_missing.c.manifest_id == manifests.c.id))
    alive = manifests.c.trash_id.is_(None), repositories.c.deleted_at.is_(None), organisations.c.deleted_at.is_(None)
    path = organisations.c.slug + "/" + repositories.c.name
    query = (
        select(manifests.c.id, manifests.c.digest, manifests.c.media_type, manifests.c.body, path.label("path"))
        .join(repositories, repositories.c.id == manifests.c.repository_id)
        .join(organisations, organisations.c.id == repositories.c.organisation_id)
        .where(manifests.c.id > after, lacks, *alive)
        .order_by(manifests.c.id)
        .limit(PAGE)
    )
    return list(connection.execute(query).all())


def images_of(connection: Connection, blob_id: int) -> list[str]:
    """Images that use the blob, as ``organisation/name[:tag]@digest``, each once; active tags come first."""
    mine = select(manifest_blobs.c.manifest_id).where(manifest_blobs.c.blob_id == blob_id)
    return _images(connection, manifests.c.id.in_(mine))


def images_with(connection: Connection, manifest_id: int) -> list[str]:
    """The image of a manifest, once for each of its tags; as ``images_of``."""
    return _images(connection, manifests.c.id == manifest_id)


def _images(connection: Connection, condition: ColumnElement[bool]) -> list[str]:
    query = (
        select(organisations.c.slug, repositories.c.name, commits.c.tag, manifests.c.digest, tags.c.commit_id)
        .join(repositories, repositories.c.id == manifests.c.repository_id)
        .join(organisations, organisations.c.id == repositories.c.organisation_id)
        .outerjoin(commits, commits.c.manifest_id == manifests.c.id)
        .outerjoin(tags, tags.c.commit_id == commits.c.id)
        .where(condition)
        .order_by(tags.c.commit_id.is_(None), organisations.c.slug, repositories.c.name, commits.c.id)
    )
    found: dict[str, None] = {}  # a tag may have had the same image several times
    with connection.execute(query) as rows:
        for row in rows:
            tag = f":{row.tag}" if row.tag is not None else ""
            found[f"{row.slug}/{row.name}{tag}@{row.digest.partition('~')[0]}"] = None
            if len(found) == IMAGES:
                break
    return list(found)


def set_storage_key(connection: Connection, row: BlobRow, key: str) -> None:
    """Give the blob another storage key, where its bytes are. A blob that was pushed again meanwhile is not changed."""
    connection.execute(update(blobs).where(_unchanged(row)).values(storage_key=key, lost_at=None))


def mark_lost(connection: Connection, row: BlobRow) -> None:
    """Mark the blob as lost: clients get the answer that it does not exist, and push it again.

    A blob that was pushed again meanwhile is not changed.
    """
    connection.execute(update(blobs).where(_unchanged(row)).values(lost_at=now()))


def _unchanged(row: BlobRow) -> ColumnElement[bool]:
    return and_(blobs.c.id == row.id, blobs.c.storage_key == row.storage_key)
