"""Invitations to an organisation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from polly_dockers import invitations, wire
from polly_dockers.errors import BadRequest
from polly_dockers.model import Role
from polly_dockers.web import signin
from polly_dockers.web.answer import Answer
from polly_dockers.web.api import edge

if TYPE_CHECKING:
    from polly_dockers.db.invitations import Invitation
    from polly_dockers.web.exchange import Exchange


async def page(exchange: Exchange, organisation: str) -> Answer:
    """GET …/invitations."""
    caller = await signin.by_full_token(exchange)
    limit = edge.limit(exchange)
    found, total = await invitations.pending(
        exchange.registry,
        caller.actor,
        organisation,
        after=(edge.cursor(exchange) or [""])[0],
        newest_first=not edge.choice(exchange, "order", ("oldest", "newest")),
        limit=limit + 1,
    )
    following = edge.following(found[limit - 1].email) if len(found) > limit else None
    return edge.rendered(wire.Invitations([_item(each) for each in found[:limit]], total, following))


def _item(found: Invitation) -> wire.InvitationItem:
    role: wire.Role = found.role.name  # type: ignore[assignment]
    return wire.InvitationItem(found.email, role, edge.time(found.created_at), edge.time(found.expires_at))


async def create(exchange: Exchange, organisation: str) -> Answer:
    """POST …/invitations."""
    caller = await signin.by_full_token(exchange)
    wanted = await exchange.json(wire.InvitationCreate)
    made, code = await invitations.invite(
        exchange.registry, caller.actor, organisation, email=wanted.email, role=Role.parse(wanted.role)
    )
    return edge.rendered(wire.InvitationCreated(made.email, wanted.role, code, edge.time(made.expires_at)), 201)


async def revoke(exchange: Exchange, organisation: str) -> Answer:
    """DELETE …/invitations?email=."""
    caller = await signin.by_full_token(exchange)
    await invitations.revoke(exchange.registry, caller.actor, organisation, edge.required(exchange, "email"))
    return Answer(status=204)


async def accept(exchange: Exchange) -> Answer:
    """POST /api/v1/invitation: by who is signed in, or with email and password."""
    if "Authorization" in exchange.request.headers:
        caller = await signin.by_full_token(exchange)
        wanted = await exchange.json(wire.InvitationAccept)
        if wanted.email is not None or wanted.password is not None:
            msg = "email and password are for who is not signed in: send them without a token, or leave them out."
            raise BadRequest(msg)
        found = await invitations.accept(exchange.registry, caller, wanted.code, exchange.address)
    else:
        wanted = await exchange.json(wire.InvitationAccept)
        if wanted.email is None or wanted.password is None:
            msg = "Sign in first, or send email and password with the code: those of your account, or of a new one."
            raise BadRequest(msg)
        found = await invitations.accept_with_password(
            exchange.registry, wanted.code, wanted.email, wanted.password, exchange.address
        )
    role: wire.Role = found.role.name  # type: ignore[assignment]
    return edge.rendered(wire.InvitationAccepted(found.organisation, role, found.email))
