"""A server that says that it is another one: it gets no profile, no token and no secret of that one."""

from __future__ import annotations

import http.server
import json
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from cli.test_failures import INFO
from cli.test_profiles_commands import is_good

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cli.people import Server, User

CREATED = {"id": "t1", "token": "polly_false", "expires_at": "2099-01-01T00:00:00Z", "email": "ann@acme.example"}


@dataclass
class Pretender:
    """A false server: its address, and the requests that it got."""

    url: str = ""
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    """Method, path and authorization."""

    def secrets(self) -> list[str]:
        """The secrets that it got."""
        return [authorization for _, _, authorization in self.requests if authorization]


@pytest.fixture
def false(server: Server) -> Iterator[Pretender]:
    """Run a server that names the registry of ``server`` as its own, and that signs everybody in."""
    found = Pretender()

    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self) -> None:
            found.requests.append((self.command, self.path, self.headers.get("authorization", "")))
            wanted = self.rfile.read(int(self.headers.get("content-length", 0)))
            created = CREATED | {"scope": json.loads(wanted)["scope"], "expires_in": 3600} if wanted else {}
            body = json.dumps(created) if wanted else INFO % server.registry
            self.send_response(201 if wanted else 200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        do_GET = do_POST = do_DELETE = answer  # noqa: N815 - the library's names

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        found.url = f"http://127.0.0.1:{running.server_port}"
        try:
            yield found
        finally:
            running.shutdown()


def profiles(user: User) -> dict[str, Any]:
    """Return the stored profiles."""
    found: dict[str, Any] = json.loads(user.profiles.read_text())["profiles"]
    return found


def test_it_replaces_no_profile_without_a_question(ann: User, server: Server, false: Pretender) -> None:
    """Security 22: without a terminal, exit code 2 says what to do; nobody is signed out, and no secret is sent."""
    before, token = ann.profiles.read_text(), ann.token()
    login = ("login", "--server", false.url, "--email", ann.email, "--password-stdin")
    variables = {"POLLY_SERVER": false.url, "POLLY_EMAIL": ann.email, "POLLY_PASSWORD": ann.password}
    for command, env in (
        (login, {}),
        ((*login, "--profile", server.registry), {}),
        (("login", "--auto"), variables),
        (("login", "--auto"), {"POLLY_SERVER": false.url, "POLLY_TOKEN": "polly_x"}),
    ):
        done = ann.polly(*command, stdin=ann.password, **env)
        assert done.code == 2, done
        for part in (f"belongs to {server.url}", "--profile NAME", f"polly profiles remove {server.registry}"):
            assert part in done.err
        assert f"Warning: {false.url} says that its images are at {server.registry}" in done.err
    assert false.secrets() == []
    assert ann.profiles.read_text() == before
    assert is_good(ann, server, token)


def test_a_person_is_asked(ann: User, server: Server, false: Pretender) -> None:
    """Security 22: no changes nothing; yes replaces the profile, and ends no token of the other server."""
    before, token = profiles(ann), ann.token()
    for answer, code in (("n", 1), ("y", 0)):
        terminal = ann.terminal("login", "--server", false.url, "--email", ann.email, columns=160)
        terminal.see(f"Does {server.registry} belong to this server?")
        terminal.type("y")
        terminal.see(f"The profile {server.registry} belongs to {server.url}")
        terminal.see("Replace it?")
        terminal.type(answer)
        if answer == "n":
            assert terminal.end() == code
            assert profiles(ann) == before
            assert false.secrets() == []
    terminal.see("Enter your password")
    terminal.type("x\r")
    assert terminal.end() == 0
    assert profiles(ann)[server.registry]["server"] == false.url
    assert is_good(ann, server, token)
    assert all(token not in secret for secret in false.secrets())


def test_under_another_name_docker_gets_the_token_of_the_server_itself(
    ann: User, server: Server, false: Pretender
) -> None:
    """Security 22: for a host, the helper prefers the profile of the server at that host, also to the current one."""
    ann.ok("login", "--server", false.url, "--email", "x@y.example", "--password-stdin", "--profile", "it", stdin="x")
    assert profiles(ann)["it"]["registry"] == server.registry
    secret = ann.helper("get", server.registry).json()["Secret"]
    assert secret != CREATED["token"]
    assert is_good(ann, server, profiles(ann)[server.registry]["token"])
    chosen = ann.helper("get", server.registry, POLLY_PROFILE="it").json()["Secret"]
    assert chosen == CREATED["token"]


def test_a_code_is_not_used_up(ann: User, nobody: User, server: Server) -> None:
    """A profile of another server has the name that joining would choose: nothing is redeemed before that is known."""
    other = profiles(ann)[server.registry] | {"server": "https://lab.example"}
    nobody.profiles.parent.mkdir(parents=True)
    nobody.profiles.write_text(json.dumps({"current": "", "profiles": {server.registry: other}}))
    email, password = "new@false.example", "a long password of theirs"
    code = ann.ok("members", "add", email, "--role", "reader", "--output", "json").json()["code"]
    accept = ("members", "accept", "--server", server.url, "--email", email, "--code-stdin", "--password-stdin")
    done = nobody.polly(*accept, stdin=f"{code}\n{password}\n")
    assert (done.code, "belongs to https://lab.example" in done.err) == (2, True)
    nobody.ok(*accept, "--profile", "mine", stdin=f"{code}\n{password}\n")
    assert profiles(nobody)[server.registry] == other
