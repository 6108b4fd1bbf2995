"""The audit log."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any, Final

from polly_dockers import api_types
from polly_dockers.db.audit import Event, Wanted
from polly_dockers.errors import BadRequest
from polly_dockers.model import RepositoryName
from polly_dockers.registry import audit
from polly_dockers.web.api import params

if TYPE_CHECKING:
    from polly_dockers.auth.sign_in import SignedIn
    from polly_dockers.db.journal.records import Audited
    from polly_dockers.web.request import Request
    from polly_dockers.web.response import Response


class _EventName(params.Parameter):
    """A parameter that takes the name of an event."""

    @property
    def schema(self) -> dict[str, Any]:
        """The JSON schema of the value."""
        return {"type": "string", "enum": [event.value for event in Event]}

    def read(self, request: Request) -> Event | None:
        """The event, or None without one. Raises BadRequest, which suggests the most similar name."""
        text = request.query(self.name)
        try:
            return Event(text) if text is not None else None
        except ValueError as error:
            near = difflib.get_close_matches(str(text), list(Event), 1)
            maybe = f" Did you mean {near[0]}?" if near else ""
            msg = f"event {str(text)[:50]!r} is not a valid event.{maybe} Choose one of {', '.join(Event)}."
            raise BadRequest(msg) from error


EVENT: Final = _EventName("event", "Only this event.")
TOKEN_EVENTS: Final = params.Choice("token_events", "hide leaves out the events of access tokens.", ("show", "hide"))
BY: Final = params.Text("by", "Only what the user with this email did.")
NAME: Final = params.Text("name", "Only events of the docker repository of this name.")
SINCE: Final = params.Moment("since", "Only events from this time on.")
UNTIL: Final = params.Moment("until", "Only events before this time.")
FILTERS: Final = (EVENT, TOKEN_EVENTS, BY, NAME, SINCE, UNTIL)


async def page(request: Request, signed_in: SignedIn, organisation: str) -> Response:
    """GET …/audit."""
    found, following = await audit.page(
        request.context,
        signed_in.actor,
        organisation,
        wanted=_wanted(request, organisation),
        **params.page(request),
    )
    return params.json_response(api_types.Audit([_item(entry) for entry in found], params.next_id(following)))


def _wanted(request: Request, organisation: str) -> Wanted:
    by, name = BY.read(request), NAME.read(request)
    return Wanted(
        event=EVENT.read(request),
        token_events=TOKEN_EVENTS.read(request) == "show",
        by=by.strip().lower()[:254] if by is not None else None,
        path=RepositoryName.of(organisation, name) if name is not None else None,
        since=SINCE.read(request),
        until=UNTIL.read(request),
    )


def _item(entry: Audited) -> api_types.AuditItem:
    return api_types.AuditItem(params.time(entry.at), entry.event, entry.by, entry.address, entry.subject, entry.detail)
