"""The time of the last pull of each manifest, to the hour; only retention policies read it.

A policy may keep what was pulled. So where no pull is known, a manifest counts as pulled: when it is restored from the
trash, and if the last pulls of a database were lost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import bindparam, delete, insert, literal, select, update

from polly_dockers.db.schema import manifest_pulls, manifests
from polly_dockers.db.sqlite import now
from polly_dockers.db.statement import Statement
from polly_dockers.system.durations import HOUR

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import Connection

CHUNK: Final = 200
"""The most ids of one query."""

_RENEW: Final = Statement(
    update(manifest_pulls)
    .where(manifest_pulls.c.manifest_id == bindparam("manifest"))
    .values(pulled_at=bindparam("at"))
)
_BEGIN: Final = Statement(
    insert(manifest_pulls).from_select(
        ["manifest_id", "pulled_at"],
        select(manifests.c.id, bindparam("at")).where(manifests.c.id == bindparam("manifest")),
    )
)
_FRESH: Final = Statement(
    select(manifest_pulls.c.manifest_id).where(
        manifest_pulls.c.manifest_id == bindparam("manifest"), manifest_pulls.c.pulled_at > bindparam("since")
    )
)


def stale(connection: Connection, manifest_ids: Sequence[int]) -> list[int]:
    """The manifests whose last recorded pull is at least an hour ago."""
    fresh = select(manifest_pulls.c.manifest_id).where(
        manifest_pulls.c.manifest_id.in_(manifest_ids), manifest_pulls.c.pulled_at > now() - HOUR
    )
    known = set(connection.execute(fresh).scalars())
    return [each for each in manifest_ids if each not in known]


def record(connection: Connection, manifest_ids: Iterable[int]) -> None:
    """Record that manifests were pulled now. Manifests that were purged meanwhile are skipped."""
    at = now()
    for manifest_id in manifest_ids:
        if not _RENEW.run(connection, {"manifest": manifest_id, "at": at}):
            _BEGIN.run(connection, {"manifest": manifest_id, "at": at})


def record_if_stale(connection: Connection, manifest_id: int) -> None:
    """Record a pull of now, unless the last recorded one is less than an hour ago."""
    if _FRESH.first(connection, {"manifest": manifest_id, "since": now() - HOUR}) is None:
        record(connection, [manifest_id])


def record_restored(connection: Connection, manifest_id: int) -> None:
    """Count a restored manifest as pushed and pulled now, so that no policy deletes it again at once."""
    connection.execute(update(manifests).where(manifests.c.id == manifest_id).values(pushed_at=now()))
    record(connection, [manifest_id])


def record_all(connection: Connection) -> None:
    """Count all manifests as pulled now, because the last pulls of this database were lost."""
    connection.execute(delete(manifest_pulls))
    every = select(manifests.c.id, literal(now()))
    connection.execute(insert(manifest_pulls).from_select(["manifest_id", "pulled_at"], every))
