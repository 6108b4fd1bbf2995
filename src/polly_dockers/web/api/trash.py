"""Deleting and restoring, and the items in the trash."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from polly_dockers import api_types
from polly_dockers.registry import deletion
from polly_dockers.system.durations import DAY
from polly_dockers.web.api import params

if TYPE_CHECKING:
    from polly_dockers.auth.sign_in import SignedIn
    from polly_dockers.db.trash import Item
    from polly_dockers.web.request import Request
    from polly_dockers.web.response import Response

COMMIT: Final = params.Text("commit", "Only this commit: the first 6 hexadecimal digits of its digest, or more.")


async def delete(request: Request, signed_in: SignedIn, organisation: str) -> Response:
    """DELETE …/repository?name=[&tag=|&commit=][&preview=true]."""
    item = await deletion.delete(
        request.context,
        signed_in.actor,
        organisation,
        params.NAME.read(request),
        tag=params.TAG.read(request),
        commit=COMMIT.read(request),
        preview=params.PREVIEW.read(request) == "true",
    )
    return params.json_response(_trash_item(request, organisation, item))


async def restore(request: Request, signed_in: SignedIn, organisation: str, wanted: api_types.Restore) -> Response:
    """POST …/trash."""
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


async def page(request: Request, signed_in: SignedIn, organisation: str) -> Response:
    """GET …/trash."""
    found, following, total = await deletion.page(
        request.context,
        signed_in.actor,
        organisation,
        limit=params.LIMIT.read(request),
        after=params.cursor_id(request),
    )
    items = [_trash_item(request, organisation, item) for item in found]
    return params.json_response(api_types.Trash(items, total, params.next_id(following)))


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
