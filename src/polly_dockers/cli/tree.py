"""All commands of ``polly``, as a tree."""

from __future__ import annotations

from typing import Annotated

import typer

from polly_dockers.cli import account, dockers, members
from polly_dockers.cli.command import Group


def _version(wanted: bool) -> None:  # noqa: FBT001 - typer calls it so
    if wanted:
        from polly_dockers import __version__

        print(f"polly {__version__}")
        raise typer.Exit


polly = Group(
    "polly",
    "A private registry for Docker images that never forgets a push: sign in, and look after docker repositories.",
    "polly login --server registry.acme.example\npolly dockers list\npolly dockers create --help",
    "What would you like to do?",
)
polly.alone(
    version=(
        Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")],
        False,
    )
)
account.register(polly)
polly.add(dockers.group)
polly.add(members.group)
