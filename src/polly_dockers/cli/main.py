"""The command ``polly``."""

from __future__ import annotations

import os
import sys
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


def run() -> None:
    """Run ``polly`` with the arguments of the process, and end the process."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        polly.app(prog_name="polly")
    except Exception as error:
        if os.environ.get("POLLY_DEBUG"):
            raise
        sys.stderr.write(
            f"Error: polly failed where it should not: {type(error).__name__}: {error}. "
            "POLLY_DEBUG=1 before the command shows where; please tell your administrator.\n"
        )
        sys.exit(1)


if __name__ == "__main__":
    run()
