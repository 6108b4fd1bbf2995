"""/v2: which handler answers which path. Names hold slashes, so a path is split from its end, by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

from polly_dockers.auth import permissions
from polly_dockers.errors import NameUnknown, NotFound, Unauthorized, Unsupported
from polly_dockers.model import Action, RepositoryName
from polly_dockers.web import authentication
from polly_dockers.web.response import Response
from polly_dockers.web.v2 import blobs, listings, manifests

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from aiohttp import web

    from polly_dockers.web.request import Request

    Handler = Callable[[Request, RepositoryName, str], Awaitable[Response | web.StreamResponse]]

_BLOB: Mapping[str, Handler] = {"GET": blobs.get, "HEAD": blobs.get, "DELETE": blobs.delete}
_MANIFEST: Mapping[str, Handler] = {
    "GET": manifests.get,
    "HEAD": manifests.get,
    "PUT": manifests.put,
    "DELETE": manifests.delete,
}
_START: Mapping[str, Handler] = {"POST": blobs.start}
_UPLOAD: Mapping[str, Handler] = {
    "GET": blobs.status,
    "HEAD": blobs.status,
    "PATCH": blobs.append,
    "PUT": blobs.finish,
    "DELETE": blobs.cancel,
}
_TAGS: Mapping[str, Handler] = {"GET": listings.tags, "HEAD": listings.tags}
_REFERRERS: Mapping[str, Handler] = {"GET": listings.referrers, "HEAD": listings.referrers}

_ACTIONS: Mapping[str, Action] = {
    "POST": Action.push,
    "PUT": Action.push,
    "PATCH": Action.push,
    "DELETE": Action.delete,
}


async def respond(request: Request) -> Response | web.StreamResponse:
    """Answer a request below /v2."""
    request.check_path()
    parts = request.path.split("/")
    if len(parts) <= 3:  # noqa: PLR2004 - "", "v2" and one more
        return await _top(request, parts[2] if len(parts) == 3 else "")  # noqa: PLR2004
    found = _split(parts)
    if found is None:
        msg = f"Nothing is at {request.path[:200]}. Under /v2/<name>/ are manifests, blobs, tags/list and referrers."
        raise NotFound(msg)
    name, handlers, reference = found
    request.kind = "uploads" if handlers is _START else parts[-2]
    handler = handlers.get(request.method)
    if handler is None:
        msg = f"{request.method} is not for this address; it takes {', '.join(handlers)}."
        raise Unsupported(msg, handlers)
    if "/" not in name:  # Docker tries again after NAME_INVALID, for most of a minute
        msg = f"{name[:100]!r} lacks its organisation: images are at HOST/<organisation>/<docker>:<tag>."
        raise NameUnknown(msg)
    repository = RepositoryName.parse(name)
    try:
        return await handler(request, repository, reference)
    except Unauthorized as error:
        action = Action.push if handlers is _UPLOAD else _ACTIONS.get(request.method, Action.pull)
        error.scope = error.scope or permissions.scope(repository, action)
        raise
    except Unsupported as error:  # a method that the settings switch off
        error.allow = tuple(method for method in handlers if method != request.method)
        raise


def _split(parts: list[str]) -> tuple[str, Mapping[str, Handler], str] | None:
    """Repository name, handlers by method, and the last part: a reference, a digest, an upload's id."""
    kind, last = parts[-2], parts[-1]
    if kind == "manifests":
        return "/".join(parts[2:-2]), _MANIFEST, last
    if kind == "uploads" and parts[-3] == "blobs":
        return "/".join(parts[2:-3]), _UPLOAD if last else _START, last
    if kind == "blobs":
        return ("/".join(parts[2:-2]), _START, "") if last == "uploads" else ("/".join(parts[2:-2]), _BLOB, last)
    if kind == "tags" and last == "list":
        return "/".join(parts[2:-2]), _TAGS, last
    if kind == "referrers":
        return "/".join(parts[2:-2]), _REFERRERS, last
    return None


async def _top(request: Request, last: str) -> Response:
    """``/v2/`` and ``/v2/_catalog``."""
    if request.method not in {"GET", "HEAD"}:
        msg = f"{request.method} is not for this address; it takes GET."
        raise Unsupported(msg, ("GET", "HEAD"))
    actor = await authentication.registry_actor(request)
    if last == "_catalog":
        return await listings.catalog(request, actor)
    if last:
        msg = f"Nothing is at {request.path[:200]}."
        raise NotFound(msg)
    if actor.user_id is None:
        msg = "Nobody is signed in."
        raise Unauthorized(msg)
    await request.context.database.read(permissions.require_alive, actor)
    return Response(b"{}", content_type="application/json")
