"""The account of the signed-in user: organisations, password and access tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from polly_dockers import api_types
from polly_dockers.auth import access_tokens, members, sign_in
from polly_dockers.errors import BadRequest
from polly_dockers.system.durations import SECOND, SECONDS_PER_DAY
from polly_dockers.web.api import params
from polly_dockers.web.response import Response

if TYPE_CHECKING:
    from polly_dockers.auth.sign_in import SignedIn
    from polly_dockers.db.accounts import AccessToken
    from polly_dockers.web.request import Request

MAX_SECONDS: Final = 365 * SECONDS_PER_DAY
"""Longest lifetime of an access token, in seconds."""
MAX_LABEL: Final = 200


async def me(request: Request, signed_in: SignedIn) -> Response:
    """GET /api/v1/me."""
    found = await members.memberships(request.context, signed_in)
    assert signed_in.token is not None  # noqa: S101 - by_full_token
    items = [api_types.MembershipItem(slug, role.name, params.time(at)) for slug, role, at in found]  # type: ignore[arg-type]
    return params.json_response(api_types.Me(signed_in.email, items, _token_item(signed_in.token, signed_in)))


async def change_password(request: Request, signed_in: SignedIn, wanted: api_types.PasswordChange) -> Response:
    """PUT /api/v1/me/password."""
    await sign_in.change_password(request.context, signed_in, wanted.password)
    return Response(status=204)


def _token_item(token: AccessToken, signed_in: SignedIn) -> api_types.TokenItem:
    return api_types.TokenItem(
        id=token.id,
        label=token.label,
        scope="full" if token.scope == "full" else "registry",
        created_at=params.time(token.created_at),
        expires_at=params.time(token.expires_at),
        last_used_at=params.time(token.last_used_at) if token.last_used_at is not None else None,
        current=signed_in.token is not None and signed_in.token.id == token.id,
        parent=token.parent_id,
    )


async def create_token(request: Request, signed_in: SignedIn, wanted: api_types.TokenRequest) -> Response:
    """POST /api/v1/tokens."""
    if not 60 <= wanted.expires_in <= MAX_SECONDS:  # noqa: PLR2004 - said in the message
        msg = f"expires_in is {wanted.expires_in}: give 60 to {MAX_SECONDS} seconds (a year)."
        raise BadRequest(msg)
    if len(wanted.label) > MAX_LABEL or not wanted.label.isprintable():
        msg = f"The label may have at most {MAX_LABEL} characters, all of them printable."
        raise BadRequest(msg)
    token, secret = await access_tokens.create(
        request.context,
        signed_in,
        scope=wanted.scope,
        seconds=wanted.expires_in,
        label=wanted.label,
        replaces=wanted.replaces or "",
    )
    lasts = (token.expires_at - token.created_at) // SECOND
    return params.json_response(
        api_types.TokenCreated(token.id, secret, wanted.scope, params.time(token.expires_at), signed_in.email, lasts),
        201,
    )


async def tokens(request: Request, signed_in: SignedIn) -> Response:
    """GET /api/v1/tokens."""
    limit = params.LIMIT.read(request)
    found = await access_tokens.page(request.context, signed_in, after=params.text_cursor(request), limit=limit + 1)
    items, following = params.cut(found, limit, lambda token: (token.created_at, token.id))
    return params.json_response(api_types.Tokens([_token_item(token, signed_in) for token in items], following))


async def revoke_token(request: Request, signed_in: SignedIn, token_id: str) -> Response:
    """DELETE /api/v1/tokens/{id}."""
    this = signed_in.token.id if signed_in.token is not None else ""
    await access_tokens.revoke(request.context, signed_in, {"current": this}.get(token_id, token_id))
    return Response(status=204)
