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
    """List the members by their email address, and who is invited."""
    from polly_dockers.cli.actions import members

    members.list_(call, output)


@group.command(
    "add",
    "polly members add --email bob@acme.example --role writer\n"
    "polly members add --email bob@acme.example --role reader --output json",
)
def add(call: Call, *, email: Email = None, role: RoleOption = None, output: Output = "table") -> None:
    """Invite somebody to the organisation.

    Prints a code that is good for 7 days and once. The invited person joins with it: polly members accept.
    """
    from polly_dockers.cli.actions import invitations

    invitations.add(call, email, role, output)


@group.command("invitations", "polly members invitations\npolly members invitations --output json")
def invitations_(call: Call, *, output: Output = "table") -> None:
    """List who was invited and has not joined yet.

    polly members remove revokes an invitation.
    """
    from polly_dockers.cli.actions import invitations

    invitations.pending(call, output)


@group.command("set-role", "polly members set-role --email bob@acme.example --role admin")
def set_role(call: Call, *, email: Email = None, role: RoleOption = None, output: Output = "table") -> None:
    """Change what a member may do, from the next request on."""
    from polly_dockers.cli.actions import members

    members.set_role(call, email, role, output)


@group.command(
    "accept",
    "polly members accept --server registry.acme.example --email bob@acme.example\n"
    "polly members accept --code-stdin < code.txt",
)
def accept(
    call: Call,
    *,
    email: Annotated[str | None, typer.Option(metavar="EMAIL", help="The email that was invited.")] = None,
    code: Annotated[
        str | None,
        typer.Option(metavar="CODE", help="The code; others on this machine may see it in the list of processes."),
    ] = None,
    code_stdin: Annotated[bool, typer.Option("--code-stdin", help="Read the code from stdin.")] = False,
    ca_file: Annotated[
        str | None,
        typer.Option("--ca-file", metavar="FILE", help="Certificates to trust beside the system's, kept for later."),
    ] = None,
    password_stdin: Annotated[
        bool,
        typer.Option("--password-stdin", help="Read the password from stdin, after the code with --code-stdin."),
    ] = False,
) -> None:
    """Join an organisation with the code that its admin gave you.

    If you are not signed in, this asks for email and password: those of your account on the server, or a new
    password if you have no account yet. You are signed in afterwards.
    """
    from polly_dockers.cli.actions import invitations

    invitations.accept(call, email, code, ca_file, code_stdin=code_stdin, password_stdin=password_stdin)


@group.command("remove", "polly members remove bob@acme.example\npolly members remove --email bob@acme.example --yes")
def remove(
    call: Call,
    *,
    email: Email = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask; for machines.")] = False,
) -> None:
    """Remove a member, from the next request on, or an invitation."""
    from polly_dockers.cli.actions import members

    members.remove(call, email, yes=yes)
