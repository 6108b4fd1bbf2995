"""Rows of digests that manifests name and their repository lacks, so that they can be linked when they arrive."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import and_, bindparam, delete, insert, select

from polly_dockers.db.journal import records
from polly_dockers.db.schema import manifest_missing
from polly_dockers.db.statement import VALUES, Statement, as_json

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection


AT_ONCE: Final = 1_000
"""The most manifests that one transaction links with a digest that has arrived."""
ALL: Final = 1 << 62

_SAME: Final = and_(
    manifest_missing.c.repository_id == bindparam("repository_id"), manifest_missing.c.digest == bindparam("digest")
)
_INSERT: Final = Statement(
    insert(manifest_missing)
    .prefix_with("OR IGNORE")
    .from_select(
        ["repository_id", "digest", "manifest_id"],
        select(bindparam("repository_id"), VALUES.c.value, bindparam("manifest_id")).select_from(VALUES),
    )
)
_WAITS: Final = Statement(select(manifest_missing.c.manifest_id).where(_SAME).limit(1))
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
    wanted = sorted(set(digests))
    if wanted:
        _INSERT.run(connection, {"repository_id": repository_id, "manifest_id": manifest_id, "values": as_json(wanted)})


def is_awaited(connection: Connection, repository_id: int, digest: str) -> bool:
    """Whether a manifest of the repository is recorded as one that lacks the digest."""
    return _WAITS.first(connection, {"repository_id": repository_id, "digest": digest}) is not None


def pop(connection: Connection, repository_id: int, digest: str, limit: int = ALL) -> list[int]:
    """Delete rows of a digest that has arrived; returns the ids of the manifests that the caller must link with it.

    If more wait than ``limit``, another transaction must link the rest. The journal records the arrival,
    because a rebuild may link them only for that reason.
    """
    rows = _POP.all(connection, {"repository_id": repository_id, "digest": digest, "limit": limit})
    found = [row.manifest_id for row in rows]
    if found:
        records.add(connection, records.Arrived(repository_id, digest))
    return found
