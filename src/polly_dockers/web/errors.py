"""The one place that writes the error envelope."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from polly_dockers.api_types import ErrorItem, Errors, encode
from polly_dockers.errors import PollyError, RangeInvalid, TooManyRequests, Unauthorized, Unavailable, Unsupported
from polly_dockers.web.response import Answer

if TYPE_CHECKING:
    from polly_dockers.web.request import Exchange

_SCHEMES: Final = {"Basic": 'Basic realm="polly", charset="UTF-8"', "Bearer": 'Bearer realm="polly"'}

_WORDS: Final = re.compile(r"[^ !#-\[\]-~]|basic|bearer", re.IGNORECASE)
"""What no description in a challenge may hold: RFC 6750, section 3, and clients that look for the schemes' names."""


def answer(exchange: Exchange, error: PollyError) -> Answer:
    """The answer that tells the client of the error, with the request's id and the headers that belong to it."""
    detail = {**error.detail, "request_id": exchange.id}
    body = encode(Errors([ErrorItem(error.code, _message(exchange, error), detail)]))
    return Answer(status=error.status, body=body, headers=_headers(exchange, error), content_type="application/json")


def _message(exchange: Exchange, error: PollyError) -> str:
    """The message; to clients of the registry, which show it as it is, also how to sign in to this very server."""
    if not isinstance(error, Unauthorized) or error.known or exchange.path.startswith("/api/"):
        return error.message
    config = exchange.context.config
    sign_in = f"To sign in: polly login --server {config.url}, then polly dockers configure."
    look = f"If you have, this shows what is wrong: echo {config.registry} | docker-credential-polly get"
    return f"{error.message} {sign_in} {look}"


def _headers(exchange: Exchange, error: PollyError) -> dict[str, str]:
    if isinstance(error, Unauthorized):
        return {"WWW-Authenticate": challenge(exchange, error)}
    if isinstance(error, Unsupported):  # "MUST generate an Allow header field" (RFC 9110, 15.5.6)
        return {"Allow": ", ".join(error.allow)}
    if isinstance(error, (TooManyRequests, Unavailable)):
        return {"Retry-After": str(error.retry_after if isinstance(error, TooManyRequests) else 1)}
    if isinstance(error, RangeInvalid) and error.upload is not None:
        return upload_headers(*error.upload)
    if isinstance(error, RangeInvalid) and error.total is not None:
        return {"Content-Range": f"bytes */{error.total}"}
    return {}


def challenge(exchange: Exchange, error: Unauthorized) -> str:
    """Where to get a token and for what: RFC 6750, section 3, and distribution's docs/spec/auth/token."""
    if exchange.path.startswith("/api/"):
        return ", ".join(_SCHEMES[scheme] for scheme in exchange.schemes)
    parts = [f'realm="{exchange.base}/token"', f'service="{exchange.context.config.registry}"']
    if error.scope is not None:
        parts.append(f'scope="{error.scope}"')
    if error.reason is not None:
        parts.append(f'error="{error.reason}"')
        parts.append(f'error_description="{_WORDS.sub(" ", error.message)}"')
    return "Bearer " + ",".join(parts)


def upload_headers(name: str, upload_id: str, size: int) -> dict[str, str]:
    """Where an upload goes on, and how far it is: "0-0" for an empty one, as every registry says."""
    return {
        "Location": f"/v2/{name}/blobs/uploads/{upload_id}",
        "Range": f"0-{max(size - 1, 0)}",
        "Docker-Upload-UUID": upload_id,
    }
