"""Checking a registry for damage, and repairing it.

A check compares rows with files in both directions, and every byte with its digest. It is safe while a server runs. It
deletes nothing, moves damaged files aside, and checks a blob again before it reports damage.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
from dataclasses import dataclass, field
from shlex import quote
from typing import TYPE_CHECKING, Final

import msgspec

from polly_dockers import db
from polly_dockers.blobs import files
from polly_dockers.blobs.filesystem import FileBlobStore
from polly_dockers.blobs.store import BlobMissing
from polly_dockers.db.journal import frames, state
from polly_dockers.db.journal.records import Sealed
from polly_dockers.errors import DigestInvalid, ManifestInvalid, PollyError, Unavailable
from polly_dockers.formatting import to_paste
from polly_dockers.maintenance import damaged, histories, manifests, rebuild
from polly_dockers.model import Digest
from polly_dockers.oci import manifest
from polly_dockers.registry import audit
from polly_dockers.system import ownership
from polly_dockers.system.ownership import AccessDenied

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from pathlib import Path

    from polly_dockers.blobs.filesystem import FileBlob
    from polly_dockers.blobs.store import Blob, BlobStore, Stored
    from polly_dockers.context import Context
    from polly_dockers.db.checks import BlobRow, ManifestRow

PIECE: Final = 1 << 20
"""Bytes that are read and hashed at a time."""


class Damage(msgspec.Struct, frozen=True):
    """Something that a check found wrong."""

    what: str
    """A line for the operator, and perhaps lines with commands that repair it."""
    images: tuple[str, ...] = ()
    """Images that can't be pulled completely because of it, as ``organisation/name[:tag]@digest``."""
    repaired: str = msgspec.field(default="", name="mended")
    """What was done about it; empty for nothing. The JSON of the command, which is documented, has an older name."""
    whole: bool = False
    """Whether it is repaired. A blob that was only set aside is not: it has to be pushed again."""


@dataclass(slots=True)
class Checked:
    """What a check has read and found."""

    blobs: int = 0
    hashed: int = 0
    """How many of the blobs were read."""
    size: int = 0
    """Bytes that were read."""
    manifests: int = 0
    orphans: int = 0
    """Files that no row names; the garbage collector deletes them later."""
    audit: Sealed | None = None
    """The newest seal of the audit log, if its chain is complete."""
    unsealed: int = 0
    """Entries of the audit log that are newer than the newest seal."""
    incomplete: list[str] = field(default_factory=list)
    """Images, as ``organisation/name@digest``, whose repository lacks something that they name: not foreign layers."""
    damages: list[Damage] = field(default_factory=list)


