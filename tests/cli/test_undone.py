"""A new token that nobody received is revoked: full disks, closed pipes, signals, files that can't be written."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import threading
from typing import TYPE_CHECKING

import pytest

from cli.people import HELPER, POLLY, SECONDS, Server, User, environment
from support.server import ending

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def kim(server: Server, tools: Path, tmp_path_factory: pytest.TempPathFactory) -> User:
    """Return a person who is signed in."""
    home = tmp_path_factory.mktemp("kim")
    user = User(home, *server.add_user(), environment(home, tools))
    user.login(server)
    return user


def alive(user: User, server: Server) -> set[str]:
    """Return the ids of the valid tokens."""
    done = user.run("curl", "-sf", "-H", f"Authorization: Bearer {user.token()}", f"{server.url}/api/v1/tokens")
    return {each["id"] for each in done.json()["items"]}


@pytest.mark.parametrize("target", ["> /dev/full", ">&-"])
def test_a_login_for_docker_that_cannot_be_printed_is_undone(kim: User, server: Server, target: str) -> None:
    """With a full disk or a closed stdout, there is one line, and no token is left."""
    before = alive(kim, server)
    done = kim.run("sh", "-c", f"polly dockers login {target}")
    assert (done.code, [line[:36] for line in done.err.splitlines()]) == (1, ["Error: The output can't be written: "])
    assert alive(kim, server) == before


def test_a_login_for_docker_that_nobody_reads_is_undone(kim: User, server: Server) -> None:
    """If the reader of the pipe is gone, nothing is printed, and no token is left."""
    before = alive(kim, server)
    reader, writer = os.pipe()
    os.close(reader)
    command = [*POLLY, "dockers", "login"]
    done = subprocess.run(command, env=kim.env, stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")
    assert alive(kim, server) == before


def test_a_login_that_docker_refuses_is_undone(kim: User, server: Server) -> None:
    """If docker ends with another code than 0, or can't be run at all, no token is left."""
    before = alive(kim, server)
    broken = kim.home / "broken"
    broken.write_text("no program")
    broken.chmod(0o755)
    for docker in ("false", str(broken)):
        assert kim.polly("dockers", "login", "--exec", POLLY_DOCKER=docker).code == 1
    assert alive(kim, server) == before


def test_nothing_is_made_where_it_cannot_be_kept(kim: User, server: Server) -> None:
    """sign-in, password, docker login and logout first check that the profiles can be written."""
    before = alive(kim, server)
    folder = kim.profiles.parent
    arguments = ["--server", server.url, "--email", kim.email, "--password-stdin"]
    two = f"{kim.password}\nanother password\n"
    for command, stdin in (
        (["login", *arguments], kim.password),
        (["password", "--password-stdin"], two),
        (["dockers", "login"], ""),
        (["logout"], ""),
    ):
        script = 'mount --bind "$1" "$1"; mount -o remount,ro,bind "$1"; shift; exec "$@"'
        done = kim.run(
            "unshare", "--map-root-user", "--mount", "sh", "-ec", script, "sh", str(folder), *POLLY, *command,
            stdin=stdin,
        )  # fmt: skip
        assert (done.code, done.out) == (1, ""), done
        assert "profiles.json can't be written: Read-only file system. Set XDG_CONFIG" in done.err
    assert alive(kim, server) == before
    kim.login(server)


