"""Pushing blobs: uploads in one request or many, and mounts from another repository.

Bytes are durable before any row names them; what was not finished is invisible. An upload belongs to one repository
and one user, and its id can't be guessed (Quay CVE-2026-32589).
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from polly_dockers import db
from polly_dockers.auth import permissions
from polly_dockers.auth.permissions import Absent, Permitted
from polly_dockers.blobs import linux
from polly_dockers.blobs.store import gone
from polly_dockers.db.audit import Event
from polly_dockers.errors import (
    ClientGone,
    DigestInvalid,
    NameInvalid,
    NameUnknown,
    RangeInvalid,
    RequestTimeout,
    SizeInvalid,
    Unauthorized,
    Unavailable,
)
from polly_dockers.model import Action, Digest, RepositoryName, check_length

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from sqlalchemy import Connection

    from polly_dockers.blobs.store import Hasher, Segment
    from polly_dockers.context import Context
    from polly_dockers.model import Actor

BATCH: Final = 1 << 20
"""Bytes that are hashed and written in one go, at least, but for the last."""
MOST: Final = 2 << 20
"""Bytes that wait while a batch is hashed and written, at most: with those, what an upload holds in memory."""
NAME_SECONDS: Final = 1800
"""What may lie between the bytes of a blob and their row, at most: soon after, the collector takes them for garbage."""
OPEN: Final = 1000
"""Uploads of one user that stay open, at most, give or take those of LOOK; those untouched for longest go."""
LOOK: Final = 100
"""Uploads that a user begins at a process between two looks at how many are open."""
_ID: Final = re.compile(r"[A-Za-z0-9_-]{32}")


def _clock() -> float:
    """Seconds that go on while this process, or the machine, sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME if linux.LINUX else time.CLOCK_MONOTONIC)


class Body(Protocol):
    """The body of a request: bytes as they arrive. Iterating raises ClientGone where it is cut short."""

    length: int | None
    """What Content-Length announces; None for a chunked body."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        """The pieces."""
        ...


async def look_for_push(context: Context, actor: Actor, name: RepositoryName) -> int | None:
    """The id of the repository that may be pushed to; None where the push will make it."""
    found = await context.database.read(_look, context, actor, name)
    if isinstance(found, Permitted):
        return found.repository_id
    if found.create_on_push:
        return None
    raise permissions.repository_missing(name, Action.push)


def _look(connection: Connection, context: Context, actor: Actor, name: RepositoryName) -> Permitted | Absent:
    return permissions.find_repository(connection, actor, name, Action.push, public=context.public)


def reach_or_make(connection: Connection, context: Context, actor: Actor, name: RepositoryName) -> Permitted:
    """The repository for a push; made on the way where the organisation has switched that on."""
    found = _look(connection, context, actor, name)
    if isinstance(found, Absent) and found.create_on_push:
        check_length(context.config.registry, name)
        db.repositories.add(
            connection,
            organisation_id=found.organisation_id,
            name=name.name,
            description="Made by its first push.",
            access="private",
            user_id=found.user_id,
        )
        db.audit.append(
            connection,
            Event.repository_create,
            name,
            organisation_id=found.organisation_id,
            by=actor,
            detail="by its first push",
        )
    return permissions.require_permission(connection, actor, name, Action.push, public=context.public)


@dataclass(frozen=True, slots=True)
class Upload:
    """An upload as it stands."""

    id: str
    size: int


async def start(context: Context, actor: Actor, name: RepositoryName) -> Upload:
    """Begin an upload."""
    reached = await context.database.read(_look, context, actor, name)
    if isinstance(reached, Absent):
        reached = await context.database.write(reach_or_make, context, actor, name)
    context.begun[reached.user_id] += 1
    if context.begun[reached.user_id] % LOOK == 0:
        await context.blobs.trim(_stored_of(reached.user_id), OPEN)
    upload_id = secrets.token_urlsafe(24)
    await context.blobs.start(_stored(reached, upload_id))
    return Upload(upload_id, 0)


def _stored(reached: Permitted, upload_id: str) -> str:
    """What the store calls an upload. Whoever asks elsewhere, or is somebody else, asks for another."""
    return f"{_stored_of(reached.user_id)}{reached.repository_id}-{upload_id}"


def _stored_of(user_id: int) -> str:
    """What the store's names of all uploads of a user begin with, and no others."""
    return f"user-{user_id}-"


