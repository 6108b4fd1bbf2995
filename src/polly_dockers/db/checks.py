"""Rows as a check looks at them, and what it does to those of damaged blobs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import ColumnElement, and_, func, select, update

from polly_dockers.db.schema import blobs, commits, manifest_blobs, manifests, organisations, repositories, tags
from polly_dockers.db.sqlite import now

if TYPE_CHECKING:
    from sqlalchemy import Connection, Row

PAGE: Final = 100
IMAGES: Final = 20
"""Images that are named for a damaged blob, at most."""


@dataclass(frozen=True, slots=True)
class BlobRow:
    """A blob as its row tells."""

    id: int
    digest: str
    size: int
    storage_key: str
    lost: bool


_BLOBS: Final = select(
    blobs.c.id, blobs.c.digest, blobs.c.size, blobs.c.storage_key, blobs.c.lost_at.is_not(None).label("lost")
)


def size_of_blobs(connection: Connection) -> int:
    """Bytes of all blobs."""
    return int(connection.execute(select(func.coalesce(func.sum(blobs.c.size), 0))).scalar_one())


def of_database(connection: Connection) -> list[str]:
    """What SQLite itself finds wrong with its file, in its words."""
    found = [row[0] for row in connection.exec_driver_sql("PRAGMA quick_check(20)")]
    broken = [
        f"{row[0]} refers to {row[2]} rows that are not there"
        for row in connection.exec_driver_sql("PRAGMA foreign_key_check").fetchmany(20)
    ]
    return [each for each in found if each != "ok"] + broken


def blobs_after(connection: Connection, after: int) -> list[BlobRow]:
    """A page of blobs by their ids."""
    query = _BLOBS.where(blobs.c.id > after).order_by(blobs.c.id).limit(PAGE)
    return [BlobRow(*row) for row in connection.execute(query)]


def blob(connection: Connection, blob_id: int) -> BlobRow | None:
    """The blob of that id, as it is now."""
    row = connection.execute(_BLOBS.where(blobs.c.id == blob_id)).first()
    return BlobRow(*row) if row is not None else None


def manifests_after(connection: Connection, after: int) -> list[Row[*tuple[Any, ...]]]:
    """A page of manifests by their ids: rows (id, digest, body, path)."""
    path = organisations.c.slug + "/" + repositories.c.name
    query = (
        select(manifests.c.id, manifests.c.digest, manifests.c.body, path.label("path"))
        .join(repositories, repositories.c.id == manifests.c.repository_id)
        .join(organisations, organisations.c.id == repositories.c.organisation_id)
        .where(manifests.c.id > after)
        .order_by(manifests.c.id)
        .limit(PAGE)
    )
    return list(connection.execute(query).all())


def images_of(connection: Connection, blob_id: int) -> list[str]:
    """Images that name the blob, ``organisation/name[:tag]@digest``, those of active tags first."""
    query = (
        select(organisations.c.slug, repositories.c.name, commits.c.tag, manifests.c.digest, tags.c.commit_id)
        .select_from(manifest_blobs.join(manifests, manifests.c.id == manifest_blobs.c.manifest_id))
        .join(repositories, repositories.c.id == manifests.c.repository_id)
        .join(organisations, organisations.c.id == repositories.c.organisation_id)
        .outerjoin(commits, commits.c.manifest_id == manifests.c.id)
        .outerjoin(tags, tags.c.commit_id == commits.c.id)
        .where(manifest_blobs.c.blob_id == blob_id)
        .order_by(tags.c.commit_id.is_(None), organisations.c.slug, repositories.c.name, commits.c.id)
        .limit(IMAGES)
    )
    found = []
    for row in connection.execute(query):
        tag = f":{row.tag}" if row.tag is not None else ""
        found.append(f"{row.slug}/{row.name}{tag}@{row.digest.partition('~')[0]}")
    return found


def mend(connection: Connection, row: BlobRow, key: str) -> None:
    """Let the blob have its bytes under another key. One that was pushed again meanwhile stays as it is."""
    connection.execute(update(blobs).where(_as_it_was(row)).values(storage_key=key, lost_at=None))


def lose(connection: Connection, row: BlobRow) -> None:
    """Say that the bytes of the blob are lost: clients are told that it is not there, and push it again.

    One that was pushed again meanwhile stays as it is.
    """
    connection.execute(update(blobs).where(_as_it_was(row)).values(lost_at=now()))


def _as_it_was(row: BlobRow) -> ColumnElement[bool]:
    return and_(blobs.c.id == row.id, blobs.c.storage_key == row.storage_key)
