"""Who makes a request: from its Authorization header, before anything else is looked at."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import TYPE_CHECKING

from polly_dockers import db
from polly_dockers.auth import accounts
from polly_dockers.auth.registry_tokens import UnknownKey
from polly_dockers.errors import Unauthorized
from polly_dockers.model import ANYBODY, Actor

if TYPE_CHECKING:
    from polly_dockers.auth.accounts import SignedIn
    from polly_dockers.context import Context
    from polly_dockers.web.request import Exchange


async def registry_actor(exchange: Exchange) -> Actor:
    """Whom a registry token under /v2 was made for; nobody without one. Raises Unauthorized for a bad one."""
    scheme, _, token = exchange.request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        return ANYBODY
    actor = await _read(exchange.context, token.strip())
    exchange.user_id = actor.user_id
    if exchange.request.method in {"GET", "HEAD"}:
        return actor
    return replace(actor, address=exchange.address)


async def _read(context: Context, token: str) -> Actor:
    """Read a token; a key that this process does not know may be one that was made since."""
    try:
        return context.signer.read(token)
    except UnknownKey:
        if not context.signer.may_look():
            raise
    context.signer.learn(await context.database.read(db.keys.every))
    return context.signer.read(token)


def basic(exchange: Exchange) -> tuple[str, str] | None:
    """User and secret of a Basic header (RFC 7617); None without one. Raises Unauthorized for a malformed one."""
    scheme, _, text = exchange.request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, colon, secret = base64.b64decode(text.strip(), validate=True).decode("utf-8").partition(":")
    except ValueError:
        colon = ""
    if not colon:
        msg = "The Basic credentials are malformed."
        raise Unauthorized(msg)
    return user, secret


async def by_basic(exchange: Exchange) -> SignedIn | None:
    """The user of Basic credentials, checked; None without any. Raises what ``accounts.sign_in`` raises."""
    given = basic(exchange)
    if given is None:
        return None
    signed_in = await accounts.sign_in(exchange.context, *given, exchange.address)
    exchange.user_id = signed_in.actor.user_id
    return signed_in


async def by_full_token(exchange: Exchange) -> SignedIn:
    """The user of an access token of scope full, as /api/v1 takes it; raises Unauthorized."""
    scheme, _, secret = exchange.request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        msg = "Sign in first: polly login. A program sends Authorization: Bearer with an access token."
        raise Unauthorized(msg)
    signed_in = await accounts.sign_in_by_token(exchange.context, secret.strip(), exchange.address)
    if signed_in.token is None or signed_in.token.scope != "full":
        msg = (
            "This access token is good for images only (scope registry). For commands, a person runs polly login; a "
            "program has a token of polly tokens create --scope full."
        )
        raise Unauthorized(msg)
    exchange.user_id = signed_in.actor.user_id
    return signed_in


async def by_either(exchange: Exchange) -> SignedIn:
    """The user of an email and password, or of an access token of scope full; raises Unauthorized."""
    exchange.schemes = schemes = ("Basic", "Bearer")
    return await by_password(exchange, schemes) if basic(exchange) else await by_full_token(exchange)


async def by_password(exchange: Exchange, schemes: tuple[str, ...] = ("Basic",)) -> SignedIn:
    """The user of an email and password; raises Unauthorized, for an access token in their place too."""
    exchange.schemes = schemes
    signed_in = await by_basic(exchange)
    if signed_in is None or signed_in.token is not None:
        msg = "This takes email and password. Run polly login."
        raise Unauthorized(msg)
    return signed_in
