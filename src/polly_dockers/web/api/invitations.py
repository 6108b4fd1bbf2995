"""Invitations to an organisation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from polly_dockers import api_types
from polly_dockers.auth import invitations
from polly_dockers.errors import BadRequest
from polly_dockers.model import Role
from polly_dockers.web import authentication
from polly_dockers.web.api import params
from polly_dockers.web.response import Response

if TYPE_CHECKING:
    from polly_dockers.db.invitations import Invitation
    from polly_dockers.web.request import Request


async def page(request: Request, organisation: str) -> Response:
    """GET …/invitations."""
    signed_in = await authentication.by_full_token(request)
    limit = params.limit(request)
    found, total = await invitations.pending(
        request.context,
        signed_in.actor,
        organisation,
        after=(params.cursor(request) or [""])[0],
        newest_first=not params.choice(request, "order", ("oldest", "newest")),
        limit=limit + 1,
    )
    following = params.following(found[limit - 1].email) if len(found) > limit else None
    return params.json_response(api_types.Invitations([_item(each) for each in found[:limit]], total, following))


def _item(found: Invitation) -> api_types.InvitationItem:
    role: api_types.Role = found.role.name  # type: ignore[assignment]
    return api_types.InvitationItem(found.email, role, params.time(found.created_at), params.time(found.expires_at))


async def create(request: Request, organisation: str) -> Response:
    """POST …/invitations."""
    signed_in = await authentication.by_full_token(request)
    wanted = await request.json(api_types.InvitationCreate)
    made, code = await invitations.invite(
        request.context, signed_in.actor, organisation, email=wanted.email, role=Role.parse(wanted.role)
    )
    return params.json_response(
        api_types.InvitationCreated(made.email, wanted.role, code, params.time(made.expires_at)), 201
    )


async def revoke(request: Request, organisation: str) -> Response:
    """DELETE …/invitations?email=."""
    signed_in = await authentication.by_full_token(request)
    await invitations.revoke(request.context, signed_in.actor, organisation, params.required(request, "email"))
    return Response(status=204)


async def accept(request: Request) -> Response:
    """POST /api/v1/invitation: by who is signed in, or with email and password."""
    if "Authorization" in request.headers:
        signed_in = await authentication.by_full_token(request)
        wanted = await request.json(api_types.InvitationAccept)
        if wanted.email is not None or wanted.password is not None:
            msg = "email and password are for who is not signed in: send them without a token, or leave them out."
            raise BadRequest(msg)
        found = await invitations.accept(request.context, signed_in, wanted.code, request.address)
    else:
        wanted = await request.json(api_types.InvitationAccept)
        if wanted.email is None or wanted.password is None:
            msg = "Sign in first, or send email and password with the code: those of your account, or of a new one."
            raise BadRequest(msg)
        found = await invitations.accept_with_password(
            request.context, wanted.code, wanted.email, wanted.password, request.address
        )
    role: api_types.Role = found.role.name  # type: ignore[assignment]
    return params.json_response(api_types.InvitationAccepted(found.organisation, role, found.email))
