"""``polly dockers login`` and ``logout``: what a shell does with the line that they print."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from cli.people import Server, User

FAKE = """#!/bin/sh
echo "$(basename "$0") $*" >> calls
case "$*" in *--password-stdin*) cat >> stdin;; esac
[ "$(basename "$0")" = sudo ] && exec "$@" < stdin
exit 0
"""


@pytest.fixture(scope="module")
def organisation(server: Server) -> tuple[str, tuple[str, str]]:
    """Return one organisation for all tests here: its content does not matter to them."""
    return server.new_org()


@pytest.fixture
def docker(ann: User, tmp_path: Path) -> User:
    """Return ann, with a docker and a sudo that record how they were called."""
    folder = tmp_path / "fake"
    folder.mkdir()
    for name in ("docker", "sudo"):
        (folder / name).write_text(FAKE)
        (folder / name).chmod(0o755)
    ann.env["PATH"] = f"{folder}:{ann.env['PATH']}"
    return ann


def called(user: User) -> tuple[list[str], str]:
    """Return how docker was called, and what it read."""
    return (user.home / "calls").read_text().splitlines(), (user.home / "stdin").read_text()


def test_nothing_but_the_command_is_on_stdout(ann: User, server: Server) -> None:
    """For sh, it is a here-document with a token of its own, not that of the sign-in; a hint is on stderr."""
    done = ann.ok("dockers", "login")
    first, token, last = done.out.splitlines()
    assert first == f"docker login -u POLLY --password-stdin {server.registry} <<'EOF'"
    assert last == "EOF"
    assert token != ann.token()
    assert "polly dockers logout" in done.err


@pytest.mark.parametrize("shell", ["sh", "dash", "bash", "zsh"])
@pytest.mark.parametrize("sudo", ["", "sudo "])
def test_the_printed_command_works_when_pasted(docker: User, server: Server, shell: str, sudo: str) -> None:
    """In sh, bash and zsh, also with sudo before it: docker reads the token from stdin and has it in no argument."""
    assert shutil.which(shell), f"{shell} is missing"
    printed = docker.ok("dockers", "login").out
    token = printed.splitlines()[1]
    assert docker.run(shell, "-c", sudo + printed).code == 0
    calls, stdin = called(docker)
    assert calls[-1] == f"docker login -u POLLY --password-stdin {server.registry}"
    assert token in stdin
    assert not any(token in each for each in calls)


@pytest.mark.parametrize("shell", ["sh", "dash", "bash", "zsh"])
def test_the_printed_command_works_by_eval(docker: User, server: Server, shell: str) -> None:
    """``$(…)`` removes the last line end, and the here-document still ends."""
    done = docker.run(shell, "-c", 'eval "$(polly dockers login)"')
    assert done.code == 0
    assert "here-document" not in done.err
    calls, stdin = called(docker)
    assert calls == [f"docker login -u POLLY --password-stdin {server.registry}"]
    assert stdin.startswith("polly_")
    assert stdin.count("\n") == 1


@pytest.mark.parametrize("sudo", ["", "sudo "])
def test_fish_has_a_form_of_its_own(docker: User, server: Server, sudo: str) -> None:
    """Fish knows no here-documents; sudo may stand before docker there too."""
    assert shutil.which("fish"), "fish is missing"
    printed = docker.ok("dockers", "login", "--shell", "fish").out
    assert docker.run("fish", "-c", sudo + printed).code == 0
    calls, stdin = called(docker)
    assert calls[-1] == f"docker login -u POLLY --password-stdin {server.registry}"
    assert stdin.startswith("polly_")
    assert not any("polly_" in each for each in calls)


def test_fish_runs_it_at_once(docker: User, server: Server) -> None:
    """``polly dockers login --shell fish | source``."""
    assert docker.run("fish", "-c", "polly dockers login --shell fish | source").code == 0
    calls, stdin = called(docker)
    assert calls == [f"docker login -u POLLY --password-stdin {server.registry}"]
    assert stdin.startswith("polly_")


def test_powershell_has_a_form_of_its_own(ann: User, server: Server) -> None:
    """PowerShell sends the token to docker through a pipe."""
    out = ann.ok("dockers", "login", "--shell", "powershell").out
    token = out.split("'")[1]
    assert out == f"'{token}' | docker login -u POLLY --password-stdin {server.registry}\n"


def test_exec_runs_docker(docker: User, server: Server) -> None:
    """With --exec docker is run, with the token on stdin; POLLY_DOCKER names another one."""
    assert docker.ok("dockers", "login", "--exec").out == ""
    calls, stdin = called(docker)
    assert calls == [f"docker login -u POLLY --password-stdin {server.registry}"]
    assert stdin.startswith("polly_")
    docker.ok("dockers", "login", "--exec", POLLY_DOCKER="sudo docker")
    assert called(docker)[0][1] == f"sudo docker login -u POLLY --password-stdin {server.registry}"
    done = docker.polly("dockers", "login", "--exec", POLLY_DOCKER="/none/docker")
    assert (done.code, "Install Docker" in done.err) == (1, True)
    before = tokens(docker)
    for command in ("login", "logout"):
        done = docker.polly("dockers", command, "--exec", POLLY_DOCKER="docker 'x")
        assert (done.code, done.out) == (2, "")
        assert done.err.startswith("Error: POLLY_DOCKER is ")
    assert tokens(docker) == before
    done = docker.polly("dockers", "login", "--exec", POLLY_DOCKER="false")
    assert (done.code, "ended with exit code 1" in done.err) == (1, True)


@pytest.fixture
def elsewhere(docker: User) -> User:
    """Return ann, whose server says that its images are in another registry."""
    document = json.loads(docker.profiles.read_text())
    document["profiles"][document["current"]]["registry"] = "ghcr.io"
    docker.profiles.write_text(json.dumps(document))
    return docker


@pytest.mark.parametrize("command", ["configure", "login", "login --exec", "logout", "logout --exec"])
def test_another_host_is_confirmed_first(elsewhere: User, server: Server, command: str) -> None:
    """A server may name any host: on a terminal, the command asks before it changes Docker's login there."""
    config = elsewhere.home / ".docker/config.json"
    config.parent.mkdir()
    config.write_text('{"auths": {"ghcr.io": {"auth": "YTpi"}}}')
    before = tokens(elsewhere)
    terminal = elsewhere.terminal("dockers", *command.split(), columns=200)
    terminal.see("Does ghcr.io belong to this server?")
    assert f"{server.url} says that its images are at ghcr.io, which is another host." in terminal.text()
    terminal.type("n\r")
    terminal.see("Nothing was changed.")
    assert terminal.end() == 1
    assert "credHelpers" not in config.read_text()
    assert not (elsewhere.home / "calls").exists()
    assert tokens(elsewhere) == before
    done = elsewhere.ok("dockers", *command.split())
    assert "Warning: " in done.err
    assert "at ghcr.io, which is another host" in done.err


