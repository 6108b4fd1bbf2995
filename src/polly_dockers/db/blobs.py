"""Rows of blobs, and of their links to repositories.

A digest alone grants no access: almost every query here is about one repository.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import bindparam, func, insert, select, update

from polly_dockers.db import repositories, schema, sparse
from polly_dockers.db.journal import records
from polly_dockers.db.schema import (
    HELD,
    HIDDEN,
    blobs,
    manifest_blobs,
    manifests,
    members,
    organisations,
    repository_blobs,
)
from polly_dockers.db.sqlite import now
from polly_dockers.db.statement import VALUES, Statement, as_json
from polly_dockers.system.durations import SECOND

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection

    from polly_dockers.model import Digest


@dataclass(frozen=True, slots=True)
class LinkedBlob:
    """A blob that a repository has."""

    id: int
    digest: str
    size: int
    storage_key: str
    leased_until: int

    @property
    def held(self) -> bool:
        """Whether a manifest holds it, so that it needs no lease."""
        return self.leased_until == HELD


_ALL_LINKED: Final = (
    select(blobs.c.id, blobs.c.digest, blobs.c.size, blobs.c.storage_key, repository_blobs.c.leased_until)
    .join(
        repository_blobs, repository_blobs.c.blob_id == blobs.c.id + 0
    )  # + 0: never begin with the repository's blobs
    .where(repository_blobs.c.leased_until > HIDDEN, blobs.c.lost_at.is_(None))
)
_LINKED: Final = _ALL_LINKED.where(blobs.c.digest == bindparam("digest"))
_HERE: Final = repository_blobs.c.repository_id == bindparam("repository_id")
_FIND: Final = Statement(_LINKED.where(_HERE))
_FIND_ALL: Final = Statement(_ALL_LINKED.where(_HERE, blobs.c.digest.in_(select(VALUES.c.value))))


def find(connection: Connection, repository_id: int, digest: str) -> LinkedBlob | None:
    """The blob, if the repository has it; else None."""
    row = _FIND.first(connection, {"repository_id": repository_id, "digest": digest})
    return LinkedBlob(*row) if row is not None else None


def find_all(connection: Connection, repository_id: int, digests: Iterable[str]) -> dict[str, LinkedBlob]:
    """The blobs that the repository has, by digest, in the same order."""
    wanted = dict.fromkeys(digests)
    rows = _FIND_ALL.all(connection, {"repository_id": repository_id, "values": as_json(wanted)}) if wanted else []
    found = {row.digest: LinkedBlob(*row) for row in rows}
    return {digest: found[digest] for digest in wanted if digest in found}


_KNOWN: Final = Statement(select(blobs.c.id, blobs.c.lost_at).where(blobs.c.digest == bindparam("digest")))
_ADD: Final = Statement(insert(blobs).returning(blobs.c.id), "digest", "size", "storage_key", "created_at")


def add(
    connection: Connection, *, repository_id: int, digest: Digest, size: int, storage_key: str, lease: int
) -> str | None:
    """Insert a blob, unless its digest has one, and link it to the repository with a lease of ``lease`` seconds.

    Returns the storage key if it is not needed, because the blob exists already; else None.
    """
    known = _KNOWN.first(connection, {"digest": digest})
    made = known or _ADD.first(
        connection, {"digest": digest, "size": size, "storage_key": storage_key, "created_at": now()}
    )
    if known is None:
        _link(connection, repository_id, made.id, digest, size, lease)
        return None
    link(connection, repository_id=repository_id, blob_id=made.id, digest=digest, size=size, lease=lease)
    if known.lost_at is None:
        return storage_key
    found = update(blobs).where(blobs.c.id == made.id)
    connection.execute(found.values(storage_key=storage_key, size=size, lost_at=None))
    return None


_LEASE: Final = Statement(
    select(repository_blobs.c.leased_until).where(
        repository_blobs.c.repository_id == bindparam("repository_id"),
        repository_blobs.c.blob_id == bindparam("blob_id"),
    )
)
_RENEW: Final = Statement(
    update(repository_blobs).where(
        repository_blobs.c.repository_id == bindparam("of_repository"),
        repository_blobs.c.blob_id == bindparam("of_blob"),
    ),
    "leased_until",
)
_LINK: Final = Statement(insert(repository_blobs), "repository_id", "blob_id", "leased_until")
_LINK_TO_MANIFEST: Final = Statement(insert(manifest_blobs), "manifest_id", "repository_id", "blob_id")
_IS_LINKED: Final = Statement(
    select(manifest_blobs.c.blob_id).where(
        manifest_blobs.c.manifest_id == bindparam("manifest_id"), manifest_blobs.c.blob_id == bindparam("blob_id")
    )
)
_GROW: Final = Statement(
    update(manifests)
    .where(manifests.c.id == bindparam("manifest"))
    .values(total_size=manifests.c.total_size + bindparam("more"))
)


def link(connection: Connection, *, repository_id: int, blob_id: int, digest: str, size: int, lease: int) -> None:
    """Link the blob to the repository, or renew its lease."""
    known = _LEASE.first(connection, {"repository_id": repository_id, "blob_id": blob_id})
    if known is None:
        _link(connection, repository_id, blob_id, digest, size, lease)
        return
    until = now() + lease * SECOND
    _RENEW.run(connection, {"of_repository": repository_id, "of_blob": blob_id, "leased_until": until})
    complete(connection, repository_id, blob_id, digest, size)  # it may have been hidden or lost
    if known.leased_until == HIDDEN:
        records.add(connection, records.BlobHidden(repository_id, digest, hidden=False))
        repositories.add_delta(connection, repository_id, size=size)


def _link(connection: Connection, repository_id: int, blob_id: int, digest: str, size: int, lease: int) -> None:
    until = now() + lease * SECOND
    _LINK.run(connection, {"repository_id": repository_id, "blob_id": blob_id, "leased_until": until})
    complete(connection, repository_id, blob_id, digest, size)
    repositories.add_delta(connection, repository_id, size=size)


def complete(connection: Connection, repository_id: int, blob_id: int, digest: str, size: int) -> None:
    """Link a blob of the repository with manifests there that name it and lacked it, at most AT_ONCE."""
    for manifest_id in sparse.pop(connection, repository_id, digest, sparse.AT_ONCE):
        if _IS_LINKED.first(connection, {"manifest_id": manifest_id, "blob_id": blob_id}) is None:
            link_to_manifest(connection, repository_id, manifest_id, blob_id)
            _GROW.run(connection, {"manifest": manifest_id, "more": size})


def link_to_manifest(connection: Connection, repository_id: int, manifest_id: int, blob_id: int) -> None:
    """Link a manifest with a blob that it names. It must not be linked yet."""
    _LINK_TO_MANIFEST.run(connection, {"manifest_id": manifest_id, "repository_id": repository_id, "blob_id": blob_id})


def find_anywhere(connection: Connection, user_id: int, digest: Digest) -> LinkedBlob | None:
    """The blob, if a repository of the user's organisations has it."""
    row = _ANYWHERE.first(connection, {"user_id": user_id, "digest": digest})
    return LinkedBlob(*row) if row is not None else None


_ANYWHERE: Final = Statement(
    _LINKED.join(schema.repositories, schema.repositories.c.id == repository_blobs.c.repository_id)
    .join(members, members.c.organisation_id == schema.repositories.c.organisation_id)
    .join(organisations, organisations.c.id == schema.repositories.c.organisation_id)
    .where(
        members.c.user_id == bindparam("user_id"),
        schema.repositories.c.deleted_at.is_(None),
        organisations.c.deleted_at.is_(None),
    )
    .limit(1)
)


_OF_MANIFEST: Final = Statement(
    select(manifest_blobs.c.blob_id).where(manifest_blobs.c.manifest_id == bindparam("manifest_id"))
)


def ids_of_manifest(connection: Connection, manifest_id: int) -> set[int]:
    """The ids of the blobs that a manifest is linked with."""
    return {row.blob_id for row in _OF_MANIFEST.all(connection, {"manifest_id": manifest_id})}


def total_size(connection: Connection, blob_ids: Iterable[int]) -> int:
    """The bytes of some blobs, together."""
    query = select(func.coalesce(func.sum(blobs.c.size), 0)).where(blobs.c.id.in_(blob_ids))
    return int(connection.execute(query).scalar_one())
