"""The collector's steps in any order with others: nothing in use is deleted, and in the end nothing else is left.

The rows are compared with a model of what people did. The test moves the time: leases end, and tombstones come due,
when a step says so.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule
from sqlalchemy import select, update

from polly_dockers import db
from polly_dockers.db import schema
from polly_dockers.db.journal import records
from polly_dockers.db.schema import blobs, manifest_blobs, manifests, metadata, repository_blobs, tombstones
from polly_dockers.db.sqlite import open_engine
from polly_dockers.errors import NotInTrash
from polly_dockers.model import Digest
from polly_dockers.oci import manifest

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Connection

    from polly_dockers.db.trash import Item

LEASE = 3600
FAR = 1 << 60
"""A time that is later than any other."""
CONTENTS = st.integers(0, 3)
"""Few blobs, so that steps meet."""
REPOSITORIES = st.integers(0, 1)


def restored(connection: Connection, item: Item) -> bool:
    """Restore a repository or an organisation."""
    if item.kind == db.trash.REPOSITORY:
        return db.restore.restore_repository(connection, item, "another")
    return db.restore.restore_organisation(connection, item, item.name)


def digest_of(content: int) -> Digest:
    """The digest of a blob of the model."""
    return Digest(f"sha256:{hashlib.sha256(str(content).encode()).hexdigest()}")


@dataclass
class Place:
    """A repository of the model, known by its index."""

    id: int
    name: str
    item: Item | None = None
    """Its own item of the trash."""
    claimed: bool = False


class Collecting(RuleBasedStateMachine):
    """Pushes, mounts, deletions, restorations, and single steps of the collector, in any order."""

    folder: Path
    due = Bundle("due")
    seen = Bundle("seen")

    @initialize()
    def begin(self) -> None:
        """Two repositories of one organisation."""
        self.engine = open_engine(self.folder / f"{secrets.token_hex(8)}.db")
        self.connection = self.engine.connect()
        metadata.create_all(self.connection)
        self.user = db.accounts.add_user(self.connection, "a@acme.example", "!")
        self.places: list[Place] = []
        self.make_organisation()
        self.files: set[str] = set()
        self.named: dict[tuple[int, str], set[int]] = {}
        self.thrown: dict[int, tuple[int, str, set[int]]] = {}
        self.leased: set[tuple[int, int]] = set()

    def make_organisation(self) -> None:
        """Create an organisation with two repositories."""
        self.organisation = db.accounts.add_organisation(self.connection, "acme")
        self.organisation_item: Item | None = None
        self.organisation_claimed = False
        self.places = [self.make_repository(name) for name in ("one", "two")]

    def make_repository(self, name: str) -> Place:
        """Create a repository."""
        made = db.repositories.add(
            self.connection,
            organisation_id=self.organisation,
            name=name,
            description="x",
            access="private",
            user_id=self.user,
        )
        assert made is not None
        return Place(made, name)

    def teardown(self) -> None:
        """Check that everything in use is still there after all deadlines, and close the files."""
        if hasattr(self, "connection"):
            while self.organisation_claimed or any(place.claimed for place in self.places):
                self.go_on_purging()
            self.leases_end()
            for step in (self.take_expired, self.take_hidden, self.graves_grow_old):
                step()
            self.delete_files(self.look_for_graves_now())
            needed = {content for contents in self.named.values() for content in contents}
            needed |= {content for _, _, contents in self.thrown.values() for content in contents}
            keys = set(self.connection.execute(select(blobs.c.storage_key)).scalars())
            assert self.files == keys
            assert {key.partition(".")[0] for key in keys} == {digest_of(content).hex for content in needed}
            self.connection.close()
            self.engine.dispose()

    # --- what people do ---

    @rule(content=CONTENTS, at=REPOSITORIES)
    def push_blob(self, content: int, at: int) -> None:
        """Store bytes under a new key; then add the row, or find the one that exists."""
        if not self.lives(at):
            return
        digest = digest_of(content)
        key = f"{digest.hex}.{secrets.token_hex(4)}"
        self.files.add(key)
        unused = db.blobs.add(
            self.connection, repository_id=self.at(at), digest=digest, size=1, storage_key=key, lease=LEASE
        )
        if unused is not None:
            self.files.discard(unused)
        self.leased.add((at, content))

    @rule(content=CONTENTS)
    def push_blob_cut_off(self, content: int) -> None:
        """Store bytes without a row, as if the process was killed in between."""
        key = f"{digest_of(content).hex}.{secrets.token_hex(4)}"
        self.files.add(key)
        db.garbage.add_tombstones(self.connection, db.garbage.orphans(self.connection, [key]), 0)

    @rule(content=CONTENTS, source=REPOSITORIES, at=REPOSITORIES)
    def mount(self, content: int, source: int, at: int) -> None:
        """Renew the lease of a blob, by a mount, a HEAD or another push."""
        if not self.lives(at) or not self.lives(source):
            return
        found = db.blobs.find(self.connection, self.at(source), digest_of(content))
        if found is not None:
            db.blobs.link(
                self.connection,
                repository_id=self.at(at),
                blob_id=found.id,
                digest=digest_of(content),
                size=1,
                lease=LEASE,
            )
            self.leased.add((at, content))

    @rule(contents=st.sets(CONTENTS, min_size=1, max_size=3), at=REPOSITORIES)
    def push_manifest(self, contents: set[int], at: int) -> None:
        """Push a manifest if the repository has everything that it names, which it then keeps."""
        if not self.lives(at):
            return
        repository = self.at(at)
        found = db.blobs.find_all(self.connection, repository, [digest_of(content) for content in contents])
        if len(found) < len(contents):
            assert not any((at, content) in self.leased for content in contents if digest_of(content) not in found)
            return
        document: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": manifest.OCI_MANIFEST,
            "config": {"mediaType": "application/x", "digest": digest_of(min(contents)), "size": 1},
            "layers": [{"mediaType": "a/b", "digest": digest_of(each), "size": 1} for each in sorted(contents)],
        }
        body = json.dumps(document).encode()
        digest = Digest(f"sha256:{hashlib.sha256(body).hexdigest()}")
        known = db.manifests.find_id(self.connection, repository, digest)
        pushed = db.manifests.Pushed(
            repository_id=repository,
            user_id=self.user,
            digest=digest,
            manifest=manifest.parse(body, ""),
            body=body,
            platforms=[],
            blob_ids=[blob.id for blob in found.values()],
        )
        db.manifests.put(self.connection, known, pushed)
        self.named[at, digest] = contents

    @rule(contents=st.sets(CONTENTS, min_size=1, max_size=3), at=REPOSITORIES)
    def push_image(self, contents: set[int], at: int) -> None:
        """Push blobs and a manifest of them."""
        for content in sorted(contents):
            self.push_blob(content, at)
        self.push_manifest(contents, at)

    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        """Move a manifest to the trash."""
        if named := [each for each in self.named if self.lives(each[0])]:
            at, digest = data.draw(st.sampled_from(sorted(named)))
            manifest_id = db.manifests.find_id(self.connection, self.at(at), digest)
            assert manifest_id is not None
            item = db.trash.move_manifest(
                self.connection, self.organisation, self.at(at), manifest_id, digest, self.user
            )
            self.thrown[item.id] = (at, digest, self.named.pop((at, digest)))

    @rule(data=st.data())
    def restore(self, data: st.DataObject) -> None:
        """Restore a manifest, with what it names."""
        if thrown := [number for number, (at, _, _) in self.thrown.items() if self.lives(at)]:
            number = data.draw(st.sampled_from(sorted(thrown)))
            item = db.trash.get(self.connection, number)
            assert item is not None
            db.restore.restore_manifest(self.connection, item)
            at, digest, contents = self.thrown.pop(number)
            self.named[at, digest] = contents

    @rule(content=CONTENTS, at=REPOSITORIES)
    def delete_blob(self, content: int, at: int) -> None:
        """Delete a blob that no manifest names."""
        if not self.lives(at):
            return
        found = db.blobs.find(self.connection, self.at(at), digest_of(content))
        if found is not None and not db.manifests.blob_is_named(self.connection, self.at(at), found.id):
            db.trash.hide_blob(self.connection, self.at(at), found.id, found.digest, 1)
            self.leased.discard((at, content))

    @rule(at=REPOSITORIES)
    def delete_repository(self, at: int) -> None:
        """Move a repository to the trash, with all its contents."""
        place = self.places[at]
        if self.lives(at):
            place.item = db.trash.move_repository(self.connection, self.organisation, place.id, place.name, self.user)

    @rule(at=REPOSITORIES)
    def restore_repository(self, at: int) -> None:
        """Restore a repository; refused once its purge has begun."""
        place = self.places[at]
        if place.item is None or self.organisation_item is not None:
            return
        found = db.trash.find_in_organisation(self.connection, self.organisation, db.trash.REPOSITORY, place.name)
        assert found is not None
        if place.claimed:
            with pytest.raises(NotInTrash):
                db.restore.restore_repository(self.connection, found, place.name)
        else:
            assert db.restore.restore_repository(self.connection, found, place.name)
            place.item = None

    @rule()
    def delete_organisation(self) -> None:
        """Move the organisation to the trash."""
        if self.organisation_item is None:
            self.organisation_item = db.trash.move_organisation(self.connection, self.organisation, "acme")

    @rule()
    def restore_organisation(self) -> None:
        """Restore the organisation, without repositories deleted before it; refused once its purge has begun."""
        if self.organisation_item is None:
            return
        (found,) = db.trash.organisations_in(self.connection)
        if self.organisation_claimed:
            with pytest.raises(NotInTrash):
                db.restore.restore_organisation(self.connection, found, "acme")
        else:
            assert db.restore.restore_organisation(self.connection, found, "acme")
            self.organisation_item = None

    # --- what time does ---

    @rule()
    def leases_end(self) -> None:
        """Let all leases end."""
        over = repository_blobs.c.leased_until > 1
        self.connection.execute(update(repository_blobs).where(over).values(leased_until=1))
        self.leased.clear()

    @rule()
    def graves_grow_old(self) -> None:
        """Let all tombstones come due."""
        self.connection.execute(update(tombstones).values(not_before=0))

    # --- what the collector does, step by step ---

    @rule()
    def take_expired(self) -> None:
        """Collect expired links, in one transaction."""
        while db.garbage.collect_expired(self.connection, LEASE).seen == db.garbage.AT_ONCE:
            pass

    @rule()
    def take_hidden(self) -> None:
        """Collect hidden blobs, in one transaction."""
        db.garbage.collect_hidden(self.connection, LEASE)

    @rule(data=st.data())
    def purge(self, data: st.DataObject) -> None:
        """Purge an old manifest from the trash."""
        if thrown := [number for number, (at, _, _) in self.thrown.items() if not self.purged(at)]:
            number = data.draw(st.sampled_from(sorted(thrown)))
            at, _, contents = self.thrown[number]
            item = db.trash.get(self.connection, number)
            assert item is not None
            while not db.garbage.purge_manifest(self.connection, item, LEASE):
                pass
            del self.thrown[number]
            for content in contents:
                if db.blobs.find(self.connection, self.at(at), digest_of(content)) is not None:
                    self.leased.add((at, content))

    @rule(target=seen)
    def look_into_the_trash(self) -> Any:  # noqa: ANN401 - hypothesis' own
        """Find repositories and organisations that a later step claims."""
        found = db.trash.older(self.connection, FAR, after=(0, 0), limit=db.garbage.AT_ONCE)
        return multiple(*(item for item in found if item.kind in {db.trash.REPOSITORY, db.trash.ORGANISATION}))

    @rule(item=seen)
    def claim(self, item: Item) -> None:
        """Claim an item. Without a claim, or after a restore, a step of a purge does nothing."""
        for place in self.places:
            if not self.purged(self.places.index(place)):
                assert db.garbage.purge_repository(self.connection, item, place.id, LEASE) is None
        claimed = db.trash.claim(self.connection, item)
        at = [number for number, place in enumerate(self.places) if place.item is not None and place.item.id == item.id]
        of_organisation = self.organisation_item is not None and item.id == self.organisation_item.id
        assert claimed == (bool(at) or of_organisation)
        if of_organisation:  # also if it was claimed before: then it has another name
            self.organisation_claimed, at = True, [0, 1]
        for number in at:
            self.places[number].claimed = True
            self.named = {key: each for key, each in self.named.items() if key[0] != number}
            self.thrown = {key: each for key, each in self.thrown.items() if each[0] != number}
            self.leased = {key for key in self.leased if key[0] != number}

    @rule()
    def go_on_purging(self) -> None:
        """Do one transaction of each purge that has begun, and create again what is gone."""
        claimed = [place for place in self.places if place.claimed]
        for item in db.trash.claimed(self.connection):
            for place in claimed:
                db.garbage.purge_repository(self.connection, item, place.id, LEASE)
        there = set(self.connection.execute(select(schema.repositories.c.id)).scalars())
        if self.organisation_claimed:
            if not any(place.id in there for place in self.places):
                assert self.organisation_item is not None
                db.garbage.purge_organisation(self.connection, self.organisation_item)
                assert db.trash.organisations_in(self.connection) == []
                self.make_organisation()
            return
        for number, place in enumerate(self.places):
            if place.id not in there:
                self.places[number] = self.make_repository(place.name)

    @rule(target=due)
    def look_for_graves(self) -> Any:  # noqa: ANN401 - hypothesis' own
        """Find tombstones whose files a later step deletes."""
        found = self.look_for_graves_now()
        return multiple(found) if found else multiple()

    def look_for_graves_now(self) -> list[str]:
        """Return the keys of tombstones that are due."""
        return db.garbage.due(self.connection, db.garbage.AT_ONCE)

    @rule(keys=due)
    def delete_files(self, keys: list[str]) -> None:
        """Check the rows once more; then delete the files, and then the tombstones."""
        self.files -= set(db.garbage.without_row(self.connection, keys))
        db.garbage.delete_tombstones(self.connection, keys)

    # --- what must hold ---

    @invariant()
    def what_lives_is_there(self) -> None:
        """What a manifest names, even in the trash, and what a lease protects has its row, link and bytes."""
        if not hasattr(self, "connection"):
            return
        records.pending(self.connection).clear()
        needed = {(at, content) for (at, _), contents in self.named.items() for content in contents} | self.leased
        for at, content in needed:
            found = db.blobs.find(self.connection, self.at(at), digest_of(content))
            assert found is not None
            assert found.storage_key in self.files
        held = (
            select(blobs.c.storage_key)
            .join(manifest_blobs, manifest_blobs.c.blob_id == blobs.c.id)
            .join(manifests, manifests.c.id == manifest_blobs.c.manifest_id)
        )
        assert set(self.connection.execute(held).scalars()) <= self.files

    @invariant()
    def what_is_claimed_is_not_restored(self) -> None:
        """An item whose purge has begun is restored neither alone nor with its organisation."""
        if not hasattr(self, "connection"):
            return
        for item in db.trash.claimed(self.connection):
            with pytest.raises(NotInTrash):
                restored(self.connection, item)

    def at(self, number: int) -> int:
        """The id of a repository."""
        return self.places[number].id

    def lives(self, number: int) -> bool:
        """Whether people can use the repository."""
        return self.places[number].item is None and self.organisation_item is None

    def purged(self, number: int) -> bool:
        """Whether the purge of the repository has begun."""
        return self.places[number].claimed


def test_what_lives_is_never_taken(tmp_path: Path) -> None:
    """In any order of pushes, deletions, restores and steps of the collector, nothing in use is deleted."""
    machine = type("Machine", (Collecting,), {"folder": tmp_path})
    from hypothesis.stateful import run_state_machine_as_test  # noqa: PLC0415 - beside its only use

    run_state_machine_as_test(machine, settings=settings(max_examples=100, stateful_step_count=50, deadline=None))