def tokens(user: User) -> list[str]:
    """Return the ids of the registry tokens that the profile remembers."""
    document = json.loads(user.profiles.read_text())
    return list(document["profiles"][document["current"]]["docker_tokens"])


def test_logout_prints_the_command_and_ends_the_tokens(docker: User, server: Server) -> None:
    """The tokens that were given out are refused afterwards; --exec runs docker."""
    given = [docker.ok("dockers", "login").out.splitlines()[1] for _ in range(2)]
    assert len(tokens(docker)) == 2
    assert docker.ok("dockers", "logout").out == f"docker logout {server.registry}\n"
    assert tokens(docker) == []
    for token in given:
        done = docker.polly("whoami", POLLY_SERVER=server.url, POLLY_TOKEN=token)
        assert done.code == 1
    docker.ok("dockers", "logout", "--exec")
    assert (docker.home / "calls").read_text() == f"docker logout {server.registry}\n"


@pytest.mark.parametrize("wrong", ["12", "0h", "30s", "366d", "-1h", "12h30m", "x", ""])
def test_wrong_durations_get_a_correct_example(ann: User, wrong: str) -> None:
    """A wrong duration gives exit code 2; nothing is printed on stdout, and no token is created."""
    done = ann.polly("dockers", "login", f"--expires={wrong}")
    assert (done.code, done.out) == (2, "")
    assert "Valid examples: 30m, 12h and 7d" in done.err
    assert tokens(ann) == []


def test_docker_signs_in_by_the_printed_command(ann: User, server: Server) -> None:
    """Debian's docker client, without an engine: Login Succeeded."""
    assert shutil.which("docker"), "docker is missing"
    printed = ann.ok("dockers", "login").out
    done = ann.run("sh", "-c", printed, DOCKER_HOST="unix:///none/docker.sock")
    assert done.code == 0, done.err
    assert "Login Succeeded" in done.out
    assert server.registry in (ann.home / ".docker/config.json").read_text()


def test_signing_in_again_with_a_blank_after_the_email(ann: User, server: Server) -> None:
    """It is the same person: the token that Docker received stays valid."""
    ann.ok("dockers", "login")
    before = tokens(ann)
    assert before
    again = ("login", "--server", server.url, "--email", f"{ann.email} ", "--password-stdin")
    ann.ok(*again, stdin=f"{ann.password}\n")
    assert tokens(ann) == before
