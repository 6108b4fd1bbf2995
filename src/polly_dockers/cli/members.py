"""``polly members …``: the options and the help of the commands."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from polly_dockers.cli.command import Call, Group, Output

Email = Annotated[str | None, typer.Option(metavar="EMAIL", help="The member's email address.")]
RoleOption = Annotated[
    Literal["admin", "writer", "reader"] | None,
    typer.Option(help="reader pulls; writer also pushes and creates; admin also manages members."),
]

group = Group(
    "polly members",
    "The members of an organisation, and what they may do.",
    "polly members list\npolly members add --email bob@acme.example --role writer",
    "What would you like to do with the members?",
)
group.alone()


@group.command("list", "polly members list\npolly members list --org acme --output json")
def list_(call: Call, *, output: Output = "table") -> None:
    """List the members by their email address."""
    from polly_dockers.cli import memberships

    memberships.list_(call, output)


@group.command(
    "add",
    "polly members add --email bob@acme.example --role writer\n"
    "polly members add --email bob@acme.example --role reader --password-stdin < password.txt",
)
def add(
    call: Call,
    *,
    email: Email = None,
    role: RoleOption = None,
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Read the first password from stdin; else one is made up.")
    ] = False,
    output: Output = "table",
) -> None:
    """Take somebody into the organisation.

    The first password is shown once. Who has an account on this server already keeps the password of that, and joins
    with this one: polly members accept.
    """
    from polly_dockers.cli import memberships

    memberships.add(call, email, role, output, password_stdin=password_stdin)


@group.command("set-role", "polly members set-role --email bob@acme.example --role admin")
def set_role(call: Call, *, email: Email = None, role: RoleOption = None, output: Output = "table") -> None:
    """Change what a member may do, from the next request on."""
    from polly_dockers.cli import memberships

    memberships.set_role(call, email, role, output)


@group.command(
    "accept",
    "polly members accept --org biolab\npolly members accept --org biolab --password-stdin < password.txt",
)
def accept(
    call: Call,
    *,
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Read the password that the admin gave you from stdin.")
    ] = False,
) -> None:
    """Join an organisation whose admin added you.

    The password is the one that the admin gave you for it. Who had no account before is a member without this.
    """
    from polly_dockers.cli import memberships

    memberships.accept(call, password_stdin=password_stdin)


@group.command("remove", "polly members remove --email bob@acme.example")
def remove(call: Call, *, email: Email = None) -> None:
    """Take a member out, from the next request on."""
    from polly_dockers.cli import memberships

    memberships.remove(call, email)
