"""The commands as processes, each test with a home folder of its own."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import stat
import subprocess
import sys
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pexpect
import pyte
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

POLLY = [sys.executable, "-m", "polly_dockers.cli.main"]
HELPER = [sys.executable, "-m", "polly_dockers.cli.credential_helper"]
SECONDS = 30
"""How long a command may take before the test fails; none is expected to come near."""


class Server(Protocol):
    """The server of the tests: its address, an organisation, that one's admin (email, password)."""

    url: str
    registry: str
    org: str
    admin: tuple[str, str]

    def add_user(self, role: str = "writer", org: str | None = None) -> tuple[str, str]:
        """Return (email, password) of a new member."""

    def new_org(self) -> tuple[str, tuple[str, str]]:
        """Return (slug, (email, password) of its admin)."""


@dataclass
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """Return stdout, decoded."""
        return json.loads(self.out)


@dataclass
class User:
    """A person with a home folder of its own, at a shell."""

    home: Path
    email: str = ""
    password: str = ""
    env: dict[str, str] = field(default_factory=dict)

    def run(self, *command: str, stdin: str = "", **env: str) -> Done:
        """Run a program on a pipe."""
        done = subprocess.run(
            command, input=stdin, capture_output=True, text=True, env=self.env | env, timeout=SECONDS, check=False,
            cwd=self.home,
        )  # fmt: skip
        assert "Traceback" not in done.stderr + done.stdout
        return Done(done.returncode, done.stdout, done.stderr)

    def polly(self, *arguments: str, stdin: str = "", **env: str) -> Done:
        """Run ``polly`` on a pipe."""
        return self.run(*POLLY, *arguments, stdin=stdin, **env)

    def ok(self, *arguments: str, stdin: str = "", **env: str) -> Done:
        """Run ``polly`` on a pipe, where it must work."""
        done = self.polly(*arguments, stdin=stdin, **env)
        assert done.code == 0, done.err
        return done

    def helper(self, action: str, stdin: str = "", **env: str) -> Done:
        """Run ``docker-credential-polly``."""
        return self.run(*HELPER, action, stdin=stdin, **env)

    def login(self, server: Server, *more: str) -> Done:
        """Sign in."""
        arguments = ["--server", server.url, "--email", self.email, "--password-stdin"]
        return self.ok("login", *arguments, *more, stdin=f"{self.password}\n")

    def terminal(self, *arguments: str, columns: int = 80, **env: str) -> Terminal:
        """Run ``polly`` on a terminal."""
        return Terminal([*POLLY, *arguments], columns, self.env | {"TERM": "xterm-256color"} | env)

    @property
    def profiles(self) -> Path:
        """The file of the profiles."""
        return self.home / ".config/polly/profiles.json"

    def token(self) -> str:
        """Return the access token of the current profile."""
        document = json.loads(self.profiles.read_text())
        return str(document["profiles"][document["current"]]["token"])


class Terminal:
    """A program on a terminal of so many columns, and what a person sees there."""

    rows = 50

    def __init__(self, command: list[str], columns: int, env: dict[str, str]) -> None:
        self.screen = pyte.Screen(columns, self.rows)
        self._stream = pyte.Stream(self.screen)
        self._process = pexpect.spawn(
            command[0], command[1:], dimensions=(self.rows, columns), env=env, encoding="utf-8", timeout=SECONDS
        )
        self.raw = ""

    def see(self, text: str) -> None:
        """Wait until the text is on the screen."""
        while text not in self.text():
            self._read(text)

    def type(self, keys: str) -> None:
        """Press keys."""
        self._process.send(keys)

    def end(self) -> int:
        """Wait until the program has ended, and return its exit code."""
        try:
            while True:
                self._read("the end")
        except pexpect.EOF:
            self._process.close()
        return int(self._process.exitstatus)

    def text(self) -> str:
        """Return the screen."""
        return "\n".join(line.rstrip() for line in self.screen.display).rstrip()

    def lines(self) -> list[str]:
        """Return the lines of the screen."""
        return self.text().splitlines()

    def _read(self, wanted: str) -> None:
        try:
            some = self._process.read_nonblocking(10_000, timeout=SECONDS)
        except pexpect.TIMEOUT:
            pytest.fail(f"{wanted!r} does not come; the screen is:\n{self.text()}")
        self.raw += some
        self._stream.feed(some)
        if "\x1b[6n" in some:  # prompt_toolkit asks where the cursor is, and a terminal answers
            self._process.send(f"\x1b[{self.screen.cursor.y + 1};{self.screen.cursor.x + 1}R")