def piped(line: list[str], env: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start a command with pipes for all its streams."""
    pipe = subprocess.PIPE
    return subprocess.Popen(line, env=env, stdin=pipe, stdout=pipe, stderr=pipe)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("command", ["login", "dockers login", "helper"])
def test_a_signal_while_the_server_makes_a_token_undoes_it(
    kim: User, server: Server, command: str, number: signal.Signals
) -> None:
    """The command waits for the answer, revokes the token, and then ends."""
    before = alive(kim, server)
    with Between(server) as (url, held, release), contextlib.ExitStack() as stack:
        env = kim.env | {"POLLY_SERVER": url, "POLLY_TOKEN": kim.token()}
        line, stdin = [*POLLY, *command.split()], ""
        if command == "login":
            env, stdin = kim.env | {"XDG_CONFIG_HOME": str(kim.home / "other")}, kim.password
            line += ["--server", url, "--email", kim.email, "--password-stdin"]
        if command == "helper":
            line, stdin = [*HELPER, "get"], url.removeprefix("http://")
        line = ["env", "--default-signal=INT", *line]  # a job in the background has it ignored
        process = stack.enter_context(ending(piped(line, env)))
        assert process.stdin is not None
        process.stdin.write(stdin.encode())
        process.stdin.close()
        process.stdin = None
        assert held.wait(SECONDS)
        assert alive(kim, server) > before
        process.send_signal(number)
        release.set()
        out, err = process.communicate(timeout=SECONDS)
    assert (process.returncode, out) == (128 + number, b""), err
    assert b"Traceback" not in err
    assert alive(kim, server) == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_a_sign_in_replaces_another_leaves_one_of_them(
    kim: User, server: Server, number: signal.Signals
) -> None:
    """The server has already ended the old token, so the command keeps the new one, and then ends."""
    between = Between(server)
    with between as (url, held, release), contextlib.ExitStack() as stack:
        env = kim.env | {"XDG_CONFIG_HOME": str(kim.home / f"again-{number.name}")}
        line = [*POLLY, "login", "--server", url, "--email", kim.email, "--password-stdin"]
        release.set()
        subprocess.run(line, env=env, input=kim.password, text=True, capture_output=True, timeout=SECONDS, check=True)
        between.asked = False
        held.clear()
        release.clear()
        before = alive(kim, server)
        line = ["env", "--default-signal=INT", *line]
        process = stack.enter_context(ending(piped(line, env)))
        assert process.stdin is not None
        process.stdin.write(kim.password.encode())
        process.stdin.close()
        process.stdin = None
        assert held.wait(SECONDS)
        process.send_signal(number)
        release.set()
        out, err = process.communicate(timeout=SECONDS)
        assert (process.returncode, out) == (128 + number, b""), err
        assert b"Traceback" not in err
        assert kim.polly("whoami", XDG_CONFIG_HOME=env["XDG_CONFIG_HOME"]).code == 0
    assert len(alive(kim, server)) == len(before)


class Between:
    """A proxy that holds back the answer to the first POST of a token: (address, it is held, release it)."""

    def __init__(self, server: Server) -> None:
        self.target = ("127.0.0.1", int(server.registry.rpartition(":")[2]))
        self.held, self.release = threading.Event(), threading.Event()
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.asked = False

    def __enter__(self) -> tuple[str, threading.Event, threading.Event]:
        """Listen."""
        threading.Thread(target=self.accept, daemon=True).start()
        return f"http://127.0.0.1:{self.listening.getsockname()[1]}", self.held, self.release

    def __exit__(self, *_: object) -> None:
        """Stop listening."""
        self.release.set()
        self.listening.shutdown(socket.SHUT_RDWR)
        self.listening.close()

    def accept(self) -> None:
        """Serve connections, each on its own thread."""
        while True:
            try:
                client, _ = self.listening.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(client,), daemon=True).start()

    def serve(self, client: socket.socket) -> None:
        """Pass everything on, but hold back the answer to the request for a token."""
        with client, socket.create_connection(self.target) as upstream:
            answers = threading.Thread(target=self.back, args=(upstream, client), daemon=True)
            answers.start()
            while some := client.recv(65536):
                if some.startswith(b"POST /api/v1/tokens"):
                    self.asked = True
                upstream.sendall(some)
            upstream.shutdown(socket.SHUT_WR)
            answers.join()

    def back(self, upstream: socket.socket, client: socket.socket) -> None:
        """Pass answers back."""
        while some := upstream.recv(65536):
            if self.asked and not self.held.is_set():
                self.held.set()
                self.release.wait(SECONDS)
            client.sendall(some)


def test_a_helper_without_a_cache_undoes_what_it_cannot_print(kim: User, server: Server) -> None:
    """The token could be neither cached nor printed, so it is revoked."""
    before = alive(kim, server)
    with open(os.devnull, "rb") as closed:  # noqa: PTH123 - as a descriptor that can't be written
        done = subprocess.run(
            [*HELPER, "get"], input=server.registry.encode(), stdout=closed, stderr=subprocess.PIPE, check=False,
            env=kim.env | {"XDG_CACHE_HOME": "/dev/null/x"},
        )  # fmt: skip
    assert done.returncode == 1
    assert alive(kim, server) == before


def test_an_invitation_that_cannot_be_printed_is_revoked(server: Server, tools: Path, tmp_path: Path) -> None:
    """Nobody has received its code; and a code is not redeemed if the sign-in can't be saved."""
    _, (email, password) = server.new_org()
    admin = User(tmp_path, email, password, environment(tmp_path, tools))
    admin.login(server)
    for output in ("table", "json"):
        add = f"polly members add --email new-{output}@acme.example --role reader --output {output}"
        done = admin.run("sh", "-c", f"{add} > /dev/full")
        assert (done.code, "No space left on device" in done.err) == (1, True)
        assert admin.ok("members", "invitations", "--output", "json").json() == []
    invite = ("members", "add", "--email", "new@acme.example", "--role", "reader", "--output", "json")
    code = admin.ok(*invite).json()["code"]
    redeem = ("members", "accept", "--server", server.url, "--email", "new@acme.example", "--code", code)
    done = admin.polly(*redeem, "--password-stdin", stdin="long enough", XDG_CONFIG_HOME="/dev/null/x")
    assert (done.code, "profiles.json can't be written" in done.err) == (1, True)
    assert [each["email"] for each in admin.ok("members", "invitations", "--output", "json").json()] == [
        "new@acme.example"
    ]
