"""Deleting, and what was deleted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from polly_dockers import api_types
from polly_dockers.registry import trash
from polly_dockers.web import authentication
from polly_dockers.web.api import params

if TYPE_CHECKING:
    from polly_dockers.db.trash import Item
    from polly_dockers.web.request import Exchange
    from polly_dockers.web.response import Answer


async def delete(exchange: Exchange, organisation: str) -> Answer:
    """DELETE …/repository?name=[&tag=|&commit=][&preview=true]."""
    caller = await authentication.by_full_token(exchange)
    item = await trash.delete(
        exchange.context,
        caller.actor,
        organisation,
        params.required(exchange, "name"),
        tag=exchange.query("tag"),
        commit=exchange.query("commit"),
        preview=not params.choice(exchange, "preview", ("false", "true")),
    )
    return params.rendered(_trash_item(exchange, organisation, item))


async def restore(exchange: Exchange, organisation: str) -> Answer:
    """POST …/trash."""
    caller = await authentication.by_full_token(exchange)
    wanted = await exchange.json(api_types.Restore)
    item = await trash.restore(
        exchange.context,
        caller.actor,
        organisation,
        wanted.repository,
        tag=wanted.tag,
        commit=wanted.commit,
        new_name=wanted.new_name,
    )
    return params.rendered(_trash_item(exchange, organisation, item))


async def page(exchange: Exchange, organisation: str) -> Answer:
    """GET …/trash."""
    caller = await authentication.by_full_token(exchange)
    after = params.key(exchange)
    found, following, total = await trash.page(
        exchange.context,
        caller.actor,
        organisation,
        limit=params.limit(exchange),
        after=after[1] if after is not None else None,
    )
    items = [_trash_item(exchange, organisation, item) for item in found]
    return params.rendered(api_types.Trash(items, total, params.following(0, following) if following else None))


def _trash_item(exchange: Exchange, organisation: str, item: Item) -> api_types.TrashItem:
    config = exchange.context.config
    return api_types.TrashItem(
        repository=f"{config.registry}/{organisation}/{item.repository}",
        kind=item.kind,  # type: ignore[arg-type]
        name=item.name,
        tags=list(item.tags),
        commits=item.commits,
        size=item.size,
        deleted_by=item.deleted_by,
        deleted_at=params.time(item.deleted_at),
        restorable_until=params.time(item.deleted_at + config.trash_days * 86_400_000_000),
        by_policy=item.by_policy,
    )
