"""Turns errors into responses. No other module writes the body of an error."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from polly_dockers.api_types import ErrorItem, Errors, encode
from polly_dockers.errors import (
    BadRequest,
    NotFound,
    PollyError,
    RangeInvalid,
    TooManyRequests,
    Unauthorized,
    Unavailable,
    Unsupported,
)
from polly_dockers.web.response import Response

if TYPE_CHECKING:
    from collections.abc import Iterable

    from polly_dockers.web.request import Request

_SCHEMES: Final = {"Basic": 'Basic realm="polly", charset="UTF-8"', "Bearer": 'Bearer realm="polly"'}

_WORDS: Final = re.compile(r"[^ !#-\[\]-~]|basic|bearer", re.IGNORECASE)
"""What is replaced in a description: characters that RFC 6750, section 3, forbids, and the names of schemes, because
clients search for these."""


def response(request: Request, error: PollyError) -> Response:
    """The response for an error, with the ID of the request and the headers that the error needs."""
    detail = {**error.detail, "request_id": request.id}
    body = encode(Errors([ErrorItem(error.code, _message(request, error), detail)]))
    return Response(status=error.status, body=body, headers=_headers(request, error), content_type="application/json")


def refusal(request_id: str, status: int, message: str) -> Response:
    """The response to what is not a request, so there is no ``Request``. It has an ID too."""
    body = encode(Errors([ErrorItem(BadRequest.code, message, {"request_id": request_id})]))
    return Response(status=status, body=body, content_type="application/json")


def not_found(request: Request) -> NotFound:
    """The error for an address that does not exist. It says where things are."""
    if request.path.startswith("/v2/"):
        hint = "/v2/<name>/ has manifests, blobs, tags/list and referrers."
    elif request.path.startswith("/api/"):
        hint = "The interface is at /api/v1, and /api/v1/openapi.json describes it."
    else:
        hint = "Images are under /v2/, and the commands use /api/v1."
    return NotFound(f"There is nothing at {request.path[:200]}. {hint}")


def method_not_allowed(request: Request, allow: Iterable[str]) -> Unsupported:
    """The error for an address that takes only the methods in ``allow``."""
    allow = tuple(allow)
    return Unsupported(f"This address does not take {request.method}. It takes {', '.join(allow)}.", allow)


def _message(request: Request, error: PollyError) -> str:
    """The message. Docker shows it to people, so outside of /api it also says how to sign in to this server."""
    if not isinstance(error, Unauthorized) or error.known or request.path.startswith("/api/"):
        return error.message
    sign_in = f"polly login --server {request.context.config.url}"
    return (
        f"{error.message} Run polly dockers configure, or the command that polly dockers login prints. If you are not "
        f"signed in, first run: {sign_in}"
    )


def _headers(request: Request, error: PollyError) -> dict[str, str]:
    if isinstance(error, Unauthorized):
        return {"WWW-Authenticate": challenge(request, error)}
    if isinstance(error, Unsupported):  # "MUST generate an Allow header field" (RFC 9110, 15.5.6)
        return {"Allow": ", ".join(error.allow)}
    if isinstance(error, (TooManyRequests, Unavailable)):
        return {"Retry-After": str(error.retry_after if isinstance(error, TooManyRequests) else 1)}
    if isinstance(error, RangeInvalid) and error.upload is not None:
        return upload_headers(*error.upload)
    if isinstance(error, RangeInvalid) and error.total is not None:
        return {"Content-Range": f"bytes */{error.total}"}
    return {}


def challenge(request: Request, error: Unauthorized) -> str:
    """The value of WWW-Authenticate (RFC 6750, section 3, and distribution's docs/spec/auth/token.md)."""
    if request.path.startswith("/api/"):
        return ", ".join(_SCHEMES[scheme] for scheme in request.schemes)
    parts = [f'realm="{request.base}/token"', f'service="{request.context.config.registry}"']
    if error.scope is not None:
        parts.append(f'scope="{error.scope}"')
    if error.reason is not None:
        parts.append(f'error="{error.reason}"')
        parts.append(f'error_description="{_WORDS.sub(" ", error.message)}"')
    return "Bearer " + ",".join(parts)


def upload_headers(name: str, upload_id: str, size: int) -> dict[str, str]:
    """The location of an upload and the range that has arrived, "0-0" for an empty one as in every registry."""
    return {
        "Location": f"/v2/{name}/blobs/uploads/{upload_id}",
        "Range": f"0-{max(size - 1, 0)}",
        "Docker-Upload-UUID": upload_id,
    }
