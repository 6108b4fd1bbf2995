"""Pushing blobs: uploads in one request or many, and mounts from another repository.

Bytes are durable before any row names them; what was not finished is invisible. An upload belongs to one repository
and one user, and its id can't be guessed (Quay CVE-2026-32589).
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Protocol

from polly_dockers import access
from polly_dockers.access import Absent, Reached
from polly_dockers.db import blobs as rows
from polly_dockers.db import repositories as repository_rows
from polly_dockers.db.blobs import Upload
from polly_dockers.errors import (
    BlobUploadUnknown,
    ClientGone,
    DigestInvalid,
    NameInvalid,
    NameUnknown,
    RangeInvalid,
    RequestTimeout,
    SizeInvalid,
    Unauthorized,
)
from polly_dockers.model import Action, Digest, RepositoryName, check_length

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy import Connection

    from polly_dockers.blobs.store import Hasher, Segment
    from polly_dockers.model import Actor
    from polly_dockers.registry import Registry

BATCH: Final = 1 << 20
"""Bytes that are hashed and written in one go, at least, but for the last."""
MOST: Final = 2 << 20
"""Bytes that wait while a batch is hashed and written, at most: with those, what an upload holds in memory."""


class Body(Protocol):
    """The body of a request: bytes as they arrive. Iterating raises ClientGone where it is cut short."""

    length: int | None
    """What Content-Length announces; None for a chunked body."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        """The pieces."""
        ...


async def look_for_push(registry: Registry, actor: Actor, name: RepositoryName) -> int | None:
    """The id of the repository that may be pushed to; None where the push will make it. Raises as access.reach."""
    found = await registry.db.read(_look, registry, actor, name)
    if isinstance(found, Reached):
        return found.repository_id
    if found.create_on_push:
        return None
    raise access.missing(name, Action.push)


def _look(connection: Connection, registry: Registry, actor: Actor, name: RepositoryName) -> Reached | Absent:
    row = access.RIGHTS.first(connection, access.parameters(actor, name))
    return access.look(row, actor, name, Action.push, public=registry.public)


def reach_or_make(connection: Connection, registry: Registry, actor: Actor, name: RepositoryName) -> Reached:
    """The repository for a push; made on the way where the organisation has switched that on."""
    found = _look(connection, registry, actor, name)
    if isinstance(found, Absent) and found.create_on_push:
        check_length(registry.config.registry, name)
        repository_rows.add(
            connection,
            organisation_id=found.organisation_id,
            name=name.name,
            description="Made by its first push.",
            access="private",
            user_id=found.user_id,
        )
    return access.reach(connection, actor, name, Action.push, public=registry.public)


async def start(registry: Registry, actor: Actor, name: RepositoryName) -> Upload:
    """Begin an upload. Raises what ``access.reach`` raises."""
    return await registry.db.note(_start, registry, actor, name)


def _start(connection: Connection, registry: Registry, actor: Actor, name: RepositoryName) -> Upload:
    reached = reach_or_make(connection, registry, actor, name)
    upload = Upload(secrets.token_urlsafe(24), reached.repository_id, reached.user_id, 0, None)
    rows.add_upload(connection, upload)
    return upload


async def find(registry: Registry, actor: Actor, name: RepositoryName, upload_id: str) -> Upload:
    """The upload, for its own user in its own repository; raises BlobUploadUnknown for any other."""
    return await registry.db.read(_find, registry, actor, name, upload_id)


def _find(connection: Connection, registry: Registry, actor: Actor, name: RepositoryName, upload_id: str) -> Upload:
    reached = access.reach(connection, actor, name, Action.push, public=registry.public)
    found = rows.upload(connection, upload_id, reached.repository_id, reached.user_id)
    if found is None:
        msg = "There is no such upload of yours in this repository: it is over, or was cancelled. Start a new one."
        raise BlobUploadUnknown(msg)
    return found


async def append(
    registry: Registry,
    actor: Actor,
    name: RepositoryName,
    upload_id: str,
    body: Body,
    content_range: tuple[int, int] | None,
) -> Upload:
    """Add the body to the upload; the upload as it stands then.

    Raises RangeInvalid where the range does not continue it, SizeInvalid where range and length disagree.
    """
    upload = await find(registry, actor, name, upload_id)
    _check_range(name, upload, content_range, body)
    async with registry.blobs.append(upload.id, upload.size) as segment:
        await _still(registry, actor, name, upload)
        size, hasher = await _take(registry, upload, segment, body, content_range)
        return await _advance(registry, upload, size, hasher)


async def finish(
    registry: Registry,
    actor: Actor,
    name: RepositoryName,
    upload_id: str,
    digest: Digest,
    body: Body,
    content_range: tuple[int, int] | None,
) -> None:
    """Add the body, and make the upload a blob of the repository.

    Raises DigestInvalid where the bytes have another digest; the upload is then as it was before.
    """
    upload = await find(registry, actor, name, upload_id)
    _check_range(name, upload, content_range, body)
    async with registry.blobs.append(upload.id, upload.size) as segment:
        await _still(registry, actor, name, upload)
        size, hasher = await _take(registry, upload, segment, body, content_range)
        await _verify(upload, size, segment, hasher, digest)
        key = await segment.commit(digest)
    await _keep(registry, actor, name, digest, size, key, upload.id)


async def push(registry: Registry, actor: Actor, name: RepositoryName, digest: Digest, body: Body) -> None:
    """A whole blob in one request. Raises DigestInvalid where the bytes have another digest."""
    await look_for_push(registry, actor, name)
    name_of_file = secrets.token_urlsafe(24)
    try:
        async with registry.blobs.append(name_of_file, 0) as segment:
            size = await _whole(segment, body, digest)
            key = await segment.commit(digest)
    except BaseException:
        await registry.blobs.abort(name_of_file)
        raise
    await _keep(registry, actor, name, digest, size, key, None)


async def _whole(segment: Segment, body: Body, digest: Digest) -> int:
    """Write a blob that has no upload of its own; its size."""
    hasher = hashlib.sha256()
    size, failure = await _write(segment, body, hasher, 0, None)
    if failure is not None:
        raise failure
    await _verify(None, size, segment, hasher, digest)
    return size


async def cancel(registry: Registry, actor: Actor, name: RepositoryName, upload_id: str) -> None:
    """End the upload and give its space back."""
    upload = await find(registry, actor, name, upload_id)
    await registry.db.write(rows.end_upload, upload.id)
    await registry.blobs.abort(upload.id)


async def mount(
    registry: Registry, actor: Actor, name: RepositoryName, digest_text: str, origin: str | None
) -> Digest | None:
    """Link a blob of ``origin`` (of any of the user's repositories, where it is None) to the repository.

    None where the blob is absent, the user may not pull from there, or either is malformed: the client then sends
    the bytes. The source's rights are those of the user, for the token may name the target only.
    """
    try:
        digest = Digest.parse(digest_text)
        source = RepositoryName.parse(origin) if origin is not None else None
    except (DigestInvalid, NameInvalid):
        return None
    await look_for_push(registry, actor, name)
    if await registry.db.read(_source, registry, actor, digest, source) is None:
        return None
    return await registry.db.write(_mount, registry, actor, name, digest, source)


def _source(
    connection: Connection, registry: Registry, actor: Actor, digest: Digest, source: RepositoryName | None
) -> rows.LinkedBlob | None:
    if source is None:
        return rows.find_anywhere(connection, actor.user_id or 0, digest)
    repository_id = access.may_pull(connection, actor, source, public=registry.public)
    return rows.find(connection, repository_id, digest) if repository_id is not None else None


def _mount(
    connection: Connection,
    registry: Registry,
    actor: Actor,
    name: RepositoryName,
    digest: Digest,
    source: RepositoryName | None,
) -> Digest | None:
    reached = reach_or_make(connection, registry, actor, name)
    blob = _source(connection, registry, actor, digest, source)
    if blob is None:
        return None
    lease = registry.config.lease_seconds
    rows.link(
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


async def _still(registry: Registry, actor: Actor, name: RepositoryName, upload: Upload) -> None:
    """Now that the upload is held: is it where it was? Another request may have been at work on it."""
    held = await find(registry, actor, name, upload.id)
    if held.size != upload.size:
        msg = f"Another request has sent bytes of this upload; it holds {held.size} now."
        raise RangeInvalid(msg, upload=(name, held.id, held.size))


async def _take(
    registry: Registry, upload: Upload, segment: Segment, body: Body, content_range: tuple[int, int] | None
) -> tuple[int, Hasher | None]:
    """Append the whole body, or note how far it came and raise what stopped it.

    Raises SizeInvalid for a body that is not what ``content_range`` says; the upload is then as it was before.
    """
    hasher = hashlib.sha256() if upload.size == 0 else registry.hashers.take(upload.id, upload.size)
    end = content_range[1] + 1 if content_range is not None else None
    size, failure = await _write(segment, body, hasher, upload.size, end)
    if failure is not None:
        await _advance(registry, upload, size, hasher)
        raise failure
    if end is not None and size != end:
        msg = f"Content-Range says {end - upload.size} bytes, and {size - upload.size} came."
        raise SizeInvalid(msg)
    return size, hasher


async def _write(
    segment: Segment, body: Body, hasher: Hasher | None, size: int, end: int | None
) -> tuple[int, ClientGone | RequestTimeout | None]:
    """Write batches while the next arrives. The size then, and what cut the body short."""
    batch: list[bytes] = []
    waiting, failure = 0, None
    under_way: asyncio.Task[None] | None = None
    try:
        async for piece in body:
            batch.append(piece)
            waiting += len(piece)
            if end is not None and size + waiting > end:
                msg = f"More bytes came than Content-Range says, which ends at {end - 1}."
                raise SizeInvalid(msg)
            if waiting >= MOST or (waiting >= BATCH and (under_way is None or under_way.done())):
                if under_way is not None:
                    await under_way
                under_way = asyncio.create_task(segment.write(batch, hasher))
                size += waiting
                batch, waiting = [], 0
    except (ClientGone, RequestTimeout) as error:
        failure = error
    finally:
        if under_way is not None:
            await under_way
    if batch:
        await segment.write(batch, hasher)
    return size + waiting, failure


async def _advance(registry: Registry, upload: Upload, size: int, hasher: Hasher | None) -> Upload:
    digest = f"sha256:{hasher.hexdigest()}" if hasher is not None else None
    if not await registry.db.note(rows.advance_upload, upload.id, size=size, digest=digest):
        msg = "The upload was cancelled while its bytes arrived."
        raise BlobUploadUnknown(msg)
    if hasher is not None:
        registry.hashers.keep(upload.id, size, hasher)
    return replace(upload, size=size, digest=digest)


async def _verify(upload: Upload | None, size: int, segment: Segment, hasher: Hasher | None, digest: Digest) -> None:
    if digest.algorithm == "sha256" and hasher is not None:
        computed = f"sha256:{hasher.hexdigest()}"
    elif digest.algorithm == "sha256" and upload is not None and upload.digest and size == upload.size:
        computed = upload.digest
    else:
        computed = await segment.digest(digest.algorithm)
    if computed != digest:
        msg = f"The bytes that arrived have the digest {computed}, not {digest}; nothing was stored."
        raise DigestInvalid(msg, detail={"computed": computed, "given": digest})


async def _keep(
    registry: Registry, actor: Actor, name: RepositoryName, digest: Digest, size: int, key: str, upload_id: str | None
) -> None:
    """Name the bytes by a row; a key that no row can name is given back.

    Where the commit itself failed, nobody knows whether there is a row: the bytes stay, for the collector to look at.
    """
    try:
        unused = await registry.db.write(_add, registry, actor, name, digest, size, key, upload_id)
    except (BlobUploadUnknown, Unauthorized, NameUnknown):
        await registry.blobs.delete(key)
        raise
    if unused is not None:
        await registry.blobs.delete(unused)


def _add(
    connection: Connection,
    registry: Registry,
    actor: Actor,
    name: RepositoryName,
    digest: Digest,
    size: int,
    key: str,
    upload_id: str | None,
) -> str | None:
    reached = reach_or_make(connection, registry, actor, name)
    if upload_id is not None and not rows.end_upload(connection, upload_id):
        msg = "The upload was cancelled while it ended."
        raise BlobUploadUnknown(msg)
    return rows.add(
        connection,
        repository_id=reached.repository_id,
        digest=digest,
        size=size,
        storage_key=key,
        lease=registry.config.lease_seconds,
    )
