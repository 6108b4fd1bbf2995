"""``polly audit …``: the options and the help of the commands."""

from __future__ import annotations

from typing import Annotated

import typer

from polly_dockers.cli.command import All, Call, Group, Latest, Oldest, Output

group = Group(
    "polly audit",
    "What was done in an organisation, by whom, and from where.",
    "polly audit list\npolly audit list --event delete",
    "What would you like to do with the audit log?",
)
group.alone()


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
        typer.Option(metavar="EVENT", help="Only push, delete, restore, sign-in, sign-in-refused, member-role …"),
    ] = None,
    by: Annotated[str | None, typer.Option(metavar="EMAIL", help="Only what they did; policy, polly-server.")] = None,
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="Only what was done to this docker repository.")
    ] = None,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="From then on: 7d, yesterday, 2026-11-24, '2026-11-24 18:00'.")
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="Until then; a day with all of it.")] = None,
    all_events: Annotated[bool, typer.Option("--all-events", help="Also what was done with access tokens.")] = False,
    output: Output = "table",
) -> None:
    """List sign-ins, pushes, deletions, restores, and changes of rights.

    Entries about access tokens are left out without --all-events or --event.
    For admins. Without --all, --latest or --oldest: the 20 newest. Entries are chained by their hashes, so that
    whoever runs the server can show that none was changed: polly-server check.
    """
    from polly_dockers.cli.actions import audit, dockers

    wanted = audit.Wanted(event, by, name, since, until, all_events)
    audit.list_(call, dockers.Choice(call, latest, oldest, every=all_), wanted, output)