async def _find(context: Context, actor: Actor, name: RepositoryName, upload_id: str) -> str:
    """The store's name of an upload of this user in this repository."""
    reached = await context.database.read(
        permissions.require_permission, actor, name, Action.push, public=context.public
    )
    if not _ID.fullmatch(upload_id):
        raise gone()
    return _stored(reached, upload_id)


async def find(context: Context, actor: Actor, name: RepositoryName, upload_id: str) -> Upload:
    """The upload, for its own user in its own repository; raises BlobUploadUnknown for any other."""
    return Upload(upload_id, await context.blobs.size(await _find(context, actor, name, upload_id)))


async def append(
    context: Context,
    actor: Actor,
    name: RepositoryName,
    upload_id: str,
    body: Body,
    content_range: tuple[int, int] | None,
) -> Upload:
    """Add the body to the upload; the upload as it stands then.

    Raises RangeInvalid where the range does not continue it, SizeInvalid where range and length disagree.
    """
    stored = await _find(context, actor, name, upload_id)
    async with context.blobs.append(stored) as segment:
        _check_range(name, Upload(upload_id, segment.size), content_range, body)
        hasher = _hasher(context, stored, segment)
        last = await _take(context, stored, segment, hasher, body, content_range)
        return Upload(upload_id, await _keep(context, stored, segment, hasher, last))


async def finish(
    context: Context,
    actor: Actor,
    name: RepositoryName,
    upload_id: str,
    digest: Digest,
    body: Body,
    content_range: tuple[int, int] | None,
) -> None:
    """Add the body, and make the upload a blob of the repository.

    Raises DigestInvalid where the bytes have another digest; the upload is then as it was before, or over where all of
    it was read again for a digest that had not been computed while it arrived.
    """
    stored = await _find(context, actor, name, upload_id)
    async with context.blobs.append(stored) as segment:
        _check_range(name, Upload(upload_id, segment.size), content_range, body)
        hasher = _hasher(context, stored, segment)
        last = await _take(context, stored, segment, hasher, body, content_range)
        began = _clock()
        key, size = await segment.finish(last, hasher, digest)
    await _name(context, actor, name, digest, size, key, began)


async def push(context: Context, actor: Actor, name: RepositoryName, digest: Digest, body: Body) -> None:
    """A whole blob in one request. Raises DigestInvalid where the bytes have another digest."""
    await look_for_push(context, actor, name)
    stored = secrets.token_urlsafe(24)
    await context.blobs.start(stored)
    try:
        async with context.blobs.append(stored) as segment:
            hasher = hashlib.sha256()
            last = await _take(context, stored, segment, hasher, body, None)
            began = _clock()
            key, size = await segment.finish(last, hasher, digest)
    except BaseException:
        await context.blobs.abort(stored)
        raise
    await _name(context, actor, name, digest, size, key, began)


async def cancel(context: Context, actor: Actor, name: RepositoryName, upload_id: str) -> None:
    """End the upload and give its space back."""
    stored = await _find(context, actor, name, upload_id)
    if not await context.blobs.abort(stored):
        raise gone()


async def mount(
    context: Context, actor: Actor, name: RepositoryName, digest_text: str, origin: str | None
) -> Digest | None:
    """Link a blob of ``origin`` (where it is None: of any repository of the user's organisations) to the repository.

    None where the blob is absent, the caller may not pull from there, or either is malformed: the client then sends
    the bytes. A registry token opens no repository that it was not made for: clients ask for one that names the source
    too (distribution, registry/client/auth/session.go; containers/image, mountBlob; containerd, pusher.go).
    """
    try:
        digest = Digest.parse(digest_text)
        source = RepositoryName.parse(origin) if origin is not None else None
    except (DigestInvalid, NameInvalid):
        return None
    await look_for_push(context, actor, name)
    if await context.database.read(_source, context, actor, digest, source) is None:
        return None
    return await context.database.write(_mount, context, actor, name, digest, source)


def _source(
    connection: Connection, context: Context, actor: Actor, digest: Digest, source: RepositoryName | None
) -> db.blobs.LinkedBlob | None:
    if source is None:
        granted = actor.grants.ids(Action.pull) if actor.grants is not None else None
        return db.blobs.find_anywhere(connection, actor.user_id or 0, digest, granted)
    repository_id = permissions.find_pullable(connection, actor, source, public=context.public)
    return db.blobs.find(connection, repository_id, digest) if repository_id is not None else None


