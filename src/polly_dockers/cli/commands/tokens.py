"""``polly tokens …``: the options and the help of the commands."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from polly_dockers.cli.command import Call, Group, Output

group = Group(
    "polly tokens",
    "Your access tokens: what programs and jobs sign in with.",
    "polly tokens list\npolly tokens create --label 'nightly build' --expires 30d\npolly tokens revoke 3f2a",
    "What would you like to do with the access tokens?",
)
group.alone()


@group.command("list", "polly tokens list\npolly tokens list --output json")
def list_(call: Call, *, output: Output = "table") -> None:
    """List your access tokens, newest first.

    Those that have ended are not listed. Secrets are not shown: the server has only their hashes.
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
        str | None, typer.Option(metavar="TEXT", help="What it is for; polly tokens list shows it.")
    ] = None,
    scope: Annotated[
        Literal["registry", "full"],
        typer.Option(help="registry: pull and push as you may. full: every command too; it takes your password."),
    ] = "registry",
    expires: Annotated[str, typer.Option(metavar="TIME", help="How long it is good: 12h, 30d, up to 365d.")] = "30d",
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
    """Make an access token, and show it once.

    One of scope registry ends at the latest when your sign-in does. Docker takes it as the password of the user POLLY.
    """
    from polly_dockers.cli.actions import tokens

    wanted = tokens.Wanted(label, scope, expires, file, password_stdin=password_stdin)
    tokens.create(call, wanted, output)


@group.command("revoke", "polly tokens revoke 3f2a\npolly tokens revoke --id 3f2a", argument="token_id")
def revoke(
    call: Call,
    *,
    token_id: Annotated[
        str | None, typer.Option("--id", metavar="ID", help="The id of the token, or the beginning that only it has.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask; for machines.")] = False,
) -> None:
    """End an access token.

    It is refused from the next request on, and so are all tokens that were made with it.
    You are asked first if you choose it from the list, or if it is the one that you are signed in with here.
    """
    from polly_dockers.cli.actions import tokens

    tokens.revoke(call, token_id, yes=yes)
