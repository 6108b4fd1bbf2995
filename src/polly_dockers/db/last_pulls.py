"""When manifests were pulled last, to the hour: written on the side, for policies alone to read.

A policy may keep what was pulled, and whoever has just found a manifest may be about to name it in an index. So what
is not known counts as pulled: what was restored from the trash, and all of a database whose own last pulls were lost.
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
"""Ids of one query, at most."""

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
    """Those whose pull of now is worth a write: the last one that was written is an hour old."""
    fresh = select(manifest_pulls.c.manifest_id).where(
        manifest_pulls.c.manifest_id.in_(manifest_ids), manifest_pulls.c.pulled_at > now() - HOUR
    )
    known = set(connection.execute(fresh).scalars())
    return [each for each in manifest_ids if each not in known]


def record(connection: Connection, manifest_ids: Iterable[int]) -> None:
    """Write that manifests were pulled now. One that was purged meanwhile is passed over."""
    at = now()
    for manifest_id in manifest_ids:
        if not _RENEW.run(connection, {"manifest": manifest_id, "at": at}):
            _BEGIN.run(connection, {"manifest": manifest_id, "at": at})


def record_if_stale(connection: Connection, manifest_id: int) -> None:
    """As ``record``, where that is worth a write."""
    if _FRESH.first(connection, {"manifest": manifest_id, "since": now() - HOUR}) is None:
        record(connection, [manifest_id])


def record_restored(connection: Connection, manifest_id: int) -> None:
    """A manifest came back from the trash: it counts as pushed and pulled now, or a policy took it again at once."""
    connection.execute(update(manifests).where(manifests.c.id == manifest_id).values(pushed_at=now()))
    record(connection, [manifest_id])


def record_all(connection: Connection) -> None:
    """The last pulls of this database were lost, so nobody knows that anything was not pulled."""
    connection.execute(delete(manifest_pulls))
    every = select(manifests.c.id, literal(now()))
    connection.execute(insert(manifest_pulls).from_select(["manifest_id", "pulled_at"], every))
