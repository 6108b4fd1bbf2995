"""Members of an organisation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from polly_dockers import api_types
from polly_dockers.auth import members
from polly_dockers.model import Role
from polly_dockers.web.api import params
from polly_dockers.web.response import Response

if TYPE_CHECKING:
    from polly_dockers.auth.sign_in import SignedIn
    from polly_dockers.db.accounts import Member
    from polly_dockers.web.request import Request


def _member_item(found: Member) -> api_types.MemberItem:
    return api_types.MemberItem(found.email, found.role.name, params.time(found.joined_at))  # type: ignore[arg-type]


async def page(request: Request, signed_in: SignedIn, organisation: str) -> Response:
    """GET …/members."""
    found, total, following = await params.page_by_email(request, signed_in, organisation, members.page)
    return params.json_response(api_types.Members([_member_item(item) for item in found], total, following))


async def update(request: Request, signed_in: SignedIn, organisation: str, wanted: api_types.MemberUpdate) -> Response:
    """PATCH …/members?email=."""
    found = await members.set_role(
        request.context, signed_in.actor, organisation, params.EMAIL.read(request), Role.parse(wanted.role)
    )
    return params.json_response(_member_item(found))


async def remove(request: Request, signed_in: SignedIn, organisation: str) -> Response:
    """DELETE …/members?email=."""
    await members.remove(request.context, signed_in.actor, organisation, params.EMAIL.read(request))
    return Response(status=204)
