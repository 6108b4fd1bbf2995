"""People at a shell and at a terminal, each with their own home folder. The commands run as processes."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import stat
import subprocess
import sys
import urllib.parse
import urllib.request
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol
from urllib.error import HTTPError

import pexpect
import pyte
import pytest

if TYPE_CHECKING:
    from email.message import Message
    from http.client import HTTPResponse
    from pathlib import Path

POLLY = [sys.executable, "-m", "polly_dockers.cli.main"]
HELPER = [sys.executable, "-m", "polly_dockers.cli.credential_helper"]
SECONDS = 30
"""How long a command may take before the test fails; none is expected to come near."""


class Server(Protocol):
    """The server of the tests: its address, an organisation, and the admin of that (email, password)."""

    data: Path
    org: str
    admin: tuple[str, str]

    @property
    def url(self) -> str:
        """http://HOST:PORT."""

    @property
    def registry(self) -> str:
        """HOST:PORT."""

    def add_user(self, *, role: str = "writer", org: str | None = None) -> tuple[str, str]:
        """Return (email, password) of a new member."""

    def new_org(self) -> tuple[str, tuple[str, str]]:
        """Return (slug, (email, password) of its admin)."""


@dataclass
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    def json(self) -> Any:  # noqa: ANN401 - JSON is anything
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
        """Run ``polly`` on a pipe; it must succeed."""
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

    def terminal(self, *arguments: str, columns: int = 80, env: dict[str, str] | None = None) -> Terminal:
        """Run ``polly`` on a terminal."""
        return Terminal([*POLLY, *arguments], columns, self.env | {"TERM": "xterm-256color"} | (env or {}))

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

    def words(self) -> str:
        """Return the screen without spaces and line ends, because a long line continues on the next one."""
        return "".join(self.text().split())

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
    """Return an environment without the settings of the person who runs the tests."""
    kept = {name: os.environ[name] for name in ("PYTHONPATH", "LANG", "LC_ALL") if name in os.environ}
    return kept | {"HOME": str(home), "PATH": f"{tools}:{os.environ['PATH']}", "TZ": "UTC", "NO_PROXY": "*"}


def mode(path: Path) -> int:
    """Return the permissions of a file."""
    return stat.S_IMODE(path.stat().st_mode)


def push(server: Server, user: User, name: str, tag: str, content: bytes) -> str:
    """Push an image of one layer as a client would, and return its digest."""
    repository = f"{user.env['TEST_ORG']}/{name}"
    basic = base64.b64encode(f"{user.email}:{user.password}".encode()).decode()
    challenge = _request("GET", f"{server.url}/v2/", expected=401)[0]["www-authenticate"]
    realm, service = (challenge.partition(f'{each}="')[2].partition('"')[0] for each in ("realm", "service"))
    place = f"{realm}?service={service}&scope=repository:{repository}:pull,push"
    bearer = f"Bearer {json.loads(_request('GET', place, authorization=f'Basic {basic}')[1])['token']}"
    for blob in (_CONFIG, content):
        digest = f"sha256:{hashlib.sha256(blob).hexdigest()}"
        place = f"{server.url}/v2/{repository}/blobs/uploads/"
        headers, _ = _request("POST", place, authorization=bearer, body=b"", expected=202)
        place = urllib.parse.urljoin(server.url, headers["location"])
        place += ("&" if "?" in place else "?") + f"digest={digest}"
        _request("PUT", place, authorization=bearer, body=blob, kind="application/octet-stream", expected=201)
    manifest = manifest_of(content)
    place = f"{server.url}/v2/{repository}/manifests/{tag}"
    _request("PUT", place, authorization=bearer, body=manifest, kind=_MANIFEST, expected=201)
    return f"sha256:{hashlib.sha256(manifest).hexdigest()}"


_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = json.dumps({"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": []}}).encode()


def manifest_of(content: bytes) -> bytes:
    """Return the manifest of the image of one layer that ``push`` pushes."""
    descriptors = [
        {
            "mediaType": f"application/vnd.oci.image.{kind}",
            "digest": f"sha256:{hashlib.sha256(blob).hexdigest()}",
            "size": len(blob),
        }
        for kind, blob in (("config.v1+json", _CONFIG), ("layer.v1.tar", content))
    ]
    document = {"schemaVersion": 2, "mediaType": _MANIFEST, "config": descriptors[0], "layers": descriptors[1:]}
    return json.dumps(document).encode()


def _request(
    method: str, url: str, *, authorization: str = "", body: bytes | None = None, kind: str = "", expected: int = 200
) -> tuple[Message, bytes]:
    headers = {name: text for name, text in (("authorization", authorization), ("content-type", kind)) if text}
    request = urllib.request.Request(url, body, headers, method=method)  # noqa: S310 - the address of the tests' server
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        answer: HTTPResponse | HTTPError = opener.open(request, timeout=SECONDS)
    except HTTPError as error:
        answer = error
    with answer:
        content = answer.read()
        assert answer.status == expected, (method, url, answer.status, content)
        return answer.headers, content
