"""Finds out who makes a request, by its Authorization header."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import TYPE_CHECKING

from polly_dockers import db
from polly_dockers.auth import sign_in
from polly_dockers.auth.registry_tokens import UnknownKey
from polly_dockers.errors import Unauthorized
from polly_dockers.model import ANYBODY, Actor

if TYPE_CHECKING:
    from polly_dockers.auth.sign_in import SignedIn
    from polly_dockers.context import Context
    from polly_dockers.web.request import Request


async def registry_actor(request: Request) -> Actor:
    """The user of the registry token of a request under /v2; ANYBODY without one. Raises Unauthorized for a bad one."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        return ANYBODY
    actor = await _read(request.context, token.strip())
    request.user_id = actor.user_id
    if request.method in {"GET", "HEAD"}:
        return actor
    return replace(actor, address=request.address)


async def _read(context: Context, token: str) -> Actor:
    """Verify a token. If its signing key is unknown, load the keys first: another process may have created one."""
    try:
        return context.signer.read(token)
    except UnknownKey:
        if not context.signer.may_reload():
            raise
    context.signer.set_keys(await context.database.read(db.keys.every))
    return context.signer.read(token)


def basic(request: Request) -> tuple[str, str] | None:
    """User and password of a Basic header (RFC 7617), or None. Raises Unauthorized for a malformed one."""
    scheme, _, text = request.headers.get("authorization", "").partition(" ")
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


async def by_basic(request: Request) -> SignedIn | None:
    """Sign in by Basic credentials; None without any. Raises the errors of ``sign_in.sign_in``."""
    given = basic(request)
    if given is None:
        return None
    signed_in = await sign_in.sign_in(request.context, *given, request.address)
    request.user_id = signed_in.actor.user_id
    return signed_in


async def by_full_token(request: Request) -> SignedIn:
    """Sign in by an access token of scope full, as /api/v1 requires. Raises Unauthorized."""
    scheme, _, secret = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        msg = "Sign in first: polly login. A program sends Authorization: Bearer with an access token."
        raise Unauthorized(msg)
    signed_in = await sign_in.by_token(request.context, secret.strip(), request.address)
    if signed_in.token is None or signed_in.token.scope != "full":
        msg = (
            "This access token is for images only (scope registry). For the commands, run polly login. For a program, "
            "create a token with polly tokens create --scope full."
        )
        raise Unauthorized(msg)
    request.user_id = signed_in.actor.user_id
    return signed_in


async def by_optional_token(request: Request) -> SignedIn | None:
    """Sign in by an access token of scope full; None without credentials. Raises Unauthorized."""
    return await by_full_token(request) if "authorization" in request.headers else None


async def by_either(request: Request) -> SignedIn:
    """Sign in by email and password, or by an access token of scope full. Raises Unauthorized."""
    request.schemes = schemes = ("Basic", "Bearer")
    return await by_password(request, schemes) if basic(request) else await by_full_token(request)


async def by_password(request: Request, schemes: tuple[str, ...] = ("Basic",)) -> SignedIn:
    """Sign in by email and password. Raises Unauthorized, also for an access token in place of the password."""
    request.schemes = schemes
    signed_in = await by_basic(request)
    if signed_in is None or signed_in.token is not None:
        msg = "This request takes email and password. Run polly login."
        raise Unauthorized(msg)
    return signed_in
