"""Options that several commands have."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

import typer

COMMON_PANEL = "Options of every command"
ARGUMENTS = "polly.arguments"
"""Where the context of a command keeps the arguments of the command line, for an error about them."""

All: TypeAlias = Annotated[bool, typer.Option("--all", help="List all of them, newest first.")]
CaFile: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--ca-file",
        metavar="FILE",
        help="Also trust the certificates in this PEM file, and save its path in the profile; also POLLY_CA_FILE.",
    ),
]
Email: TypeAlias = Annotated[str | None, typer.Option(metavar="EMAIL", help="The member's email address.")]
Latest: TypeAlias = Annotated[int | None, typer.Option(min=1, metavar="N", help="List the N newest.")]
Name: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--name", metavar="NAME", help="The docker repository: its name, or the whole HOST/organisation/name."
    ),
]
Oldest: TypeAlias = Annotated[int | None, typer.Option(min=1, metavar="N", help="List the N oldest, oldest first.")]
Output: TypeAlias = Annotated[
    Literal["table", "json"],
    typer.Option("--output", metavar="table|json", help="A table for people, or JSON for programs."),
]
Role: TypeAlias = Annotated[
    Literal["reader", "writer", "admin"] | None,
    typer.Option(help="A reader pulls; a writer also pushes and creates; an admin also manages members."),
]
Yes: TypeAlias = Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation; for scripts.")]

COMMON: dict[str, tuple[Any, Any]] = {
    "profile": (
        Annotated[
            str | None,
            typer.Option(
                metavar="NAME",
                help="The name of a signed-in server; also POLLY_PROFILE.",
                rich_help_panel=COMMON_PANEL,
            ),
        ],
        None,
    ),
    "server": (
        Annotated[
            str | None,
            typer.Option(
                metavar="URL", help="The address of the server; also POLLY_SERVER.", rich_help_panel=COMMON_PANEL
            ),
        ],
        None,
    ),
    "org": (
        Annotated[
            str | None,
            typer.Option(metavar="NAME", help="The organisation; also POLLY_ORG.", rich_help_panel=COMMON_PANEL),
        ],
        None,
    ),
    "no_input": (
        Annotated[
            bool,
            typer.Option("--no-input", help="Never ask; fail if something is missing.", rich_help_panel=COMMON_PANEL),
        ],
        False,
    ),
}
"""The options of every command: annotation and default value."""
