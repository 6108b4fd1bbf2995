"""What a repository holds: commits, tags, referrers; and the catalogue of a user's repositories."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from polly_dockers import access
from polly_dockers.db import manifests as rows
from polly_dockers.db import repositories as repository_rows
from polly_dockers.db import tags as tag_rows
from polly_dockers.errors import NameUnknown, TagUnknown, Unauthorized
from polly_dockers.manifests import INDEXES, OCI_INDEX
from polly_dockers.model import Action, Commit, Digest, RepositoryName, Role, Tag

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from polly_dockers.model import Actor
    from polly_dockers.registry import Registry


REFERRERS: Final = 500
"""Descriptors on a page of referrers: each carries annotations of its own."""


async def tags(registry: Registry, actor: Actor, name: RepositoryName, *, last: str, limit: int) -> list[str]:
    """Up to ``limit`` tags in the order of their bytes, after ``last``."""
    return await registry.db.read(_tags, registry, actor, name, last, limit)


def _tags(
    connection: Connection, registry: Registry, actor: Actor, name: RepositoryName, last: str, limit: int
) -> list[str]:
    reached = access.reach(connection, actor, name, Action.pull, public=registry.public)
    return rows.tag_names(connection, reached.repository_id, last, limit)


async def catalog(registry: Registry, actor: Actor, *, last: str, limit: int) -> list[str]:
    """Up to ``limit`` names of the repositories in the user's organisations, after ``last``.

    Raises Unauthorized for a token that was not made for the catalogue.
    """
    if not actor.catalog or actor.user_id is None:
        msg = "The catalogue takes a token of the scope registry:catalog:*."
        raise Unauthorized(msg, scope="registry:catalog:*", reason="insufficient_scope")
    return await registry.db.read(_catalog, actor, last, limit)


def _catalog(connection: Connection, actor: Actor, last: str, limit: int) -> list[str]:
    if not access.alive(connection, actor):
        raise access.ended()
    organisation, _, name = last.partition("/")
    return repository_rows.names_after(connection, actor.user_id or 0, (organisation, name), limit)


async def referrers(
    registry: Registry,
    actor: Actor,
    name: RepositoryName,
    digest: Digest,
    *,
    artifact_types: Sequence[str],
    after: int,
) -> tuple[list[dict[str, Any]], int | None]:
    """A page of descriptors of what refers to the digest, and what the next page comes after.

    Of any of ``artifact_types`` where some are given. "If the registry supports the referrers API … MUST include" those
    of the fallback tag too, which stand on the first page.
    """
    return await registry.db.read(_referrers, registry, actor, name, digest, artifact_types, after)


def _referrers(
    connection: Connection,
    registry: Registry,
    actor: Actor,
    name: RepositoryName,
    digest: Digest,
    artifact_types: Sequence[str],
    after: int,
) -> tuple[list[dict[str, Any]], int | None]:
    try:
        reached = access.reach(connection, actor, name, Action.pull, public=registry.public)
    except NameUnknown:
        return [], None
    page = rows.referrers(
        connection,
        reached.repository_id,
        digest,
        artifact_types=artifact_types,
        after=after,
        limit=REFERRERS + 1,
    )
    found = {row.digest: _descriptor(row) for row in page[:REFERRERS]}
    if after == 0:
        fallback = rows.body_of_tag(connection, reached.repository_id, digest.replace(":", "-"))
        for item in _fallback_entries(fallback):
            if not artifact_types or item.get("artifactType") in artifact_types:
                found.setdefault(item["digest"], item)
    return list(found.values()), page[REFERRERS - 1].id if len(page) > REFERRERS else None


def _descriptor(row: Any) -> dict[str, Any]:  # noqa: ANN401 - a row of named columns
    item = {"mediaType": row.media_type, "digest": row.digest, "size": row.size}
    if row.artifact_type:
        item["artifactType"] = row.artifact_type
    if row.annotations:
        item["annotations"] = json.loads(row.annotations)
    return item


def _fallback_entries(body: bytes | None) -> list[dict[str, Any]]:
    """The entries of an index that a client without the referrers API keeps under ``sha256-<hex>``."""
    if body is None:
        return []
    document = json.loads(body)
    if document.get("mediaType", OCI_INDEX) not in INDEXES:
        return []
    return [item for item in document.get("manifests", ()) if isinstance(item, dict) and "digest" in item]


async def commits(
    registry: Registry,
    actor: Actor,
    name: RepositoryName,
    *,
    tag: str | None,
    newest_first: bool,
    limit: int,
    after: tuple[int, int] | None,
) -> tuple[list[Commit], tuple[int, int] | None, int]:
    """A page of commits, the key of the next page, and how many there are in all.

    Raises OrganisationUnknown, NameUnknown, TagInvalid, and TagUnknown for a tag that nothing was pushed to.
    """
    if tag is not None:
        tag = Tag.parse(tag)
    await fold(registry)
    return await registry.db.read(_commits, actor, name, tag, newest_first, limit, after)


def _commits(
    connection: Connection,
    actor: Actor,
    name: RepositoryName,
    tag: str | None,
    newest_first: bool,  # noqa: FBT001 - handed through from the keyword above
    limit: int,
    after: tuple[int, int] | None,
) -> tuple[list[Commit], tuple[int, int] | None, int]:
    access.member(connection, actor, name.organisation, Role.reader)
    reached = access.reach(connection, actor, name, Action.pull)
    found, following = rows.commit_page(
        connection, reached.repository_id, tag=tag, newest_first=newest_first, limit=limit, after=after
    )
    if tag is None:
        return found, following, repository_rows.one(connection, reached.repository_id).commits
    total = rows.count_commits(connection, reached.repository_id, tag)
    if total == 0:
        msg = f"Nothing was ever pushed to {name}:{tag}. polly dockers commit-list --name {name.name} shows its tags."
        raise TagUnknown(msg)
    return found, following, total


async def active_commits(
    registry: Registry, actor: Actor, name: RepositoryName, *, newest_first: bool, limit: int, after: int | None
) -> tuple[list[Commit], int | None, int]:
    """A page of tags by their active commits, the key of the next page, and how many tags there are.

    For members. Raises OrganisationUnknown, NameUnknown.
    """

    def query(connection: Connection) -> tuple[list[Commit], int | None, int]:
        access.member(connection, actor, name.organisation, Role.reader)
        reached = access.reach(connection, actor, name, Action.pull)
        found, following = tag_rows.page(
            connection, reached.repository_id, newest_first=newest_first, limit=limit, after=after
        )
        return found, following, repository_rows.one(connection, reached.repository_id).tags

    await fold(registry)
    return await registry.db.read(query)


async def fold(registry: Registry) -> None:
    """Bring totals and times of last pushes up to now; where the disk is full, they stay as they were."""
    if await registry.db.read(repository_rows.deltas_wait):
        folded: list[int] = []
        while await registry.write_aside("totals", _fold, folded) and folded[-1] == repository_rows.FOLD:
            pass


def _fold(connection: Connection, folded: list[int]) -> None:
    folded.append(repository_rows.fold_deltas(connection))
