"""Deleting, and what was deleted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from polly_dockers import api_types
from polly_dockers.registry import deletion
from polly_dockers.system.durations import DAY
from polly_dockers.web import authentication
from polly_dockers.web.api import params

if TYPE_CHECKING:
    from polly_dockers.db.trash import Item
    from polly_dockers.web.request import Request
    from polly_dockers.web.response import Response


async def delete(request: Request, organisation: str) -> Response:
    """DELETE …/repository?name=[&tag=|&commit=][&preview=true]."""
    signed_in = await authentication.by_full_token(request)
    item = await deletion.delete(
        request.context,
        signed_in.actor,
        organisation,
        params.required(request, "name"),
        tag=request.query("tag"),
        commit=request.query("commit"),
        preview=not params.choice(request, "preview", ("false", "true")),
    )
    return params.json_response(_trash_item(request, organisation, item))


async def restore(request: Request, organisation: str) -> Response:
    """POST …/trash."""
    signed_in = await authentication.by_full_token(request)
    wanted = await request.json(api_types.Restore)
    item = await deletion.restore(
        request.context,
        signed_in.actor,
        organisation,
        wanted.repository,
        tag=wanted.tag,
        commit=wanted.commit,
        new_name=wanted.new_name,
    )
    return params.json_response(_trash_item(request, organisation, item))


async def page(request: Request, organisation: str) -> Response:
    """GET …/trash."""
    signed_in = await authentication.by_full_token(request)
    after = params.key(request)
    found, following, total = await deletion.page(
        request.context,
        signed_in.actor,
        organisation,
        limit=params.limit(request),
        after=after[1] if after is not None else None,
    )
    items = [_trash_item(request, organisation, item) for item in found]
    return params.json_response(api_types.Trash(items, total, params.following(0, following) if following else None))


def _trash_item(request: Request, organisation: str, item: Item) -> api_types.TrashItem:
    config = request.context.config
    return api_types.TrashItem(
        repository=f"{config.registry}/{organisation}/{item.repository}",
        kind=item.kind,  # type: ignore[arg-type]
        name=item.name,
        tags=list(item.tags),
        commits=item.commits,
        size=item.size,
        deleted_by=item.deleted_by,
        deleted_at=params.time(item.deleted_at),
        restorable_until=params.time(item.deleted_at + config.trash_days * DAY),
        by_policy=item.by_policy,
    )
