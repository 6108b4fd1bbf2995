"""What the handlers of /api/v1 have in common: parameters of the query, cursors of pages, times, answers."""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import re
from typing import TYPE_CHECKING, Any, Final

from polly_dockers import api_types
from polly_dockers.errors import BadRequest
from polly_dockers.system.durations import SECOND
from polly_dockers.web.response import Response

if TYPE_CHECKING:
    from polly_dockers.web.request import Request

LIMIT: Final = 100
MAX_LIMIT: Final = 1000
MAX_CURSOR: Final = 600

_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_TIME: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]")
_COUNT: Final = re.compile(r"[0-9]{1,9}\Z")


def json_response(value: Any, status: int = 200) -> Response:  # noqa: ANN401 - any shape of wire
    """An answer with a shape of wire as its body."""
    return Response(
        status=status,
        body=api_types.encode(value),
        content_type="application/json",
        headers={"Cache-Control": "no-store"},
    )


def time(microseconds: int) -> str:
    """A time of a row as RFC 3339, in milliseconds."""
    at = dt.datetime.fromtimestamp(microseconds / SECOND, dt.UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def limit(request: Request) -> int:
    """How many items the page may have; raises BadRequest."""
    text = request.query("limit")
    if text is None:
        return LIMIT
    if not _COUNT.match(text) or not 1 <= int(text) <= MAX_LIMIT:
        msg = f"limit is {text[:50]!r}: give a whole number from 1 to {MAX_LIMIT}."
        raise BadRequest(msg)
    return int(text)


def choice(request: Request, name: str, choices: tuple[str, str]) -> bool:
    """Whether the parameter is the first of two choices, which it is when it is not given."""
    text = request.query(name)
    if text is not None and text not in choices:
        msg = f"{name} is {text[:50]!r}: choose {choices[0]} or {choices[1]}."
        raise BadRequest(msg)
    return text != choices[1]


def moment(request: Request, name: str) -> int | None:
    """A parameter that is a time of RFC 3339, in microseconds; None without it. Raises BadRequest."""
    text = request.query(name)
    if text is None:
        return None
    try:
        at = dt.datetime.fromisoformat(text.upper().replace(" ", "+")) if _TIME.match(text) else None
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        msg = f"{name} is {text[:50]!r}: give a time with its zone, such as 2026-12-24T18:00:00Z."
        raise BadRequest(msg)
    return (at - _EPOCH) // dt.timedelta(microseconds=1)


def cursor(request: Request) -> list[str]:
    """The parts of the cursor, none without one; raises BadRequest."""
    text = request.query("cursor")
    if not text:
        return []
    if len(text) > MAX_CURSOR:
        raise _bad_cursor()
    try:
        return base64.urlsafe_b64decode(text.encode("ascii") + b"==").decode("utf-8").split("\0")
    except (binascii.Error, ValueError) as error:
        raise _bad_cursor() from error


def key(request: Request) -> tuple[int, int] | None:
    """The two numbers of the cursor, None without one; raises BadRequest."""
    found = named_key(request)
    return (found[0], _number(found[1])) if found is not None else None


def named_key(request: Request) -> tuple[int, str] | None:
    """The number and the text of the cursor, None without one; raises BadRequest."""
    parts = cursor(request)
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


def following(*parts: object) -> str:
    """The cursor of the next page."""
    return base64.urlsafe_b64encode("\0".join(map(str, parts)).encode()).decode().rstrip("=")


def required(request: Request, name: str) -> str:
    """A parameter that has to be there; raises BadRequest."""
    value = request.query(name)
    if not value:
        msg = f"The query lacks {name}."
        raise BadRequest(msg)
    return value