def _mount(
    connection: Connection,
    context: Context,
    actor: Actor,
    name: RepositoryName,
    digest: Digest,
    source: RepositoryName | None,
) -> Digest | None:
    reached = reach_or_make(connection, context, actor, name)
    blob = _source(connection, context, actor, digest, source)
    if blob is None:
        return None
    lease = context.config.lease_seconds
    db.blobs.link(
        connection, repository_id=reached.repository_id, blob_id=blob.id, digest=digest, size=blob.size, lease=lease
    )
    return digest


def _check_range(name: RepositoryName, upload: Upload, content_range: tuple[int, int] | None, body: Body) -> None:
    """Refuse a chunk out of order: it "MUST be … the last chunk's <end-of-range> + 1"."""
    if content_range is None:
        return
    start, end = content_range
    if start != upload.size:
        msg = f"The upload holds {upload.size} bytes, so the next chunk starts at {upload.size}, not at {start}."
        raise RangeInvalid(msg, upload=(name, upload.id, upload.size))
    if end < start or (body.length is not None and body.length != end - start + 1):
        msg = f"Content-Range says {end - start + 1} bytes and Content-Length {body.length}."
        raise SizeInvalid(msg)


def _hasher(context: Context, stored: str, segment: Segment) -> Hasher | None:
    """A SHA-256 of what the upload holds, where this process has one."""
    return context.hashers.take(stored, segment.size) if segment.size else hashlib.sha256()


async def _take(
    context: Context,
    stored: str,
    segment: Segment,
    hasher: Hasher | None,
    body: Body,
    content_range: tuple[int, int] | None,
) -> Sequence[bytes]:
    """Append the body but for its last bytes, which are returned; or keep what came of it and raise what stopped it.

    Raises SizeInvalid for a body that is not what ``content_range`` says; the upload is then as it was before.
    """
    length = content_range[1] + 1 - content_range[0] if content_range is not None else None
    try:
        last, failure = await _write(segment, body, hasher, length)
    except SizeInvalid:
        await segment.cut()
        raise
    if failure is not None:
        await _keep(context, stored, segment, hasher, last)
        raise failure
    return last


async def _write(
    segment: Segment, body: Body, hasher: Hasher | None, length: int | None
) -> tuple[Sequence[bytes], ClientGone | RequestTimeout | None]:
    """Write batches while the next arrives. The last, which is not written yet, and what cut the body short.

    Raises SizeInvalid where more or fewer bytes come than ``length``.
    """
    batch: list[bytes] = []
    waiting, came = 0, 0
    under_way: asyncio.Task[None] | None = None
    try:
        async for piece in body:
            batch.append(piece)
            waiting += len(piece)
            came += len(piece)
            if length is not None and came > length:
                msg = f"More bytes came than the {length} of Content-Range."
                raise SizeInvalid(msg)
            if waiting >= MOST or (waiting >= BATCH and (under_way is None or under_way.done())):
                if under_way is not None:
                    await under_way
                under_way = asyncio.create_task(segment.write(batch, hasher))
                batch, waiting = [], 0
    except (ClientGone, RequestTimeout) as error:
        return batch, error
    finally:
        if under_way is not None:
            await under_way
    if length is not None and came != length:
        msg = f"Content-Range says {length} bytes, and {came} came."
        raise SizeInvalid(msg)
    return batch, None


async def _keep(context: Context, stored: str, segment: Segment, hasher: Hasher | None, last: Sequence[bytes]) -> int:
    """Append the last bytes, and keep the running hash for the next request of the upload; its size."""
    size = await segment.keep(last, hasher)
    if hasher is not None:
        context.hashers.keep(stored, size, hasher)
    return size


async def _name(
    context: Context, actor: Actor, name: RepositoryName, digest: Digest, size: int, key: str, began: float
) -> None:
    """Name the bytes by a row; a key that no row can name is given back.

    Where the commit itself failed, nobody knows whether there is a row: the bytes stay, for the collector to look at.
    """
    try:
        unused = await context.database.write(_add, context, actor, name, digest, size, key, began)
    except (Unauthorized, NameUnknown):
        await context.blobs.delete(key)
        raise
    if unused is not None:
        await context.blobs.delete(unused)


def _add(
    connection: Connection,
    context: Context,
    actor: Actor,
    name: RepositoryName,
    digest: Digest,
    size: int,
    key: str,
    began: float,
) -> str | None:
    if _clock() - began > NAME_SECONDS:
        msg = "The server stood still between storing the blob and naming it. Push it again."
        raise Unavailable(msg)
    reached = reach_or_make(connection, context, actor, name)
    return db.blobs.add(
        connection,
        repository_id=reached.repository_id,
        digest=digest,
        size=size,
        storage_key=key,
        lease=context.config.lease_seconds,
    )
