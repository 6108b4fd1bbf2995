"""Lists: the commits, tags and referrers of a repository, and the catalogue of a user's repositories."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final

import msgspec

from polly_dockers import db
from polly_dockers.auth import permissions
from polly_dockers.errors import NameUnknown, TagUnknown, Unauthorized
from polly_dockers.model import Action, Commit, Digest, RepositoryName, Tag
from polly_dockers.oci.manifest import INDEXES, OCI_INDEX

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlalchemy import Connection

    from polly_dockers.context import Context
    from polly_dockers.model import Actor


REFERRERS: Final = 500
"""Referrers that a page is made of, at most. With a filter it has fewer descriptors, or none."""
FALLBACK: Final = 64 << 10
"""Bytes of the index under a fallback tag, at most; a larger one is not read. All pages are made on the event loop."""
ANNOTATIONS: Final = 4 << 20
"""Bytes of annotations on a page of referrers, at most. A page always has one descriptor, whatever its size."""


async def tags(context: Context, actor: Actor, name: RepositoryName, *, last: str, limit: int) -> list[str]:
    """Up to ``limit`` tags after ``last``, in the order of their bytes."""

    def query(connection: Connection) -> list[str]:
        permitted = permissions.require_permission(
            connection, actor, name, Action.pull, allow_public=context.allow_public
        )
        return db.tags.names(connection, permitted.repository_id, last, limit)

    return await context.database.read(query)


async def catalog(context: Context, actor: Actor, *, last: str, limit: int) -> list[str]:
    """Up to ``limit`` names of the repositories in the user's organisations, after ``last``.

    Raises Unauthorized if the registry token is not for the catalogue.
    """
    if not actor.catalog or actor.user_id is None:
        msg = "The catalogue needs a registry token of the scope registry:catalog:*."
        raise Unauthorized(msg, scope="registry:catalog:*", reason="insufficient_scope")
    organisation, _, after = last.partition("/")

    def query(connection: Connection) -> list[str]:
        permissions.require_alive(connection, actor)
        return db.repositories.names_after(connection, actor.user_id or 0, (organisation, after), limit)

    return await context.database.read(query)


async def referrers(
    context: Context,
    actor: Actor,
    name: RepositoryName,
    digest: Digest,
    *,
    artifact_types: Collection[str],
    after: int,
) -> tuple[list[bytes], int | None]:
    """A page of JSON descriptors of manifests whose subject is the digest, and the cursor of the next page.

    If ``artifact_types`` are given, only descriptors of one of them. A page may then be empty although another follows.
    The first page also has those of a small fallback tag. The specification wants only those that have a subject, and
    these are found by it.
    """

    def query(connection: Connection) -> tuple[list[bytes], int | None]:
        try:
            permitted = permissions.require_permission(
                connection, actor, name, Action.pull, allow_public=context.allow_public
            )
        except NameUnknown:
            return [], None
        repository_id, fallback_tag = permitted.repository_id, digest.replace(":", "-")
        body = db.tags.manifest_body(connection, repository_id, fallback_tag, FALLBACK) if after == 0 else None
        fallback = _fallback_entries(body)
        room = ANNOTATIONS - sum(len(item) for _, _, item in fallback)
        page, following = db.manifests.referrers(
            connection, repository_id, digest, artifact_types=artifact_types, after=after, limit=REFERRERS, room=room
        )
        found = {row.digest: _descriptor(row) for row in page}
        for name_of, artifact_type, item in fallback:
            if not artifact_types or artifact_type in artifact_types:
                found.setdefault(name_of, item)
        return list(found.values()), following

    return await context.database.read(query)


def _descriptor(row: Any) -> bytes:  # noqa: ANN401 - a row of named columns
    item = {"mediaType": row.media_type, "digest": row.digest, "size": row.size}
    if row.artifact_type:
        item["artifactType"] = row.artifact_type
    if row.annotations:
        item["annotations"] = msgspec.Raw(row.annotations)  # JSON already
    return msgspec.json.encode(item)


class _Index(msgspec.Struct):
    mediaType: str | None = None  # noqa: N815 - as on the wire
    manifests: list[msgspec.Raw] | None = None


class _Entry(msgspec.Struct):
    digest: str = ""
    artifactType: str | None = None  # noqa: N815 - as on the wire


def _fallback_entries(body: bytes | None) -> list[tuple[str, str | None, bytes]]:
    """Digest, artifact type and JSON of each entry of the index under the tag ``sha256-<hex>``.

    Clients that do not know the referrers API keep such an index.
    """
    found: list[tuple[str, str | None, bytes]] = []
    with contextlib.suppress(msgspec.DecodeError):
        document = msgspec.json.decode(body or b"{}", type=_Index)
        for item in document.manifests or [] if (document.mediaType or OCI_INDEX) in INDEXES else []:
            entry = msgspec.json.decode(item, type=_Entry)
            if entry.digest:
                found.append((entry.digest, entry.artifactType, bytes(item)))
    return found


async def commits(
    context: Context,
    actor: Actor,
    name: RepositoryName,
    *,
    tag: str | None,
    newest_first: bool,
    limit: int,
    after: int | None,
) -> tuple[list[Commit], int | None, int]:
    """A page of commits, the cursor of the next page, and the total number. For members.

    Raises OrganisationUnknown, NameUnknown, TagInvalid, and TagUnknown if the tag has no commit outside the trash.
    """
    if tag is not None:
        tag = Tag.parse(tag)

    def query(connection: Connection) -> tuple[list[Commit], int | None, int]:
        repository_id = permissions.require_member(connection, actor, name)
        found, following = db.commits.page(
            connection, repository_id, tag=tag, newest_first=newest_first, limit=limit, after=after
        )
        if tag is None:
            return found, following, db.repositories.one(connection, repository_id).commits
        total = db.commits.count(connection, repository_id, tag)
        if total == 0:
            raise TagUnknown(_no_commits(connection, repository_id, name, tag))
        return found, following, total

    await update_totals(context)
    return await context.database.read(query)


def _no_commits(connection: Connection, repository_id: int, name: RepositoryName, tag: str) -> str:
    """The message that a tag has no commits outside the trash."""
    commit = db.deleted.newest_commit(connection, repository_id, tag)
    if commit is None:
        way = f"polly dockers tags --name {name.name} shows its tags."
        return f"{name}:{tag} has no commits: nothing was pushed to it, or all of it was purged. {way}"
    deletion = db.deleted.find_tag(connection, repository_id, tag)
    option = f"--tag {tag}" if deletion is not None and not deletion.purging else f"--commit {commit.name}"
    return (
        f"All commits of {name}:{tag} are in the trash. An admin can restore the last one: "
        f"polly dockers restore --name {name.name} {option}"
    )


async def active_commits(
    context: Context, actor: Actor, name: RepositoryName, *, newest_first: bool, limit: int, after: int | None
) -> tuple[list[Commit], int | None, int]:
    """A page of the active commits, one for each tag; the cursor of the next page, and the number of tags.

    For members. Raises OrganisationUnknown and NameUnknown.
    """

    def query(connection: Connection) -> tuple[list[Commit], int | None, int]:
        repository_id = permissions.require_member(connection, actor, name)
        found, following = db.tags.page(connection, repository_id, newest_first=newest_first, limit=limit, after=after)
        return found, following, db.repositories.one(connection, repository_id).tags

    await update_totals(context)
    return await context.database.read(query)


async def update_totals(context: Context) -> None:
    """Update the totals and the times of last pushes of repositories. If the disk is full, they stay as they are."""
    if await context.database.read(db.repositories.deltas_wait):
        applied: list[int] = []
        while await context.write_aside("totals", _apply_deltas, applied) and applied[-1] == db.repositories.AT_ONCE:
            pass


def _apply_deltas(connection: Connection, applied: list[int]) -> None:
    applied.append(db.repositories.apply_deltas(connection))
