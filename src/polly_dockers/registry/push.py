"""Pushing manifests: each is checked against its repository, stored byte for byte, and committed to its tags."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from polly_dockers import db
from polly_dockers.blobs.store import BlobMissing
from polly_dockers.db.audit import Event
from polly_dockers.errors import Denied, DigestInvalid, ManifestBlobUnknown, ManifestInvalid
from polly_dockers.model import Digest
from polly_dockers.oci.manifest import CONFIGS, MAX_CONFIG, parse, platform_of_config
from polly_dockers.registry.uploads import link_rest, require_or_create, require_push

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from sqlalchemy import Connection

    from polly_dockers.auth.permissions import Permitted
    from polly_dockers.context import Context
    from polly_dockers.db.blobs import LinkedBlob
    from polly_dockers.model import Actor, RepositoryName, Tag
    from polly_dockers.oci.manifest import Manifest

LARGE: Final = 1 << 16
"""Manifests of this many bytes or more are parsed on a thread, and stored one at a time in each process."""

PLATFORMS: Final = 50
"""Platforms that are stored for one index, at most."""

NAMED: Final = 20
"""Missing digests that an error lists, at most."""


@dataclass(frozen=True, slots=True)
class Pushed:
    """A manifest that was stored."""

    digest: Digest
    subject: Digest | None
    tags: tuple[Tag, ...]


async def manifest(
    context: Context,
    actor: Actor,
    name: RepositoryName,
    *,
    read: Callable[[], Awaitable[bytes]],
    content_type: str,
    digest: Digest | None,
    tags: Sequence[Tag],
) -> Pushed:
    """Store a manifest under its digest, and set ``tags`` to it. Each tag that changes gets a commit.

    ``read`` returns the bytes. It is called only after it is known that the caller may push. ``digest`` is the digest
    that the client gave, or None.

    Raises DigestInvalid if the bytes have another digest, ManifestInvalid if they are not a valid manifest, and
    ManifestBlobUnknown if the repository does not have what the manifest names.
    """
    repository_id = await require_push(context, actor, name)
    body = await read()
    computed = Digest.of("sha256" if digest is None else digest.algorithm, body)
    if digest is not None and digest != computed:
        msg = f"The manifest does not match its digest: it has {computed}, not {digest}. Nothing was stored."
        raise DigestInvalid(msg, detail={"computed": computed, "given": digest})
    large = len(body) >= LARGE
    async with context.large_manifest if large else contextlib.nullcontext():
        parsed = await asyncio.to_thread(parse, body, content_type) if large else parse(body, content_type)
        complete = (
            repository_id is not None
            and await context.database.read(db.manifests.find_complete, repository_id, computed, body) is not None
        )
        platform = None if complete else await _platform(context, repository_id, parsed)
        stored = await context.database.write(_store, context, actor, name, computed, parsed, body, platform, tags)
    await link_rest(context, stored, computed)
    return Pushed(computed, parsed.subject, tuple(tags))


async def _platform(context: Context, repository_id: int | None, parsed: Manifest) -> str | None:
    """The platform in an image's config; None if it has none. That the config exists is checked when storing."""
    config = parsed.config
    if repository_id is None or config is None or config.size > MAX_CONFIG:
        return None
    if config.media_type not in CONFIGS:
        return None
    found = await context.database.read(db.blobs.find, repository_id, config.digest)
    if found is None or found.size > MAX_CONFIG:
        return None
    try:
        blob = await context.blobs.open(found.storage_key)
    except BlobMissing:
        return None
    try:
        return platform_of_config(await blob.read(0, found.size))
    finally:
        blob.close()


def _store(
    connection: Connection,
    context: Context,
    actor: Actor,
    name: RepositoryName,
    digest: Digest,
    parsed: Manifest,
    body: bytes,
    platform: str | None,
    tags: Sequence[Tag],
) -> int | None:
    """Check what the manifest names, insert or complete it, and commit the tags, in one transaction.

    Returns the id of the repository if more manifests wait for this one than one transaction links; else None.

    If the repository has the manifest and all that it names, foreign keys keep that, so only the tags are set. If no
    tag changes, the push counts as a pull: an index that names the manifest may be about to follow. A manifest whose
    bytes in the database were damaged counts as incomplete, and gets its right bytes.
    """
    permitted = require_or_create(connection, context, actor, name)
    manifest_id = db.manifests.find_complete(connection, permitted.repository_id, digest, body)
    new_or_incomplete = manifest_id is None
    if manifest_id is None:
        manifest_id = _insert_or_complete(connection, permitted, digest, parsed, body, platform)
    changed = [
        tag
        for tag in tags
        if db.tags.put(
            connection,
            repository_id=permitted.repository_id,
            tag=tag,
            manifest_id=manifest_id,
            user_id=permitted.user_id,
        )
    ]
    if changed and db.tags.has_too_many(connection, manifest_id):
        raise _too_many_tags(digest)
    if not changed:
        db.last_pulls.record_if_stale(connection, manifest_id)
    paths = [f"{name}:{tag}" for tag in changed] or ([name] if new_or_incomplete else [])
    for path in paths:
        db.audit.append(
            connection, Event.push, path, organisation_id=permitted.organisation_id, by=actor, detail=digest
        )
    return permitted.repository_id if db.sparse.is_awaited(connection, permitted.repository_id, digest) else None


