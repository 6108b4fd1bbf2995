"""Docker repositories and their commits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from polly_dockers import api_types
from polly_dockers.model import RepositoryName
from polly_dockers.registry import history, repositories
from polly_dockers.web.api import params

if TYPE_CHECKING:
    from polly_dockers.auth.sign_in import SignedIn
    from polly_dockers.model import Commit, Repository
    from polly_dockers.web.request import Request
    from polly_dockers.web.response import Response

SORT: Final = params.Choice("sort", "pushed: by the last push, or by creation if there is none.", ("created", "pushed"))
SEARCH: Final = params.Text("search", "Only those with this text in their name or description, in upper or lower case.")


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


async def page(request: Request, signed_in: SignedIn, organisation: str) -> Response:
    """GET …/repositories."""
    found, last, total = await repositories.page(
        request.context,
        signed_in.actor,
        organisation,
        by_push=SORT.read(request) == "pushed",
        newest_first=params.ORDER.read(request) == "newest",
        limit=params.LIMIT.read(request),
        after=params.cursor(request),
        search=(SEARCH.read(request) or "")[:200],
    )
    items = [_repository_item(request, item) for item in found]
    return params.json_response(api_types.Repositories(items, total, params.next_cursor(*last) if last else None))


async def create(
    request: Request, signed_in: SignedIn, organisation: str, wanted: api_types.RepositoryCreate
) -> Response:
    """POST …/repositories."""
    made = await repositories.create(
        request.context,
        signed_in.actor,
        organisation,
        name=wanted.name,
        description=wanted.description,
        public=wanted.access == "public",
    )
    return params.json_response(_repository_item(request, made), 201)


async def one(request: Request, signed_in: SignedIn, organisation: str) -> Response:
    """GET …/repository?name=."""
    found = await repositories.one(request.context, signed_in.actor, organisation, params.NAME.read(request))
    return params.json_response(_repository_item(request, found))


async def update(
    request: Request, signed_in: SignedIn, organisation: str, wanted: api_types.RepositoryUpdate
) -> Response:
    """PATCH …/repository?name=."""
    found = await repositories.update(
        request.context,
        signed_in.actor,
        organisation,
        params.NAME.read(request),
        description=wanted.description,
        wanted_access=wanted.access,
        sparse_indexes=wanted.sparse_indexes,
    )
    return params.json_response(_repository_item(request, found))


async def commits(request: Request, signed_in: SignedIn, organisation: str) -> Response:
    """GET …/commits?repository=."""
    name = RepositoryName.of(organisation, params.REPOSITORY.read(request))
    found, last, total = await history.commits(
        request.context,
        signed_in.actor,
        name,
        tag=params.TAG.read(request),
        **params.page(request),
    )
    path = f"{request.context.config.registry}/{name}"
    items = [_commit_item(path, item) for item in found]
    return params.json_response(api_types.Commits(path, items, total, params.next_id(last)))


async def tags(request: Request, signed_in: SignedIn, organisation: str) -> Response:
    """GET …/tags?repository=."""
    name = RepositoryName.of(organisation, params.REPOSITORY.read(request))
    found, last, total = await history.active_commits(request.context, signed_in.actor, name, **params.page(request))
    path = f"{request.context.config.registry}/{name}"
    items = [_tag_item(path, item) for item in found]
    return params.json_response(api_types.Tags(path, items, total, params.next_id(last)))


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
