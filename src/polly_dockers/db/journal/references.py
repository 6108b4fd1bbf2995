"""Rows that a rebuild makes without the journal: links with blobs, and rows of blobs from files.

A manifest is linked with the blobs that it names, except those that it lacked according to the journal. The store holds
the blobs of all organisations. So that a blob is in it, and a manifest names it, does not prove that the repository of
the manifest ever had it.

The journals of older versions do not say what a manifest lacked. From them, a manifest is linked only with what it
could not have been pushed without, and with what its repository has for another reason.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import bindparam, insert, select, update

from polly_dockers.db import audit, manifests, schema, sparse
from polly_dockers.db.blobs import ids_of_manifest, link_to_manifest
from polly_dockers.db.journal import records
from polly_dockers.db.schema import (
    HELD,
    HIDDEN,
    MARK,
    blobs,
    manifest_children,
    organisations,
    repositories,
    repository_blobs,
    trash,
)
from polly_dockers.db.sqlite import now
from polly_dockers.db.statement import Statement
from polly_dockers.oci import manifest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from sqlalchemy import Connection, Row

    from polly_dockers.oci.manifest import Manifest

CHUNK: Final = 500
"""How many ids one query has at most."""


class SparseThen(enum.Enum):
    """Whether a repository accepted sparse indexes when a manifest was pushed to it."""

    YES = enum.auto()
    NO = enum.auto()
    UNKNOWN = enum.auto()
    """The record comes from a snapshot, and the setting may have changed since. The audit log may tell."""


@dataclass(slots=True)
class ToLink:
    """The manifests that a replay made or changed, and what the journal says about their links."""

    manifests: dict[int, None] = field(default_factory=dict)
    """Ids, in the order in which they are linked."""
    older: dict[int, SparseThen] = field(default_factory=dict)
    """Ids of manifests whose record does not say what they lacked."""
    arrived: set[tuple[int, str]] = field(default_factory=set)
    """(id of the repository, digest) of what arrived after a manifest that named it."""
    hidden: dict[tuple[int, str], bool] = field(default_factory=dict)
    """Whether a blob was hidden last, or shown, by (id of the repository, digest); not if it was pushed since."""


@dataclass(frozen=True, slots=True)
class Unlinked:
    """A digest that a manifest names and could not be linked with."""

    manifest: str
    """``organisation/name@digest``, as it is or was called."""
    digest: str


def add_blobs(connection: Connection, stored: Iterable[tuple[str, str, int]]) -> int:
    """Insert rows of blobs that are stored, for digests without a row; returns how many.

    ``stored``: digest, storage key and size.
    """
    count = 0
    for digest, key, size in stored:
        if _BLOB.first(connection, {"digest": digest}) is None:
            row = {"digest": digest, "size": size, "storage_key": key, "created_at": now()}
            connection.execute(insert(blobs).values(row))
            count += 1
    return count


def existing(connection: Connection, manifest_ids: Sequence[int]) -> set[int]:
    """The ids among ``manifest_ids`` that have a row."""
    found: set[int] = set()
    for at in range(0, len(manifest_ids), CHUNK):
        some = schema.manifests.c.id.in_(manifest_ids[at : at + CHUNK])
        found |= set(connection.execute(select(schema.manifests.c.id).where(some)).scalars())
    return found


def hold(connection: Connection, manifest_id: int, child_ids: Sequence[int]) -> None:
    """Have an index hold manifests."""
    within = set(manifests.children(connection, manifest_id))
    rows = [{"manifest_id": manifest_id, "child_id": child} for child in sorted(set(child_ids) - within)]
    if rows:
        connection.execute(insert(manifest_children), rows)


_BLOB: Final = Statement(select(blobs.c.id).where(blobs.c.digest == bindparam("digest")))
_LINK: Final = Statement(
    select(repository_blobs.c.leased_until).where(
        repository_blobs.c.repository_id == bindparam("repository_id"),
        repository_blobs.c.blob_id == bindparam("blob_id"),
    )
)
_ADD_LINK: Final = Statement(insert(repository_blobs), "repository_id", "blob_id", "leased_until")
_SET: Final = Statement(
    update(repository_blobs).where(
        repository_blobs.c.repository_id == bindparam("of"), repository_blobs.c.blob_id == bindparam("blob")
    ),
    "leased_until",
)
_CHILDREN: Final = Statement(
    select(schema.manifests.c.digest)
    .join(manifest_children, manifest_children.c.child_id == schema.manifests.c.id)
    .where(manifest_children.c.manifest_id == bindparam("manifest_id"))
)


class Links:
    """Linking what a replay made, inside one transaction of the caller."""

    def __init__(self, connection: Connection, add_rows: Callable[[], None]) -> None:
        """``add_rows`` is called once, when a blob has no row: it adds the rows of all blobs in the store."""
        self._connection = connection
        self._add_rows: Callable[[], None] | None = add_rows
        self._purged = _being_purged(connection)
        self._doubts: list[tuple[int, list[str], frozenset[str]]] = []
        """Ids of manifests, what is not certain, and which of that is foreign: layers that clients fetch elsewhere."""
        self._fresh: list[tuple[int, str, int]] = []
        """What repositories have for certain by records of an older version: (repository, digest, id of the blob)."""
        self._accepted: dict[int, bool] = {}
        self.lost: list[Unlinked] = []
        """Blobs that a manifest had and that the store lacks. Blobs of what is being purged may be deleted already."""
        self.unproven: list[Unlinked] = []
        """What an older version did not record: whether the repository had it. It has to be pushed again."""

    def make(self, wanted: ToLink) -> list[int]:
        """Link the manifests; returns the ids of all that were changed."""
        for manifest_id in wanted.manifests:
            row = _row(self._connection, manifest_id)
            if row is not None:
                self._link(row, wanted.older.get(manifest_id))
        changed = [*wanted.manifests, *self._link_others()]
        for manifest_id, digests, foreign in self._doubts:
            if (row := _row(self._connection, manifest_id)) is not None:
                self._settle(row, digests, foreign, wanted.arrived)
        for (repository_id, digest), hidden in wanted.hidden.items():
            self._hide(repository_id, digest, hidden=hidden)
        records.pending(self._connection).clear()
        return changed

    def _link(self, row: Row[*tuple[Any, ...]], older: SparseThen | None) -> None:
        """Link a manifest. ``older`` is None if its record says what it lacked."""
        parsed = manifest.parse(row.body, row.media_type, stored=True)
        inside = _CHILDREN.all(self._connection, {"manifest_id": row.id})
        other = {*sparse.lacked(self._connection, row.id), *(child.digest.partition(MARK)[0] for child in inside)}
        named = [digest for digest in dict.fromkeys(_named(parsed)) if digest not in other]
        if older is not None:
            if parsed.index:
                looked_up = ((digest, _child(self._connection, row, digest)) for digest in named)
                found = {digest: child for digest, child in looked_up if child is not None}
                hold(self._connection, row.id, list(found.values()))
                named = [digest for digest in named if digest not in found]
            certain = _certain(parsed, sparse_then=self._was_sparse(row, older))
            doubtful = [digest for digest in named if digest not in certain]
            if doubtful:
                self._doubts.append((row.id, doubtful, parsed.foreign))
            named = [digest for digest in named if digest in certain]
        linked = ids_of_manifest(self._connection, row.id) if named else set()
        for digest in named:
            blob_id = self._find(digest)
            if blob_id is None:
                self._miss(row, digest, self.lost)
            elif blob_id not in linked and self._hold(row, blob_id) and older is not None:
                self._fresh.append((row.repository_id, digest, blob_id))

    def _find(self, digest: str) -> int | None:
        found = _BLOB.first(self._connection, {"digest": digest})
        if found is None and self._add_rows is not None:
            self._add_rows()
            self._add_rows = None
            found = _BLOB.first(self._connection, {"digest": digest})
        return found.id if found is not None else None

    def _hold(self, row: Any, blob_id: int) -> bool:  # noqa: ANN401 - the row of a manifest
        """Link a manifest and its repository with a blob; returns whether the repository did not have the blob."""
        link = _LINK.first(self._connection, {"repository_id": row.repository_id, "blob_id": blob_id})
        if link is None:
            key = {"repository_id": row.repository_id, "blob_id": blob_id}
            _ADD_LINK.run(self._connection, key | {"leased_until": HELD})
        elif link.leased_until == HIDDEN and row.trash_id is None:
            _SET.run(self._connection, {"of": row.repository_id, "blob": blob_id, "leased_until": HELD})
        link_to_manifest(self._connection, row.repository_id, row.id, blob_id)
        return link is None

    def _hide(self, repository_id: int, digest: str, *, hidden: bool) -> None:
        """Hide a blob that the repository has, or show it. One that a manifest outside the trash names is shown."""
        blob = _BLOB.first(self._connection, {"digest": digest})
        key = {"repository_id": repository_id, "blob_id": blob.id} if blob is not None else {}
        link = _LINK.first(self._connection, key) if blob is not None else None
        if blob is None or link is None or (link.leased_until == HIDDEN) == hidden:
            return
        if not hidden or not manifests.blob_is_named(self._connection, repository_id, blob.id):
            until = HIDDEN if hidden else HELD
            _SET.run(self._connection, {"of": repository_id, "blob": blob.id, "leased_until": until})

    def _miss(self, row: Row[*tuple[Any, ...]], digest: str, where: list[Unlinked]) -> None:
        """Record that the manifest lacks the digest; it is linked when it is pushed again."""
        sparse.record(self._connection, row.repository_id, row.id, [digest])
        places = (("commit", row.trash_id), ("repository", row.repository_id), ("organisation", row.organisation_id))
        if self._purged.isdisjoint(places):
            path = f"{row.slug.partition(MARK)[0]}/{row.name.partition(MARK)[0]}@{row.digest.partition(MARK)[0]}"
            where.append(Unlinked(path, digest))

    def _link_others(self) -> list[int]:
        """Link manifests that lacked what their repository has now, as an older version did without a record."""
        changed: list[int] = []
        for repository_id, digest, blob_id in self._fresh:
            for manifest_id in sparse.pop(self._connection, repository_id, digest):
                row = _row(self._connection, manifest_id)
                if row is not None:
                    self._hold(row, blob_id)
                    changed.append(manifest_id)
        return changed

    def _settle(
        self, row: Row[*tuple[Any, ...]], digests: Iterable[str], foreign: frozenset[str], arrived: set[tuple[int, str]]
    ) -> None:
        """Link what the repository has for another reason, and record the rest as missing."""
        for digest in digests:
            blob = _BLOB.first(self._connection, {"digest": digest})
            key = {"repository_id": row.repository_id, "blob_id": blob.id} if blob is not None else {}
            came = (row.repository_id, digest) in arrived
            if blob is not None and (came or _LINK.first(self._connection, key) is not None):
                self._hold(row, blob.id)
            else:
                self._miss(row, digest, [] if digest in foreign else self.unproven)

    def _was_sparse(self, row: Row[*tuple[Any, ...]], then: SparseThen) -> bool:
        """Whether the repository accepted sparse indexes then.

        If that is not known: whether it may ever have accepted them, as far as the audit log goes back.
        """
        if then is not SparseThen.UNKNOWN:
            return then is SparseThen.YES
        organisation_id = row.organisation_id
        if organisation_id not in self._accepted:
            allowed = audit.may_have_set(self._connection, organisation_id, "sparse_indexes: allow")
            self._accepted[organisation_id] = allowed
        return row.sparse_indexes == "allow" or self._accepted[organisation_id]


def _row(connection: Connection, manifest_id: int) -> Row[*tuple[Any, ...]] | None:
    query = (
        select(
            schema.manifests.c.id,
            schema.manifests.c.repository_id,
            schema.manifests.c.digest,
            schema.manifests.c.media_type,
            schema.manifests.c.body,
            schema.manifests.c.trash_id,
            repositories.c.name,
            repositories.c.sparse_indexes,
            repositories.c.organisation_id,
            organisations.c.slug,
        )
        .join(repositories, repositories.c.id == schema.manifests.c.repository_id)
        .join(organisations, organisations.c.id == repositories.c.organisation_id)
        .where(schema.manifests.c.id == manifest_id)
    )
    return connection.execute(query).first()


def named_by(parsed: Manifest) -> set[str]:
    """The digests that a manifest names as its content."""
    return set(_named(parsed))


def _named(parsed: Manifest) -> list[str]:
    return [item.digest for item in (*((parsed.config,) if parsed.config else ()), *parsed.layers, *parsed.children)]


def _certain(parsed: Manifest, *, sparse_then: bool) -> set[str]:
    """The digests of blobs without which the manifest would have been refused when it was pushed."""
    if parsed.index:
        types = manifest.IMAGES | manifest.INDEXES
        manifests_too = {item.digest for item in parsed.children if item.media_type in types}
        return set() if sparse_then else {str(item.digest) for item in parsed.children} - manifests_too
    needed = [*((parsed.config,) if parsed.config else ()), *(() if sparse_then else parsed.layers)]
    return {str(item.digest) for item in needed} - parsed.foreign


def _being_purged(connection: Connection) -> set[tuple[str, int]]:
    """(kind, id) of each claimed item: the id of the item for a commit, else of the repository or organisation."""
    query = select(trash.c.kind, trash.c.id, trash.c.repository_id, trash.c.organisation_id)
    rows = connection.execute(query.where(trash.c.purging_at.is_not(None))).all()
    places = {"commit": "id", "repository": "repository_id", "organisation": "organisation_id"}
    return {(row.kind, getattr(row, places[row.kind])) for row in rows if row.kind in places}


def _child(connection: Connection, row: Row[*tuple[Any, ...]], digest: str) -> int | None:
    """The id of a manifest in the same repository; one in the trash only if the index is in the trash too."""
    found = manifests.find_id(connection, row.repository_id, digest)
    if found is not None or row.trash_id is None:
        return found
    mine = select(schema.manifests.c.id).where(schema.manifests.c.repository_id == row.repository_id)
    marked = schema.manifests.c.digest.startswith(digest + MARK, autoescape=True)
    return connection.execute(mine.where(marked).order_by(schema.manifests.c.id.desc()).limit(1)).scalar_one_or_none()
