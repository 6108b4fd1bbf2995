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
    from polly_dockers.web.request import Exchange
    from polly_dockers.web.response import Answer


async def page(exchange: Exchange, organisation: str) -> Answer:
    """GET …/audit."""
    caller = await authentication.by_full_token(exchange)
    key = params.key(exchange)
    found, following = await audit.page(
        exchange.context,
        caller.actor,
        organisation,
        wanted=_wanted(exchange, organisation),
        newest_first=params.choice(exchange, "order", ("newest", "oldest")),
        limit=params.limit(exchange),
        after=key[1] if key is not None else None,
    )
    next_ = params.following(0, following) if following is not None else None
    return params.rendered(api_types.Audit([_item(entry) for entry in found], next_))


def _wanted(exchange: Exchange, organisation: str) -> Wanted:
    by, name = exchange.query("by"), exchange.query("name")
    return Wanted(
        event=_event(exchange),
        token_events=params.choice(exchange, "token_events", ("show", "hide")),
        by=by.strip().lower()[:254] if by is not None else None,
        path=RepositoryName.of(organisation, name) if name is not None else None,
        since=params.moment(exchange, "since"),
        until=params.moment(exchange, "until"),
    )


def _event(exchange: Exchange) -> Event | None:
    text = exchange.query("event")
    try:
        return Event(text) if text is not None else None
    except ValueError as error:
        near = difflib.get_close_matches(str(text), list(Event), 1)
        maybe = f" Did you mean {near[0]}?" if near else ""
        msg = f"event {str(text)[:50]!r} is not a valid event.{maybe} Choose one of {', '.join(Event)}."
        raise BadRequest(msg) from error


def _item(entry: Entry) -> api_types.AuditItem:
    return api_types.AuditItem(params.time(entry.at), entry.event, entry.by, entry.address, entry.subject, entry.detail)
