"""``polly-server audit``: the audit log of all organisations."""

from __future__ import annotations

import datetime as dt
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from polly_dockers import db
from polly_dockers.api_types import AuditItem
from polly_dockers.auth import members
from polly_dockers.cli import audit_log, tables, times
from polly_dockers.cli.help import HelpedCommand
from polly_dockers.cli.options import Output
from polly_dockers.db.audit import Event, Wanted
from polly_dockers.errors import BadRequest
from polly_dockers.server.cli import folder
from polly_dockers.server.cli.folder import Data
from polly_dockers.server.cli.help import group, moment
from polly_dockers.system.durations import SECOND

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from polly_dockers.context import Context
    from polly_dockers.db.journal.records import Audited

PAGE: Final = 500
"""Entries of the audit log in one transaction."""
app: Final = group("The audit log.")


@app.command("audit", cls=HelpedCommand, epilog="polly-server audit --data data --org acme --latest 50")
def run_audit(
    data: Data = Path("data"),
    *,
    org: Annotated[str | None, typer.Option("--org", metavar="NAME", help="Only this organisation.")] = None,
    event: Annotated[
        Event | None, typer.Option("--event", metavar="EVENT", help="Only this event, such as delete.")
    ] = None,
    by: Annotated[str | None, typer.Option("--by", metavar="EMAIL", help="Only what this user did.")] = None,
    name: Annotated[
        str | None, typer.Option("--name", metavar="ORG/NAME", help="Only what was done to this docker repository.")
    ] = None,
    since: Annotated[
        str | None, typer.Option("--since", metavar="TIME", help="Only from this time on: 7d, yesterday, 2026-11-24.")
    ] = None,
    until: Annotated[
        str | None, typer.Option("--until", metavar="TIME", help="Only until this time; a day is included as a whole.")
    ] = None,
    all_events: Annotated[
        bool, typer.Option("--all-events", help="Also list what was done with access tokens.")
    ] = False,
    latest: Annotated[int, typer.Option("--latest", min=1, metavar="N", help="List the N newest entries.")] = 20,
    output: Output = "table",
) -> None:
    """Print the audit log of all organisations, newest first.

    Entries about access tokens are left out without --all-events or --event. Admins see the log of their organisation:
    polly audit list.
    """
    if "" in {by, name}:
        msg = f"{'--by' if by == '' else '--name'} is empty. Give a value, or leave the option out."
        raise BadRequest(msg)
    wanted = Wanted(
        event=event,
        token_events=all_events or event is not None,
        by=by.lower() if by is not None else None,
        path=_path(org, name),
        since=_moment(since, "--since", end=False),
        until=_moment(until, "--until", end=True),
    )
    if problem := audit_log.problem(by, wanted.since, wanted.until, int(time.time() * SECOND)):
        raise BadRequest(problem)
    found = folder.run(data, lambda context: _read(context, org, wanted, latest), reads=True)
    entries = [
        AuditItem(moment(each.at), each.event, each.by, each.address, each.subject, each.detail) for each in found
    ]
    tables.display(output, entries, audit_log.COLUMNS, entries, "The audit log has no such entry.")


def _path(org: str | None, name: str | None) -> str | None:
    """The path of the docker repository that --org and --name select; None without --name. Raises BadRequest."""
    if name is None or (org is not None and name.startswith(f"{org}/")):
        return name
    if org is None and "/" not in name:
        msg = f"--name {name!r} is in which organisation? Use --name ORG/{name}, or --org ORG --name {name}."
        raise BadRequest(msg)
    return f"{org}/{name}" if org is not None else name


async def _read(context: Context, org: str | None, wanted: Wanted, latest: int) -> list[Audited]:
    """The ``latest`` newest entries that are wanted, of one organisation or of all."""
    found: list[Audited] = []
    after: int | None = None
    while len(found) < latest:
        page, after = await context.database.read(_entries, org, wanted, after, min(latest - len(found), PAGE))
        found += page
        if after is None:
            break
    return found


def _entries(
    connection: Connection, org: str | None, wanted: Wanted, after: int | None, limit: int
) -> tuple[list[Audited], int | None]:
    found = members.require_organisation(connection, org) if org is not None else None
    return db.audit.page(connection, found, wanted=wanted, after=after, limit=limit)


def _moment(text: str | None, option: str, *, end: bool) -> int | None:
    """The time that an option gives, in microseconds; None if it is not given. Raises BadRequest."""
    if text is None:
        return None
    try:
        at = times.parse(text, dt.datetime.now().astimezone(), end=end)
    except ValueError as error:
        msg = f"{option} {text!r} is not a time. Use yesterday, 2026-11-24, '2026-11-24 18:00' or 7d (a week ago)."
        raise BadRequest(msg) from error
    return int(at.timestamp() * SECOND)
