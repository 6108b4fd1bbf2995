"""All commands of ``polly``, as a tree."""

from __future__ import annotations

from typing import Annotated

import typer

from polly_dockers import __version__
from polly_dockers.cli.commands import account, audit, dockers, members, org, profiles, tokens


def _version(wanted: bool) -> None:  # noqa: FBT001 - typer calls it so
    if wanted:
        print(f"polly {__version__}")
        raise typer.Exit


polly = account.group
polly.alone(
    version=(
        Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")],
        False,
    )
)
polly.add(dockers.group)
polly.add(members.group)
polly.add(org.group)
polly.add(profiles.group)
polly.add(tokens.group)
polly.add(audit.group)
