"""Members of an organisation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from polly_dockers import accounts, wire
from polly_dockers.model import Role
from polly_dockers.web import signin
from polly_dockers.web.answer import Answer
from polly_dockers.web.api import edge

if TYPE_CHECKING:
    from polly_dockers.db.accounts import Member
    from polly_dockers.web.exchange import Exchange


def _member_item(found: Member) -> wire.MemberItem:
    return wire.MemberItem(found.email, found.role.name, edge.time(found.joined_at))  # type: ignore[arg-type]


async def page(exchange: Exchange, organisation: str) -> Answer:
    """GET …/members."""
    caller = await signin.by_full_token(exchange)
    limit = edge.limit(exchange)
    found, total = await accounts.members(
        exchange.registry,
        caller.actor,
        organisation,
        after=(edge.cursor(exchange) or [""])[0],
        newest_first=not edge.choice(exchange, "order", ("oldest", "newest")),
        limit=limit + 1,
    )
    following = edge.following(found[limit - 1].email) if len(found) > limit else None
    return edge.rendered(wire.Members([_member_item(item) for item in found[:limit]], total, following))


async def update(exchange: Exchange, organisation: str) -> Answer:
    """PATCH …/members?email=."""
    caller = await signin.by_full_token(exchange)
    wanted = await exchange.json(wire.MemberUpdate)
    found = await accounts.set_role(
        exchange.registry, caller.actor, organisation, edge.required(exchange, "email"), Role.parse(wanted.role)
    )
    return edge.rendered(_member_item(found))


async def remove(exchange: Exchange, organisation: str) -> Answer:
    """DELETE …/members?email=."""
    caller = await signin.by_full_token(exchange)
    await accounts.remove_member(exchange.registry, caller.actor, organisation, edge.required(exchange, "email"))
    return Answer(status=204)
