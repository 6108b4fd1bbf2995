"""Members of an organisation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from polly_dockers import api_types
from polly_dockers.auth import accounts
from polly_dockers.model import Role
from polly_dockers.web import authentication
from polly_dockers.web.api import params
from polly_dockers.web.response import Answer

if TYPE_CHECKING:
    from polly_dockers.db.accounts import Member
    from polly_dockers.web.request import Exchange


def _member_item(found: Member) -> api_types.MemberItem:
    return api_types.MemberItem(found.email, found.role.name, params.time(found.joined_at))  # type: ignore[arg-type]


async def page(exchange: Exchange, organisation: str) -> Answer:
    """GET …/members."""
    caller = await authentication.by_full_token(exchange)
    limit = params.limit(exchange)
    found, total = await accounts.members(
        exchange.context,
        caller.actor,
        organisation,
        after=(params.cursor(exchange) or [""])[0],
        newest_first=not params.choice(exchange, "order", ("oldest", "newest")),
        limit=limit + 1,
    )
    following = params.following(found[limit - 1].email) if len(found) > limit else None
    return params.rendered(api_types.Members([_member_item(item) for item in found[:limit]], total, following))


async def update(exchange: Exchange, organisation: str) -> Answer:
    """PATCH …/members?email=."""
    caller = await authentication.by_full_token(exchange)
    wanted = await exchange.json(api_types.MemberUpdate)
    found = await accounts.set_role(
        exchange.context, caller.actor, organisation, params.required(exchange, "email"), Role.parse(wanted.role)
    )
    return params.rendered(_member_item(found))


async def remove(exchange: Exchange, organisation: str) -> Answer:
    """DELETE …/members?email=."""
    caller = await authentication.by_full_token(exchange)
    await accounts.remove_member(exchange.context, caller.actor, organisation, params.required(exchange, "email"))
    return Answer(status=204)
