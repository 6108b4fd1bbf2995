"""Policies: what holds, and what would go."""

from __future__ import annotations

from typing import TYPE_CHECKING

from polly_dockers import api_types
from polly_dockers.registry import retention
from polly_dockers.web import authentication
from polly_dockers.web.api import params

if TYPE_CHECKING:
    from polly_dockers.db.retention import Policy
    from polly_dockers.registry.retention import Going, Preview
    from polly_dockers.web.request import Exchange
    from polly_dockers.web.response import Answer


async def page(exchange: Exchange, organisation: str) -> Answer:
    """GET …/policy."""
    caller = await authentication.by_full_token(exchange)
    after = params.cursor(exchange)
    holds, own, following = await retention.read(
        exchange.context, caller.actor, organisation, limit=params.limit(exchange), after=after[0] if after else ""
    )
    path = f"{exchange.context.config.registry}/{organisation}"
    items = [api_types.RepositoryPolicy(f"{path}/{name}", _policy(each)) for name, each in own]
    return params.rendered(
        api_types.Policies(_policy(holds), items, params.following(following) if following else None)
    )


async def update(exchange: Exchange, organisation: str) -> Answer:
    """PUT …/policy[?name=][&preview=true[&as_of=]]."""
    caller = await authentication.by_full_token(exchange)
    wanted = await exchange.json(api_types.PolicyUpdate)
    holds, seen = await retention.write(
        exchange.context,
        caller.actor,
        organisation,
        exchange.query("name"),
        retention.parse(wanted.keep, wanted.younger, wanted.newest, wanted.pulled),
        preview=not params.choice(exchange, "preview", ("false", "true")),
        as_of=params.moment(exchange, "as_of"),
    )
    return params.rendered(api_types.PolicyChange(_policy(holds), _preview(exchange, organisation, seen)))


async def preview(exchange: Exchange, organisation: str) -> Answer:
    """GET …/policy-preview[?name=][&as_of=]."""
    caller = await authentication.by_full_token(exchange)
    holds, seen = await retention.look(
        exchange.context, caller.actor, organisation, exchange.query("name"), as_of=params.moment(exchange, "as_of")
    )
    return params.rendered(api_types.PolicyChange(_policy(holds), _preview(exchange, organisation, seen)))


def _policy(found: Policy) -> api_types.Policy:
    return api_types.Policy("everything" if found.everything else "rules", found.younger, found.newest, found.pulled)


def _preview(exchange: Exchange, organisation: str, seen: Preview) -> api_types.PolicyPreview:
    path = f"{exchange.context.config.registry}/{organisation}"
    items = [_item(path, each) for each in seen.items]
    return api_types.PolicyPreview(seen.manifests, seen.commits, seen.size, seen.complete, items, params.time(seen.at))


def _item(path: str, each: Going) -> api_types.PolicyPreviewItem:
    place = f"{path}/{each.repository}@{each.digest}"
    return api_types.PolicyPreviewItem(place, list(each.tags), params.time(each.pushed_at), each.size)
