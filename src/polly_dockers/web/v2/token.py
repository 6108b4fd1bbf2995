"""The token endpoint: GET with Basic, and the OAuth2 form (distribution: docs/spec/auth/token.md and oauth.md)."""

from __future__ import annotations

import contextlib
import datetime as dt
from typing import TYPE_CHECKING

from polly_dockers.api_types import RegistryToken, encode
from polly_dockers.auth import sign_in, token_flow
from polly_dockers.errors import BadRequest, Unauthorized, Unsupported
from polly_dockers.web import authentication
from polly_dockers.web.response import Response

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from polly_dockers.auth.sign_in import SignedIn
    from polly_dockers.web.request import Request


async def token(request: Request) -> Response:
    """Answer GET and POST of /token."""
    if request.method == "POST":
        return await _by_form(request)
    if request.method not in {"GET", "HEAD"}:
        msg = "The token endpoint takes GET and POST."
        raise Unsupported(msg, ("GET", "HEAD", "POST"))
    scopes = [value for key, value in request.queries() if key == "scope"]
    with _said_to_docker():
        signed_in = await authentication.by_basic(request)
    return await _grant(request, signed_in, scopes)


async def _by_form(request: Request) -> Response:
    """Answer the OAuth2 form; an access token serves as the refresh token."""
    fields = await request.form()
    first = dict(reversed(fields))
    kind = first.get("grant_type")
    with _said_to_docker():
        if kind == "password":
            user, password = first.get("username", ""), first.get("password", "")
            signed_in = await sign_in.sign_in(request.context, user, password, request.address)
        elif kind == "refresh_token":
            refresh = first.get("refresh_token", "")
            signed_in = await sign_in.by_token(request.context, refresh, request.address)
        else:
            msg = "grant_type is password (with username and password) or refresh_token (with an access token)."
            raise BadRequest(msg)
    request.user_id = signed_in.actor.user_id
    return await _grant(request, signed_in, [value for key, value in fields if key == "scope"])


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


async def _grant(request: Request, signed_in: SignedIn | None, scopes: Sequence[str]) -> Response:
    secret, seconds, scope = await token_flow.grant(request.context, signed_in, scopes)
    answer = RegistryToken(
        token=secret,
        access_token=secret,
        expires_in=seconds,
        issued_at=dt.datetime.now(dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        scope=scope or None,
    )
    return Response(encode(answer), content_type="application/json", headers={"Cache-Control": "no-store"})
