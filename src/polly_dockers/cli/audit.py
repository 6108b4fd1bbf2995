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
    "polly audit list\npolly audit list --event delete --all\npolly audit list --latest 1000 --output json",
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
    output: Output = "table",
) -> None:
    """List sign-ins, pushes, deletions, restores, and changes of rights.

    For admins. Without --all, --latest or --oldest: the 20 newest. Entries are chained by their hashes, so that
    whoever runs the server can show that none was changed: polly-server check.
    """
    from polly_dockers.cli import audit_log, repositories

    audit_log.list_(call, repositories.Choice(call, latest, oldest, every=all_), event, output)
