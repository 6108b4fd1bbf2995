"""``polly dockers policy``: options and help."""

from __future__ import annotations

from typing import Annotated

import typer

from polly_dockers.cli.call import Call
from polly_dockers.cli.group import Commands
from polly_dockers.cli.options import Name, Output, Yes

commands = Commands()


@commands.command(
    "policy",
    "polly dockers policy\n"
    "polly dockers policy --newest 10 --pulled-within 365d --preview\n"
    "polly dockers policy --preview --as-of +30d\n"
    "polly dockers policy --name new_repo --younger-than 90d --newest 3\n"
    "polly dockers policy --name new_repo --keep-everything",
)
def policy_(
    call: Call,
    *,
    name: Name = None,
    newest: Annotated[
        int | None, typer.Option(metavar="N", min=1, max=1000, help="Keep the newest N commits of each tag.")
    ] = None,
    younger_than: Annotated[
        str | None, typer.Option(metavar="TIME", help="Keep what was pushed within this time: 90d.")
    ] = None,
    pulled_within: Annotated[
        str | None, typer.Option(metavar="TIME", help="Keep what was pulled within this time: 365d.")
    ] = None,
    keep_everything: Annotated[bool, typer.Option("--keep-everything", help="Keep every commit forever.")] = False,
    inherit: Annotated[
        bool, typer.Option("--inherit", help="Use the organisation's policy again for this docker repository.")
    ] = False,
    preview: Annotated[
        bool,
        typer.Option("--preview", help="Only list what would be deleted, by these rules or by the current policy."),
    ] = False,
    as_of: Annotated[
        str | None,
        typer.Option(metavar="DAY", help="Preview for this day: tomorrow, 2026-12-24, +30d. Changes nothing."),
    ] = None,
    all_: Annotated[
        bool, typer.Option("--all", help="List everything that would be deleted, up to 1,000 items.")
    ] = False,
    yes: Yes = False,
    output: Output = "table",
) -> None:
    """Show or set which commits are kept.

    The default is to keep all of them. Only admins can change that, for all docker repositories of the organisation
    or for one with --name.
    A commit stays if at least one of the rules keeps it. The others go to the trash; the command lists them first.
    Active tags always stay, and so does what an image of several platforms or a signature still needs.
    """
    from polly_dockers.cli.actions import policy

    wanted = policy.Wanted(younger_than, newest, pulled_within, keep_everything, inherit)
    policy.run(call, name, wanted, output, as_of=as_of, every=all_, preview=preview, yes=yes)
