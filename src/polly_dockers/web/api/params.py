"""Query parameters of /api/v1, cursors of pages, times, and JSON responses: what several handlers use.

A parameter is declared once. The declaration reads it from a request, and describes it in the OpenAPI document.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol, TypedDict, TypeVar

from polly_dockers import api_types
from polly_dockers.errors import BadRequest
from polly_dockers.system.durations import SECOND
from polly_dockers.web.response import Response

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from polly_dockers.auth.sign_in import SignedIn
    from polly_dockers.web.request import Request

T = TypeVar("T")
E = TypeVar("E", bound="_HasEmail")


class _HasEmail(Protocol):
    @property
    def email(self) -> str: ...


MAX_CURSOR: Final = 600

_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_TIME: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]")
_COUNT: Final = re.compile(r"[0-9]{1,9}\Z")


@dataclass(frozen=True)
class Parameter:
    """A parameter of the query: its name, and what it does."""

    name: str
    help: str
    required: ClassVar[bool] = False

    @property
    def schema(self) -> dict[str, Any]:
        """The JSON schema of the value."""
        return {"type": "string"}


class Text(Parameter):
    """A parameter that takes any text."""

    def read(self, request: Request) -> str | None:
        """The text, or None without one. Raises BadRequest if it is given twice."""
        return request.query(self.name)


class Required(Parameter):
    """A parameter that takes any text and can't be left out."""

    required = True

    def read(self, request: Request) -> str:
        """The text. Raises BadRequest without one."""
        value = request.query(self.name)
        if not value:
            msg = f"The query lacks {self.name}."
            raise BadRequest(msg)
        return value


@dataclass(frozen=True)
class Number(Parameter):
    """A parameter that takes a whole number."""

    low: int
    high: int
    default: int

    @property
    def schema(self) -> dict[str, Any]:
        """The JSON schema of the value."""
        return {"type": "integer", "minimum": self.low, "maximum": self.high, "default": self.default}

    def read(self, request: Request) -> int:
        """The number. Raises BadRequest for anything else than a number of the range."""
        text = request.query(self.name)
        if text is None:
            return self.default
        if not _COUNT.match(text) or not self.low <= int(text) <= self.high:
            msg = f"{self.name} is {text[:50]!r}. Give a whole number from {self.low} to {self.high}."
            raise BadRequest(msg)
        return int(text)


@dataclass(frozen=True)
class Choice(Parameter):
    """A parameter that takes one of a few words. Without a default, the first word is the default."""

    choices: tuple[str, ...]
    default: str | None = None

    @property
    def schema(self) -> dict[str, Any]:
        """The JSON schema of the value."""
        return {"type": "string", "enum": list(self.choices)}

    def read(self, request: Request) -> str:
        """The word. Raises BadRequest for any other."""
        text = request.query(self.name)
        if text is not None and text not in self.choices:
            msg = f"{self.name} is {text[:50]!r}. Choose {' or '.join(self.choices)}."
            raise BadRequest(msg)
        return text or self.default or self.choices[0]


class Moment(Parameter):
    """A parameter that takes a time of RFC 3339."""

    @property
    def schema(self) -> dict[str, Any]:
        """The JSON schema of the value."""
        return {"type": "string", "format": "date-time"}

    def read(self, request: Request) -> int | None:
        """The time in microseconds since 1970, or None without one. Raises BadRequest."""
        text = request.query(self.name)
        if text is None:
            return None
        try:
            at = dt.datetime.fromisoformat(text.upper().replace(" ", "+")) if _TIME.match(text) else None
        except ValueError:
            at = None
        if at is None or at.tzinfo is None:
            msg = f"{self.name} is {text[:50]!r}. Give a time with its zone, such as 2026-12-24T18:00:00Z."
            raise BadRequest(msg)
        return (at - _EPOCH) // dt.timedelta(microseconds=1)


