"""``polly login``, ``logout``, ``whoami`` and ``password``: options and help."""

from __future__ import annotations

from typing import Annotated

import typer

from polly_dockers.cli.call import Call
from polly_dockers.cli.group import Group
from polly_dockers.cli.options import CaFile, Output

group = Group(
    "polly",
    "Sign in to a private registry for Docker images, and manage its docker repositories. Every pushed version of an "
    "image stays available.",
    "polly login --server registry.acme.example\npolly dockers list\npolly dockers create --help",
    "What would you like to do?",
)


@group.command(
    "login",
    "polly login registry.acme.example\n"
    "polly login --server 127.0.0.1:5000 --email ann@acme.example --password-stdin < password.txt\n"
    "polly login --auto",
    argument="server",
)
def login(
    call: Call,
    *,
    email: Annotated[str | None, typer.Option(metavar="EMAIL", help="Your email address.")] = None,
    password_stdin: Annotated[bool, typer.Option("--password-stdin", help="Read the password from stdin.")] = False,
    auto: Annotated[
        bool,
        typer.Option(
            "--auto",
            help="Sign in inside a job: with POLLY_SERVER, and POLLY_TOKEN or POLLY_EMAIL and POLLY_PASSWORD.",
        ),
    ] = False,
    expires: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="How long you stay signed in: 30m, 12h, 7d. The default is 90d."),
    ] = None,
    ca_file: CaFile = None,
) -> None:
    """Sign in to a server.

    Saves an access token in a file that only you can read. Your password is not saved.
    Signing in again with the same profile revokes the previous token.
    --profile gives the server a name. --org chooses which of your organisations the commands use.
    """
    from polly_dockers.cli.actions import account

    account.login(call, email, expires, ca_file, password_stdin=password_stdin, auto=auto)


@group.command("logout", "polly logout\npolly logout registry.acme.example", argument="server")
def logout(call: Call) -> None:
    """Sign out, and revoke the access token on the server.

    If the server can't be reached, the token is still deleted here, and the exit code is 1.
    """
    from polly_dockers.cli.actions import account

    account.logout(call)


@group.command("whoami", "polly whoami\npolly whoami --output json")
def whoami(call: Call, *, output: Output = "table") -> None:
    """Show your email, your organisations and roles, the server, and the expiry date."""
    from polly_dockers.cli.actions import account

    account.whoami(call, output)


@group.command("password", "polly password")
def password(
    call: Call,
    *,
    password_stdin: Annotated[
        bool,
        typer.Option("--password-stdin", help="Read two lines from stdin: the current password and the new one."),
    ] = False,
) -> None:
    """Change your password.

    This signs you out everywhere else. You stay signed in here.
    """
    from polly_dockers.cli.actions import account

    account.change_password(call, password_stdin=password_stdin)
