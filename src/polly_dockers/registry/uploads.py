"""Pushing blobs: uploads in one request or several, and mounts from another repository.

Bytes are durable before a row names them, and an unfinished upload is invisible. An upload belongs to one repository
and one user, and its id cannot be guessed (Quay CVE-2026-32589).
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from polly_dockers import db
from polly_dockers.auth import permissions
from polly_dockers.auth.permissions import Absent, Permitted
from polly_dockers.blobs.store import upload_missing
from polly_dockers.db.audit import Event
from polly_dockers.errors import (
    BadRequest,
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
from polly_dockers.system import boot
from polly_dockers.system.durations import SECOND

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from sqlalchemy import Connection

    from polly_dockers.blobs.store import Hasher, Segment
    from polly_dockers.context import Context
    from polly_dockers.model import Actor

PORTION: Final = 1 << 20
"""Bytes that are hashed and written at a time, at least; the last portion may be smaller."""
MAX_WAITING: Final = 2 << 20
"""Bytes that may wait in memory while a portion is hashed and written, for each upload."""
MAX_SECONDS_TO_ROW: Final = 1800
"""Seconds between the bytes of a blob and their row, at most. Soon after, the collector deletes bytes without a row."""
MAX_OPEN: Final = 1000
"""Open uploads of one user, about. Those that were untouched for longest are deleted."""
TRIM_EVERY: Final = 100
"""Uploads that a user starts in a process before it counts again how many are open."""
_ID: Final = re.compile(r"[A-Za-z0-9_-]{32}")


class Body(Protocol):
    """The body of a request, as it arrives.

    Iterating raises ClientGone, BadRequest or RequestTimeout if the body is cut short.
    """

    length: int | None
    """The Content-Length in bytes; None for a chunked body."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Iterate over the pieces of the body."""


async def require_push(context: Context, actor: Actor, name: RepositoryName) -> int | None:
    """The id of the repository, if the caller may push to it; None if the push will create it."""
    found = await context.database.read(permissions.require_or_absent, actor, name, Action.push)
    if isinstance(found, Permitted):
        return found.repository_id
    if found.create_on_push:
        return None
    raise permissions.repository_missing(name, Action.push)


