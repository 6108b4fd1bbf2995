"""Invitations to an organisation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from polly_dockers import api_types
from polly_dockers.auth import invitations
from polly_dockers.errors import BadRequest
from polly_dockers.model import Role
from polly_dockers.web import authentication
from polly_dockers.web.api import params
from polly_dockers.web.response import Answer

if TYPE_CHECKING:
    from polly_dockers.db.invitations import Invitation
    from polly_dockers.web.request import Exchange


async def page(exchange: Exchange, organisation: str) -> Answer:
    """GET …/invitations."""
    caller = await authentication.by_full_token(exchange)
    limit = params.limit(exchange)
    found, total = await invitations.pending(
        exchange.context,
        caller.actor,
        organisation,
        after=(params.cursor(exchange) or [""])[0],
        newest_first=not params.choice(exchange, "order", ("oldest", "newest")),
        limit=limit + 1,
    )
    following = params.following(found[limit - 1].email) if len(found) > limit else None
    return params.rendered(api_types.Invitations([_item(each) for each in found[:limit]], total, following))


def _item(found: Invitation) -> api_types.InvitationItem:
    role: api_types.Role = found.role.name  # type: ignore[assignment]
    return api_types.InvitationItem(found.email, role, params.time(found.created_at), params.time(found.expires_at))


async def create(exchange: Exchange, organisation: str) -> Answer:
    """POST …/invitations."""
    caller = await authentication.by_full_token(exchange)
    wanted = await exchange.json(api_types.InvitationCreate)
    made, code = await invitations.invite(
        exchange.context, caller.actor, organisation, email=wanted.email, role=Role.parse(wanted.role)
    )
    return params.rendered(
        api_types.InvitationCreated(made.email, wanted.role, code, params.time(made.expires_at)), 201
    )


async def revoke(exchange: Exchange, organisation: str) -> Answer:
    """DELETE …/invitations?email=."""
    caller = await authentication.by_full_token(exchange)
    await invitations.revoke(exchange.context, caller.actor, organisation, params.required(exchange, "email"))
    return Answer(status=204)


async def accept(exchange: Exchange) -> Answer:
    """POST /api/v1/invitation: by who is signed in, or with email and password."""
    if "Authorization" in exchange.request.headers:
        caller = await authentication.by_full_token(exchange)
        wanted = await exchange.json(api_types.InvitationAccept)
        if wanted.email is not None or wanted.password is not None:
            msg = "email and password are for who is not signed in: send them without a token, or leave them out."
            raise BadRequest(msg)
        found = await invitations.accept(exchange.context, caller, wanted.code, exchange.address)
    else:
        wanted = await exchange.json(api_types.InvitationAccept)
        if wanted.email is None or wanted.password is None:
            msg = "Sign in first, or send email and password with the code: those of your account, or of a new one."
            raise BadRequest(msg)
        found = await invitations.accept_with_password(
            exchange.context, wanted.code, wanted.email, wanted.password, exchange.address
        )
    role: api_types.Role = found.role.name  # type: ignore[assignment]
    return params.rendered(api_types.InvitationAccepted(found.organisation, role, found.email))
