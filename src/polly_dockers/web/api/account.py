"""Who asks: the caller, their password, and their access tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from polly_dockers import api_types
from polly_dockers.auth import accounts
from polly_dockers.errors import BadRequest
from polly_dockers.web import authentication
from polly_dockers.web.api import params
from polly_dockers.web.response import Answer

if TYPE_CHECKING:
    from polly_dockers.auth.accounts import SignedIn
    from polly_dockers.db.accounts import AccessToken
    from polly_dockers.web.request import Exchange

YEAR: Final = 31_536_000
"""Seconds that an access token is good, at most."""
MAX_LABEL: Final = 200


async def me(exchange: Exchange) -> Answer:
    """GET /api/v1/me."""
    caller = await authentication.by_full_token(exchange)
    found = await accounts.memberships(exchange.context, caller)
    assert caller.token is not None  # noqa: S101 - by_full_token
    items = [api_types.MembershipItem(slug, role.name, params.time(at)) for slug, role, at in found]  # type: ignore[arg-type]
    return params.rendered(api_types.Me(caller.email, items, _token_item(caller.token, caller)))


async def change_password(exchange: Exchange) -> Answer:
    """PUT /api/v1/me/password."""
    caller = await authentication.by_password(exchange)
    await accounts.change_password(exchange.context, caller, (await exchange.json(api_types.PasswordChange)).password)
    return Answer(status=204)


def _token_item(token: AccessToken, caller: SignedIn) -> api_types.TokenItem:
    return api_types.TokenItem(
        id=token.id,
        label=token.label,
        scope="full" if token.scope == "full" else "registry",
        created_at=params.time(token.created_at),
        expires_at=params.time(token.expires_at),
        last_used_at=params.time(token.last_used_at) if token.last_used_at is not None else None,
        current=caller.token is not None and caller.token.id == token.id,
        parent=token.parent_id,
    )


async def create_token(exchange: Exchange) -> Answer:
    """POST /api/v1/tokens."""
    caller = await authentication.by_either(exchange)
    wanted = await exchange.json(api_types.TokenRequest)
    if not 60 <= wanted.expires_in <= YEAR:  # noqa: PLR2004 - said in the message
        msg = f"expires_in is {wanted.expires_in}: give seconds from 60 to {YEAR} (a year)."
        raise BadRequest(msg)
    if len(wanted.label) > MAX_LABEL or not wanted.label.isprintable():
        msg = f"The label is to have at most {MAX_LABEL} printable characters."
        raise BadRequest(msg)
    token, secret = await accounts.create_token(
        exchange.context,
        caller,
        scope=wanted.scope,
        seconds=wanted.expires_in,
        label=wanted.label,
        replaces=wanted.replaces or "",
    )
    lasts = (token.expires_at - token.created_at) // accounts.SECOND
    return params.rendered(
        api_types.TokenCreated(token.id, secret, wanted.scope, params.time(token.expires_at), caller.email, lasts), 201
    )


async def tokens(exchange: Exchange) -> Answer:
    """GET /api/v1/tokens."""
    caller = await authentication.by_full_token(exchange)
    limit = params.limit(exchange)
    found = await accounts.tokens(exchange.context, caller, after=params.named_key(exchange), limit=limit + 1)
    last = found[limit - 1] if len(found) > limit else None
    following = params.following(last.created_at, last.id) if last is not None else None
    return params.rendered(api_types.Tokens([_token_item(token, caller) for token in found[:limit]], following))


async def revoke_token(exchange: Exchange, token_id: str) -> Answer:
    """DELETE /api/v1/tokens/{id}."""
    caller = await authentication.by_full_token(exchange)
    this = caller.token.id if caller.token is not None else ""
    await accounts.revoke_token(exchange.context, caller, {"current": this}.get(token_id, token_id))
    return Answer(status=204)