@dataclass(slots=True)
class Check:
    """One check of a registry."""

    context: Context
    repair: bool = False
    sample: float = 100.0
    """How many percent of the blobs are read, from 0 to 100."""
    rate: float = 0.0
    """The most bytes that are read each second; 0 for no limit."""
    backup: Path | None = None
    """The folder of a backup that blobs are repaired from."""
    audit_head: Sealed | None = None
    """A seal from an earlier check, which the audit log must still contain."""
    progress: Callable[[int], None] = lambda _count: None
    """Called with the number of bytes that were checked since the last call."""
    seen: Checked = field(default_factory=Checked)
    _writes: bool = False
    """Whether the audit log is sealed first: a change would hide that the database and the journal differ."""

    async def run(self) -> Checked:
        """Check the database, the journal, the audit log, manifests, blobs and files; returns what was found."""
        await self._database()
        if self.seen.damages:
            return self.seen
        await self._journal()
        await self._audit()
        await self._manifests()
        await self._incomplete()
        await self._blobs()
        await self._keys()
        return self.seen

    async def size(self) -> int:
        """The size of all blobs in bytes, for the progress bar."""
        return await self.context.database.read(db.checks.size_of_blobs)

    @property
    def _in_backup(self) -> bool:
        """Whether a backup is checked."""
        return self.context.database.only_read

    async def _database(self) -> None:
        """Look for damage of the file. If there is some, nothing else that the database says is compared."""
        problems = await self.context.database.read(db.checks.of_database)
        if problems:
            self._add(Damage(damaged.message(self.context.config.data, problems[0])))

    async def _journal(self) -> None:
        folder = self.context.config.data
        if not self._in_backup:
            try:
                what = await asyncio.to_thread(histories.difference, folder)
                if what == histories.DATABASE_LACKS:  # as after a kill: it is applied, as before each change
                    await asyncio.to_thread(rebuild.catch_up, folder)
                    what = ""
            except Unavailable as error:  # different histories
                what = error.message
            if what:
                self._add(Damage(what))
                return
        for _ in range(2):  # again, in case it was compacted after the number was read
            last = await self.context.database.read(state.last_batch)
            if await asyncio.to_thread(frames.is_whole, folder, last):
                self._writes = not self._in_backup
                return
        what = histories.JOURNAL_LACKS
        if self._in_backup:
            what = "The journal lacks changes of the database. The next backup copies it again."
            try:
                await asyncio.to_thread(histories.difference, folder)
            except Unavailable as error:
                what = error.message
        self._add(Damage(what))

    async def _audit(self) -> None:  # noqa: C901 - one line for each way that it can be wrong
        """Verify the chain of the audit log, and compare it with the journal and with the seal of an earlier check."""
        database = self.context.database
        if self._writes:
            await audit.settle(self.context)
        written, begin = await self._sealed()
        if begin is not None and await database.read(db.audit.start) != begin:
            what = f"The audit log was changed: the journal says that it begins after entry {begin.position}."
            self._add(Damage(what))
            return
        at = await database.read(db.audit.start)
        while True:
            following, wrong = await database.read(db.audit.broken, at)
            if wrong is not None:
                what = f"The audit log was changed: entry {wrong} does not match its hash and the entry before it."
                self._add(Damage(what))
                return
            if following is None:
                break
            at = following
        self.seen.audit = at
        self.seen.unsealed = await database.read(db.audit.count_unsealed)
        begin = await database.read(db.audit.start)
        for seal, source in ((written, "the journal"), (self.audit_head, "the head that was given")):
            if seal is not None and seal.position < begin.position:
                what = f"Entry {seal.position} of the audit log, which {source} has, was dropped. Give a newer head."
                self._add(Damage(what))
            elif seal is not None and seal.position > at.position:
                what = f"The audit log was changed: it ends at entry {at.position}, and {source} has {seal.position}."
                if seal is self.audit_head:
                    what += " It was cut off, or the head is of another registry."
                self._add(Damage(what))
                self.seen.audit = None
            elif seal is not None and await database.read(db.audit.sealed, seal.position) != seal:
                what = f"The audit log was changed: its entry {seal.position} is not the one that {source} has."
                self._add(Damage(what))
                self.seen.audit = None

    async def _sealed(self) -> tuple[Sealed | None, Sealed | None]:
        """The newest seal in the journal, and the seal after which the audit log begins according to the journal."""
        folder, before = self.context.config.data, -1
        last = await self.context.database.read(state.last_batch)
        seal, begin = None, None
        while seal is None and last != before:  # again if it was compacted meanwhile
            seal, begin = await asyncio.to_thread(frames.sealed, folder, last)
            before, last = last, await self.context.database.read(state.last_batch)
        return seal, Sealed(begin.position, begin.hash) if begin is not None else None

    async def _manifests(self) -> None:
        wrong, after = list[db.checks.ManifestRow](), 0
        while rows := await self.context.database.read(db.checks.manifests_after, after):
            self.seen.manifests += len(rows)
            wrong += (row for row in rows if not row.whole)
            after = rows[-1].id
            await asyncio.sleep(0)
        for at in range(0, len(wrong), db.checks.PAGE):
            await self._wrong_manifests(wrong[at : at + db.checks.PAGE])

    async def _wrong_manifests(self, wrong: list[ManifestRow]) -> None:
        """Repair manifests if that is wanted, and add the damage."""
        done = await manifests.repair(self.context, self.backup, wrong) if self.repair else {}
        for each in wrong:
            fault = "has a wrong size in the database" if each.body_is_right else "does not match its digest"
            what = f"The manifest {each} {fault}."
            if self._in_backup:
                what += " The next backup to this folder replaces it, if the registry has the right bytes."
            elif not self.repair:
                command = f"polly-server check --data {quote(str(self.context.config.data))} --repair"
                what += f"\nTo repair it{'' if each.body_is_right else ' from the journal'}:{to_paste(command)}"
                if not each.body_is_right:
                    what += f"\nTo repair it from a backup:{to_paste(f'{command} --from …')}"
            whole = each.id in done
            again = "" if each.in_trash else ", or push the image again under a new tag"
            left = f"still damaged; give --from with a backup that has it{again}" if self.repair else ""
            images = tuple(await self.context.database.read(db.checks.images_with, each.id))
            self._add(Damage(what, images, done.get(each.id, left), whole))

    async def _incomplete(self) -> None:
        """Find what may have to be pushed again, or is a sparse index. It is no damage: no file is wrong."""
        database, after = self.context.database, 0
        while rows := await database.read(db.checks.lacking_after, after):
            for row in rows:
                foreign = frozenset[str]()
                with contextlib.suppress(ManifestInvalid):  # it is damaged, which was found before
                    foreign = frozenset(manifest.parse(row.body, row.media_type, stored=True).foreign)
                if not foreign.issuperset(await database.read(db.sparse.lacked, row.id)):
                    self.seen.incomplete.append(f"{row.path}@{row.digest}")
            after = rows[-1].id
            await asyncio.sleep(0)

    async def _blobs(self) -> None:
        after = 0
        while rows := await self.context.database.read(db.checks.blobs_after, after):
            for row in rows:
                await self._blob(row)
            after = rows[-1].id

    async def _blob(self, row: BlobRow) -> None:
        self.seen.blobs += 1
        read = random.random() * 100 < self.sample  # noqa: S311 - a sample, no secret
        problem = await self._problem(row, whole=read)
        self.progress(row.size)
        if problem is None:
            return
        again = await self.context.database.read(db.checks.blob, row.id)
        if again is None or (again != row and await self._problem(again, whole=read) is None):
            return  # it was deleted or repaired meanwhile
        images = tuple(await self.context.database.read(db.checks.images_of, row.id))
        repaired, whole = await self._repair(again) if self.repair else ("", False)
        what = f"The blob {row.digest} {problem}."
        if row.lost and not repaired:
            what += " Push it again to repair it, or give --repair and --from with a backup that holds it."
        elif not self.repair and not self._in_backup:
            command = f"polly-server check --data {quote(str(self.context.config.data))} --repair"
            what += f"\nTo repair it from a backup:{to_paste(f'{command} --from …')}"
            what += f"\nIf there is none, do this, then push it again:{to_paste(command)}"
        if self._in_backup:
            place = self.context.config.data / "blobs" / row.storage_key
            remove = f"delete {quote(str(place))}, and make" if place.exists() else "make"
            what += f" To repair the backup, {remove} another backup to this folder."
        self._add(Damage(what, images, repaired, whole))

    async def _problem(self, row: BlobRow, *, whole: bool) -> str | None:
        """What is wrong with the file of a blob, as the end of a sentence; None for nothing."""
        if row.lost:
            return "was lost before this check"
        try:
            with contextlib.closing(await self.context.blobs.open(row.storage_key)) as blob:
                return await self._problem_of(blob, row, whole=whole)
        except BlobMissing:
            return f"has no file {row.storage_key}"
        except AccessDenied:
            raise  # a missing permission is not damage: the blob must not be set aside
        except (OSError, PollyError) as error:
            return f"can't be read: {error}"

    async def _problem_of(self, blob: Blob, row: BlobRow, *, whole: bool) -> str | None:
        if blob.size != row.size:
            return f"has {blob.size} bytes, and should have {row.size}"
        if not whole:
            return None
        self.seen.hashed += 1
        right = await self._digest(blob, row.digest) == row.digest
        return None if right else "does not match its digest"

    async def _digest(self, blob: Blob, digest: str) -> str:
        algorithm = digest.partition(":")[0]
        hasher, at, clock = hashlib.new(algorithm), 0, asyncio.get_running_loop().time
        began = clock()
        while at < blob.size and (piece := await blob.read(at, PIECE)):
            await asyncio.to_thread(hasher.update, piece)
            at += len(piece)
            self.seen.size += len(piece)
            if self.rate and (early := at / self.rate - (clock() - began)) > 0:
                await asyncio.sleep(early)
        return f"{algorithm}:{hasher.hexdigest()}"

    async def _repair(self, row: BlobRow) -> tuple[str, bool]:
        """Set the damaged file aside and find another copy; if there is none, the next push of the blob is stored.

        Returns what was done, and whether the blob is complete again.
        """
        blobs, database = self.context.blobs, self.context.database
        for key in [key for key in await _keys_of(blobs, row.digest) if key != row.storage_key]:
            if copied := await self._copied(blobs, key, row.digest):
                await blobs.set_aside(row.storage_key)
                await database.write(db.checks.set_storage_key, row, copied)
                return f"repaired from {key}", True
        if copied := await self._from_backup(row):
            await blobs.set_aside(row.storage_key)
            await database.write(db.checks.set_storage_key, row, copied)
            return f"repaired from the backup {self.backup}", True
        try:
            (await blobs.open(row.storage_key)).close()
            done = "set aside"
        except (BlobMissing, OSError):
            done = "marked as lost"
        await blobs.set_aside(row.storage_key)
        if row.lost:
            return "still lost; push it again to repair it", False
        await database.write(db.checks.mark_lost, row)
        return f"{done}; push it again to repair it", False

    async def _copied(self, source: BlobStore, key: str, digest: str) -> str | None:
        """Copy a file of a store to a new storage key; None if the file is damaged or disappears.

        A file that no row names may be deleted at any moment, so the row gets a key that was made for it.
        """
        if not await self._holds(source, key, digest):
            return None
        try:
            return await _copy(source, key, self.context.blobs, Digest(digest))
        except (BlobMissing, DigestInvalid):
            return None

    async def _holds(self, blobs: BlobStore, key: str, digest: str) -> bool:
        try:
            blob = await blobs.open(key)
        except (BlobMissing, OSError):
            return False
        try:
            return await self._digest(blob, digest) == digest
        except (OSError, PollyError):
            return False
        finally:
            blob.close()

    async def _from_backup(self, row: BlobRow) -> str | None:
        """Copy the blob from the backup to a new storage key; None if the backup lacks it or its copy is damaged."""
        if self.backup is None:
            return None
        source = _Backup(self.backup)
        try:
            for key in await _keys_of(source, row.digest):
                if copied := await self._copied(source, key, row.digest):
                    return copied
        finally:
            source.close()
        return None

    async def _keys(self) -> None:
        """Count the files that no row names."""
        for part in self.context.blobs.parts():
            keys = [each.key for each in await self.context.blobs.keys(part)]
            for at in range(0, len(keys), db.garbage.AT_ONCE):
                self.seen.orphans += len(
                    await self.context.database.read(db.garbage.orphans, keys[at : at + db.garbage.AT_ONCE])
                )

    def _add(self, damage: Damage) -> None:
        self.seen.damages.append(damage)


