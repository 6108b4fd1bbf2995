"""What an entry of the route table is made of, and how a request finds its entry."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from polly_dockers.model import Role, parse_slug
from polly_dockers.web import authentication, errors

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from polly_dockers.auth.sign_in import SignedIn
    from polly_dockers.web.api.params import Parameter
    from polly_dockers.web.request import Request
    from polly_dockers.web.response import Response


@dataclass(frozen=True, slots=True, eq=False)
class SignIn:
    """How a request signs in: in the words of OpenAPI, and the function that does it, if any."""

    security: tuple[dict[str, list[str]], ...]
    check: Callable[[Request], Awaitable[SignedIn | None]] | None


ANYONE: Final = SignIn((), None)
TOKEN: Final = SignIn(({"token": []},), authentication.by_full_token)
PASSWORD: Final = SignIn(({"password": []},), authentication.by_password)
EITHER: Final = SignIn(({"password": []}, {"token": []}), authentication.by_either)
OPTIONAL: Final = SignIn(({}, {"token": []}), authentication.by_optional_token)


@dataclass(frozen=True, slots=True, eq=False)
class Route:
    """One method of one address.

    The handler receives the request; then who signed in, unless ``sign_in`` is ANYONE; then the variable parts of the
    path; then the decoded body, if there is one.
    """

    method: str
    path: str
    """The path below /api/v1, with variable parts as {name}."""
    handler: Callable[..., Awaitable[Response]]
    summary: str
    query: tuple[Parameter, ...] = ()
    body: type | None = None
    response: type | None = None
    """The type of the body of the response; None for a response without one."""
    status: int = 200
    sign_in: SignIn = TOKEN
    role: Role = Role.reader
    """The role that this needs in the organisation of the path. The use case checks it."""
    errors: tuple[int, ...] = ()
    """Statuses of errors besides those that follow from the other fields."""
    documented: bool = True

    @property
    def statuses(self) -> list[int]:
        """Statuses of all errors, in order."""
        found = {400, *self.errors}
        found.update((401, 429) if self.sign_in.security else ())
        found.update((404,) if "{" in self.path else ())
        found.update((403,) if self.role > Role.reader else ())
        found.update((413,) if self.body is not None else ())
        return sorted(found)

    async def respond(self, request: Request, parts: list[str]) -> Response:
        """Sign in, decode the body, and call the handler. ``parts``: the variable parts of the path."""
        arguments: list[Any] = []
        if self.sign_in.check is not None:
            arguments.append(await self.sign_in.check(request))
        arguments += parts
        if self.body is not None:
            arguments.append(await request.json(self.body))
        return await self.handler(request, *arguments)


@dataclass(frozen=True, slots=True)
class Address:
    """One path and its routes by method."""

    pattern: tuple[str, ...]
    routes: dict[str, Route] = field(default_factory=dict)

    def match(self, parts: list[str]) -> list[str] | None:
        """The variable parts of a path, or None if it is another address. Raises NameInvalid for a bad organisation."""
        pairs = list(zip(self.pattern, parts, strict=True))
        if any(name != part and name[:1] != "{" for name, part in pairs):
            return None
        return [parse_slug(part) if name == "{org}" else part for name, part in pairs if name[:1] == "{"]


class Table:
    """The addresses of an interface."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self.routes = tuple(routes)
        addresses: dict[tuple[str, ...], Address] = {}
        for route in self.routes:
            pattern = tuple(route.path.split("/")[1:])
            addresses.setdefault(pattern, Address(pattern)).routes[route.method] = route
        self._by_length: dict[int, list[Address]] = {}
        for pattern, address in addresses.items():
            self._by_length.setdefault(len(pattern), []).append(address)

    async def respond(self, request: Request, parts: list[str]) -> Response:
        """Respond to a request with this path. Raises NotFound, Unsupported, and the errors of the handler."""
        for address in self._by_length.get(len(parts), ()):
            arguments = address.match(parts)
            if arguments is not None:
                route = address.routes.get("GET" if request.method == "HEAD" else request.method)
                if route is None:
                    raise errors.method_not_allowed(request, _allowed(address.routes))
                return await route.respond(request, arguments)
        raise errors.not_found(request)


def _allowed(routes: Mapping[str, Route]) -> Iterable[str]:
    """The methods of an address; HEAD is allowed where GET is."""
    return [name for method in routes for name in (("GET", "HEAD") if method == "GET" else (method,))]
