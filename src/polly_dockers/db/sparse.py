"""Rows of digests that manifests name and their repository lacks, so that they can be linked when they arrive."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import and_, bindparam, delete, exists, insert, literal, select

from polly_dockers.db.journal import records
from polly_dockers.db.schema import manifest_missing
from polly_dockers.db.statement import Statement

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection


WAITING: Final = 100
"""The most manifests that may wait for one digest in a repository, except for layers that need not be pushed."""
AT_ONCE: Final = 1_000
"""The most manifests that one request links with what it pushes."""
ALL: Final = 1 << 62

_SAME: Final = and_(
    manifest_missing.c.repository_id == bindparam("repository_id"), manifest_missing.c.digest == bindparam("digest")
)
_INSERT: Final = Statement(
    insert(manifest_missing).from_select(
        ["repository_id", "digest", "manifest_id"],
        select(bindparam("repository_id"), bindparam("digest"), bindparam("manifest_id")).where(
            ~exists(select(literal(1)).where(_SAME, manifest_missing.c.manifest_id == bindparam("manifest_id")))
        ),
    )
)
_LAST_ALLOWED: Final = Statement(
    select(manifest_missing.c.manifest_id)
    .where(_SAME, manifest_missing.c.manifest_id != bindparam("manifest_id"))
    .limit(1)
    .offset(WAITING - 1)
)
_POP: Final = Statement(
    delete(manifest_missing)
    .where(
        _SAME,
        manifest_missing.c.manifest_id.in_(
            select(manifest_missing.c.manifest_id)
            .where(_SAME)
            .order_by(manifest_missing.c.manifest_id)
            .limit(bindparam("limit"))
        ),
    )
    .returning(manifest_missing.c.manifest_id)
)
_LACKED: Final = Statement(
    select(manifest_missing.c.digest).where(manifest_missing.c.manifest_id == bindparam("manifest_id"))
)


def lacked(connection: Connection, manifest_id: int) -> list[str]:
    """The digests that the manifest names and its repository lacks, in order."""
    return sorted(row.digest for row in _LACKED.all(connection, {"manifest_id": manifest_id}))


def record(connection: Connection, repository_id: int, manifest_id: int, digests: Iterable[str]) -> None:
    """Record the digests that the manifest names and the repository lacks."""
    for digest in sorted(set(digests)):
        _INSERT.run(connection, {"repository_id": repository_id, "digest": digest, "manifest_id": manifest_id})


def crowded(connection: Connection, repository_id: int, manifest_id: int | None, digests: Iterable[str]) -> str | None:
    """The first of the digests that WAITING manifests other than this one wait for; None if there is none."""
    own = {"repository_id": repository_id, "manifest_id": manifest_id or 0}
    full = (each for each in digests if _LAST_ALLOWED.first(connection, own | {"digest": each}) is not None)
    return next(full, None)


def pop(connection: Connection, repository_id: int, digest: str, limit: int = ALL) -> list[int]:
    """Delete rows of a digest that has arrived; returns the ids of the manifests that the caller must link with it.

    If more wait than ``limit``, the rest waits until the digest is pushed again. The journal records the arrival,
    because a rebuild may link them only for that reason.
    """
    rows = _POP.all(connection, {"repository_id": repository_id, "digest": digest, "limit": limit})
    found = [row.manifest_id for row in rows]
    if found:
        records.add(connection, records.Arrived(repository_id, digest))
    return found
