"""``polly members add``, ``invitations`` and ``accept``: options and help."""

from __future__ import annotations

from typing import Annotated

import typer

from polly_dockers.cli.call import Call
from polly_dockers.cli.group import Commands
from polly_dockers.cli.options import CaFile, Email, Output, Role

commands = Commands()


@commands.command(
    "add",
    "polly members add --email bob@acme.example --role writer\n"
    "polly members add --email bob@acme.example --role reader --output json",
)
def add(call: Call, *, email: Email = None, role: Role = None, output: Output = "table") -> None:
    """Invite somebody to the organisation.

    Prints a code that works once, within 7 days. The invited person uses it to join: polly members accept.
    """
    from polly_dockers.cli.actions import invitations

    invitations.add(call, email, role, output)


@commands.command("invitations", "polly members invitations\npolly members invitations --output json")
def invitations_(call: Call, *, output: Output = "table") -> None:
    """List who is invited and has not joined yet.

    To revoke an invitation, run polly members remove.
    """
    from polly_dockers.cli.actions import invitations

    invitations.pending(call, output)


@commands.command(
    "accept",
    "polly members accept --server registry.acme.example --email bob@acme.example\n"
    "polly members accept --code-stdin < code.txt",
)
def accept(
    call: Call,
    *,
    email: Annotated[str | None, typer.Option(metavar="EMAIL", help="The email address that was invited.")] = None,
    code: Annotated[
        str | None,
        typer.Option(metavar="CODE", help="The code. Other users of this machine may see it in the list of processes."),
    ] = None,
    code_stdin: Annotated[bool, typer.Option("--code-stdin", help="Read the code from stdin.")] = False,
    ca_file: CaFile = None,
    password_stdin: Annotated[
        bool,
        typer.Option("--password-stdin", help="Read the password from stdin, after the code with --code-stdin."),
    ] = False,
) -> None:
    """Join an organisation with the code that its admin gave you.

    If you are not signed in, this asks for your email and password, and then signs you in.
    Enter the password of your account on the server, or a new password if you have no account yet.
    """
    from polly_dockers.cli.actions import invitations

    invitations.accept(call, email, code, ca_file, code_stdin=code_stdin, password_stdin=password_stdin)
