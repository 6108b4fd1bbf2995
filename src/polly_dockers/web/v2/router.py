"""Finds the handler of a path under /v2. Names may have slashes, so a path is split from its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from polly_dockers.auth import permissions
from polly_dockers.errors import NameUnknown, Unauthorized, Unsupported
from polly_dockers.model import Action, RepositoryName
from polly_dockers.web import authentication, errors
from polly_dockers.web.response import Response
from polly_dockers.web.v2 import blobs, listings, manifests

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from polly_dockers.web.request import Request

    Handler = Callable[[Request, RepositoryName, str], Awaitable[Response]]

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


async def respond(request: Request) -> Response:
    """Respond to a request under /v2. Raises the errors of the handlers, NotFound and Unsupported."""
    request.check_path()
    parts = request.path.split("/")
    if len(parts) <= 3:  # noqa: PLR2004 - "", "v2" and one more
        return await _top(request, parts[2] if len(parts) == 3 else "")  # noqa: PLR2004
    split = _split(parts)
    if split is None:
        raise errors.not_found(request)
    name, handlers, reference = split
    request.kind = "uploads" if handlers is _START else parts[-2]
    handler = handlers.get(request.method)
    if handler is None:
        raise errors.method_not_allowed(request, handlers)
    if "/" not in name:  # not NAME_INVALID, after which Docker retries for most of a minute
        msg = f"{name[:100]!r} lacks the organisation. Images are at HOST/<organisation>/<docker>:<tag>."
        raise NameUnknown(msg)
    repository = RepositoryName.parse(name)
    try:
        return await handler(request, repository, reference)
    except Unauthorized as error:
        action = Action.push if handlers is _UPLOAD else _ACTIONS.get(request.method, Action.pull)
        error.scope = error.scope or permissions.scope(repository, action)
        raise
    except Unsupported as error:  # a method that the settings turn off
        error.allow = tuple(method for method in handlers if method != request.method)
        raise


def _split(parts: list[str]) -> tuple[str, Mapping[str, Handler], str] | None:
    """Split a path into repository name, handlers by method, and a reference, a digest or an upload ID."""
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
    """GET of /v2/, which checks the sign-in, and of /v2/_catalog."""
    if request.method not in {"GET", "HEAD"}:
        raise errors.method_not_allowed(request, ("GET", "HEAD"))
    actor = await authentication.registry_actor(request)
    if last == "_catalog":
        return await listings.catalog(request, actor)
    if last:
        raise errors.not_found(request)
    if actor.user_id is None:
        msg = "You are not signed in."
        raise Unauthorized(msg)
    await request.context.database.read(permissions.require_alive, actor)
    return Response(b"{}", content_type="application/json")
