"""All commands of ``polly``, as a tree."""

from __future__ import annotations

from typing import Annotated

import typer

from polly_dockers import __version__
from polly_dockers.cli.commands import (
    account,
    audit,
    docker_login,
    dockers,
    invitations,
    members,
    org,
    policy,
    profiles,
    tokens,
    trash,
)


def _version(wanted: bool) -> None:  # noqa: FBT001 - typer calls it so
    if wanted:
        print(f"polly {__version__}")
        raise typer.Exit


polly = account.group
polly.ask_if_alone(
    version=(
        Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")],
        False,
    )
)
for _commands in (trash, policy, docker_login):
    dockers.group.include(_commands.commands)
members.group.include(invitations.commands, at=1)
for _noun in (dockers, members, org, profiles, tokens, audit):
    polly.add(_noun.group)