LIMIT: Final = Number("limit", "How many items a page has at most.", 1, 1000, 100)
ORDER: Final = Choice("order", "Which items come first.", ("newest", "oldest"))
ORDER_BY_EMAIL: Final = Choice("order", "oldest sorts by email, newest in reverse.", ("newest", "oldest"), "oldest")
CURSOR: Final = Text("cursor", "The page to return: next of the previous page.")
PAGE: Final = (LIMIT, ORDER, CURSOR)
PAGE_BY_EMAIL: Final = (LIMIT, ORDER_BY_EMAIL, CURSOR)
NAME: Final = Required("name", "The name of the docker repository, without its organisation.")
REPOSITORY: Final = Required("repository", "The name of the docker repository, without its organisation.")
OPTIONAL_NAME: Final = Text("name", "Only the docker repository of this name.")
TAG: Final = Text("tag", "Only this tag.")
EMAIL: Final = Required("email", "The email of the member or the invitation.")
PREVIEW: Final = Choice("preview", "true changes nothing, and returns what would be deleted.", ("false", "true"))
AS_OF: Final = Moment("as_of", "The time of the preview; now by default.")


class Page(TypedDict):
    """The arguments of a use case that returns a page of items with numeric IDs."""

    newest_first: bool
    limit: int
    after: int | None


def page(request: Request) -> Page:
    """Read limit, order and cursor of such a page. Raises BadRequest."""
    return Page(newest_first=ORDER.read(request) == "newest", limit=LIMIT.read(request), after=cursor_id(request))


def cursor_parts(request: Request) -> list[str]:
    """The parts of the cursor; none without one. Raises BadRequest."""
    text = CURSOR.read(request)
    if not text:
        return []
    if len(text) > MAX_CURSOR:
        raise _bad_cursor()
    try:
        return base64.urlsafe_b64decode(text.encode("ascii") + b"==").decode("utf-8").split("\0")
    except (binascii.Error, ValueError) as error:
        raise _bad_cursor() from error


def cursor(request: Request) -> tuple[int, int] | None:
    """The two numbers of the cursor, or None without one. Raises BadRequest."""
    found = text_cursor(request)
    return (found[0], _number(found[1])) if found is not None else None


def cursor_id(request: Request) -> int | None:
    """The ID in the cursor of ``next_id``, or None without one. Raises BadRequest."""
    found = cursor(request)
    return found[1] if found is not None else None


def text_cursor(request: Request) -> tuple[int, str] | None:
    """The number and the text of the cursor, or None without one. Raises BadRequest."""
    parts = cursor_parts(request)
    if not parts:
        return None
    if len(parts) != 2:  # noqa: PLR2004 - a number and a text
        raise _bad_cursor()
    return _number(parts[0]), parts[1]


def _number(part: str) -> int:
    if not (part.isascii() and part.isdigit() and len(part) < 19):  # noqa: PLR2004 - the digits of a column
        raise _bad_cursor()
    return int(part)


def _bad_cursor() -> BadRequest:
    return BadRequest("The cursor is not one of this list. Take next from the previous page, or leave it out.")


def next_cursor(*parts: object) -> str:
    """The cursor of the next page, made of some parts."""
    return base64.urlsafe_b64encode("\0".join(map(str, parts)).encode()).decode().rstrip("=")


def next_id(last: int | None) -> str | None:
    """The cursor of the next page for a list by ID; None if this page is the last one."""
    return next_cursor(0, last) if last else None  # 0: such a list has no other key before the ID


def cut(found: Sequence[T], limit: int, parts: Callable[[T], Sequence[object]]) -> tuple[Sequence[T], str | None]:
    """The first ``limit`` items, and the cursor of the next page if there are more. ``parts``: those of its cursor."""
    return found[:limit], next_cursor(*parts(found[limit - 1])) if len(found) > limit else None


async def page_by_email(
    request: Request, signed_in: SignedIn, organisation: str, find: Callable[..., Awaitable[tuple[Sequence[E], int]]]
) -> tuple[Sequence[E], int, str | None]:
    """A page of members or invitations, the total, and the next cursor. ``find``: the use case that returns them."""
    limit = LIMIT.read(request)
    found, total = await find(
        request.context,
        signed_in.actor,
        organisation,
        after=(cursor_parts(request) or [""])[0],
        newest_first=ORDER_BY_EMAIL.read(request) == "newest",
        limit=limit + 1,
    )
    items, following = cut(found, limit, lambda item: (item.email,))
    return items, total, following


def json_response(value: Any, status: int = 200) -> Response:  # noqa: ANN401 - any type of api_types
    """A response with a value of ``api_types`` as its body."""
    return Response(
        status=status,
        body=api_types.encode(value),
        content_type="application/json",
        headers={"Cache-Control": "no-store"},
    )


def time(microseconds: int) -> str:
    """A time of the database as RFC 3339, in milliseconds."""
    at = dt.datetime.fromtimestamp(microseconds / SECOND, dt.UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
