"""The audit log of an organisation: what ``polly audit list`` does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from polly_dockers.cli import render, terminal
from polly_dockers.cli.render import Column

if TYPE_CHECKING:
    from polly_dockers import wire
    from polly_dockers.cli.command import Call
    from polly_dockers.cli.repositories import Choice

_ENTRY = (
    Column("event"),
    Column("subject", own_line=True),
    Column("by"),
    Column("at"),
    Column("from", optional=True),
    Column("detail", optional=True),
)


def list_(call: Call, choice: Choice, event: str | None, output: str) -> None:
    """Print entries of the audit log."""
    session = call.session
    organisation = session.organisation
    choice.ask("How many entries do you want to list?")
    query = {"order": choice.order} | ({"event": event} if event else {})
    page = session.client.audit(organisation, choice.count, **query)
    call.remember("polly audit list", event=event, **choice.options())
    if output == "json":
        render.document(page.items)
    elif page.items:
        render.show(_ENTRY, [_row(each) for each in page.items])
    else:
        terminal.say(f"The audit log of {organisation} has no such entry.")
    if page.next and not choice.given and output != "json":
        terminal.say("There are more; --all lists all of them.")


def _row(item: wire.AuditItem) -> render.Row:
    return (item.event, item.subject or "-", item.by or "nobody", render.date(item.at), item.address, item.detail)
