"""The token endpoint: GET with Basic, and POST of the OAuth2 form (distribution: docs/spec/auth/token.md, oauth.md)."""

from __future__ import annotations

import contextlib
import datetime as dt
from typing import TYPE_CHECKING

from polly_dockers.api_types import RegistryToken, encode
from polly_dockers.auth import sign_in, token_flow
from polly_dockers.errors import BadRequest, Unauthorized
from polly_dockers.web import authentication, errors
from polly_dockers.web.response import Response

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from polly_dockers.auth.sign_in import SignedIn
    from polly_dockers.web.request import Request


async def token(request: Request) -> Response:
    """GET and POST of /token: issue a registry token. Raises Unauthorized, BadRequest and Unsupported."""
    if request.method == "POST":
        return await _by_form(request)
    if request.method not in {"GET", "HEAD"}:
        raise errors.method_not_allowed(request, ("GET", "HEAD", "POST"))
    scopes = [value for key, value in request.queries() if key == "scope"]
    with _docker_advice():
        signed_in = await authentication.by_basic(request)
    return await _grant(request, signed_in, scopes)


async def _by_form(request: Request) -> Response:
    """Handle the OAuth2 form. Access tokens are accepted as refresh tokens."""
    fields = await request.form()
    first = dict(reversed(fields))  # of a repeated field, the first value counts
    kind = first.get("grant_type")
    with _docker_advice():
        if kind == "password":
            user, password = first.get("username", ""), first.get("password", "")
            signed_in = await sign_in.sign_in(request.context, user, password, request.address)
        elif kind == "refresh_token":
            refresh = first.get("refresh_token", "")
            signed_in = await sign_in.by_token(request.context, refresh, request.address)
        else:
            msg = "grant_type must be password (with username and password) or refresh_token (with an access token)."
            raise BadRequest(msg)
    request.user_id = signed_in.actor.user_id
    return await _grant(request, signed_in, [value for key, value in fields if key == "scope"])


@contextlib.contextmanager
def _docker_advice() -> Iterator[None]:
    """Add advice for users of Docker to a refused sign-in, because Docker prints the message."""
    try:
        yield
    except Unauthorized as error:
        if error.known:  # to other messages, ``web.errors`` adds how to sign in
            error.message += " To sign in with Docker, run the command that polly dockers login prints."
        raise


async def _grant(request: Request, signed_in: SignedIn | None, scopes: Sequence[str]) -> Response:
    secret, seconds, scope = await token_flow.grant(request.context, signed_in, scopes)
    issued = RegistryToken(
        token=secret,
        access_token=secret,
        expires_in=seconds,
        issued_at=dt.datetime.now(dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        scope=scope or None,
    )
    return Response(encode(issued), content_type="application/json", headers={"Cache-Control": "no-store"})
