"""Which handler answers which address below /api/."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from polly_dockers import __version__, api_types
from polly_dockers.errors import NotFound, Unsupported
from polly_dockers.model import parse_slug
from polly_dockers.web.api import account, audit, invitations, members, openapi, params, repositories, retention, trash
from polly_dockers.web.response import Response

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from polly_dockers.web.request import Request

_WITH_HEAD: Final = {"GET": ("GET", "HEAD")}
PRODUCT: Final = "polly-docker-repository"


async def respond(request: Request) -> Response:
    """Answer a request below /api/."""
    request.check_path()
    parts = request.path.rstrip("/").split("/")[2:]
    if not parts or parts[0] != "v1":
        msg = "The interface is at /api/v1; /api/v1/openapi.json describes it."
        raise NotFound(msg)
    handlers, arguments = _route(parts[1:])
    method = request.method
    handler = handlers.get("GET" if method == "HEAD" else method)
    if handler is None:
        msg = f"{method} is not for this address; it takes {', '.join(handlers)}."
        raise Unsupported(msg, [name for method in handlers for name in _WITH_HEAD.get(method, (method,))])
    return await handler(request, *arguments)


def _route(parts: list[str]) -> tuple[Mapping[str, Callable[..., Awaitable[Response]]], list[str]]:
    if len(parts) == 3 and parts[0] == "organisations" and parts[2] in _IN_ORGANISATION:  # noqa: PLR2004 - as written
        return _IN_ORGANISATION[parts[2]], [parse_slug(parts[1])]
    if len(parts) == 2 and parts[0] == "tokens":  # noqa: PLR2004 - as written
        return {"DELETE": account.revoke_token}, [parts[1]]
    handlers = _FLAT.get("/".join(parts))
    if handlers is None:
        msg = "There is nothing at this address; /api/v1/openapi.json describes what there is."
        raise NotFound(msg)
    return handlers, []


async def server(request: Request) -> Response:
    """GET /api/v1."""
    config = request.context.config
    public: Literal["allow", "deny"] = "allow" if config.public_repositories == "allow" else "deny"
    return params.json_response(api_types.ServerInfo(PRODUCT, __version__, config.registry, config.url, public))


async def document(_request: Request) -> Response:
    """GET /api/v1/openapi.json."""
    return Response(openapi.document(), content_type="application/json")


_FLAT: Final[Mapping[str, Mapping[str, Callable[..., Awaitable[Response]]]]] = {
    "": {"GET": server},
    "openapi.json": {"GET": document},
    "tokens": {"GET": account.tokens, "POST": account.create_token},
    "me": {"GET": account.me},
    "me/password": {"PUT": account.change_password},
    "invitation": {"POST": invitations.accept},
}
_IN_ORGANISATION: Final[Mapping[str, Mapping[str, Callable[..., Awaitable[Response]]]]] = {
    "repositories": {"GET": repositories.page, "POST": repositories.create},
    "repository": {"GET": repositories.one, "PATCH": repositories.update, "DELETE": trash.delete},
    "audit": {"GET": audit.page},
    "commits": {"GET": repositories.commits},
    "tags": {"GET": repositories.tags},
    "trash": {"GET": trash.page, "POST": trash.restore},
    "policy": {"GET": retention.page, "PUT": retention.update},
    "policy-preview": {"GET": retention.preview},
    "invitations": {"GET": invitations.page, "POST": invitations.create, "DELETE": invitations.revoke},
    "members": {
        "GET": members.page,
        "PATCH": members.update,
        "DELETE": members.remove,
    },
}
