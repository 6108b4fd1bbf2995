"""Rows of digests that manifests name and their repository lacks, so that they can be linked when they arrive."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import bindparam, delete, insert, select

from polly_dockers.db.schema import manifest_missing
from polly_dockers.db.statement import Statement

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection


_KNOWN: Final = Statement(
    select(manifest_missing.c.digest).where(manifest_missing.c.manifest_id == bindparam("manifest_id"))
)
_INSERT: Final = Statement(insert(manifest_missing), "repository_id", "digest", "manifest_id")
_POP: Final = Statement(
    delete(manifest_missing)
    .where(
        manifest_missing.c.repository_id == bindparam("repository_id"),
        manifest_missing.c.digest == bindparam("digest"),
    )
    .returning(manifest_missing.c.manifest_id)
)


def record(connection: Connection, repository_id: int, manifest_id: int, digests: Iterable[str]) -> None:
    """Record the digests that the manifest names and the repository lacks."""
    known = {row.digest for row in _KNOWN.all(connection, {"manifest_id": manifest_id})}
    for digest in sorted(set(digests) - known):
        _INSERT.run(connection, {"repository_id": repository_id, "digest": digest, "manifest_id": manifest_id})


def pop(connection: Connection, repository_id: int, digest: str) -> list[int]:
    """Delete the rows of a digest that has arrived; returns the ids of the manifests that name it."""
    return [row.manifest_id for row in _POP.all(connection, {"repository_id": repository_id, "digest": digest})]
