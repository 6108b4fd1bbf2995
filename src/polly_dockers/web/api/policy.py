"""Policies: what holds, and what would go."""

from __future__ import annotations

from typing import TYPE_CHECKING

from polly_dockers import policy, wire
from polly_dockers.web import signin
from polly_dockers.web.api import edge

if TYPE_CHECKING:
    from polly_dockers.db.policy import Policy
    from polly_dockers.policy import Going, Preview
    from polly_dockers.web.answer import Answer
    from polly_dockers.web.exchange import Exchange


async def page(exchange: Exchange, organisation: str) -> Answer:
    """GET …/policy."""
    caller = await signin.by_full_token(exchange)
    after = edge.cursor(exchange)
    holds, own, following = await policy.read(
        exchange.registry, caller.actor, organisation, limit=edge.limit(exchange), after=after[0] if after else ""
    )
    path = f"{exchange.registry.config.registry}/{organisation}"
    items = [wire.RepositoryPolicy(f"{path}/{name}", _policy(each)) for name, each in own]
    return edge.rendered(wire.Policies(_policy(holds), items, edge.following(following) if following else None))


async def update(exchange: Exchange, organisation: str) -> Answer:
    """PUT …/policy[?name=][&preview=true[&as_of=]]."""
    caller = await signin.by_full_token(exchange)
    wanted = await exchange.json(wire.PolicyUpdate)
    holds, seen = await policy.write(
        exchange.registry,
        caller.actor,
        organisation,
        exchange.query("name"),
        policy.parse(wanted.keep, wanted.younger, wanted.newest, wanted.pulled),
        preview=not edge.choice(exchange, "preview", ("false", "true")),
        as_of=edge.moment(exchange, "as_of"),
    )
    return edge.rendered(wire.PolicyChange(_policy(holds), _preview(exchange, organisation, seen)))


async def preview(exchange: Exchange, organisation: str) -> Answer:
    """GET …/policy-preview[?name=][&as_of=]."""
    caller = await signin.by_full_token(exchange)
    holds, seen = await policy.look(
        exchange.registry, caller.actor, organisation, exchange.query("name"), as_of=edge.moment(exchange, "as_of")
    )
    return edge.rendered(wire.PolicyChange(_policy(holds), _preview(exchange, organisation, seen)))


def _policy(found: Policy) -> wire.Policy:
    return wire.Policy("everything" if found.everything else "rules", found.younger, found.newest, found.pulled)


def _preview(exchange: Exchange, organisation: str, seen: Preview) -> wire.PolicyPreview:
    path = f"{exchange.registry.config.registry}/{organisation}"
    items = [_item(path, each) for each in seen.items]
    return wire.PolicyPreview(seen.manifests, seen.commits, seen.size, seen.complete, items, edge.time(seen.at))


def _item(path: str, each: Going) -> wire.PolicyPreviewItem:
    place = f"{path}/{each.repository}@{each.digest}"
    return wire.PolicyPreviewItem(place, list(each.tags), edge.time(each.pushed_at), each.size)
