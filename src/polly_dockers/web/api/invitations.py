"""Invitations to an organisation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from polly_dockers import api_types
from polly_dockers.auth import invitations
from polly_dockers.errors import BadRequest
from polly_dockers.model import Role
from polly_dockers.web.api import params
from polly_dockers.web.response import Response

if TYPE_CHECKING:
    from polly_dockers.auth.sign_in import SignedIn
    from polly_dockers.db.invitations import Invitation
    from polly_dockers.web.request import Request


async def page(request: Request, signed_in: SignedIn, organisation: str) -> Response:
    """GET …/invitations."""
    found, total, following = await params.page_by_email(request, signed_in, organisation, invitations.pending)
    return params.json_response(api_types.Invitations([_item(each) for each in found], total, following))


def _item(found: Invitation) -> api_types.InvitationItem:
    role: api_types.Role = found.role.name  # type: ignore[assignment]
    return api_types.InvitationItem(found.email, role, params.time(found.created_at), params.time(found.expires_at))


async def create(
    request: Request, signed_in: SignedIn, organisation: str, wanted: api_types.InvitationCreate
) -> Response:
    """POST …/invitations."""
    made, code = await invitations.invite(
        request.context, signed_in.actor, organisation, email=wanted.email, role=Role.parse(wanted.role)
    )
    return params.json_response(
        api_types.InvitationCreated(made.email, wanted.role, code, params.time(made.expires_at)), 201
    )


async def revoke(request: Request, signed_in: SignedIn, organisation: str) -> Response:
    """DELETE …/invitations?email=."""
    await invitations.revoke(request.context, signed_in.actor, organisation, params.EMAIL.read(request))
    return Response(status=204)


async def accept(request: Request, signed_in: SignedIn | None, wanted: api_types.InvitationAccept) -> Response:
    """POST /api/v1/invitation: signed in, or with email and password."""
    if signed_in is not None:
        if wanted.email is not None or wanted.password is not None:
            msg = "You are signed in: leave out email and password, or send the request without a token."
            raise BadRequest(msg)
        found = await invitations.accept(request.context, signed_in, wanted.code, request.address)
    else:
        if wanted.email is None or wanted.password is None:
            msg = "Sign in first, or send email and password with the code: those of your account, or of a new one."
            raise BadRequest(msg)
        found = await invitations.accept_with_password(
            request.context, wanted.code, wanted.email, wanted.password, request.address
        )
    role: api_types.Role = found.role.name  # type: ignore[assignment]
    return params.json_response(api_types.InvitationAccepted(found.organisation, role, found.email))
