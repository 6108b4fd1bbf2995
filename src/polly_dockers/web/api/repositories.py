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
    from polly_dockers.web.request import Request
    from polly_dockers.web.response import Response


def _repository_item(request: Request, found: Repository) -> api_types.RepositoryItem:
    return api_types.RepositoryItem(
        name=found.name.name,
        path=f"{request.context.config.registry}/{found.name}",
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


async def page(request: Request, organisation: str) -> Response:
    """GET …/repositories."""
    signed_in = await authentication.by_full_token(request)
    found, key, total = await repositories.page(
        request.context,
        signed_in.actor,
        organisation,
        by_push=not params.choice(request, "sort", ("created", "pushed")),
        newest_first=params.choice(request, "order", ("newest", "oldest")),
        limit=params.limit(request),
        after=params.key(request),
        search=(request.query("search") or "")[:200],
    )
    items = [_repository_item(request, item) for item in found]
    return params.json_response(api_types.Repositories(items, total, params.following(*key) if key else None))


async def create(request: Request, organisation: str) -> Response:
    """POST …/repositories."""
    signed_in = await authentication.by_full_token(request)
    wanted = await request.json(api_types.RepositoryCreate)
    made = await repositories.create(
        request.context,
        signed_in.actor,
        organisation,
        name=wanted.name,
        description=wanted.description,
        public=wanted.access == "public",
    )
    return params.json_response(_repository_item(request, made), 201)


async def one(request: Request, organisation: str) -> Response:
    """GET …/repository?name=."""
    signed_in = await authentication.by_full_token(request)
    found = await repositories.one(request.context, signed_in.actor, organisation, params.required(request, "name"))
    return params.json_response(_repository_item(request, found))


async def update(request: Request, organisation: str) -> Response:
    """PATCH …/repository?name=."""
    signed_in = await authentication.by_full_token(request)
    wanted = await request.json(api_types.RepositoryUpdate)
    found = await repositories.update(
        request.context,
        signed_in.actor,
        organisation,
        params.required(request, "name"),
        description=wanted.description,
        wanted_access=wanted.access,
        sparse_indexes=wanted.sparse_indexes,
    )
    return params.json_response(_repository_item(request, found))


async def commits(request: Request, organisation: str) -> Response:
    """GET …/commits?repository=."""
    signed_in = await authentication.by_full_token(request)
    name = RepositoryName.of(organisation, params.required(request, "repository"))
    after = params.key(request)
    found, key, total = await history.commits(
        request.context,
        signed_in.actor,
        name,
        tag=request.query("tag"),
        newest_first=params.choice(request, "order", ("newest", "oldest")),
        limit=params.limit(request),
        after=after[1] if after is not None else None,
    )
    path = f"{request.context.config.registry}/{name}"
    items = [_commit_item(path, item) for item in found]
    return params.json_response(api_types.Commits(path, items, total, params.following(0, key) if key else None))


async def tags(request: Request, organisation: str) -> Response:
    """GET …/tags?repository=."""
    signed_in = await authentication.by_full_token(request)
    name = RepositoryName.of(organisation, params.required(request, "repository"))
    key = params.key(request)
    found, following, total = await history.active_commits(
        request.context,
        signed_in.actor,
        name,
        newest_first=params.choice(request, "order", ("newest", "oldest")),
        limit=params.limit(request),
        after=key[1] if key is not None else None,
    )
    path = f"{request.context.config.registry}/{name}"
    items = [_tag_item(path, item) for item in found]
    return params.json_response(
        api_types.Tags(path, items, total, params.following(0, following) if following else None)
    )


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
