"""``polly audit``: list the audit log of an organisation."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from polly_dockers.cli import audit_log, tables, terminal, times
from polly_dockers.cli.errors import RequestError, UsageError

if TYPE_CHECKING:
    from polly_dockers.cli.call import Call
    from polly_dockers.cli.listing import Range


@dataclass(frozen=True)
class Wanted:
    """The options that select entries."""

    event: str | None
    by: str | None
    name: str | None
    since: str | None
    until: str | None
    all_events: bool

    def query(self, call: Call) -> dict[str, str]:
        """Return the query without the name; times are by the server's clock. Raises UsageError for invalid options."""
        if self.event is not None and self.all_events:
            msg = "--event and --all-events can't be together: choose one."
            raise UsageError(msg)
        given = {"event": self.event, "by": self.by}
        if self.event is None and not self.all_events:
            given["token_events"] = "hide"  # noqa: S105 - not a password
        timed = self.since is not None or self.until is not None
        now = call.session.client.now() if timed else datetime.now().astimezone()
        limits = {
            option: times.moment(text, f"--{option}", now, end=end)
            for option, text, end in (("since", self.since, False), ("until", self.until, True))
            if text is not None
        }
        if problem := audit_log.problem(self.by, limits.get("since"), limits.get("until"), now):
            raise UsageError(problem)
        given |= {option: at.isoformat() for option, at in limits.items()}
        return {name: text for name, text in given.items() if text is not None}

    def options(self) -> dict[str, str | bool | None]:
        """Return the options for the command in one line."""
        return asdict(self)


def list_(call: Call, part: Range, wanted: Wanted, output: str) -> None:
    """Print entries of the audit log."""
    query = wanted.query(call)
    session = call.session
    organisation = session.organisation
    if wanted.name is not None:
        organisation, query["name"] = session.repository(wanted.name)
    part.ask("How many entries do you want to list?")
    try:
        page = session.client.audit(organisation, part.count, order=part.order, **query)
    except RequestError as error:
        if error.code == UsageError.code and error.message.startswith("event "):
            msg = f"--{error.message}"
            raise UsageError(msg) from error
        raise
    call.remember("polly audit list", **wanted.options(), **part.options())
    if output == "json":
        tables.document(page.items)
    elif page.items:
        tables.show(audit_log.COLUMNS, page.items)
    else:
        missing = "name" in query and not session.exists(organisation, query["name"])
        there = f"There is no docker repository {query['name']} in {organisation}. " if missing else ""
        terminal.say(f"{there}The audit log of {organisation} has no such entry.")
    if page.next and not part.given and output != "json":
        terminal.say("There are more; --all lists all of them.")
    if "token_events" in query and output != "json":
        terminal.say("Entries about access tokens are not listed; --all-events lists them too.")
