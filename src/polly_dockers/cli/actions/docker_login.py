"""``polly dockers login`` and ``logout``, which print a command for a shell or run it, and ``configure``."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import subprocess
import sys
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from polly_dockers.cli import (
    credentials,
    docker_config,
    profiles,
    server_url,
    session,
    tables,
    terminal,
    times,
)
from polly_dockers.cli.actions import account
from polly_dockers.cli.client import Client
from polly_dockers.cli.errors import CommandError, UnreachableError, UsageError
from polly_dockers.cli.new_token import new_token, on_this_machine
from polly_dockers.formatting import to_paste
from polly_dockers.system import process

if TYPE_CHECKING:
    from pathlib import Path

    from polly_dockers import api_types
    from polly_dockers.cli.call import Call
    from polly_dockers.cli.session import Session

_LABEL = "polly dockers login"
_AT_ONCE = {
    "sh": 'eval "$(polly dockers login)"',
    "fish": "polly dockers login --shell fish | source",
    "powershell": "polly dockers login --shell powershell | Out-String | Invoke-Expression",
}


def login(call: Call, expires: str, shell: str | None, *, run: bool) -> None:
    """Print a docker login command with a new access token of scope registry, or run it.

    Raises UsageError for an invalid span of time, CommandError if the server refuses or docker fails, and
    DeclinedError if the person does not confirm another host.
    """
    lifetime = times.seconds(expires)
    if run and shell:
        msg = "--exec and --shell can't be together: with --exec nothing is printed for a shell."
        raise UsageError(msg)
    session = call.session
    docker = _docker() if run else []
    registry = session.registry
    _confirm_host(call, "This login replaces any other login of yours there")
    call.remember("polly dockers login", exec=run, expires=None if expires == "12h" else expires)
    if session.stored is not None:
        profiles.check_writable()
    with new_token(session.client, "registry", lifetime, on_this_machine(_LABEL)) as created:
        _record_token(session, created, lifetime)  # first, so that `logout` revokes it whatever happens
        if run:
            _run([*docker, *_arguments(registry)], created.token)
        else:
            process.write_data(shell_command(shell or "sh", registry, created.token) + "\n")
    if not run and terminal.shows():
        terminal.say(f"Paste it into a terminal, or run it directly: {_AT_ONCE[shell or 'sh']}")
    elsewhere = "" if session.stored else f" on this machine, or polly tokens revoke {created.id}"
    terminal.say(f"It works until {tables.date(created.expires_at)}. To end it sooner: polly dockers logout{elsewhere}")


def logout(call: Call, *, run: bool) -> None:
    """Print a docker logout command, or run it; and revoke the tokens that ``login`` created.

    Those are the tokens that the profile lists. With POLLY_TOKEN, they are those made on this machine with that token.
    Raises CommandError if a token could not be revoked or docker fails, and DeclinedError as ``login``.
    """
    session = call.session
    registry = session.registry
    _confirm_host(call, "This ends any login of yours there")
    if run:
        _run([*_docker(), "logout", registry])
    else:
        process.write_data(f"docker logout {registry}\n")
    for token_id in list(session.stored.docker_tokens) if session.stored else _made_here(session):
        session.client.revoke_token(token_id)
        with profiles.edit() as known:
            if session.profile in known.by_name:
                known.by_name[session.profile].docker_tokens.pop(token_id, None)


def configure(call: Call, *, undo: bool) -> None:
    """Set the entry for the registry of the session in Docker's configuration, or remove it.

    Raises CommandError if the file is not a valid configuration of Docker (it is not changed then), and DeclinedError
    as ``login``.
    """
    where = docker_config.path()
    if undo:
        _undo(call, where)
        return
    host = call.session.registry
    _confirm_host(call, "Docker will ask polly for the password there, before any other login of yours")
    dropped = _drop_revoked(call.session)
    changed = docker_config.change(where, host, undo=False)
    call.remember("polly dockers configure")
    terminal.success(f"Docker asks polly for {host} from now on ({where}{'' if changed else ', as before'})")
    if dropped:
        terminal.say("Docker's previous token was revoked; Docker gets a new one.")
    terminal.say("podman, skopeo and buildah read the same file. To remove the entry: polly dockers configure --undo")
    _warn(where, host)


def shell_command(shell: str, registry: str, token: str) -> str:
    """Return the docker login as one command of the shell; ``sudo`` may be put before docker.

    The token is never an argument of a process. sh, bash and zsh get a here-document, which also works when ``$(…)``
    has removed the last newline. fish has no here-documents, and with a pipe ``sudo`` would read it instead of docker,
    so it gets a file that only the user can read. PowerShell gets a pipe from a string.
    """
    docker = shlex.join(["docker", *_arguments(registry)])
    return {
        "sh": f"{docker} <<'EOF'\n{token}\nEOF",
        "fish": f"{docker} < (echo {token} | psub)",
        "powershell": f"'{token}' | {docker}",
    }[shell]


def _confirm_host(call: Call, consequence: str) -> None:
    """Ask before changing Docker's login for another host than the server's, as ``account.confirm_host``."""
    account.confirm_host(call, call.session.server, call.session.registry, consequence)


def _made_here(session: Session) -> list[str]:
    """Return the ids of the tokens that ``login`` created on this machine with the token of the session."""
    items = session.client.tokens()
    mine = {each.id for each in items if each.current}
    return [each.id for each in items if each.parent in mine and each.label == on_this_machine(_LABEL)]


def _arguments(registry: str) -> list[str]:
    return ["login", "-u", credentials.USER, "--password-stdin", registry]


def _docker() -> list[str]:
    """Return the command that runs docker. Raises UsageError or CommandError if POLLY_DOCKER names none."""
    named = os.environ.get("POLLY_DOCKER") or "docker"
    try:
        command = shlex.split(named)
    except ValueError as error:
        msg = f"POLLY_DOCKER is {named!r}, which has an open quotation mark. Valid: POLLY_DOCKER='sudo docker'."
        raise UsageError(msg) from error
    if not command or not shutil.which(command[0]):
        msg = (
            f"There is no {' '.join(command)!r} to run. Install Docker, or name a program: POLLY_DOCKER=/path/to/docker"
        )
        raise CommandError(msg)
    return command


def _run(command: list[str], stdin: str | None = None) -> None:
    """Run docker. Raises CommandError if it can't be run or fails."""
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


