"""``polly dockers delete``, ``restore`` and ``trash``: options and help."""

from __future__ import annotations

from typing import Annotated

import typer

from polly_dockers.cli.call import Call
from polly_dockers.cli.group import Commands
from polly_dockers.cli.options import All, Name, Output, Yes

Tag = Annotated[str | None, typer.Option(metavar="TAG", help="Only this tag of the docker repository.")]
Commit = Annotated[
    str | None,
    typer.Option(metavar="DIGEST", help="Only this commit: its digest, or at least its first 6 hexadecimal digits."),
]

commands = Commands()


@commands.command(
    "delete",
    "polly dockers delete --name new_repo --tag test\n"
    "polly dockers delete --name new_repo --commit sha256:DIGEST\n"
    "polly dockers delete --name new_repo --yes",
)
def delete(
    call: Call,
    *,
    name: Name = None,
    tag: Tag = None,
    commit: Commit = None,
    yes: Yes = False,
    output: Output = "table",
) -> None:
    """Move a docker repository, a tag or a commit to the trash.

    Docker can't pull it any more. You can restore it for 30 days, or as long as the server is set to:
    polly dockers restore.
    The commits of a deleted tag stay, as inactive commits. Deleting a commit also deletes its tags.
    """
    from polly_dockers.cli.actions import trash

    trash.delete(call, name, tag, commit, output, yes=yes)


@commands.command(
    "restore",
    "polly dockers restore --name new_repo\n"
    "polly dockers restore --name new_repo --tag test\n"
    "polly dockers restore --name new_repo --as new_repo_before",
)
def restore(
    call: Call,
    *,
    name: Name = None,
    tag: Tag = None,
    commit: Commit = None,
    as_: Annotated[
        str | None, typer.Option("--as", metavar="NAME", help="Restore the docker repository under another name.")
    ] = None,
    output: Output = "table",
) -> None:
    """Restore a docker repository, a tag or a commit from the trash."""
    from polly_dockers.cli.actions import trash

    trash.restore(call, name, tag, commit, as_, output)


@commands.command("trash", "polly dockers trash\npolly dockers trash --all --output json")
def trash_(call: Call, *, all_: All = False, output: Output = "table") -> None:
    """List what is in the trash and can be restored."""
    from polly_dockers.cli.actions import trash

    trash.list_(call, output, every=all_)
