"""Docker repositories and their commits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from polly_dockers import api_types
from polly_dockers.model import RepositoryName
from polly_dockers.registry import history, repositories
from polly_dockers.web import authentication
from polly_dockers.web.api import params

if TYPE_CHECKING:
    from polly_dockers.model import Commit, Repository
    from polly_dockers.web.request import Exchange
    from polly_dockers.web.response import Answer


def _repository_item(exchange: Exchange, found: Repository) -> api_types.RepositoryItem:
    return api_types.RepositoryItem(
        name=found.name.name,
        path=f"{exchange.context.config.registry}/{found.name}",
        description=found.description,
        access="public" if found.access == "public" else "private",
        sparse_indexes="allow" if found.sparse_indexes == "allow" else "deny",
        tags=found.tags,
        commits=found.commits,
        size=found.size,
        created_by=found.created_by,
        created_at=params.time(found.created_at),
        pushed_at=params.time(found.pushed_at) if found.pushed_at is not None else None,
    )


async def page(exchange: Exchange, organisation: str) -> Answer:
    """GET …/repositories."""
    caller = await authentication.by_full_token(exchange)
    found, key, total = await repositories.page(
        exchange.context,
        caller.actor,
        organisation,
        by_push=not params.choice(exchange, "sort", ("created", "pushed")),
        newest_first=params.choice(exchange, "order", ("newest", "oldest")),
        limit=params.limit(exchange),
        after=params.key(exchange),
        search=(exchange.query("search") or "")[:200],
    )
    items = [_repository_item(exchange, item) for item in found]
    return params.rendered(api_types.Repositories(items, total, params.following(*key) if key else None))


async def create(exchange: Exchange, organisation: str) -> Answer:
    """POST …/repositories."""
    caller = await authentication.by_full_token(exchange)
    wanted = await exchange.json(api_types.RepositoryCreate)
    made = await repositories.create(
        exchange.context,
        caller.actor,
        organisation,
        name=wanted.name,
        description=wanted.description,
        public=wanted.access == "public",
    )
    return params.rendered(_repository_item(exchange, made), 201)


async def one(exchange: Exchange, organisation: str) -> Answer:
    """GET …/repository?name=."""
    caller = await authentication.by_full_token(exchange)
    found = await repositories.one(exchange.context, caller.actor, organisation, params.required(exchange, "name"))
    return params.rendered(_repository_item(exchange, found))


async def update(exchange: Exchange, organisation: str) -> Answer:
    """PATCH …/repository?name=."""
    caller = await authentication.by_full_token(exchange)
    wanted = await exchange.json(api_types.RepositoryUpdate)
    found = await repositories.update(
        exchange.context,
        caller.actor,
        organisation,
        params.required(exchange, "name"),
        description=wanted.description,
        wanted_access=wanted.access,
        sparse_indexes=wanted.sparse_indexes,
    )
    return params.rendered(_repository_item(exchange, found))


async def commits(exchange: Exchange, organisation: str) -> Answer:
    """GET …/commits?repository=."""
    caller = await authentication.by_full_token(exchange)
    name = RepositoryName.of(organisation, params.required(exchange, "repository"))
    after = params.key(exchange)
    found, key, total = await history.commits(
        exchange.context,
        caller.actor,
        name,
        tag=exchange.query("tag"),
        newest_first=params.choice(exchange, "order", ("newest", "oldest")),
        limit=params.limit(exchange),
        after=after[1] if after is not None else None,
    )
    path = f"{exchange.context.config.registry}/{name}"
    items = [_commit_item(path, item) for item in found]
    return params.rendered(api_types.Commits(path, items, total, params.following(0, key) if key else None))


async def tags(exchange: Exchange, organisation: str) -> Answer:
    """GET …/tags?repository=."""
    caller = await authentication.by_full_token(exchange)
    name = RepositoryName.of(organisation, params.required(exchange, "repository"))
    key = params.key(exchange)
    found, following, total = await history.active_commits(
        exchange.context,
        caller.actor,
        name,
        newest_first=params.choice(exchange, "order", ("newest", "oldest")),
        limit=params.limit(exchange),
        after=key[1] if key is not None else None,
    )
    path = f"{exchange.context.config.registry}/{name}"
    items = [_tag_item(path, item) for item in found]
    return params.rendered(api_types.Tags(path, items, total, params.following(0, following) if following else None))


def _tag_item(path: str, found: Commit) -> api_types.TagItem:
    return api_types.TagItem(
        tag=found.tag,
        commit=found.digest,
        size=found.size,
        platforms=list(found.platforms),
        media_type=found.media_type,
        pushed_at=params.time(found.pushed_at),
        pushed_by=found.pushed_by,
        path=f"{path}:{found.tag}",
    )


def _commit_item(path: str, found: Commit) -> api_types.CommitItem:
    return api_types.CommitItem(
        tag=found.tag,
        commit=found.digest,
        status="active" if found.active else "inactive",
        size=found.size,
        platforms=list(found.platforms),
        media_type=found.media_type,
        pushed_at=params.time(found.pushed_at),
        pushed_by=found.pushed_by,
        path=f"{path}@{found.digest}",
    )