def require_or_create(connection: Connection, context: Context, actor: Actor, name: RepositoryName) -> Permitted:
    """The repository, if the caller may push to it. It is created if the organisation has create-on-push."""
    found = permissions.require_or_absent(connection, actor, name, Action.push)
    if isinstance(found, Permitted):
        return found
    if found.create_on_push:
        check_length(context.config.registry, name)
        db.repositories.add(
            connection,
            organisation_id=found.organisation_id,
            name=name.name,
            description="Created by its first push.",
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
    return permissions.require_permission(connection, actor, name, Action.push)


@dataclass(frozen=True, slots=True)
class Upload:
    """An upload: its id, and the bytes received so far."""

    id: str
    size: int


async def start(context: Context, actor: Actor, name: RepositoryName) -> Upload:
    """Start an upload."""
    permitted = await context.database.read(permissions.require_or_absent, actor, name, Action.push)
    if isinstance(permitted, Absent):
        permitted = await context.database.write(require_or_create, context, actor, name)
    context.begun[permitted.user_id] += 1
    if context.begun[permitted.user_id] % TRIM_EVERY == 0:
        await context.blobs.trim(_stored_of(permitted.user_id), MAX_OPEN)
    upload_id = secrets.token_urlsafe(24)
    await context.blobs.start(_stored(permitted, upload_id))
    return Upload(upload_id, 0)


def _stored(permitted: Permitted, upload_id: str) -> str:
    """The store's name of an upload. It contains user and repository, so nobody else can continue the upload."""
    return f"{_stored_of(permitted.user_id)}{permitted.repository_id}-{upload_id}"


def _stored_of(user_id: int) -> str:
    """The prefix of the store's names of all uploads of a user."""
    return f"user-{user_id}-"


async def _find(context: Context, actor: Actor, name: RepositoryName, upload_id: str) -> str:
    """The store's name of an upload of this user in this repository."""
    permitted = await context.database.read(permissions.require_permission, actor, name, Action.push)
    if not _ID.fullmatch(upload_id):
        raise upload_missing()
    return _stored(permitted, upload_id)


async def find(context: Context, actor: Actor, name: RepositoryName, upload_id: str) -> Upload:
    """The upload, for its own user in its own repository. Raises BlobUploadUnknown for any other."""
    return Upload(upload_id, await context.blobs.size(await _find(context, actor, name, upload_id)))


async def append(
    context: Context,
    actor: Actor,
    name: RepositoryName,
    upload_id: str,
    body: Body,
    content_range: tuple[int, int] | None,
) -> Upload:
    """Append the body to the upload; returns the upload after it.

    Raises RangeInvalid if the range does not start at the upload's end, and SizeInvalid if range and length differ.
    """
    stored = await _find(context, actor, name, upload_id)
    async with context.blobs.append(stored) as segment:
        _check_range(name, Upload(upload_id, segment.size), content_range, body)
        hasher = _hasher(context, stored, segment)
        last = await _receive(context, stored, segment, hasher, body, content_range)
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
    """Append the body, and make the upload a blob of the repository.

    Raises DigestInvalid if the bytes have another digest. The upload is then as before this request. Only if its digest
    was not computed while it arrived, so that it had to be read again, the upload is deleted.
    """
    stored = await _find(context, actor, name, upload_id)
    async with context.blobs.append(stored) as segment:
        _check_range(name, Upload(upload_id, segment.size), content_range, body)
        hasher = _hasher(context, stored, segment)
        last = await _receive(context, stored, segment, hasher, body, content_range)
        began = boot.running()
        key, size = await segment.finish(last, hasher, digest)
    await _record(context, actor, name, digest, size, key, began)


async def push(context: Context, actor: Actor, name: RepositoryName, digest: Digest, body: Body) -> None:
    """Store a whole blob from one request. Raises DigestInvalid if the bytes have another digest."""
    await require_push(context, actor, name)
    stored = secrets.token_urlsafe(24)
    await context.blobs.start(stored)
    try:
        async with context.blobs.append(stored) as segment:
            hasher = hashlib.sha256()
            last = await _receive(context, stored, segment, hasher, body, None)
            began = boot.running()
            key, size = await segment.finish(last, hasher, digest)
    except BaseException:
        await context.blobs.abort(stored)
        raise
    await _record(context, actor, name, digest, size, key, began)


async def cancel(context: Context, actor: Actor, name: RepositoryName, upload_id: str) -> None:
    """Delete the upload. Raises BlobUploadUnknown."""
    stored = await _find(context, actor, name, upload_id)
    if not await context.blobs.abort(stored):
        raise upload_missing()


async def mount(
    context: Context, actor: Actor, name: RepositoryName, digest_text: str, origin: str | None
) -> Digest | None:
    """Link a blob of the repository ``origin`` to this repository; returns the digest.

    ``origin`` None stands for all repositories of the user's organisations. Returns None if the blob is missing, if the
    user may not pull from ``origin``, or if either is malformed. The client then sends the bytes.

    What counts is what the user may do now. Their registry token may name the target alone: regclient and the
    conformance suite mount that way.
    """
    try:
        digest = Digest.parse(digest_text)
        source = RepositoryName.parse(origin) if origin is not None else None
    except (DigestInvalid, NameInvalid):
        return None
    lease = context.config.lease_seconds

    def find(connection: Connection) -> db.blobs.LinkedBlob | None:
        if source is None:
            return db.blobs.find_anywhere(connection, actor.user_id or 0, digest)
        repository_id = permissions.find_pullable(connection, actor, source, allow_public=context.allow_public)
        return db.blobs.find(connection, repository_id, digest) if repository_id is not None else None

    def change(connection: Connection) -> tuple[bool, int | None]:
        target = require_or_create(connection, context, actor, name).repository_id
        blob = find(connection)
        if blob is None:
            return False, None
        db.blobs.link(connection, repository_id=target, blob_id=blob.id, digest=digest, size=blob.size, lease=lease)
        return True, target if db.sparse.is_awaited(connection, target, digest) else None

    await require_push(context, actor, name)
    if await context.database.read(find) is None:
        return None
    mounted, awaited_in = await context.database.write(change)
    await link_rest(context, awaited_in, digest)
    return digest if mounted else None


async def link_rest(context: Context, repository_id: int | None, digest: str) -> None:
    """Link what still waits for a digest that has arrived. Nothing does if the id of the repository is None.

    Other writes go between the transactions.
    """
    while repository_id is not None and await context.database.write(db.manifests.link_more, repository_id, digest):
        pass


def _check_range(name: RepositoryName, upload: Upload, content_range: tuple[int, int] | None, body: Body) -> None:
    """Refuse a chunk out of order: it "MUST be … the last chunk's <end-of-range> + 1"."""
    if content_range is None:
        return
    start, end = content_range
    if start != upload.size:
        msg = f"The upload has {upload.size} bytes, so the next chunk must start at {upload.size}, not at {start}."
        raise RangeInvalid(msg, upload=(name, upload.id, upload.size))
    if end < start or (body.length is not None and body.length != end - start + 1):
        msg = f"Content-Range covers {end - start + 1} bytes, but Content-Length is {body.length}."
        raise SizeInvalid(msg)


def _hasher(context: Context, stored: str, segment: Segment) -> Hasher | None:
    """The running SHA-256 of the bytes received so far; None if this process does not have it."""
    return context.hashers.take(stored, segment.size) if segment.size else hashlib.sha256()


async def _receive(
    context: Context,
    stored: str,
    segment: Segment,
    hasher: Hasher | None,
    body: Body,
    content_range: tuple[int, int] | None,
) -> Sequence[bytes]:
    """Append the body except its last bytes, which are returned.

    If the body is cut short, the bytes received are kept and the error is raised. Raises SizeInvalid if
    the body does not have the length of ``content_range``. The upload is then as before this request.
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
) -> tuple[Sequence[bytes], ClientGone | BadRequest | RequestTimeout | None]:
    """Write each portion while the next arrives. Returns the last one, unwritten, and the error that ended the body.

    Raises SizeInvalid if the body does not have ``length`` bytes.
    """
    portion: list[bytes] = []
    waiting, came = 0, 0
    under_way: asyncio.Task[None] | None = None
    try:
        async for piece in body:
            portion.append(piece)
            waiting += len(piece)
            came += len(piece)
            if length is not None and came > length:
                msg = f"The body has more bytes than the {length} of Content-Range."
                raise SizeInvalid(msg)
            if waiting >= MAX_WAITING or (waiting >= PORTION and (under_way is None or under_way.done())):
                if under_way is not None:
                    await under_way
                under_way = asyncio.create_task(segment.write(portion, hasher))
                portion, waiting = [], 0
    except (ClientGone, BadRequest, RequestTimeout) as error:
        return portion, error
    finally:
        if under_way is not None:
            await under_way
    if length is not None and came != length:
        msg = f"Content-Range covers {length} bytes, but the body has {came}."
        raise SizeInvalid(msg)
    return portion, None


async def _keep(context: Context, stored: str, segment: Segment, hasher: Hasher | None, last: Sequence[bytes]) -> int:
    """Append the last bytes, and keep the running hash for the upload's next request. Returns the upload's size."""
    size = await segment.keep(last, hasher)
    if hasher is not None:
        context.hashers.keep(stored, size, hasher)
    return size


async def _record(
    context: Context, actor: Actor, name: RepositoryName, digest: Digest, size: int, key: str, began: int
) -> None:
    """Record the stored bytes as a blob of the repository. Bytes that are not needed are deleted.

    If the transaction itself fails, it is unknown whether there is a row. The bytes are then left to the collector.
    """
    lease = context.config.lease_seconds

    def add(connection: Connection) -> tuple[str | None, int | None]:
        if boot.running() - began > MAX_SECONDS_TO_ROW * SECOND:
            msg = "The server was stopped for too long between storing the blob and recording it. Push it again."
            raise Unavailable(msg)
        target = require_or_create(connection, context, actor, name).repository_id
        unused = db.blobs.add(connection, repository_id=target, digest=digest, size=size, storage_key=key, lease=lease)
        return unused, target if db.sparse.is_awaited(connection, target, digest) else None

    try:
        unused, awaited_in = await context.database.write(add)
    except (Unauthorized, NameUnknown):
        await context.blobs.delete(key)
        raise
    if unused is not None:
        await context.blobs.delete(unused)
    await link_rest(context, awaited_in, digest)
