"""Deleting, and what was deleted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from polly_dockers import trash, wire
from polly_dockers.web import signin
from polly_dockers.web.api import edge

if TYPE_CHECKING:
    from polly_dockers.db.trash import Item
    from polly_dockers.web.answer import Answer
    from polly_dockers.web.exchange import Exchange


async def delete(exchange: Exchange, organisation: str) -> Answer:
    """DELETE …/repository?name=[&tag=|&commit=][&preview=true]."""
    caller = await signin.by_full_token(exchange)
    item = await trash.delete(
        exchange.registry,
        caller.actor,
        organisation,
        edge.required(exchange, "name"),
        tag=exchange.query("tag"),
        commit=exchange.query("commit"),
        preview=not edge.choice(exchange, "preview", ("false", "true")),
    )
    return edge.rendered(_trash_item(exchange, organisation, item))


async def restore(exchange: Exchange, organisation: str) -> Answer:
    """POST …/trash."""
    caller = await signin.by_full_token(exchange)
    wanted = await exchange.json(wire.Restore)
    item = await trash.restore(
        exchange.registry,
        caller.actor,
        organisation,
        wanted.repository,
        tag=wanted.tag,
        commit=wanted.commit,
        new_name=wanted.new_name,
    )
    return edge.rendered(_trash_item(exchange, organisation, item))


async def page(exchange: Exchange, organisation: str) -> Answer:
    """GET …/trash."""
    caller = await signin.by_full_token(exchange)
    after = edge.key(exchange)
    found, following, total = await trash.page(
        exchange.registry,
        caller.actor,
        organisation,
        limit=edge.limit(exchange),
        after=after[1] if after is not None else None,
    )
    items = [_trash_item(exchange, organisation, item) for item in found]
    return edge.rendered(wire.Trash(items, total, edge.following(0, following) if following else None))


def _trash_item(exchange: Exchange, organisation: str, item: Item) -> wire.TrashItem:
    config = exchange.registry.config
    return wire.TrashItem(
        repository=f"{config.registry}/{organisation}/{item.repository}",
        kind=item.kind,  # type: ignore[arg-type]
        name=item.name,
        tags=list(item.tags),
        commits=item.commits,
        size=item.size,
        deleted_by=item.deleted_by,
        deleted_at=edge.time(item.deleted_at),
        restorable_until=edge.time(item.deleted_at + config.trash_days * 86_400_000_000),
        by_policy=item.by_policy,
    )
