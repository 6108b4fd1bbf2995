"""``polly audit``: options and help."""

from __future__ import annotations

from typing import Annotated

import typer

from polly_dockers.cli.call import Call
from polly_dockers.cli.group import Group
from polly_dockers.cli.options import All, Latest, Oldest, Output

group = Group(
    "polly audit",
    "Show what was done in an organisation, by whom, and from where.",
    "polly audit list\npolly audit list --event delete",
    "What would you like to do with the audit log?",
)
group.ask_if_alone()


@group.command(
    "list",
    "polly audit list\n"
    "polly audit list --event delete --all\n"
    "polly audit list --name new_repo --since 7d\n"
    "polly audit list --by bob@acme.example --since 2026-11-01 --until 2026-11-30 --all --output json",
)
def list_(
    call: Call,
    *,
    all_: All = False,
    latest: Latest = None,
    oldest: Oldest = None,
    event: Annotated[
        str | None,
        typer.Option(
            metavar="EVENT", help="Only this event: push, delete, restore, sign-in, sign-in-refused, member-role …"
        ),
    ] = None,
    by: Annotated[
        str | None, typer.Option(metavar="EMAIL", help="Only what this user did; or policy, or polly-server.")
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="Only what was done to this docker repository.")
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Only from this time on: 7d, yesterday, 2026-11-24, '2026-11-24 18:00'."),
    ] = None,
    until: Annotated[
        str | None, typer.Option(metavar="TIME", help="Only until this time; a day is included as a whole.")
    ] = None,
    all_events: Annotated[
        bool, typer.Option("--all-events", help="Also list what was done with access tokens.")
    ] = False,
    output: Output = "table",
) -> None:
    """List sign-ins, pushes, deletions, restores, and changes of roles and access.

    Only admins may list them. The default is the 20 newest; --all, --latest and --oldest change that.
    Entries about access tokens are listed only with --all-events or --event.
    Each entry includes the hash of the previous one, so the server's operator can prove that none was changed:
    polly-server check.
    """
    from polly_dockers.cli import listing
    from polly_dockers.cli.actions import audit

    wanted = audit.Wanted(event, by, name, since, until, all_events)
    audit.list_(call, listing.Range(call, latest, oldest, every=all_), wanted, output)
