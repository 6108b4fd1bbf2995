"""``polly tokens``: options and help."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from polly_dockers.cli.call import Call
from polly_dockers.cli.group import Group
from polly_dockers.cli.options import Output, Yes

group = Group(
    "polly tokens",
    "Manage your access tokens, which programs and jobs use to sign in.",
    "polly tokens list\npolly tokens create --label 'nightly build' --expires 30d\npolly tokens revoke 3f2a",
    "What would you like to do with the access tokens?",
)
group.ask_if_alone()


@group.command("list", "polly tokens list\npolly tokens list --output json")
def list_(call: Call, *, output: Output = "table") -> None:
    """List your access tokens, newest first.

    Expired and revoked tokens are not listed. The secrets are not shown: the server stores only their hashes.
    """
    from polly_dockers.cli.actions import tokens

    tokens.list_(call, output)


@group.command(
    "create",
    "polly tokens create --label 'nightly build' --expires 30d\n"
    "polly tokens create nightly --file token.txt\n"
    "polly tokens create --label ci --scope full --password-stdin --file - < password.txt",
    argument="label",
)
def create(
    call: Call,
    *,
    label: Annotated[
        str | None, typer.Option(metavar="TEXT", help="What the token is for; polly tokens list shows it.")
    ] = None,
    scope: Annotated[
        Literal["registry", "full"],
        typer.Option(help="registry: pull and push with your rights. full: all commands too; needs your password."),
    ] = "registry",
    expires: Annotated[
        str, typer.Option(metavar="TIME", help="How long the token works: 12h, 30d, at most 365d.")
    ] = "30d",
    file: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="Write the token, and nothing else, to this file with mode 0600; - is stdout."
        ),
    ] = None,
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Read your password from stdin, for --scope full.")
    ] = False,
    output: Output = "table",
) -> None:
    """Create an access token, and show it once.

    A token of scope registry expires when your sign-in does, or earlier. To use it with Docker, give it as the
    password of the user POLLY.
    """
    from polly_dockers.cli.actions import tokens

    wanted = tokens.Wanted(label, scope, expires, file, password_stdin=password_stdin)
    tokens.create(call, wanted, output)


@group.command("revoke", "polly tokens revoke 3f2a\npolly tokens revoke --id 3f2a", argument="token_id")
def revoke(
    call: Call,
    *,
    token_id: Annotated[
        str | None, typer.Option("--id", metavar="ID", help="The id of the token, or the first characters of it.")
    ] = None,
    yes: Yes = False,
) -> None:
    """Revoke an access token.

    From the next request on, the server refuses it and all tokens that were created with it.
    You are asked first if you choose the token from a list, or if you are signed in with it here.
    """
    from polly_dockers.cli.actions import tokens

    tokens.revoke(call, token_id, yes=yes)
