"""``polly dockers …``: the options and the help of the commands."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from polly_dockers.cli.command import All, Call, Group, Latest, Oldest, Output

Name = Annotated[
    str | None,
    typer.Option(
        "--name", metavar="NAME", help="The docker repository: its name, or the whole HOST/organisation/name."
    ),
]
Public = Annotated[
    bool | None,
    typer.Option("--public/--private", help="Whoever reaches the server may pull; or members only."),
]
Exec = Annotated[bool, typer.Option("--exec", help="Run docker at once; POLLY_DOCKER says which.")]

group = Group(
    "polly dockers",
    "Docker repositories, their commits, and Docker's login.",
    "polly dockers create --name new_repo --description 'new docker repository'\n"
    "polly dockers commit-list --name new_repo\n"
    'eval "$(polly dockers login)"',
    "What would you like to do with Polly dockers?",
)
group.alone()


@group.command(
    "create",
    "polly dockers create --name new_repo --description 'new docker repository'\n"
    "polly dockers create --name papers/2026 --description 'images of the paper' --public",
)
def create(
    call: Call,
    *,
    name: Name = None,
    description: Annotated[str | None, typer.Option(metavar="TEXT", help="What it is for.")] = None,
    public: Public = None,
    output: Output = "table",
) -> None:
    """Make a docker repository.

    It is private unless --public is given.
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
    search: Annotated[str | None, typer.Option(metavar="TEXT", help="Part of the name or of the description.")] = None,
    output: Output = "table",
) -> None:
    """List docker repositories.

    Without --all, --latest or --oldest: the 20 that were pushed to last.
    """
    from polly_dockers.cli.actions import dockers

    dockers.list_(call, dockers.Choice(call, latest, oldest, every=all_), search, output)


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
    """List every push of a docker repository.

    Each can be pulled, the overwritten ones too. Without --all, --latest or --oldest: the 20 newest.
    """
    from polly_dockers.cli.actions import dockers

    dockers.commit_list(call, name, tag, dockers.Choice(call, latest, oldest, every=all_), output)


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

    Each with the commit that a pull of the tag gets. Without --all, --latest or --oldest: the 20 that were pushed last.
    """
    from polly_dockers.cli.actions import dockers

    dockers.tags(call, name, dockers.Choice(call, latest, oldest, every=all_), output)


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
    """Change the description, who may pull, what may be pushed."""
    from polly_dockers.cli.actions import dockers

    dockers.update(call, name, description, sparse_indexes, public=public, output=output)


Tag = Annotated[str | None, typer.Option(metavar="TAG", help="A tag of it.")]
Commit = Annotated[
    str | None, typer.Option(metavar="DIGEST", help="A commit, by its digest or 6 or more of its first digits.")
]


@group.command(
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
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask; for machines.")] = False,
    output: Output = "table",
) -> None:
    """Delete a docker repository, a tag or a commit.

    It goes to the trash, and is gone for docker at once. For 30 days, or what the server is set to, polly dockers
    restore brings it back.
    Deleting a tag leaves its commits, inactive; deleting a commit takes away its tags.
    """
    from polly_dockers.cli.actions import trash

    trash.delete(call, name, tag, commit, output, yes=yes)


@group.command(
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
    """Bring back what was deleted."""
    from polly_dockers.cli.actions import trash

    trash.restore(call, name, tag, commit, as_, output)


@group.command("trash", "polly dockers trash\npolly dockers trash --all --output json")
def trash_(call: Call, *, all_: All = False, output: Output = "table") -> None:
    """List what was deleted and can be restored."""
    from polly_dockers.cli.actions import trash

    trash.list_(call, output, every=all_)


@group.command(
    "policy",
    "polly dockers policy\n"
    "polly dockers policy --newest 10 --pulled-within 365d --preview\n"
    "polly dockers policy --preview --as-of +30d\n"
    "polly dockers policy --name new_repo --younger-than 90d --newest 3\n"
    "polly dockers policy --name new_repo --keep-everything",
)
def policy_(
    call: Call,
    *,
    name: Name = None,
    newest: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Keep the newest N commits of each tag.")
    ] = None,
    younger_than: Annotated[
        str | None, typer.Option(metavar="TIME", help="Keep what was pushed within this time: 90d.")
    ] = None,
    pulled_within: Annotated[
        str | None, typer.Option(metavar="TIME", help="Keep what was pulled within this time: 365d.")
    ] = None,
    keep_everything: Annotated[bool, typer.Option("--keep-everything", help="Keep every commit for ever.")] = False,
    inherit: Annotated[
        bool, typer.Option("--inherit", help="Let the docker repository have the policy of its organisation again.")
    ] = False,
    preview: Annotated[
        bool, typer.Option("--preview", help="Only list what would go; without rules, by the policy that is set.")
    ] = False,
    as_of: Annotated[
        str | None, typer.Option(metavar="DAY", help="Preview as of tomorrow, 2026-12-24, +30d; changes nothing.")
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="List all that would go, up to 1,000.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask; for machines.")] = False,
    output: Output = "table",
) -> None:
    """Show or set which commits are kept.

    All of them are, unless an admin says otherwise. What any of the rules keeps is kept, in all docker repositories of
    the organisation, or in one with --name. What none keeps goes to the trash; what would go is listed first. Active
    tags stay whatever the rules, and so does what an image of several platforms or a signature still needs.
    """
    from polly_dockers.cli.actions import policy
    from polly_dockers.cli.errors import UsageError

    wanted = policy.Wanted(younger_than, newest, pulled_within, keep_everything, inherit)
    body = wanted.update()
    only_look = preview or as_of is not None
    if yes and (body is None or as_of is not None):
        msg = "--yes goes with what is to be kept from now on, for instance --newest 10, and without --as-of."
        raise UsageError(msg)
    if body is not None:
        policy.change(call, name, wanted, body, output, as_of=as_of, every=all_, only_look=only_look, yes=yes)
    elif only_look:
        policy.preview(call, name, as_of, output, every=all_)
    else:
        policy.show(call, name, output)


@group.command(
    "login",
    'eval "$(polly dockers login)"\npolly dockers login --exec\npolly dockers login --shell fish | source',
)
def login(
    call: Call,
    *,
    exec_: Exec = False,
    expires: Annotated[str, typer.Option(metavar="TIME", help="How long it is good: 30m, 12h, 7d.")] = "12h",
    shell: Annotated[
        Literal["sh", "fish", "powershell"] | None,
        typer.Option(help="For which shell; sh, which is bash and zsh too, without it."),
    ] = None,
) -> None:
    """Print the docker login to run.

    It works with sudo before it, and keeps the token out of the list of processes.
    The token is good for images only, and ends by itself.
    """
    from polly_dockers.cli.actions import docker_login

    docker_login.login(call, expires, shell, run=exec_)


@group.command("logout", 'eval "$(polly dockers logout)"\npolly dockers logout --exec')
def logout(call: Call, *, exec_: Exec = False) -> None:
    """Print the docker logout to run.

    What `polly dockers login` handed out before is good no more.
    """
    from polly_dockers.cli.actions import docker_login

    docker_login.logout(call, run=exec_)


@group.command("configure", "polly dockers configure\npolly dockers configure --undo")
def configure(call: Call, *, undo: Annotated[bool, typer.Option("--undo", help="Take it out again.")] = False) -> None:
    """Let Docker sign in by itself.

    Docker, podman, skopeo and buildah ask polly from now on, for as long as you are signed in here.
    Nothing secret is written to Docker's config.json.
    """
    from polly_dockers.cli.actions import docker_config

    docker_config.configure(call, undo=undo)
