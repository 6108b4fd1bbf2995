"""``polly dockers``: options and help of create, list, commit-list, tags and update."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from polly_dockers.cli.call import Call
from polly_dockers.cli.group import Group
from polly_dockers.cli.options import All, Latest, Name, Oldest, Output

Public = Annotated[
    bool | None,
    typer.Option("--public/--private", help="Who may pull: everyone who can reach the server, or members only."),
]

group = Group(
    "polly dockers",
    "Manage docker repositories and their commits, and sign Docker in.",
    "polly dockers create --name new_repo --description 'new docker repository'\n"
    "polly dockers commit-list --name new_repo\n"
    'eval "$(polly dockers login)"',
    "What would you like to do with Polly dockers?",
)
group.ask_if_alone()


@group.command(
    "create",
    "polly dockers create --name new_repo --description 'new docker repository'\n"
    "polly dockers create --name papers/2026 --description 'images of the paper' --public",
)
def create(
    call: Call,
    *,
    name: Name = None,
    description: Annotated[str | None, typer.Option(metavar="TEXT", help="What the docker repository is for.")] = None,
    public: Public = None,
    output: Output = "table",
) -> None:
    """Create a docker repository.

    It is private unless you give --public.
    """
    from polly_dockers.cli.actions import dockers

    dockers.create(call, name, description, public=public, output=output)


@group.command(
    "list",
    "polly dockers list\npolly dockers list --all\npolly dockers list --search paper --output json",
)
def list_(
    call: Call,
    *,
    all_: All = False,
    latest: Latest = None,
    oldest: Oldest = None,
    search: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Only those with this text in the name or the description.")
    ] = None,
    output: Output = "table",
) -> None:
    """List docker repositories.

    The default is the 20 with the most recent pushes; --all, --latest and --oldest change that.
    """
    from polly_dockers.cli import listing
    from polly_dockers.cli.actions import dockers

    dockers.list_(call, listing.Range(call, latest, oldest, every=all_), search, output)


@group.command(
    "commit-list",
    "polly dockers commit-list --name new_repo\n"
    "polly dockers commit-list --name new_repo --tag latest --all\n"
    "polly dockers commit-list --name new_repo --oldest 1 --output json",
)
def commit_list(
    call: Call,
    *,
    name: Name = None,
    tag: Annotated[str | None, typer.Option(metavar="TAG", help="Only the commits of this tag.")] = None,
    all_: All = False,
    latest: Latest = None,
    oldest: Oldest = None,
    output: Output = "table",
) -> None:
    """List every push to a docker repository.

    You can pull each of them, even if its tag was overwritten.
    The default is the 20 newest; --all, --latest and --oldest change that.
    """
    from polly_dockers.cli import listing
    from polly_dockers.cli.actions import dockers

    dockers.commit_list(call, name, tag, listing.Range(call, latest, oldest, every=all_), output)


@group.command(
    "tags",
    "polly dockers tags --name new_repo\n"
    "polly dockers tags --name new_repo --all\n"
    "polly dockers tags --name new_repo --latest 1 --output json",
)
def tags(
    call: Call,
    *,
    name: Name = None,
    all_: All = False,
    latest: Latest = None,
    oldest: Oldest = None,
    output: Output = "table",
) -> None:
    """List the tags of a docker repository.

    For each tag, shows the commit that a pull of it gets.
    The default is the 20 with the most recent pushes; --all, --latest and --oldest change that.
    """
    from polly_dockers.cli import listing
    from polly_dockers.cli.actions import dockers

    dockers.tags(call, name, listing.Range(call, latest, oldest, every=all_), output)


@group.command(
    "update",
    "polly dockers update --name new_repo --description 'what it is for now'\n"
    "polly dockers update --name new_repo --public",
)
def update(
    call: Call,
    *,
    name: Name = None,
    description: Annotated[str | None, typer.Option(metavar="TEXT", help="The new description.")] = None,
    public: Public = None,
    sparse_indexes: Annotated[
        Literal["allow", "deny"] | None,
        typer.Option(help="Whether an image of several platforms may be pushed with some of them missing."),
    ] = None,
    output: Output = "table",
) -> None:
    """Change the description, who may pull, or what may be pushed."""
    from polly_dockers.cli.actions import dockers

    dockers.update(call, name, description, sparse_indexes, public=public, output=output)
