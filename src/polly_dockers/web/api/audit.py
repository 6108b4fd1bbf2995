"""The audit log."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from polly_dockers import api_types
from polly_dockers.db.audit import Event, Wanted
from polly_dockers.errors import BadRequest
from polly_dockers.model import RepositoryName
from polly_dockers.registry import audit
from polly_dockers.web import authentication
from polly_dockers.web.api import params

if TYPE_CHECKING:
    from polly_dockers.db.audit import Entry
    from polly_dockers.web.request import Request
    from polly_dockers.web.response import Response


async def page(request: Request, organisation: str) -> Response:
    """GET …/audit."""
    signed_in = await authentication.by_full_token(request)
    key = params.key(request)
    found, following = await audit.page(
        request.context,
        signed_in.actor,
        organisation,
        wanted=_wanted(request, organisation),
        newest_first=params.choice(request, "order", ("newest", "oldest")),
        limit=params.limit(request),
        after=key[1] if key is not None else None,
    )
    next_ = params.following(0, following) if following is not None else None
    return params.json_response(api_types.Audit([_item(entry) for entry in found], next_))


def _wanted(request: Request, organisation: str) -> Wanted:
    by, name = request.query("by"), request.query("name")
    return Wanted(
        event=_event(request),
        token_events=params.choice(request, "token_events", ("show", "hide")),
        by=by.strip().lower()[:254] if by is not None else None,
        path=RepositoryName.of(organisation, name) if name is not None else None,
        since=params.moment(request, "since"),
        until=params.moment(request, "until"),
    )


def _event(request: Request) -> Event | None:
    text = request.query("event")
    try:
        return Event(text) if text is not None else None
    except ValueError as error:
        near = difflib.get_close_matches(str(text), list(Event), 1)
        maybe = f" Did you mean {near[0]}?" if near else ""
        msg = f"event {str(text)[:50]!r} is not a valid event.{maybe} Choose one of {', '.join(Event)}."
        raise BadRequest(msg) from error


def _item(entry: Entry) -> api_types.AuditItem:
    return api_types.AuditItem(params.time(entry.at), entry.event, entry.by, entry.address, entry.subject, entry.detail)
