"""What ``polly dockers login`` and ``logout`` print for a shell, or run."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from polly_dockers.cli import credentials, durations, profiles, tables, terminal
from polly_dockers.cli.actions import docker_config
from polly_dockers.cli.errors import CommandError, UsageError
from polly_dockers.cli.new_token import new_token, on_this_machine
from polly_dockers.system import process

if TYPE_CHECKING:
    from polly_dockers import api_types
    from polly_dockers.cli.command import Call
    from polly_dockers.cli.session import Session

_LABEL = "polly dockers login"
_AT_ONCE = {
    "sh": 'eval "$(polly dockers login)"',
    "fish": "polly dockers login --shell fish | source",
    "powershell": "polly dockers login --shell powershell | Out-String | Invoke-Expression",
}


def login(call: Call, expires: str, shell: str | None, *, run: bool) -> None:
    """Print the docker login for a new registry token, or run it.

    Raises UsageError for a wrong span of time, CommandError where the server or docker refuses.
    """
    lifetime = durations.seconds(expires)
    if run and shell:
        msg = "--exec and --shell can't be together: with --exec nothing is printed for a shell."
        raise UsageError(msg)
    session = call.session
    docker = _docker() if run else []
    registry = session.registry
    docker_config.confirm_host(call, "Its login there takes the place of any other login of yours")
    call.remember("polly dockers login", exec=run, expires=None if expires == "12h" else expires)
    if session.stored is not None:
        profiles.check_writable()
    with new_token(session.client, "registry", lifetime, on_this_machine(_LABEL)) as created:
        _remember(session, created, lifetime)  # before anybody has it: `logout` ends it, whatever happens
        if run:
            _run([*docker, *_arguments(registry)], created.token)
        else:
            process.write_data(shell_command(shell or "sh", registry, created.token) + "\n")
    if not run and terminal.shows():
        terminal.say(f"Paste it, or run it at once: {_AT_ONCE[shell or 'sh']}")
    elsewhere = "" if session.stored else f" on this machine, or polly tokens revoke {created.id}"
    terminal.say(f"Good until {tables.date(created.expires_at)}; to end it sooner: polly dockers logout{elsewhere}")


def logout(call: Call, *, run: bool) -> None:
    """Print the docker logout, or run it; and end the tokens that ``login`` has handed out.

    Those are what the profile remembers; without one, what was made with POLLY_TOKEN on this machine.

    Raises CommandError where a token could not be ended, or docker refuses.
    """
    session = call.session
    registry = session.registry
    docker_config.confirm_host(call, "Any login of yours there ends")
    if run:
        _run([*_docker(), "logout", registry])
    else:
        process.write_data(f"docker logout {registry}\n")
    for token_id in list(session.stored.docker_tokens) if session.stored else _made_here(session):
        session.client.revoke_token(token_id)
        with profiles.edit() as known:
            if session.profile in known.by_name:
                known.by_name[session.profile].docker_tokens.pop(token_id, None)


def _made_here(session: Session) -> list[str]:
    """Return the ids of the tokens that ``login`` has made on this machine with the token of the session."""
    items = session.client.tokens()
    mine = {each.id for each in items if each.current}
    return [each.id for each in items if each.parent in mine and each.label == on_this_machine(_LABEL)]


def shell_command(shell: str, registry: str, token: str) -> str:
    """Return the docker login as one command of the shell; ``sudo`` may be put before docker.

    The token is no argument of any process: a here-document in sh, bash and zsh, which also is whole when ``$(…)``
    has taken the last line end; a file that only the user can read in fish, which has no here-documents and where a
    pipe would give ``sudo`` the wrong command; a pipe from a string in PowerShell.
    """
    docker = shlex.join(["docker", *_arguments(registry)])
    return {
        "sh": f"{docker} <<'EOF'\n{token}\nEOF",
        "fish": f"{docker} < (echo {token} | psub)",
        "powershell": f"'{token}' | {docker}",
    }[shell]


def _arguments(registry: str) -> list[str]:
    return ["login", "-u", credentials.USER, "--password-stdin", registry]


def _docker() -> list[str]:
    named = os.environ.get("POLLY_DOCKER") or "docker"
    try:
        command = shlex.split(named)
    except ValueError as error:
        msg = f"POLLY_DOCKER is {named!r}, where a quotation mark has no end. Right is POLLY_DOCKER='sudo docker'."
        raise UsageError(msg) from error
    if not command or not shutil.which(command[0]):
        msg = (
            f"There is no {' '.join(command)!r} to run. Install Docker, or name a program: POLLY_DOCKER=/path/to/docker"
        )
        raise CommandError(msg)
    return command


def _run(command: list[str], stdin: str | None = None) -> None:
    """Run docker. Raises CommandError where it fails."""
    try:
        code = subprocess.run(command, input=stdin and stdin.encode(), check=False).returncode
    except OSError as error:
        msg = (
            f"{shlex.join(command)} can't be run: {error.strerror}. POLLY_DOCKER=/path/to/docker names another program."
        )
        raise CommandError(msg) from error
    if code:
        msg = f"{shlex.join(command)} ended with exit code {code}."
        raise CommandError(msg)


def _remember(session: Session, created: api_types.TokenCreated, lifetime: int) -> None:
    """Record the token with the profile, so that ``logout`` can end it; those that have ended are dropped.

    What time it is follows from the server's answer: by the clock of this machine a good one might be dropped.
    """
    if session.stored is None:
        return
    now = datetime.fromisoformat(created.expires_at) - timedelta(seconds=created.expires_in or lifetime)
    with profiles.edit() as known:
        profile = known.by_name.get(session.profile)
        if profile and profile.token == session.token:
            good = {each: end for each, end in profile.docker_tokens.items() if datetime.fromisoformat(end) > now}
            tokens = good | {created.id: created.expires_at}
            known.by_name[session.profile] = profile._replace(docker_tokens=tokens)
