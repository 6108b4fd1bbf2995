"""The total size of a manifest: its own bytes, those of all manifests below it, and those of all their blobs.

Each manifest and each blob counts once. Indexes can hold each other in many ways, so that few small requests make a
graph that takes seconds to read. Therefore one transaction reads only a part of it, which is more than any real image
has. The total size of a larger one is a lower bound.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import bindparam, select, update

from polly_dockers.db.schema import blobs, manifest_blobs, manifest_children, manifests
from polly_dockers.db.statement import Statement
from polly_dockers.oci.manifest import INDEXES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection

NESTED: Final = 100
"""The most indexes that are read to measure a manifest, or all that one request changes."""
MANIFESTS: Final = 2_000
"""The most entries of these indexes that are counted."""
BLOBS: Final = 12_000
"""The most blobs that are counted: more than one image can have."""

_OWN: Final = Statement(
    select(manifests.c.size, manifests.c.total_size, manifests.c.media_type).where(manifests.c.id == bindparam("id"))
)
_BLOBS: Final = Statement(
    select(blobs.c.id, blobs.c.size)
    .join(manifest_blobs, manifest_blobs.c.blob_id == blobs.c.id)
    .where(manifest_blobs.c.manifest_id == bindparam("id"))
    .limit(bindparam("limit"))
)
_CHILDREN: Final = Statement(
    select(manifests.c.id, manifests.c.size, manifests.c.media_type)
    .join(manifest_children, manifest_children.c.child_id == manifests.c.id)
    .where(manifest_children.c.manifest_id == bindparam("id"))
    .order_by(manifest_children.c.child_id)
    .limit(bindparam("limit"))
)
_BLOBS_OF_CHILDREN: Final = Statement(
    select(blobs.c.id, blobs.c.size)
    .join(manifest_blobs, manifest_blobs.c.blob_id == blobs.c.id)
    .join(manifest_children, manifest_children.c.child_id == manifest_blobs.c.manifest_id)
    .where(manifest_children.c.manifest_id == bindparam("id"))
    .limit(bindparam("limit"))
)
_SET: Final = Statement(update(manifests).where(manifests.c.id == bindparam("manifest")), "total_size")


@dataclass(slots=True)
class _Budget:
    """What may still be read; negative once something was left out."""

    nested: int = NESTED
    manifests: int = MANIFESTS
    blobs: int = BLOBS

    @property
    def within(self) -> bool:
        """Whether nothing was left out so far."""
        return min(self.nested, self.manifests, self.blobs) >= 0


def measure(connection: Connection, manifest_ids: Iterable[int]) -> None:
    """Update the total sizes of some manifests. They share what may be read; beyond that, sizes only grow."""
    budget = _Budget()
    for manifest_id in manifest_ids:
        row = _OWN.first(connection, {"id": manifest_id})
        if row is None:
            continue
        total = row.size + _below(connection, manifest_id, budget, index=row.media_type in INDEXES)
        if budget.within or total > row.total_size:
            _SET.run(connection, {"manifest": manifest_id, "total_size": total})
        if not budget.within:
            return


def _below(connection: Connection, manifest_id: int, budget: _Budget, *, index: bool) -> int:
    """The bytes of what a manifest names, level by level, as far as the budget allows."""
    content: dict[int, int] = {
        row.id: row.size for row in _BLOBS.all(connection, {"id": manifest_id, "limit": budget.blobs + 1})
    }
    budget.blobs -= len(content)
    counted: dict[int, int] = {manifest_id: 0}
    waiting = deque([manifest_id] if index else [])
    while waiting and budget.within:
        at = waiting.popleft()
        budget.nested -= 1
        children = _CHILDREN.all(connection, {"id": at, "limit": budget.manifests + 1})
        named = _BLOBS_OF_CHILDREN.all(connection, {"id": at, "limit": max(budget.blobs, 0) + 1})
        budget.manifests -= len(children)
        budget.blobs -= len(named)
        content.update((row.id, row.size) for row in named)
        waiting.extend(row.id for row in children if row.id not in counted and row.media_type in INDEXES)
        counted.update((row.id, row.size) for row in children if row.id not in counted)
    return sum(counted.values()) + sum(content.values())
