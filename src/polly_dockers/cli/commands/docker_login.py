"""``polly dockers login``, ``logout`` and ``configure``: options and help."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from polly_dockers.cli.call import Call
from polly_dockers.cli.group import Commands

Exec = Annotated[
    bool, typer.Option("--exec", help="Run docker instead of printing the command; POLLY_DOCKER names the program.")
]

commands = Commands()


@commands.command(
    "login",
    'eval "$(polly dockers login)"\npolly dockers login --exec\npolly dockers login --shell fish | source',
)
def login(
    call: Call,
    *,
    exec_: Exec = False,
    expires: Annotated[str, typer.Option(metavar="TIME", help="How long the login works: 30m, 12h, 7d.")] = "12h",
    shell: Annotated[
        Literal["sh", "fish", "powershell"] | None,
        typer.Option(help="The shell that runs the command. The default, sh, also works in bash and zsh."),
    ] = None,
) -> None:
    """Print a docker login command to run.

    You may put sudo before it. The token does not appear in the list of processes.
    The token can only pull and push images, and expires automatically.
    """
    from polly_dockers.cli.actions import docker_login

    docker_login.login(call, expires, shell, run=exec_)


@commands.command("logout", 'eval "$(polly dockers logout)"\npolly dockers logout --exec')
def logout(call: Call, *, exec_: Exec = False) -> None:
    """Print a docker logout command to run.

    This also revokes the tokens that polly dockers login gave to Docker.
    """
    from polly_dockers.cli.actions import docker_login

    docker_login.logout(call, run=exec_)


@commands.command("configure", "polly dockers configure\npolly dockers configure --undo")
def configure(call: Call, *, undo: Annotated[bool, typer.Option("--undo", help="Remove the setting.")] = False) -> None:
    """Make Docker sign in automatically.

    Docker, podman, skopeo and buildah then ask polly for a token, as long as you are signed in here.
    No secret is written to Docker's config.json.
    """
    from polly_dockers.cli.actions import docker_login

    docker_login.configure(call, undo=undo)