def _insert_or_complete(
    connection: Connection, permitted: Permitted, digest: Digest, parsed: Manifest, body: bytes, platform: str | None
) -> int:
    """Insert the manifest, or complete an incomplete one, with references to what it names. Returns its id."""
    named = _index_references if parsed.index else _image_references
    references = named(connection, permitted, parsed)
    if platform is not None:
        references = replace(references, platforms=(platform,))
    known = db.manifests.find_id(connection, permitted.repository_id, digest)
    for blob in references.blobs if known is not None else ():
        # the manifest may still wait for a blob that was lost when it was pushed, and was repaired since
        db.blobs.complete(connection, permitted.repository_id, blob.id, blob.digest, blob.size)
    pushed = db.manifests.Pushed(
        repository_id=permitted.repository_id,
        user_id=permitted.user_id,
        digest=digest,
        manifest=parsed,
        body=body,
        platforms=references.platforms,
        blob_ids=[blob.id for blob in references.blobs],
        child_ids=references.children,
        missing=references.missing,
    )
    return db.manifests.put(connection, known, pushed)


@dataclass(frozen=True, slots=True)
class _References:
    """What a manifest names: blobs and ids of manifests that the repository has, and digests of what may be missing."""

    blobs: Sequence[LinkedBlob]
    children: Sequence[int]
    missing: Sequence[str]
    platforms: Sequence[str]


def _image_references(connection: Connection, permitted: Permitted, parsed: Manifest) -> _References:
    """The references of an image. If the repository accepts sparse indexes, layers may be missing too."""
    configs = [parsed.config] if parsed.config else []
    named = [*configs, *parsed.layers]
    found = db.blobs.find_all(connection, permitted.repository_id, (item.digest for item in named))
    missing = sorted({item.digest for item in named} - set(found))
    needed = {item.digest for item in (configs if permitted.sparse_indexes else named)} - parsed.foreign
    if needed & set(missing):
        raise _unknown(sorted(needed & set(missing)))
    for item in named:
        if item.digest in found:
            _same_size(item.digest, item.size, found[item.digest].size)
    return _References(list(found.values()), [], missing, [])


def _index_references(connection: Connection, permitted: Permitted, parsed: Manifest) -> _References:
    """The references of an index: manifests, and blobs in the index of a build cache."""
    digests = [item.digest for item in parsed.children]
    children = db.manifests.find_all(connection, permitted.repository_id, digests)
    found: dict[str, LinkedBlob] = db.blobs.find_all(
        connection, permitted.repository_id, (digest for digest in digests if digest not in children)
    )
    missing = sorted(set(digests) - set(children) - set(found))
    if missing and not permitted.sparse_indexes:
        raise _unknown(missing)
    for item in parsed.children:
        if item.digest in children:
            _same_size(item.digest, item.size, children[item.digest].size)
    platforms = [item.platform for item in parsed.children if item.platform]
    if not platforms:
        platforms = [platform for child in children.values() for platform in child.platforms.split()]
    return _References(
        list(found.values()),
        [child.id for child in children.values()],
        missing,
        list(dict.fromkeys(platforms))[:PLATFORMS],
    )


def _same_size(digest: str, stated: int, actual: int) -> None:
    if stated != actual:
        msg = f"The manifest gives {digest} a size of {stated} bytes, but it has {actual}. No client could pull it."
        raise ManifestInvalid(msg)


def _unknown(missing: Sequence[str]) -> ManifestBlobUnknown:
    rest = f" and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
    named = ", ".join(missing[:NAMED])
    msg = f"The manifest names content that the repository does not have: {named}{rest}. Push that first."
    return ManifestBlobUnknown(msg, detail={"missing": missing[:NAMED]})


def _too_many_tags(digest: Digest) -> Denied:
    msg = f"An image has at most {db.tags.MAX_TAGS} tags, and {digest} would have more. Delete some of them first."
    return Denied(msg)