def environment(home: Path, tools: Path) -> dict[str, str]:
    """Return an environment with nothing of the person who runs the tests."""
    kept = {name: os.environ[name] for name in ("PYTHONPATH", "LANG", "LC_ALL") if name in os.environ}
    return kept | {"HOME": str(home), "PATH": f"{tools}:{os.environ['PATH']}", "TZ": "UTC", "NO_PROXY": "*"}


@pytest.fixture(scope="session")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with both commands, to be put on the PATH."""
    folder = tmp_path_factory.mktemp("tools")
    for name, command in (("polly", POLLY), ("docker-credential-polly", HELPER)):
        script = folder / name
        script.write_text(f'#!/bin/sh\nexec {" ".join(command)} "$@"\n')
        script.chmod(0o755)
    return folder


@pytest.fixture
def nobody(tmp_path: Path, tools: Path) -> User:
    """Return a person who is not signed in."""
    home = tmp_path / "home"
    home.mkdir(exist_ok=True)
    return User(home, env=environment(home, tools))


@pytest.fixture
def person(server: Server, tmp_path: Path, tools: Path) -> Callable[..., User]:
    """Return a maker of people: in an organisation that is the test's own, with a role, signed in."""
    organisation, admin = server.new_org()

    def make(role: str = "admin", *, signed_in: bool = True) -> User:
        email, password = admin if role == "admin" else server.add_user(role=role, org=organisation)
        home = tmp_path / f"home-{email}"
        home.mkdir(exist_ok=True)
        user = User(home, email, password, environment(home, tools) | {"TEST_ORG": organisation})
        if signed_in:
            user.login(server)
        return user

    return make


@pytest.fixture
def ann(person: Callable[..., User]) -> User:
    """Return a signed-in admin of an organisation with nothing in it."""
    return person()


def mode(path: Path) -> int:
    """Return the permissions of a file."""
    return stat.S_IMODE(path.stat().st_mode)


def push(server: Server, user: User, name: str, tag: str, content: bytes) -> str:
    """Push an image of one layer as a client would, and return its digest."""
    repository = f"{user.env['TEST_ORG']}/{name}"
    basic = base64.b64encode(f"{user.email}:{user.password}".encode()).decode()
    scope = f"scope=repository:{repository}:pull,push"
    challenge = _request("GET", f"{server.url}/v2/", expected=401).headers["www-authenticate"]
    realm, service = (challenge.partition(f'{each}="')[2].partition('"')[0] for each in ("realm", "service"))
    answer = _request("GET", f"{realm}?service={service}&{scope}", authorization=f"Basic {basic}")
    bearer = f"Bearer {json.loads(answer.read())['token']}"
    config = json.dumps({"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": []}}).encode()
    descriptors = []
    for kind, blob in (("config.v1+json", config), ("layer.v1.tar", content)):
        digest = f"sha256:{hashlib.sha256(blob).hexdigest()}"
        start = _request("POST", f"{server.url}/v2/{repository}/blobs/uploads/", authorization=bearer, body=b"", expected=202)
        place = urllib.request.urljoin(server.url, start.headers["location"])  # type: ignore[attr-defined]
        place += ("&" if "?" in place else "?") + f"digest={digest}"
        _request("PUT", place, authorization=bearer, body=blob, kind="application/octet-stream", expected=201)
        media_type = f"application/vnd.oci.image.{kind}"
        descriptors.append({"mediaType": media_type, "digest": digest, "size": len(blob)})
    media_type = "application/vnd.oci.image.manifest.v1+json"
    document = {"schemaVersion": 2, "mediaType": media_type, "config": descriptors[0], "layers": descriptors[1:]}
    manifest = json.dumps(document).encode()
    place = f"{server.url}/v2/{repository}/manifests/{tag}"
    _request("PUT", place, authorization=bearer, body=manifest, kind=media_type, expected=201)
    return f"sha256:{hashlib.sha256(manifest).hexdigest()}"


def _request(
    method: str, url: str, *, authorization: str = "", body: bytes | None = None, kind: str = "", expected: int = 200
) -> Any:
    headers = {name: text for name, text in (("authorization", authorization), ("content-type", kind)) if text}
    request = urllib.request.Request(url, body, headers, method=method)
    try:
        answer = urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=SECONDS)
    except urllib.error.HTTPError as error:
        answer = error
    assert answer.status == expected, (method, url, answer.status, answer.read())
    return answer


@pytest.fixture
def images(server: Server, ann: User) -> Iterator[list[str]]:
    """Make the docker repository ``team/gpu`` with three commits, oldest first: v1, latest, latest again."""
    ann.ok("dockers", "create", "--name", "team/gpu", "--description", "for the GPU machines")
    yield [push(server, ann, "team/gpu", tag, tag.encode() * number) for number, tag in ((1, "v1"), (2, "latest"), (3, "latest"))]
