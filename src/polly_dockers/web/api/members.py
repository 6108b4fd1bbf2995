"""Members of an organisation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from polly_dockers import api_types
from polly_dockers.auth import members
from polly_dockers.model import Role
from polly_dockers.web import authentication
from polly_dockers.web.api import params
from polly_dockers.web.response import Response

if TYPE_CHECKING:
    from polly_dockers.db.accounts import Member
    from polly_dockers.web.request import Request


def _member_item(found: Member) -> api_types.MemberItem:
    return api_types.MemberItem(found.email, found.role.name, params.time(found.joined_at))  # type: ignore[arg-type]


async def page(request: Request, organisation: str) -> Response:
    """GET …/members."""
    signed_in = await authentication.by_full_token(request)
    limit = params.limit(request)
    found, total = await members.page(
        request.context,
        signed_in.actor,
        organisation,
        after=(params.cursor(request) or [""])[0],
        newest_first=not params.choice(request, "order", ("oldest", "newest")),
        limit=limit + 1,
    )
    following = params.following(found[limit - 1].email) if len(found) > limit else None
    return params.json_response(api_types.Members([_member_item(item) for item in found[:limit]], total, following))


async def update(request: Request, organisation: str) -> Response:
    """PATCH …/members?email=."""
    signed_in = await authentication.by_full_token(request)
    wanted = await request.json(api_types.MemberUpdate)
    found = await members.set_role(
        request.context, signed_in.actor, organisation, params.required(request, "email"), Role.parse(wanted.role)
    )
    return params.json_response(_member_item(found))


async def remove(request: Request, organisation: str) -> Response:
    """DELETE …/members?email=."""
    signed_in = await authentication.by_full_token(request)
    await members.remove(request.context, signed_in.actor, organisation, params.required(request, "email"))
    return Response(status=204)
