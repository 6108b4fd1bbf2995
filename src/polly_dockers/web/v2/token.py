"""The token endpoint: GET with Basic, and the OAuth2 form (distribution: docs/spec/auth/token.md and oauth.md)."""

from __future__ import annotations

import contextlib
import datetime as dt
from typing import TYPE_CHECKING

from polly_dockers.api_types import RegistryToken, encode
from polly_dockers.auth import accounts, token_flow
from polly_dockers.errors import BadRequest, Unauthorized, Unsupported
from polly_dockers.web import authentication
from polly_dockers.web.response import Answer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from polly_dockers.auth.accounts import SignedIn
    from polly_dockers.web.request import Exchange


async def token(exchange: Exchange) -> Answer:
    """Answer GET and POST of /token."""
    if exchange.request.method == "POST":
        return await _by_form(exchange)
    if exchange.request.method not in {"GET", "HEAD"}:
        msg = "The token endpoint takes GET and POST."
        raise Unsupported(msg, ("GET", "HEAD", "POST"))
    scopes = [value for key, value in exchange.queries() if key == "scope"]
    with _said_to_docker():
        signed_in = await authentication.by_basic(exchange)
    return await _grant(exchange, signed_in, scopes)


async def _by_form(exchange: Exchange) -> Answer:
    """Answer the OAuth2 form; an access token serves as the refresh token."""
    fields = await exchange.form()
    first = dict(reversed(fields))
    kind = first.get("grant_type")
    with _said_to_docker():
        if kind == "password":
            user, password = first.get("username", ""), first.get("password", "")
            signed_in = await accounts.sign_in(exchange.context, user, password, exchange.address)
        elif kind == "refresh_token":
            refresh = first.get("refresh_token", "")
            signed_in = await accounts.sign_in_by_token(exchange.context, refresh, exchange.address)
        else:
            msg = "grant_type is password (with username and password) or refresh_token (with an access token)."
            raise BadRequest(msg)
    exchange.user_id = signed_in.actor.user_id
    return await _grant(exchange, signed_in, [value for key, value in fields if key == "scope"])


@contextlib.contextmanager
def _said_to_docker() -> Iterator[None]:
    """Add to a refused sign-in how Docker, which prints the message, is signed in."""
    try:
        yield
    except Unauthorized as error:
        if error.reason == "invalid_token":
            error.message += " Run polly dockers configure, or what polly dockers login prints."
        else:
            error.message += " Docker is signed in by what polly dockers login prints."
        raise


async def _grant(exchange: Exchange, signed_in: SignedIn | None, scopes: Sequence[str]) -> Answer:
    secret, seconds, scope = await token_flow.grant(exchange.context, signed_in, scopes)
    answer = RegistryToken(
        token=secret,
        access_token=secret,
        expires_in=seconds,
        issued_at=dt.datetime.now(dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        scope=scope or None,
    )
    return Answer(encode(answer), content_type="application/json", headers={"Cache-Control": "no-store"})