def _record_token(session: Session, created: api_types.TokenCreated, lifetime: int) -> None:
    """Add the token to the profile, so that ``logout`` can revoke it, and drop those that have expired.

    The current time comes from the server's response: a wrong clock on this machine could drop a token that works.
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


def _drop_revoked(current: Session) -> bool:
    """Delete Docker's cached token if it was revoked; return whether that was so.

    If the server does not answer, the token is deleted too, and Docker gets a new one next time. Raises CommandError if
    the sign-in itself has ended.
    """
    try:
        good = {each.id for each in current.client.tokens()}
    except UnreachableError:
        credentials.delete_cached(current.server, current.token)
        return False
    return credentials.delete_revoked(current.server, current.token, good)


def _undo(call: Call, where: Path) -> None:
    """Remove the entries of the selected server; of all servers if none is selected and nobody is signed in."""
    hosts = _hosts(call)
    changed = [docker_config.change(where, host, undo=True) for host in hosts or [""]]
    call.remember("polly dockers configure", undo=True)
    of_which = f" for {' and '.join(hosts)}" if hosts else ""
    terminal.success(f"{where} {'no longer names' if any(changed) else 'did not name'} polly{of_which}")


def _hosts(call: Call) -> list[str]:
    """Return the hosts of images of the selected server, even after signing out; an empty list for all.

    A server that is selected by its address does not have to answer. Raises CommandError if it is not clear which one
    is selected.
    """
    wanted = session.meant(call.profile, call.server)
    known = {} if wanted.token else profiles.load().by_name
    if not (wanted.profile or wanted.server or wanted.token or known):
        return []
    if wanted.profile or not wanted.server:
        return [call.session.registry]
    found = {each.registry for each in known.values() if profiles.same(each.server, wanted.server)}
    if not found:
        with contextlib.suppress(CommandError):
            found = {Client(wanted.server).info().registry}
    return sorted(found | {server_url.host(wanted.server)})


def _warn(where: Path, host: str) -> None:
    """Print a warning for everything that keeps clients from asking the helper."""
    if not shutil.which("docker-credential-polly"):
        folder = os.path.dirname(os.path.abspath(sys.argv[0]))
        terminal.say(
            "Warning: Docker needs docker-credential-polly on the PATH, and it is not there. Add its folder:"
            + to_paste(f'export PATH="$PATH:{folder}"')
        )
    if any(docker_config.has_login(where, each) for each in profiles.aliases(host)):
        terminal.say(f"An older login for {host} stays in {where}. To remove it: docker logout {host}")
    override = os.environ.get("REGISTRY_AUTH_FILE")
    if override:
        terminal.say(f"Warning: podman, skopeo and buildah only read REGISTRY_AUTH_FILE={override}.")
    for each in docker_config.auth_files():
        if docker_config.has_login(each, host):
            terminal.say(
                f"Warning: podman, skopeo and buildah use an older login in {each}. To remove it:"
                + to_paste(f"podman logout {host}")
            )
