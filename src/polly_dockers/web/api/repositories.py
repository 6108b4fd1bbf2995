"""Docker repositories and their commits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from polly_dockers import history, repositories, wire
from polly_dockers.model import RepositoryName
from polly_dockers.web import signin
from polly_dockers.web.api import edge

if TYPE_CHECKING:
    from polly_dockers.model import Commit, Repository
    from polly_dockers.web.answer import Answer
    from polly_dockers.web.exchange import Exchange


def _repository_item(exchange: Exchange, found: Repository) -> wire.RepositoryItem:
    return wire.RepositoryItem(
        name=found.name.name,
        path=f"{exchange.registry.config.registry}/{found.name}",
        description=found.description,
        access="public" if found.access == "public" else "private",
        sparse_indexes="allow" if found.sparse_indexes == "allow" else "deny",
        tags=found.tags,
        commits=found.commits,
        size=found.size,
        created_by=found.created_by,
        created_at=edge.time(found.created_at),
        pushed_at=edge.time(found.pushed_at) if found.pushed_at is not None else None,
    )


async def page(exchange: Exchange, organisation: str) -> Answer:
    """GET …/repositories."""
    caller = await signin.by_full_token(exchange)
    found, key, total = await repositories.page(
        exchange.registry,
        caller.actor,
        organisation,
        by_push=not edge.choice(exchange, "sort", ("created", "pushed")),
        newest_first=edge.choice(exchange, "order", ("newest", "oldest")),
        limit=edge.limit(exchange),
        after=edge.key(exchange),
        search=(exchange.query("search") or "")[:200],
    )
    items = [_repository_item(exchange, item) for item in found]
    return edge.rendered(wire.Repositories(items, total, edge.following(*key) if key else None))


async def create(exchange: Exchange, organisation: str) -> Answer:
    """POST …/repositories."""
    caller = await signin.by_full_token(exchange)
    wanted = await exchange.json(wire.RepositoryCreate)
    made = await repositories.create(
        exchange.registry,
        caller.actor,
        organisation,
        name=wanted.name,
        description=wanted.description,
        public=wanted.access == "public",
    )
    return edge.rendered(_repository_item(exchange, made), 201)


async def one(exchange: Exchange, organisation: str) -> Answer:
    """GET …/repository?name=."""
    caller = await signin.by_full_token(exchange)
    found = await repositories.one(exchange.registry, caller.actor, organisation, edge.required(exchange, "name"))
    return edge.rendered(_repository_item(exchange, found))


async def update(exchange: Exchange, organisation: str) -> Answer:
    """PATCH …/repository?name=."""
    caller = await signin.by_full_token(exchange)
    wanted = await exchange.json(wire.RepositoryUpdate)
    found = await repositories.update(
        exchange.registry,
        caller.actor,
        organisation,
        edge.required(exchange, "name"),
        description=wanted.description,
        wanted_access=wanted.access,
        sparse_indexes=wanted.sparse_indexes,
    )
    return edge.rendered(_repository_item(exchange, found))


async def commits(exchange: Exchange, organisation: str) -> Answer:
    """GET …/commits?repository=."""
    caller = await signin.by_full_token(exchange)
    name = RepositoryName.of(organisation, edge.required(exchange, "repository"))
    after = edge.key(exchange)
    found, key, total = await history.commits(
        exchange.registry,
        caller.actor,
        name,
        tag=exchange.query("tag"),
        newest_first=edge.choice(exchange, "order", ("newest", "oldest")),
        limit=edge.limit(exchange),
        after=after[1] if after is not None else None,
    )
    path = f"{exchange.registry.config.registry}/{name}"
    items = [_commit_item(path, item) for item in found]
    return edge.rendered(wire.Commits(path, items, total, edge.following(0, key) if key else None))


async def tags(exchange: Exchange, organisation: str) -> Answer:
    """GET …/tags?repository=."""
    caller = await signin.by_full_token(exchange)
    name = RepositoryName.of(organisation, edge.required(exchange, "repository"))
    key = edge.key(exchange)
    found, following, total = await history.active_commits(
        exchange.registry,
        caller.actor,
        name,
        newest_first=edge.choice(exchange, "order", ("newest", "oldest")),
        limit=edge.limit(exchange),
        after=key[1] if key is not None else None,
    )
    path = f"{exchange.registry.config.registry}/{name}"
    items = [_tag_item(path, item) for item in found]
    return edge.rendered(wire.Tags(path, items, total, edge.following(0, following) if following else None))


def _tag_item(path: str, found: Commit) -> wire.TagItem:
    return wire.TagItem(
        tag=found.tag,
        commit=found.digest,
        size=found.size,
        platforms=list(found.platforms),
        media_type=found.media_type,
        pushed_at=edge.time(found.pushed_at),
        pushed_by=found.pushed_by,
        path=f"{path}:{found.tag}",
    )


def _commit_item(path: str, found: Commit) -> wire.CommitItem:
    return wire.CommitItem(
        tag=found.tag,
        commit=found.digest,
        status="active" if found.active else "inactive",
        size=found.size,
        platforms=list(found.platforms),
        media_type=found.media_type,
        pushed_at=edge.time(found.pushed_at),
        pushed_by=found.pushed_by,
        path=f"{path}@{found.digest}",
    )