class _Backup(FileBlobStore):
    """The blobs of a backup. Nothing is written there, and root reads as the owner of the folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, make=False)
        self._folder = folder

    async def open(self, key: str) -> FileBlob:
        """Open a blob; see BlobStore."""
        with ownership.acting(self._folder):
            return await super().open(key)

    async def keys(self, part: str) -> Sequence[Stored]:
        """List a part; see BlobStore."""
        with ownership.acting(self._folder):
            return await super().keys(part)


async def _keys_of(blobs: BlobStore, digest: str) -> list[str]:
    """All storage keys of the digest."""
    stored = await blobs.keys(files.part_of(Digest(digest)))
    return sorted(each.key for each in stored if files.digest_of(each.key) == digest)


async def _copy(source: BlobStore, key: str, target: BlobStore, digest: Digest) -> str:
    """Copy a blob to the target; returns its new storage key there."""
    upload = f"repair-{hashlib.sha256(key.encode()).hexdigest()[:32]}"
    await target.abort(upload)
    await target.start(upload)
    async with target.append(upload) as segment:
        hasher = hashlib.sha256()
        async for piece in _pieces(source, key):
            await segment.write([piece], hasher)
        made, _ = await segment.finish([], hasher, digest)
        return made


async def _pieces(source: BlobStore, key: str) -> AsyncIterator[bytes]:
    blob = await source.open(key)
    try:
        at = 0
        while at < blob.size and (piece := await blob.read(at, PIECE)):
            yield piece
            at += len(piece)
    finally:
        blob.close()
