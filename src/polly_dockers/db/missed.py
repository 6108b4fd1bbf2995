"""Rows of what sparse manifests name and their repository lacks: it is held for them once it comes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import delete, insert, select

from polly_dockers.db.schema import manifest_missing

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection


def note(connection: Connection, repository_id: int, manifest_id: int, digests: Iterable[str]) -> None:
    """Note what the manifest names and the repository lacks."""
    known = select(manifest_missing.c.digest).where(manifest_missing.c.manifest_id == manifest_id)
    new = sorted(set(digests) - set(connection.execute(known).scalars()))
    if new:
        connection.execute(
            insert(manifest_missing),
            [{"repository_id": repository_id, "digest": digest, "manifest_id": manifest_id} for digest in new],
        )


def take(connection: Connection, repository_id: int, digest: str) -> list[int]:
    """Ids of the manifests that have missed the digest, which is there now."""
    same = (manifest_missing.c.repository_id == repository_id) & (manifest_missing.c.digest == digest)
    query = delete(manifest_missing).where(same).returning(manifest_missing.c.manifest_id)
    return list(connection.execute(query).scalars())
