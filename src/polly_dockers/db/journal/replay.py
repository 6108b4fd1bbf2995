"""Applying the journal to a database that lacks its changes: one that was lost, or that comes from a backup.

Rows of organisations, users, repositories, manifests, commits, tags and the trash are made again with their ids and
times. What indexes hold, and what manifests lack, is at each step as it was then. The rest of a rebuild is in
``references``: rows of blobs, links to them, and totals.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from msgspec.structs import asdict
from sqlalchemy import delete, func, insert, select, update

from polly_dockers.db import audit, garbage, manifests, restore, schema, sparse, trash
from polly_dockers.db.journal import frames, records, references, state
from polly_dockers.db.schema import MARK, commits, organisations, repositories, tags, users
from polly_dockers.oci import manifest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sqlalchemy import Connection, Table


class Replay:
    """A replay on one connection, inside one transaction of the caller."""

    def __init__(self, connection: Connection, nobody: str) -> None:
        """``nobody`` is a password hash that no password matches, for users: the journal has no passwords."""
        self._connection = connection
        self._nobody = nobody
        self.manifests: list[int] = []
        """Ids of manifests whose rows were made."""
        self.batches = 0
        self.to_link = references.ToLink()
        self._in_snapshot = False
        self._awaited: defaultdict[int, list[int]] = defaultdict(list)
        """Ids of manifests that have no row yet, each with the indexes that hold it."""
        self._how: dict[type, Callable[[Any], None]] = {
            records.OrganisationSet: self._organisation,
            records.UserMade: self._user,
            records.RepositoryMade: self._repository,
            records.RepositoryChanged: self._changed,
            records.ManifestPushed: self._manifest,
            records.Arrived: self._arrived,
            records.Committed: self._commit,
            records.MovedToTrash: self._moved_to_trash,
            records.Restored: self._restored,
            records.BlobHidden: self._blob_hidden,
            records.Claimed: self._claimed,
            records.Purged: self._purged,
            records.Audited: self._audited,
            records.Sealed: self._sealed,
            records.AuditStart: self._audit_start,
            records.LastId: self._last_id,
        }

    def apply(self, found: Iterable[records.Batch]) -> None:
        """Apply batches in their order, and set the last batch of the database."""
        last = 0
        for batch in found:
            self._in_snapshot = batch.previous < frames.FIRST
            for record in batch.records:
                self._how[type(record)](record)
            self.batches += 1
            last = batch.id
        if last:
            state.advance(self._connection, last)
        for parents in self._awaited.values():  # children without a record: it is not known what else is no blob
            self.to_link.older |= dict.fromkeys(parents, references.SparseThen.YES)
        records.pending(self._connection).clear()

    def _put(self, table: Table, values: dict[str, Any]) -> bool:
        """Insert a row if its id is free; returns whether it did."""
        known = select(table.c.id).where(table.c.id == values["id"])
        if self._connection.execute(known).first() is not None:
            return False
        self._connection.execute(insert(table).values(values))
        return True

    def _organisation(self, record: records.OrganisationSet) -> None:
        if not self._put(organisations, asdict(record)):
            settings = {"slug": record.slug, "create_on_push": int(record.create_on_push), "policy": record.policy}
            self._connection.execute(update(organisations).where(organisations.c.id == record.id).values(settings))

    def _user(self, record: records.UserMade) -> None:
        self._put(users, asdict(record) | {"password_hash": self._nobody})

    def _repository(self, record: records.RepositoryMade) -> None:
        self._put(repositories, asdict(record) | {"active_at": record.created_at})

    def _changed(self, record: records.RepositoryChanged) -> None:
        allowed = {"description", "access", "sparse_indexes", "policy"}
        values = {key: value for key, value in record.values.items() if key in allowed}
        self._connection.execute(update(repositories).where(repositories.c.id == record.id).values(values))

    def _manifest(self, record: records.ManifestPushed) -> None:
        parsed = manifest.parse(record.body, record.media_type, stored=True)
        columns = asdict(record)
        missing, children = columns.pop("missing"), columns.pop("children")
        made = self._put(
            schema.manifests,
            {
                **columns,
                "media_type": parsed.media_type,
                "artifact_type": parsed.artifact_type,
                "subject": parsed.subject,
                "annotations": manifests.text_of(parsed.annotations),
                "size": parsed.size,
                "total_size": parsed.size,
            },
        )
        if not made:
            return
        self.manifests.append(record.id)
        self.to_link.manifests[record.id] = None
        for digest in references.named_by(parsed).difference(missing or ()):
            self.to_link.hidden.pop((record.repository_id, digest), None)
        for parent in self._awaited.pop(record.id, ()):
            self._hold(parent, [record.id])
        if missing is not None:
            sparse.record(self._connection, record.repository_id, record.id, missing)
            known = references.existing(self._connection, children)
            self._hold(record.id, [child for child in children if child in known])
            for child in children:
                if child not in known:
                    self._awaited[child].append(record.id)
        else:
            self.to_link.older[record.id] = self._sparse_then(record.repository_id)
            for parent in sparse.pop(self._connection, record.repository_id, record.digest):
                self._hold(parent, [record.id])

    def _hold(self, parent: int, children: list[int]) -> None:
        references.hold(self._connection, parent, children)
        self.to_link.manifests[parent] = None

    def _sparse_then(self, repository_id: int) -> references.SparseThen:
        """Whether the repository accepts sparse indexes at this point of the journal."""
        if self._in_snapshot:
            return references.SparseThen.UNKNOWN
        mine = select(repositories.c.sparse_indexes).where(repositories.c.id == repository_id)
        allowed = self._connection.execute(mine).scalar_one_or_none() == "allow"
        return references.SparseThen.YES if allowed else references.SparseThen.NO

    def _arrived(self, record: records.Arrived) -> None:
        self.to_link.arrived.add((record.repository_id, record.digest))
        self.to_link.hidden.pop((record.repository_id, record.digest), None)
        child = manifests.find_id(self._connection, record.repository_id, record.digest)
        for parent in sparse.pop(self._connection, record.repository_id, record.digest):
            self._hold(parent, [child] if child is not None else [])  # a blob is linked at the end

    def _commit(self, record: records.Committed) -> None:
        values = asdict(record)
        del values["active"]  # its tag has that row
        if not self._put(commits, values) or not record.active:
            return
        place = {"manifest_id": record.manifest_id, "commit_id": record.id}
        this_tag = (tags.c.repository_id == record.repository_id) & (tags.c.name == record.tag)
        if self._connection.execute(update(tags).where(this_tag).values(place)).rowcount == 0:
            row = {"repository_id": record.repository_id, "name": record.tag, **place}
            self._connection.execute(insert(tags).values(row))

    def _moved_to_trash(self, record: records.MovedToTrash) -> None:
        if not self._put(schema.trash, asdict(record) | {"commits": 0, "size": 0}):
            return
        hide = {
            trash.TAG: self._move_tag,
            trash.COMMIT: self._move_commit,
            trash.REPOSITORY: self._move_repository,
            trash.ORGANISATION: self._move_organisation,
        }
        hide[record.kind](record)

    def _move_tag(self, record: records.MovedToTrash) -> None:
        this_tag = (tags.c.repository_id == record.repository_id) & (tags.c.name == record.name)
        self._connection.execute(delete(tags).where(this_tag))

    def _move_commit(self, record: records.MovedToTrash) -> None:
        mine = (schema.manifests.c.repository_id == record.repository_id) & (schema.manifests.c.digest == record.name)
        found = self._connection.execute(select(schema.manifests.c.id).where(mine)).scalar_one_or_none()
        if found is None:
            return
        self._connection.execute(delete(tags).where(tags.c.manifest_id == found))
        trash.detach_from_indexes(self._connection, record.repository_id or 0, found, record.name)
        mark = f"{MARK}{found}"
        marked = {
            "digest": schema.manifests.c.digest + mark,
            "subject": schema.manifests.c.subject + mark,
            "trash_id": record.id,
        }
        self._connection.execute(update(schema.manifests).where(schema.manifests.c.id == found).values(marked))
        self._connection.execute(update(commits).where(commits.c.manifest_id == found).values(in_trash=1))
        place = {"repository_id": record.repository_id, "trash_id": record.id}
        names = [place | {"tag": tag} for tag in record.tags.split()]
        if names:
            self._connection.execute(insert(schema.trash_tags), names)
        count = select(func.count()).where(commits.c.manifest_id == found).scalar_subquery()
        self._connection.execute(update(schema.trash).where(schema.trash.c.id == record.id).values(commits=count))

    def _move_repository(self, record: records.MovedToTrash) -> None:
        hidden = {"name": f"{record.name}{MARK}{record.repository_id}", "deleted_at": record.deleted_at}
        self._connection.execute(update(repositories).where(repositories.c.id == record.repository_id).values(hidden))

    def _move_organisation(self, record: records.MovedToTrash) -> None:
        hidden = {"slug": f"{record.name}{MARK}{record.organisation_id}", "deleted_at": record.deleted_at}
        mine = organisations.c.id == record.organisation_id
        self._connection.execute(update(organisations).where(mine).values(hidden))

    def _restored(self, record: records.Restored) -> None:
        item = trash.get(self._connection, record.id)
        if item is None:
            return
        if item.kind == trash.TAG:
            restore.restore_tag_with_commit(self._connection, item)
        elif item.kind == trash.COMMIT and record.tags is not None:
            restore.restore_part(self._connection, item, record.tags)
        elif item.kind == trash.COMMIT:
            restore.restore_manifest(self._connection, item)
        elif item.kind == trash.REPOSITORY:
            restore.restore_repository(self._connection, item, record.name)
        else:
            restore.restore_organisation(self._connection, item, record.name)

    def _blob_hidden(self, record: records.BlobHidden) -> None:
        self.to_link.hidden[record.repository_id, record.digest] = record.hidden  # links are made at the end

    def _claimed(self, record: records.Claimed) -> None:
        item = trash.get(self._connection, record.id)
        if item is not None:
            trash.claim(self._connection, item)

    def _purged(self, record: records.Purged) -> None:
        item = trash.get(self._connection, record.id)
        if item is None:
            return
        if item.kind == trash.COMMIT:
            while not garbage.purge_manifest(self._connection, item, 0):
                pass
        elif item.kind == trash.REPOSITORY:
            trash.claim(self._connection, item)
            self._purge_repository(item, item.repository_id or 0)
        elif item.kind == trash.ORGANISATION:
            trash.claim(self._connection, item)
            for repository_id in garbage.repositories_of(self._connection, item.organisation_id):
                self._purge_repository(item, repository_id)
            garbage.purge_organisation(self._connection, item)
        else:
            trash.delete_item(self._connection, item.id)

    def _audited(self, record: records.Audited) -> None:
        self._put(schema.audit, asdict(record))

    def _audit_start(self, record: records.AuditStart) -> None:
        audit.put_start(self._connection, record)

    def _last_id(self, record: records.LastId) -> None:
        state.put_last_id(self._connection, record.table, record.id)

    def _sealed(self, _record: records.Sealed) -> None:
        """Do nothing: sealing the same entries again gives the same hashes."""

    def _purge_repository(self, item: trash.Item, repository_id: int) -> None:
        while garbage.purge_repository(self._connection, item, repository_id, 0) is not None:
            pass
