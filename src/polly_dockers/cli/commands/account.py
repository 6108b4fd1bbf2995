"""``polly login``, ``logout``, ``whoami`` and ``password``: their options and their help."""

from __future__ import annotations

from typing import Annotated

import typer

from polly_dockers.cli.command import Call, Group, Output

group = Group(
    "polly",
    "A private registry for Docker images that never forgets a push: sign in, and look after docker repositories.",
    "polly login --server registry.acme.example\npolly dockers list\npolly dockers create --help",
    "What would you like to do?",
)
_STDIN = typer.Option("--password-stdin", help="Read the password from stdin.")


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
    password_stdin: Annotated[bool, _STDIN] = False,
    auto: Annotated[
        bool,
        typer.Option(
            "--auto",
            help="Inside a job: POLLY_SERVER, and POLLY_TOKEN or POLLY_EMAIL and POLLY_PASSWORD, say who.",
        ),
    ] = False,
    expires: Annotated[
        str | None, typer.Option(metavar="TIME", help="How long you stay signed in: 30m, 12h, 7d; 90d without it.")
    ] = None,
    ca_file: Annotated[
        str | None,
        typer.Option(
            "--ca-file",
            metavar="FILE",
            help="Certificates in PEM form to trust beside the system's, kept with the profile; also POLLY_CA_FILE.",
        ),
    ] = None,
) -> None:
    """Sign in to a server.

    An access token is kept in a file that only you can read; the password is not kept.
    Signing in again with the same profile ends the token before it.
    --profile gives the server a name, --org says which of your organisations is meant from now on.
    """
    from polly_dockers.cli.actions import account

    account.login(call, email, expires, ca_file, password_stdin=password_stdin, auto=auto)


@group.command("logout", "polly logout\npolly logout registry.acme.example", argument="server")
def logout(call: Call) -> None:
    """Sign out, and end the access token on the server.

    Where the server can't be reached, the token is forgotten all the same, and the exit code is 1.
    """
    from polly_dockers.cli.actions import account

    account.logout(call)


@group.command("whoami", "polly whoami\npolly whoami --output json")
def whoami(call: Call, *, output: Output = "table") -> None:
    """Show user, organisations and roles, server, and expiry."""
    from polly_dockers.cli.actions import account

    account.whoami(call, output)


@group.command("password", "polly password")
def password(
    call: Call,
    *,
    password_stdin: Annotated[
        bool,
        typer.Option("--password-stdin", help="Read two lines from stdin: the current password, and the new one."),
    ] = False,
) -> None:
    """Change your password.

    You are signed out everywhere else, and stay signed in here.
    """
    from polly_dockers.cli.actions import account

    account.change_password(call, password_stdin=password_stdin)
